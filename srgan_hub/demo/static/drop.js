// Chosen files and addresses are handed on like those that are dropped or pasted, see header.js.
element.setAttribute('data-takes', '');
const take = detail => element.dispatchEvent(new CustomEvent('take', {bubbles: true, detail}));

element.addEventListener('change', event => {
  if (event.target.type !== 'file') return;
  take({files: [...event.target.files]});
  event.target.value = '';  // the same file may be chosen again
});
element.addEventListener('submit', event => {
  event.preventDefault();
  const field = event.target.querySelector('input'), address = field.value.trim();
  if (address) take({files: [], address});
  else field.focus();
  field.value = '';
});
