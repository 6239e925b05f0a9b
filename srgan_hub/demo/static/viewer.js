// Zoom factor, and the image's top-left corner in frame widths and heights, from 1 - zoom to 0.
let zoom = 1, x = 0, y = 0;
const frame = () => element.querySelector('.frame');

const apply = () => {
  x = Math.min(0, Math.max(1 - zoom, x));
  y = Math.min(0, Math.max(1 - zoom, y));
  for (const [name, number] of Object.entries({zoom, x, y})) element.style.setProperty('--' + name, number);
  element.toggleAttribute('data-zoomed', zoom > 1);
};
const pan = (dx, dy) => { x += dx; y += dy; apply(); };
const zoomTo = (factor, [centerX, centerY] = [0.5, 0.5]) => {
  const next = Math.min(16, Math.max(1, factor));
  x = centerX - (centerX - x) * next / zoom;
  y = centerY - (centerY - y) * next / zoom;
  zoom = next;
  apply();
};
const closeUp = ([atX, atY] = [0.5, 0.5]) => trigger('select', {x: (atX - x) / zoom, y: (atY - y) / zoom});
const full = () => document.fullscreenElement ? document.exitFullscreen() : element.requestFullscreen();

const tools = {
  out: () => zoomTo(zoom / 1.5), in: () => zoomTo(zoom * 1.5), fit: () => zoomTo(1), closeUp: () => closeUp(), full,
};
const keys = {
  '+': tools.in, '=': tools.in, '-': tools.out, '0': tools.fit, Enter: tools.closeUp,
  ArrowLeft: () => pan(0.1, 0), ArrowRight: () => pan(-0.1, 0), ArrowUp: () => pan(0, 0.1),
  ArrowDown: () => pan(0, -0.1),
};

element.addEventListener('input', event => element.style.setProperty('--divider', event.target.value + '%'));
element.addEventListener('click', event => {
  const tool = event.target.closest('[data-tool]');
  if (tool) tools[tool.dataset.tool]();
});
element.addEventListener('keydown', event => {
  if (!(event.key in keys) || event.target !== frame() || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  keys[event.key]();
});

// Pointer position in frame widths and heights, and the length in pixels of such a vector.
const position = event => {
  const box = frame().getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
const pixels = (dx, dy) => Math.hypot(dx * frame().offsetWidth, dy * frame().offsetHeight);

element.addEventListener('wheel', event => {
  // Without focus or Ctrl the wheel scrolls the page.
  if (!event.target.closest('[tabindex]') || !(event.ctrlKey || element.contains(document.activeElement))) return;
  event.preventDefault();
  zoomTo(zoom * 1.002 ** -event.deltaY, position(event));
}, {passive: false});

const pointers = new Map();
let dragged = false, spread = 0;
const pinch = () => {
  const [[ax, ay], [bx, by]] = [...pointers.values()];
  return [pixels(ax - bx, ay - by), [(ax + bx) / 2, (ay + by) / 2]];
};
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('.frame[tabindex]') || event.target.matches('input') || event.button) return;
  if (!pointers.size) dragged = false;
  pointers.set(event.pointerId, position(event));
  if (pointers.size === 2) { dragged = true; [spread] = pinch(); }
  event.target.setPointerCapture(event.pointerId);
});
element.addEventListener('pointermove', event => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = position(event), [dx, dy] = [now[0] - before[0], now[1] - before[1]];
  if (!dragged && pixels(dx, dy) < 5) return;  // a click moves a little
  dragged = true;
  pointers.set(event.pointerId, now);
  if (pointers.size === 1) return pan(dx, dy);
  const [distance, center] = pinch();
  if (spread) zoomTo(zoom * distance / spread, center);
  spread = distance;
});
element.addEventListener('pointerup', event => {
  if (pointers.delete(event.pointerId) && !pointers.size && !dragged) closeUp(position(event));
});
element.addEventListener('pointercancel', event => pointers.delete(event.pointerId));

// Reset the view and scroll to it when a new result has been decoded.
let shown = null;
watch('value', async () => {
  if (!props.value || props.value.after?.url === shown) return;
  shown = props.value.after?.url;
  zoomTo(1);
  element.style.setProperty('--divider', '50%');
  await Promise.all([...element.querySelectorAll('img')].map(image => image.decode().catch(() => {})));
  if (shown) element.scrollIntoView({block: 'nearest'});
});
