// Close-ups of the point that the viewer in the same `.view` reports.
const view = element.closest('.view');
const show = () => {
  element.scrollIntoView({block: 'nearest', behavior: 'smooth'});
  view.dispatchEvent(new CustomEvent('mark', {detail: props.value?.box || null}));
};
view.addEventListener('closeup', event => {
  props.value = {working: true};
  trigger('select', event.detail);
  requestAnimationFrame(show);
});
element.addEventListener('click', event => {
  if (!event.target.closest('button')) return;
  props.value = null;
  show();
  view.querySelector('.frame').focus();
});
watch('value', async () => {
  await Promise.all([...element.querySelectorAll('img')].map(image => image.decode().catch(() => {})));
  show();
});
