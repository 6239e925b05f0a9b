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

// Where it would be out of view, the button floats.
new IntersectionObserver(([entry]) => element.toggleAttribute('data-away', !entry.isIntersecting)).observe(element);

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

// Show the progress and the end of a job in the title of the browser's tab.
let announced = false;
const announce = () => {
  const {state, progress} = props.value, end = {done: 'Done', failed: 'Failed'}[state];
  const prefix = progress !== null ? `${Math.floor(100 * progress)} %` : announced && end;
  if (!prefix && !announced) return;
  announced = Boolean(prefix);
  document.title = (prefix ? `${prefix} - ` : '') + document.title.replace(/^(\d+ %|Done|Failed) - /, '');
};
watch('value', announce);
