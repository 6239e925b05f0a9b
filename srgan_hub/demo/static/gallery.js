// Items of the chosen images: {upload, name, state, text, thumbnail, file}. `upload` is null until the file is uploaded.
const escape = text => text.replace(/[&<>"'`]/g, character => `&#${character.charCodeAt()};`);
const isRunning = () => props.value.some(item => ['queued', 'running'].includes(item.state));
const isBusy = () => isRunning() || document.querySelector('#batch-job [role=progressbar]:not([data-idle])') !== null;
const changed = () => trigger('input');

// Replace the item that was added with this key, unless it was removed meanwhile.
const update = (key, changes) => {
  props.value = props.value.map(item => item.key === key ? {...item, ...changes} : item);
};

const add = async (file, key) => {
  let changes;
  try {
    const uploaded = {...await upload(file), orig_name: file.name, meta: {_type: 'gradio.FileData'}};
    changes = {...await server.preview(uploaded), upload: uploaded};
  } catch (error) {
    changes = {state: 'failed', text: escape(String(error?.message || error))};
  }
  // A batch that was started meanwhile would overwrite them.
  while (isBusy()) await new Promise(resolve => setTimeout(resolve, 200));
  update(key, changes);
  changed();
};

let last = 0;
document.addEventListener('files', async event => {
  if (!element.offsetParent || isBusy()) return;
  const files = event.detail.files.slice(0, props.limit - props.value.length);
  props.left_out = event.detail.files.length - files.length;
  const items = files.map(file => (
    {key: `${Date.now()} ${last++}`, upload: null, name: escape(file.name), state: 'ready', text: 'Uploading'}
  ));
  props.value = [...props.value.map(item => ({...item, file: null})), ...items];
  changed();
  for (const [index, file] of files.entries()) await add(file, items[index].key);
});

element.addEventListener('click', event => {
  const index = event.target.closest('[data-remove]')?.dataset.remove;
  if (index === undefined || isBusy()) return;
  props.left_out = 0;
  props.value = props.value.filter((_, each) => each !== Number(index));
  changed();
});
