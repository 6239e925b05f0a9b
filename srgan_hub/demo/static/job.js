const running = () => props.value.progress !== null;
let wasRunning = false;

// Ignore clicks shortly after the button changes: they may be part of a double click, or meant for the other action.
const settle = () => {
  if (running() === wasRunning) return;
  wasRunning = running();
  element.dataset.settling = '';
  setTimeout(() => delete element.dataset.settling, 400);
};

const submit = () => {
  props.value = {state: 'queued', text: 'Starting…', progress: 0};
  settle();
  trigger('submit');
  requestAnimationFrame(() => element.scrollIntoView({block: 'nearest'}));
};

let started = null;
watch('value', () => {
  settle();
  const {start} = props.value;  // once for each value, which may arrive twice
  if (!start || start === started) return;
  started = start;
  submit();
});
element.addEventListener('click', event => {
  if (!event.target.closest('button') || 'settling' in element.dataset) return;
  if (running()) trigger('stop');
  else submit();
});
