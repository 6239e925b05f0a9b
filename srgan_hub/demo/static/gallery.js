// Items of the chosen images: {upload, name, state, text, thumbnail, file}. `upload` is null until the file is uploaded;
// the state "large" is that of an image which has to be shrunk first.
const escape = text => text.replace(/[&<>"'`]/g, character => `&#${character.charCodeAt()};`);
const isRunning = () => props.value.some(item => ['queued', 'running'].includes(item.state));
const isBusy = () => isRunning() || document.querySelector('#batch-job [role=progressbar]:not([data-idle])') !== null;
const changed = () => trigger('input');

// Replace the item that was added with this key, unless it was removed meanwhile.
const update = (key, changes) => {
  props.value = props.value.map(item => item.key === key ? {...item, ...changes} : item);
};
// Update an item by what `work` returns for it, or by its failure.
const fill = async (key, work) => {
  const changes = await work().catch(error => ({state: 'failed', text: escape(String(error?.message || error))}));
  // A batch that was started meanwhile would overwrite them.
  while (isBusy()) await new Promise(resolve => setTimeout(resolve, 200));
  update(key, changes);
  changed();
};
const takeFile = async file => {
  const uploaded = {...await upload(file), orig_name: file.name, meta: {_type: 'gradio.FileData'}};
  return {upload: uploaded, ...await server.preview(uploaded)};
};
const takeAddress = async address => {
  const fetched = await server.fetch_image(address);
  if (fetched.error) throw fetched.error;
  return {upload: fetched, ...await server.preview(fetched)};
};

let last = 0;
document.addEventListener('take', async event => {
  if (!event.target.closest('#batch-drop') || isBusy()) return;
  const {files, address} = event.detail, taken = files.length ? files : [address];
  const accepted = taken.slice(0, props.limit - props.value.length);
  props.left_out = taken.length - accepted.length;
  const items = accepted.map(each => (
    {key: `${Date.now()} ${last++}`, upload: null, name: escape(each.name || each), state: 'ready', text: 'Uploading'}
  ));
  props.value = [...props.value.map(item => ({...item, file: null})), ...items];
  changed();
  for (const [index, each] of accepted.entries()) {
    await fill(items[index].key, () => each.name === undefined ? takeAddress(each) : takeFile(each));
  }
});

const shrink = async items => {
  for (const {key} of items) update(key, {upload: null, state: 'ready', text: 'Shrinking'});
  changed();
  for (const {key, upload} of items) await fill(key, () => server.shrink(upload));
};
const remove = item => {
  props.left_out = 0;
  props.value = props.value.filter(each => each !== item);
  changed();
};
element.addEventListener('click', event => {
  const {action, index} = event.target.closest('[data-action]')?.dataset || {};
  if (!action || isBusy()) return;
  if (action === 'remove') remove(props.value[index]);
  else shrink(index === undefined ? props.value.filter(item => item.state === 'large') : [props.value[index]]);
});
