// Before/after viewer of a value {name, width, height, before, after, labels}, files as Gradio's `FileData`; of an
// `after` that is a reduced copy, `full` is the file. Without `after` it shows the URL `preview`, if there is one.
// The element `.view` around it, if there is one, is what fills the screen. It gets the event "closeup" with a point,
// and an event "mark" with a box, or null, draws or removes that box. Points are fractions of the image.
const view = element.closest('.view') || element;
const frame = () => element.querySelector('.frame');
const images = () => [...frame().querySelectorAll('.half img')];

// Zoom relative to the fitted image, the point at the frame's center, the divider in percent, the last click, the box.
let zoom = 1, x = 0.5, y = 0.5, divider = 50, clicked = null, mark = null;
const clamp = (number, low, high) => Math.min(high, Math.max(low, number));
const fitted = () => Math.min(frame().clientWidth / props.value.width, frame().clientHeight / props.value.height);
const drawn = () => [props.value.width * fitted() * zoom, props.value.height * fitted() * zoom];
const center = () => [frame().clientWidth / 2, frame().clientHeight / 2];
const toPoint = ([left, top]) => {
  const [width, height] = drawn(), [middle, half] = center();
  return [x + (left - middle) / width, y + (top - half) / height];
};
const inView = point => point?.every((each, axis) => {
  const reach = center()[axis] / drawn()[axis];
  return each >= 0 && each <= 1 && Math.abs(each - [x, y][axis]) <= reach;
});

const apply = () => {
  if (!props.value?.after || !frame().clientWidth) return;
  const [width, height] = drawn(), [middle, half] = center();
  const margins = [Math.min(0.5, middle / width), Math.min(0.5, half / height)];
  x = clamp(x, margins[0], 1 - margins[0]);
  y = clamp(y, margins[1], 1 - margins[1]);
  const left = Math.round(middle - x * width), top = Math.round(half - y * height);
  const pixels = {'image-left': left, 'image-top': top, 'image-width': width, 'image-height': height};
  if (mark) {
    Object.assign(pixels, {
      'mark-left': left + mark.x * width, 'mark-top': top + mark.y * height, 'mark-width': mark.width * width,
      'mark-height': mark.height * height,
    });
  }
  for (const [name, number] of Object.entries(pixels)) element.style.setProperty('--' + name, number + 'px');
  element.style.setProperty('--divider', divider + '%');
  element.toggleAttribute('data-zoomed', zoom > 1);
  element.toggleAttribute('data-marked', mark !== null);
  frame().querySelector('input').value = divider;
  const figure = Math.round(100 * fitted() * zoom) + ' %', button = element.querySelector('[data-tool=actual]');
  button.textContent = figure;
  button.setAttribute('aria-label', `${figure}, ${zoom > 1 ? 'fit' : 'zoom to 100 %'}`);
  view.dataset.point = JSON.stringify(inView(clicked) ? clicked : [x, y]);
  showFull();
};
// Replace a reduced copy by the file when the screen shows more than its pixels.
const showFull = async () => {
  const {full} = props.value, after = images()[0];
  if (!full || after.src === full.url || 'loading' in element.dataset) return;
  if (drawn()[0] * devicePixelRatio <= 1.01 * after.naturalWidth || !after.naturalWidth) return;
  element.dataset.loading = '';
  const loaded = new Image();
  loaded.src = full.url;
  await loaded.decode().catch(() => {});
  if (props.value?.full?.url === full.url && loaded.naturalWidth) after.src = full.url;
  delete element.dataset.loading;
};
const zoomTo = (factor, at = center()) => {
  const [pointX, pointY] = toPoint(at), [middle, half] = center();
  zoom = clamp(factor, 1, Math.max(16, 8 / fitted()));
  x = pointX - (at[0] - middle) / drawn()[0];
  y = pointY - (at[1] - half) / drawn()[1];
  apply();
};
const pan = (dx, dy) => { x -= dx / drawn()[0]; y -= dy / drawn()[1]; apply(); };
const divideAt = share => { divider = clamp(100 * share, 0, 100); apply(); };
// One pixel of the result per pixel of the page, or twice as large as it fits if that is smaller; then fit again.
const actual = at => zoomTo(zoom > 1 ? 1 : fitted() < 0.95 ? 1 / fitted() : 2, at);
const closeUp = () => {
  const [pointX, pointY] = JSON.parse(view.dataset.point);
  view.dispatchEvent(new CustomEvent('closeup', {detail: {x: pointX, y: pointY}}));
};
const hold = held => element.toggleAttribute('data-held', held);
const full = () => {
  if (document.fullscreenElement) return document.exitFullscreen();
  if (view.requestFullscreen && !('full' in view.dataset)) return view.requestFullscreen();
  view.toggleAttribute('data-full');  // a phone without full screen
  apply();
};

