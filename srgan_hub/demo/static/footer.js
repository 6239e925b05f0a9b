// Gradio opens its API page only from its own button, which the style sheet hides.
element.addEventListener('click', event => {
  if (!event.target.closest('[data-api]')) return;
  event.preventDefault();
  document.querySelector('footer .show-api').click();
});
