// Shows a region of the image, that of the viewer's last click or its center, for the detail that is dialed. The
// server gets one request at a time: the detail dialed, then the others in advance.
const STOPS = [0, 0.25, 0.5, 0.75, 1];
const panel = element.querySelector('section'), image = panel.querySelector('img');
const view = () => document.querySelector('.view');
const mark = detail => view().dispatchEvent(new CustomEvent('mark', {detail}));
let urls = new Map(), detail, point, box = null, released, waiting = false, number = 0, timer;

const request = () => {
  const next = urls.has(detail) ? released ? undefined : STOPS.find(each => !urls.has(each)) : detail;
  if (waiting || panel.hidden || next === undefined) return;
  waiting = true;
  trigger('select', {x: point[0], y: point[1], detail: next, number});
};
const show = () => {
  const url = urls.get(detail);
  panel.toggleAttribute('data-working', !url);
  panel.querySelector('p').textContent = url ? `Detail ${detail}` : `Detail ${detail}: working…`;
  if (url) image.src = url;
  mark(box);
  clearTimeout(timer);
  if (url && released) timer = setTimeout(hide, 4000);
};
const hide = () => {
  clearTimeout(timer);
  panel.hidden = true;
  image.removeAttribute('src');
  [urls, box] = [new Map(), null];
  waiting = false;
  number += 1;
  mark(null);
};

document.addEventListener('input', event => {
  if (!event.target.closest('#detail')) return;
  detail = Number(event.target.value);
  released = false;
  if (panel.hidden) {
    point = JSON.parse(view().dataset.point || '[0.5, 0.5]');
    panel.hidden = false;
    panel.toggleAttribute('data-below', element.getBoundingClientRect().top < panel.offsetHeight);
  }
  show();
  request();
});
document.addEventListener('change', event => {
  if (panel.hidden || !event.target.closest('#detail')) return;
  released = true;
  show();
});
document.addEventListener('pointerdown', event => {
  if (!panel.hidden && !event.target.closest('#detail')) hide();
});
watch('value', () => {
  waiting = false;
  const {images, detail: arrived, number: asked} = props.value || {};
  if (asked === number && images) {
    urls.set(arrived, images.Detail);
    box = props.value.box;
    show();
  } else if (asked === number) hide();
  request();
});
