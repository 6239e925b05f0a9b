element.addEventListener('click', async event => {
  const button = event.target.closest('button');
  if (!button) return;
  await navigator.clipboard.writeText(button.parentElement.querySelector('pre').innerText);
  button.textContent = 'Copied';
  setTimeout(() => button.textContent = 'Copy', 2000);
});
