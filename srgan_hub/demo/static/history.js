// The latest results, kept by the browser until the server deletes their files.
const KEY = 'srgan-results', LIMIT = 6;
let results = [];

const show = latest => {
  results = latest.slice(0, LIMIT);
  props.value = results.map(({name, thumbnail}) => ({name, thumbnail}));
};
const add = event => {
  show([event.detail, ...results.filter(each => each.file.url !== event.detail.file.url)]);
  try {
    localStorage.setItem(KEY, JSON.stringify(results));
  } catch { /* no storage: until the page is left */ }
};
const exists = ({file}) => fetch(file.url, {method: 'HEAD'}).then(answer => answer.ok, () => false);
const restore = async () => {
  let stored = [];
  try {
    stored = JSON.parse(localStorage.getItem(KEY)) || [];
  } catch { /* no storage */ }
  const kept = await Promise.all(stored.map(exists));
  show([...results, ...stored.filter((_, index) => kept[index])]);
};

document.addEventListener('result', add);
element.addEventListener('click', event => {
  const index = event.target.closest('[data-index]')?.dataset.index;
  if (index !== undefined) trigger('select', results[index]);
});
restore();
