const field = () => element.querySelector('input[type=text]');
const check = () => {
  const {size, limit} = props.value, edge = field().value.trim();
  const valid = /^[1-9]\d*$/.test(edge) && !(limit && Number(edge) > limit);
  const wrong = !size && !valid;
  field().setAttribute('aria-invalid', wrong);
  element.querySelector('.error').textContent =
    wrong ? `Enter a whole number of pixels${limit ? ` from 1 to ${limit}` : ''}.` : '';
  return !wrong;
};
const change = changes => {
  props.value = {...props.value, ...changes};
  if (check()) trigger('input');
  queueMicrotask(check);  // rendering removes the error
};

watch('value', check);
element.addEventListener('input', event => { if (event.target === field()) check(); });
element.addEventListener('change', event => {
  if (event.target === field()) change({edge: event.target.value.trim()});
  else change({size: event.target.value});
});