const tools = {
  out: () => zoomTo(zoom / 1.5), in: () => zoomTo(zoom * 1.5), actual: () => actual(), closeUp, full,
};
const arrow = (dx, dy) => zoom > 1 ? pan(dx * frame().clientWidth, dy * frame().clientHeight) :
  divideAt(divider / 100 - dx / 4);
const keys = {
  '+': tools.in, '=': tools.in, '-': tools.out, 0: () => zoomTo(1), 1: () => zoomTo(1 / fitted()), Enter: closeUp,
  ArrowLeft: () => arrow(0.1, 0), ArrowRight: () => arrow(-0.1, 0), ArrowUp: () => arrow(0, 0.1),
  ArrowDown: () => arrow(0, -0.1), o: () => hold(true), f: full,
};

element.addEventListener('input', event => divideAt(event.target.value / 100));
element.addEventListener('click', event => {
  const tool = event.target.closest('[data-tool]');
  if (tool) tools[tool.dataset.tool]();
});
element.addEventListener('keydown', event => {
  if (!(event.key in keys) || event.target !== frame() || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  keys[event.key]();
});
element.addEventListener('keyup', () => hold(false));
document.addEventListener('keydown', event => {
  if (event.key === 'Escape' && !document.fullscreenElement) view.toggleAttribute('data-full', false);
});
document.addEventListener('fullscreenchange', () => {
  view.toggleAttribute('data-full', document.fullscreenElement === view);
});
view.addEventListener('mark', event => { mark = event.detail; apply(); });
new ResizeObserver(apply).observe(frame());

const position = event => {
  const box = frame().getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
element.addEventListener('wheel', event => {
  // Without focus or Ctrl the wheel scrolls the page.
  if (!event.target.closest('[tabindex]') || !(event.ctrlKey || element.contains(document.activeElement))) return;
  event.preventDefault();
  zoomTo(zoom * 1.002 ** -event.deltaY, position(event));
}, {passive: false});

// A gesture is a "tap" until it is held or moves: then it drags the divider, or if zoomed in and not begun there, pans.
const pointers = new Map();
let gesture, start, timer, spread, lastTap = null;
const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
const pinch = () => {
  const [a, b] = [...pointers.values()];
  return [distance(a, b), [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]];
};
const begin = kind => { clearTimeout(timer); gesture = kind; hold(kind === 'hold'); };
const tap = (at, shift) => {
  const again = lastTap && performance.now() - lastTap.time < 400 && distance(lastTap.at, at) < 30;
  lastTap = again || shift ? null : {at, time: performance.now()};
  clicked = toPoint(at);
  if (again) return actual(at);
  if (shift) { apply(); closeUp(); } else divideAt(at[0] / frame().clientWidth);
};
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('.frame[tabindex]') || event.button) return;
  pointers.set(event.pointerId, position(event));
  frame().setPointerCapture(event.pointerId);
  if (pointers.size === 1) {
    begin('tap');
    start = position(event);
    timer = setTimeout(() => begin('hold'), 350);
  } else if (pointers.size === 2) {
    begin('pinch');
    [spread] = pinch();
  }
});
element.addEventListener('pointermove', event => {
  const before = pointers.get(event.pointerId), now = position(event);
  if (!before || gesture === 'hold' || gesture === 'tap' && distance(start, now) < 5) return;
  if (gesture === 'tap') {
    begin(zoom > 1 && Math.abs(start[0] - divider / 100 * frame().clientWidth) > 22 ? 'pan' : 'divide');
  }
  pointers.set(event.pointerId, now);
  if (gesture === 'divide') divideAt(now[0] / frame().clientWidth);
  if (gesture === 'pan') pan(now[0] - before[0], now[1] - before[1]);
  if (gesture !== 'pinch' || pointers.size !== 2) return;
  const [length, middle] = pinch();
  if (spread) zoomTo(zoom * length / spread, middle);
  spread = length;
});
element.addEventListener('pointerup', event => {
  if (!pointers.delete(event.pointerId) || pointers.size) return;
  if (gesture === 'tap') tap(position(event), event.shiftKey);
  begin(null);
});
element.addEventListener('pointercancel', event => {
  if (pointers.delete(event.pointerId) && !pointers.size) begin(null);
});
element.addEventListener('contextmenu', event => { if (gesture) event.preventDefault(); });

// Reset the view and scroll to it when a new result has been decoded.
let shown = props.value?.after?.url;
watch('value', async () => {
  const after = props.value?.after?.url;
  if (props.value && after !== shown) {
    shown = after;
    [zoom, x, y, divider, clicked, mark] = [1, 0.5, 0.5, 50, null, null];
    apply();
    await Promise.all(images().map(image => image.decode().catch(() => {})));
    if (after) frame().scrollIntoView({block: 'nearest'});
  }
  apply();
});
apply();
