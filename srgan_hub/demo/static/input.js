// A choice ends those before it that still upload.
let choice = 0, local = null;
const escape = text => new Option(text).innerHTML;

// Once rendered, and as it may have been scrolled away when a file was dropped or pasted.
const scrollToZone = () => requestAnimationFrame(() => element.scrollIntoView({block: 'nearest'}));
const show = value => {
  choice += 1;
  stopCropping();
  props.value = value;
  scrollToZone();
  return choice;
};
const refuse = (name, text) => {
  show({state: 'refused', name: escape(name), text: escape(text), local});
  trigger('clear');
};
const submit = (file, name) => {
  props.value = {...props.value, file: {...file, orig_name: name, meta: {_type: 'gradio.FileData'}}};
  trigger('upload');
};

const takeFile = async file => {
  URL.revokeObjectURL(local);
  local = URL.createObjectURL(file);
  const current = show({state: 'busy', name: escape(file.name), text: 'Reading…', local});
  if (file.size > 1e6 * props.megabytes) {
    return refuse(file.name, `has ${Math.round(file.size / 1e6)} MB; the limit is ${props.megabytes}.`);
  }
  try {
    const {path, url} = await upload(file);
    if (current === choice) submit({path, url}, file.name);
  } catch (error) {
    if (current === choice) refuse(file.name, 'cannot be uploaded. Please try again.');
  }
};
const takeAddress = async address => {
  URL.revokeObjectURL(local);
  local = null;
  const current = show({state: 'busy', name: escape(address), text: 'Fetching…'});
  const file = await server.fetch_image(address).catch(() => ({error: 'The server cannot be reached.'}));
  if (current !== choice) return;
  if (file.error) refuse('', file.error);
  else submit({path: file.path}, file.orig_name);
};

watch('value', () => {
  const {state} = props.value;
  if (state === 'refused' && local && !props.value.local) {  // which the browser may be able to show
    props.value = {...props.value, local};
  }
  if (state === 'refused' || state === 'large') scrollToZone();
});

document.addEventListener('click', event => {
  if (element.offsetParent && event.target.closest('#examples')) choice += 1;
});

// What is dropped or pasted; see header.js.
element.setAttribute('data-takes', '');
element.addEventListener('take', ({detail: {files, address}}) => {
  if (files.length) takeFile(files[0]);
  else takeAddress(address);
});

element.addEventListener('change', event => {
  if (event.target.type !== 'file' || !event.target.files.length) return;
  takeFile(event.target.files[0]);
  event.target.value = '';  // the same file may be chosen again
});
element.addEventListener('submit', event => {
  event.preventDefault();
  const field = event.target.querySelector('input');
  if (field.value.trim()) takeAddress(field.value.trim());
  else field.focus();
});
element.addEventListener('error', event => {  // the browser cannot show the local file
  if (event.target.src !== local) return;
  local = null;
  props.value = {...props.value, local};
}, true);

// Cropping: a region in pixels of the image, of at most `limit` pixels.
let region = null;
const clamp = (number, low, high) => Math.min(high, Math.max(low, number));
const duration = pixels => {
  const {seconds} = props.value;
  if (!seconds) return '';
  const total = seconds.fixed + seconds.per_pixel * pixels;
  if (total < 0.75) return ', less than 1 s';
  return total < 90 ? `, about ${Math.round(total)} s` : `, about ${Math.round(total / 60)} min`;
};
const setRegion = ({left, top, width, height}) => {
  const image = props.value;
  const excess = Math.max(1, Math.sqrt(width * height / image.limit));
  width = clamp(Math.floor(width / excess), 1, image.width);
  height = clamp(Math.floor(height / excess), 1, Math.min(image.height, Math.floor(image.limit / width)));
  left = clamp(Math.round(left), 0, image.width - width);
  top = clamp(Math.round(top), 0, image.height - height);
  region = {left, top, width, height};
  for (const [name, share] of Object.entries({
    left: left / image.width, top: top / image.height, width: width / image.width, height: height / image.height,
  })) element.style.setProperty(`--${name}`, `${100 * share}%`);
  const text = `${width} × ${height} pixels${duration(width * height)}`;
  element.querySelector('.region').textContent = text;
  element.querySelector('.crop').setAttribute(
    'aria-label', `Region: ${text}. Arrow keys move it, with Shift they resize it.`);
};
const startCropping = () => {
  const {width, height, limit} = props.value, share = Math.min(1, Math.sqrt(limit / (width * height)));
  element.setAttribute('data-cropping', '');
  setRegion({
    left: width * (1 - share) / 2, top: height * (1 - share) / 2, width: width * share, height: height * share,
  });
  element.querySelector('.crop').focus({preventScroll: true});
  scrollToZone();
};
const stopCropping = () => {
  region = null;
  element.removeAttribute('data-cropping');
  const text = element.querySelector('.region');
  if (text) text.textContent = '';
};
const work = (name, text) => {
  const wanted = region;
  show({...props.value, state: 'busy', text});
  trigger(name, wanted || {});
};

