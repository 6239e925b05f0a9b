"""The result panel: the whole image as it grows, then a comparison with bicubic that can be zoomed; and close-ups.

Written as `gr.HTML`, since the handle of `gr.ImageSlider` cannot be reached by keyboard, and its halves have no labels.
"""

from typing import Any

# Its value: name, width and height; while it grows `preview`, and in the end the files `bicubic` and `result`. A frame
# of the result's proportions stays from the choice of an image on. Handle and zoom are CSS variables.
VIEWER = """
<div class="frame" ${value ? `style="--width: ${value.width}; --height: ${value.height}"` : ''}
  ${value && (value.preview || value.result) ? '' : 'data-empty'}
  ${value && value.result ? 'tabindex="0" role="group" aria-describedby="viewer-keys"' : ''}
  aria-label="${value && value.result ? `${value.name}, upscaled` : 'Nothing yet'}">
${!value || !(value.preview || value.result) ? `<p>The large image appears here, beside what plain bicubic upscaling
makes of it.</p>` : value.preview ? `<img src="${value.preview}" alt="${value.name}, as far as it is done">`
: `<img src="${value.result.url}" alt="${value.name}: the result" draggable="false">
<div class="half"><img src="${value.bicubic.url}" alt="${value.name}: upscaled with bicubic" draggable="false"></div>`}
<span class="label" ${value && value.preview ? 'hidden' : ''}>Bicubic</span>
<span class="label" ${value && value.preview ? 'hidden' : ''}>Result</span>
<input type="range" min="0" max="100" step="0.5" value="50" aria-label="How much of the bicubic image is shown"
  ${value && value.result ? '' : 'hidden'}>
</div>
<div class="tools" role="toolbar" aria-label="View">
${[['out', '&minus;', 'Zoom out'], ['in', '+', 'Zoom in'], ['fit', 'Fit', 'Fit'], ['close', 'Close-up', 'Close-up'],
   ['full', 'Full screen', 'Full screen']].map(([name, text, label]) => `<button type="button" data-tool="${name}"
  aria-label="${label}" ${value && value.result ? '' : 'disabled'}>${text}</button>`).join('')}
</div>
<p id="viewer-keys" class="hint">Keys: + and &minus; zoom, arrows move, 0 fits, Enter shows a close-up of the
middle. A click on the image shows one of that place.</p>
"""
VIEWER_SCRIPT = """
let zoom = 1, x = 0, y = 0;  // the image's top left corner in frame widths and heights, from 1 - zoom to 0
const frame = () => element.querySelector('.frame');
const show = () => {
  x = Math.min(0, Math.max(1 - zoom, x));
  y = Math.min(0, Math.max(1 - zoom, y));
  for (const [name, number] of Object.entries({zoom, x, y})) element.style.setProperty('--' + name, number);
  element.toggleAttribute('data-zoomed', zoom > 1);
};
const pixels = (byX, byY) => Math.hypot(byX * frame().offsetWidth, byY * frame().offsetHeight);
const share = event => {
  const box = frame().getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
const zoomTo = (wanted, [atX, atY] = [0.5, 0.5]) => {
  const next = Math.min(16, Math.max(1, wanted));
  x = atX - (atX - x) * next / zoom;
  y = atY - (atY - y) * next / zoom;
  zoom = next;
  show();
};
const move = (byX, byY) => { x += byX; y += byY; show(); };
const close = ([atX, atY] = [0.5, 0.5]) => trigger('select', {x: (atX - x) / zoom, y: (atY - y) / zoom});
const full = () => document.fullscreenElement ? document.exitFullscreen() : element.requestFullscreen();
const tools = {out: () => zoomTo(zoom / 1.5), in: () => zoomTo(zoom * 1.5), fit: () => zoomTo(1), close, full};
const keys = {'+': tools.in, '=': tools.in, '-': tools.out, '0': tools.fit, Enter: () => close(),
  ArrowLeft: () => move(0.1, 0), ArrowRight: () => move(-0.1, 0), ArrowUp: () => move(0, 0.1),
  ArrowDown: () => move(0, -0.1)};
element.addEventListener('input', event => element.style.setProperty('--place', event.target.value + '%'));
element.addEventListener('click', event => {
  const tool = event.target.closest('[data-tool]');
  if (tool) tools[tool.dataset.tool]();
});
element.addEventListener('keydown', event => {
  if (!(event.key in keys) || event.target !== frame() || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  keys[event.key]();
});
element.addEventListener('wheel', event => {
  const ours = event.target.closest('[tabindex]') && (event.ctrlKey || element.contains(document.activeElement));
  if (!ours) return;  // a page that scrolls under the pointer shall not zoom
  event.preventDefault();
  zoomTo(zoom * 1.002 ** -event.deltaY, share(event));
}, {passive: false});
const pointers = new Map();
let moved = false, apart = 0;
const spread = () => {
  const [[ax, ay], [bx, by]] = [...pointers.values()];
  return [pixels(ax - bx, ay - by), [(ax + bx) / 2, (ay + by) / 2]];
};
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('.frame[tabindex]') || event.target.matches('input') || event.button) return;
  if (!pointers.size) moved = false;
  pointers.set(event.pointerId, share(event));
  if (pointers.size === 2) { moved = true; [apart] = spread(); }
  event.target.setPointerCapture(event.pointerId);
});
element.addEventListener('pointermove', event => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const [nowX, nowY] = share(event);
  if (!moved && pixels(nowX - before[0], nowY - before[1]) < 5) return;  // a click is never quite still
  moved = true;
  pointers.set(event.pointerId, [nowX, nowY]);
  if (pointers.size === 1) return move(nowX - before[0], nowY - before[1]);
  const [distance, middle] = spread();
  if (apart) zoomTo(zoom * distance / apart, middle);
  apart = distance;
});
element.addEventListener('pointerup', event => {
  if (pointers.delete(event.pointerId) && !pointers.size && !moved) close(share(event));
});
element.addEventListener('pointercancel', event => pointers.delete(event.pointerId));
let shown = null;
watch('value', async () => {
  if (!props.value || props.value.result?.url === shown) return;
  shown = props.value.result?.url;
  tools.fit();
  element.style.setProperty('--place', '50%');
  await Promise.all([...element.querySelectorAll('img')].map(image => image.decode().catch(() => {})));
  if (shown) element.scrollIntoView({block: 'nearest'});
});
"""
CLOSE_UP = """
${typeof value === 'string' ? `<p role="alert">${value}</p>` : value ? `<h2>Close-up, each pixel twice as large</h2>
<div class="close-ups" tabindex="0" role="group" aria-label="Close-ups">${Object.entries(value).map(([name, url]) =>
`<figure><img src="${url}" alt="${name} close-up"><figcaption>${name}</figcaption></figure>`).join('')}</div>` : ''}
"""
CSS = """
#viewer .frame {position: relative; overflow: hidden; margin: auto; border-radius: 8px; touch-action: pan-y;
  background: var(--block-background-fill); aspect-ratio: var(--width, 3) / var(--height, 2); min-height: 96px;
  width: min(100%, 68vh * var(--width, 3) / var(--height, 2))}
#viewer[data-zoomed] .frame, [data-zoomed] > .frame {touch-action: none; cursor: grab}
#viewer .frame[data-empty] {display: grid; place-items: center; border: 1px dashed var(--border-color-primary)}
#viewer .frame[data-empty]::after {content: ''; position: absolute; inset: 0 auto 0 50%; width: 0;
  border-left: 1px dashed var(--border-color-primary)}
#viewer .frame p {position: relative; z-index: 1; max-width: 30ch; padding: 12px; text-align: center;
  background: var(--block-background-fill); color: var(--body-text-color-subdued)}
#viewer .frame img {position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; object-fit: contain;
  transform-origin: 0 0; user-select: none;
  transform: translate(calc(var(--x, 0) * 100%), calc(var(--y, 0) * 100%)) scale(var(--zoom, 1))}
#viewer .half {position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--place, 50%)) 0 0)}
#viewer .label {position: absolute; top: 8px; left: 8px; padding: 2px 8px; border-radius: 6px; color: white;
  background: #1c1917cc; font-size: 14px; pointer-events: none}
#viewer .label ~ .label {left: auto; right: 8px}
#viewer .label[hidden], #viewer input[hidden] {display: none}
/* Wider than the frame by half a thumb on each side, so that the thumb's middle is where the images meet. */
#viewer input {--thumb: radial-gradient(circle, white 0 14px, var(--accent) 14px 16px, transparent 16px),
    linear-gradient(90deg, transparent 21px, white 21px 23px, transparent 23px);
  position: absolute; inset: 0 -22px; width: calc(100% + 44px); height: 100%; margin: 0; appearance: none;
  background: none; pointer-events: none; cursor: ew-resize}
#viewer input::-webkit-slider-runnable-track {height: 100%}
#viewer input::-webkit-slider-thumb {appearance: none; width: 44px; height: 100%; border: 0; pointer-events: auto;
  background: var(--thumb); touch-action: pan-y}
#viewer input::-moz-range-thumb {width: 44px; height: 100%; border: 0; border-radius: 0; pointer-events: auto;
  background: var(--thumb)}
#viewer .frame:focus-visible, #viewer .frame:has(input:focus-visible), .close-ups:focus-visible {
  outline: 3px solid var(--accent); outline-offset: 2px}
#viewer .tools {display: flex; flex-wrap: wrap; gap: 8px; justify-content: center; margin-top: 8px}
#viewer .hint {margin-top: 4px; text-align: center}
#viewer :fullscreen, #viewer:fullscreen {background: var(--body-background-fill)}
#close-up h2 {margin: 16px 0 8px}
.close-ups {display: flex; gap: 16px; overflow-x: auto; padding: 2px}
.close-ups figure {flex: none}
.close-ups img {zoom: 2; margin: 0; image-rendering: auto; border-radius: 4px}
"""


def planned(name: str, width: int, height: int) -> dict[str, Any]:
    """Make the viewer's value when an image is chosen: room for its result. More is put into it later."""
    return {"name": name, "width": width, "height": height}
