// Upload an image pasted anywhere on the page while the Upscale tab is open.
document.addEventListener('paste', async event => {
  const file = [...(event.clipboardData?.files || [])].find(each => each.type.startsWith('image/'));
  if (!file || !document.querySelector('#image')?.offsetParent) return;
  event.preventDefault();
  trigger('upload', {image: await upload(file)});
});