const actions = {
  crop: startCropping,
  back: () => { stopCropping(); element.querySelector('[data-do=crop]').focus(); },
  use: () => work('crop', 'Cropping…'),
  shrink: () => work('shrink', 'Shrinking…'),
  remove: () => {
    local = null;
    show({state: 'empty'});
    trigger('clear');
    queueMicrotask(() => element.querySelector('input[type=file]').focus());
  },
};
element.addEventListener('click', event => {
  const button = event.target.closest('[data-do]');
  if (button) actions[button.dataset.do]();
});
element.addEventListener('keydown', event => {
  if (!region || !event.target.matches('.crop')) return;
  const step = Math.max(1, Math.round(Math.min(props.value.width, props.value.height) / 50));
  const [dx, dy] = {
    ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step],
  }[event.key] || [0, 0];
  if (event.key === 'Enter') actions.use();
  else if (event.key === 'Escape') actions.back();
  else if (event.shiftKey && (dx || dy)) resize(region.left, region.top, region.width + dx, region.height + dy);
  else if (dx || dy) setRegion({...region, left: region.left + dx, top: region.top + dy});
  else return;
  event.preventDefault();
});

// Set the region between a fixed corner and the one at a signed distance from it.
const resize = (x, y, width, height) => {
  const least = Math.max(1, Math.min(16, props.value.width, props.value.height));
  const fit = (from, by, length) =>
    by < 0 ? Math.min(from, Math.max(least, -by)) : Math.min(length - from, Math.max(least, by));
  const excess = Math.max(1, Math.sqrt(Math.abs(width * height) / props.value.limit));
  const wide = fit(x, width / excess, props.value.width), high = fit(y, height / excess, props.value.height);
  setRegion({left: width < 0 ? x - wide : x, top: height < 0 ? y - high : y, width: wide, height: high});
};
let drag = null;
const position = event => {
  const box = element.querySelector('figure img').getBoundingClientRect();
  return [
    clamp((event.clientX - box.left) / box.width, 0, 1) * props.value.width,
    clamp((event.clientY - box.top) / box.height, 0, 1) * props.value.height,
  ];
};
element.addEventListener('pointerdown', event => {
  if (!region || event.button || !event.target.closest('figure')) return;
  const [x, y] = position(event), {corner} = event.target.dataset;
  if (corner) {  // the opposite one stays
    drag = {x: region.left + (corner[1] === 'w' && region.width), y: region.top + (corner[0] === 'n' && region.height)};
  } else if (event.target.matches('.crop')) {
    drag = {move: true, x: x - region.left, y: y - region.top};
  } else {
    drag = {x, y};
  }
  event.target.setPointerCapture(event.pointerId);
});
element.addEventListener('pointermove', event => {
  if (!region || !drag) return;
  const [x, y] = position(event);
  if (drag.move) setRegion({...region, left: x - drag.x, top: y - drag.y});
  else resize(drag.x, drag.y, x - drag.x, y - drag.y);
});
for (const name of ['pointerup', 'pointercancel']) element.addEventListener(name, () => drag = null);
