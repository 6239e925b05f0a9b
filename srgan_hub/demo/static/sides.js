// Choose what is on the two sides of the viewer.
element.addEventListener('change', event => {
  props.value = {...props.value, [event.target.name]: event.target.selectedOptions[0].innerHTML};
  trigger('input');
});
