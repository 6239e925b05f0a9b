// Hand files, or an address, that are dropped or pasted anywhere to a zone of the open tab as its event "take": to the
// one on which they are dropped, or the first.
const zones = () => [...document.querySelectorAll('[data-takes]')].filter(zone => zone.offsetParent);
const find = event => zones().find(zone => zone.contains(event.target)) || zones()[0];
const highlight = zone => {
  for (const each of zones()) each.toggleAttribute('data-dragging', each === zone);
};
const take = (event, data) => {
  const files = [...data?.files || []], zone = find(event);
  const [address] = /^https?:\S+$/m.exec(data?.getData('text/uri-list') || data?.getData('text/plain') || '') || [];
  if (event.defaultPrevented || !zone || !files.length && !address) return;
  event.preventDefault();
  zone.dispatchEvent(new CustomEvent('take', {bubbles: true, detail: {files, address}}));
};
document.addEventListener('paste', event => {
  if (event.clipboardData?.files.length || !event.target.closest?.('input, textarea')) take(event, event.clipboardData);
});
document.addEventListener('drop', event => {
  highlight(null);
  take(event, event.dataTransfer);
});
document.addEventListener('dragover', event => {
  const takes = [...event.dataTransfer.types].some(type => type === 'Files' || type === 'text/uri-list');
  if (takes) event.preventDefault();
  highlight(takes ? find(event) : null);
});
document.addEventListener('dragleave', event => {
  if (!event.relatedTarget) highlight(null);
});
