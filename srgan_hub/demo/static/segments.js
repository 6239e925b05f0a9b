element.addEventListener('change', event => {
  props.value = event.target.value;
  trigger('input');
});
