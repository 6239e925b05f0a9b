// The latest results, kept by the browser until the server deletes their files.
const KEY = 'srgan-results', LIMIT = 6;
let results = [];

const show = latest => {
  results = latest.slice(0, LIMIT);
  props.value = results.map(({name, thumbnail}) => ({name, thumbnail}));
};
const read = () => {
  try {
    return JSON.parse(localStorage.getItem(KEY)) || [];
  } catch {
    return results;  // no storage
  }
};
const add = event => {
  // Another tab may have added results.
  show([event.detail, ...read().filter(each => each.file.url !== event.detail.file.url)]);
  try {
    localStorage.setItem(KEY, JSON.stringify(results));
  } catch { /* no storage: until the page is left */ }
};
const exists = ({file}) => fetch(file.url, {method: 'HEAD'}).then(answer => answer.ok, () => false);
const restore = async () => {
  const stored = read(), kept = await Promise.all(stored.map(exists));
  const added = results.filter(({file}) => stored.every(each => each.file.url !== file.url));
  show([...added, ...stored.filter((_, index) => kept[index])]);
};

document.addEventListener('result', add);
element.addEventListener('click', event => {
  const index = event.target.closest('[data-index]')?.dataset.index;
  if (index !== undefined) trigger('select', results[index]);
});
restore();
