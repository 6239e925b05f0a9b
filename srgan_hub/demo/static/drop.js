// Hand chosen or dropped files to the component of the visible tab that handles "files".
const label = element.querySelector('.drop'), input = label.querySelector('input');
const send = files => document.dispatchEvent(new CustomEvent('files', {detail: {files: [...files]}}));

input.addEventListener('change', () => {
  send(input.files);
  input.value = '';  // the same file may be chosen again
});
for (const type of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  label.addEventListener(type, event => {
    event.preventDefault();
    label.toggleAttribute('data-over', type === 'dragenter' || type === 'dragover');
    if (type === 'drop') send(event.dataTransfer.files);
  });
}
