// Choose what is on the two sides of the viewer.
element.addEventListener('change', event => {
  props.value = {...props.value, [event.target.name]: event.target.selectedOptions[0].innerHTML};
  trigger('input');
});

// Take the first of the files that are dropped or pasted while the tab is open.
document.addEventListener('files', async event => {
  const [file] = event.detail.files;
  if (file && document.querySelector('#compare-image')?.offsetParent) trigger('upload', {image: await upload(file)});
});
