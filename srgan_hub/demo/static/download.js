// Browsers copy PNG images only.
const toPng = async url => {
  const blob = await (await fetch(url)).blob();
  if (blob.type === 'image/png') return blob;
  const bitmap = await createImageBitmap(blob);
  const canvas = Object.assign(document.createElement('canvas'), {width: bitmap.width, height: bitmap.height});
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  return new Promise(resolve => canvas.toBlob(resolve, 'image/png'));
};
const actions = {
  again: () => trigger('again', {image: props.value.file}),
  copy: async button => {
    const copied = await navigator.clipboard?.write([new ClipboardItem({'image/png': toPng(props.value.file.url)})])
      .then(() => 'Copied', () => null);
    button.textContent = copied || 'Copying failed';
    setTimeout(() => button.textContent = 'Copy image', 2000);
  },
};
element.addEventListener('click', event => {
  const button = event.target.closest('[data-do]');
  if (button) actions[button.dataset.do](button);
});

// New results go into the history.
watch('value', () => {
  if (props.value?.thumbnail) document.dispatchEvent(new CustomEvent('result', {detail: props.value}));
});
