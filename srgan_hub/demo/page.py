"""The demo's page: HTML templates, their scripts and the style, for `gradio.HTML`."""

from typing import Any

import gradio as gr

# Soft's own colours for small text have a contrast of less than 4.5. `set` forgets the background, so it is said again.
THEME = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"]).set(
    background_fill_primary="*neutral_50",
    block_label_text_color="*primary_700",
    block_title_text_color="*primary_700",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    checkbox_label_background_fill_selected="*primary_600",
)


def job(state: str, text: str, share: float | None = None) -> dict[str, Any]:
    """Make the value of a job.

    Args:
        state: idle, chosen, queued, running, done, cancelled or failed.
        text: the status line.
        share: how much is done, in [0, 1]; None where nothing is running.
    """
    return {"state": state, "text": text.strip(), "share": share}


# One component for the button, the status line and the progress. Its value is the state of the visitor's job (see
# `job`), and what it shows depends on that value alone, whether the server or this page set it.
JOB = """
<button type="button" class="action ${value.share === null ? 'primary' : ''}">
${value.share === null ? 'Upscale' : 'Cancel'}</button>
<p class="${value.state}" role="${value.state === 'failed' ? 'alert' : 'status'}">
${value.text.replace(/[&<]/g, sign => `&#${sign.charCodeAt()};`)}</p>
<div class="bar" ${value.share === null ? 'hidden' : ''} role="progressbar" aria-label="Progress"
  aria-valuemin="0" aria-valuemax="100" aria-valuenow="${Math.floor(100 * value.share)}">
<div style="width: ${100 * value.share}%"></div><span>${Math.floor(100 * value.share)} %</span></div>
"""
# For a moment after the button has changed its meaning clicks are ignored: one may be the second of a double click, or
# have been meant for the other meaning.
JOB_SCRIPT = """
const busy = () => props.value.share !== null;
let was = false;
const settle = () => {
  if (busy() === was) return;
  was = busy();
  element.dataset.settling = '';
  setTimeout(() => delete element.dataset.settling, 400);
};
watch('value', settle);
element.addEventListener('click', event => {
  if (!event.target.closest('button') || 'settling' in element.dataset) return;
  if (busy()) return trigger('stop');
  props.value = {state: 'queued', text: 'Sending the picture.', share: 0};
  settle();
  trigger('submit');
  requestAnimationFrame(() => element.scrollIntoView({block: 'nearest'}));
});
"""
VIEWER = """
${value && value.result ? `<figure>
<img src="${value.result.url}" alt="${value.name}: the result">
<img src="${value.bicubic.url}" alt="${value.name}: enlarged with bicubic, for comparison">
<span>Bicubic</span><span>Result</span>
<input type="range" min="0" max="100" step="0.5" value="50" aria-label="How much of the bicubic picture is shown">
</figure><button type="button" class="action">Full screen</button>`
: '<p>The large picture appears here, with a handle to compare it with a bicubic enlargement.</p>'}
"""
VIEWER_SCRIPT = """
const place = share => element.style.setProperty('--place', share + '%');
element.addEventListener('input', event => place(event.target.value));
element.addEventListener('click', event => {
  if (!event.target.closest('button')) return;
  if (document.fullscreenElement) document.exitFullscreen();
  else element.requestFullscreen();
});
watch('value', async () => {
  if (!props.value) return;
  element.querySelector('input').value = 50;
  place(50);
  await Promise.all([...element.querySelectorAll('img')].map(image => image.decode()));
  element.scrollIntoView({block: 'nearest'});
});
"""
DOWNLOAD = """
${value ? `<a class="action primary" href="${value.file.url}" download="${value.file.orig_name}">${value.label}</a>`
: '<button type="button" class="action" disabled>Download</button>'}
"""
CLOSE_UP = """
${value ? Object.entries(value).map(([name, url]) => `<figure><img src="${url}" alt="${name}, twice as large">
<figcaption>${name}</figcaption></figure>`).join('') : ''}
"""
GALLERY = """
${(value || []).map(entry => `<p class="${entry.state}">${entry.name}: ${entry.state} ${entry.text}</p>`).join('')}
"""
COMPARED = """
${value ? value.figures.map(each => `<figure><img src="${each.picture.url}" alt="${each.model}"></figure>`).join('') : ''}
"""
HEADER = """
<h1>Small picture in, up to four times larger out</h1>
<p>SRGAN redraws the detail that a small picture lost, in bands and without seams. The new detail is plausible, not
evidence.</p>
"""


def footer(max_pixels: int, max_file_size: str, kept: int) -> str:
    """Return the page's foot: limits, what becomes of the pictures, and where more is."""
    return f"""
<p>PNG, JPEG, WebP, BMP or TIFF, up to {max_pixels / 1e6:.3g} megapixels and {max_file_size[:-2]} MB.
Pictures are deleted after {kept / 3600:.3g} hours.</p>
"""


CSS = """
/* The page's look; the rest is Gradio's theme. */
.gradio-container {max-width: 1200px !important; margin: auto !important}
footer {display: none !important}
:is(#job, #viewer, #download) .html-container {padding: 0}
#picture button:not([aria-dropeffect]), #model label {min-width: 44px; min-height: 44px}
#picture button svg {width: 20px; height: 20px; margin: auto}
#examples button {min-height: 64px}
#examples img {width: 56px; height: 56px; object-fit: cover; border-radius: 6px}
.action {display: flex; width: 100%; min-height: 44px; align-items: center; justify-content: center;
  border: 1px solid var(--border-color-primary); border-radius: 8px; font-weight: 600; font-size: 16px; cursor: pointer;
  color: var(--body-text-color) !important; background: var(--background-fill-primary); text-decoration: none}
.action.primary {color: white !important; background: #4f46e5; border-color: #4f46e5}
.action:disabled {opacity: .5; cursor: default}
.action:focus-visible, #viewer input:focus-visible {outline: 3px solid #818cf8; outline-offset: 2px}
[data-settling] .action {pointer-events: none}
#job p {min-height: 1.5em; margin: 8px 0}
#job p.failed {color: #b91c1c}
.dark #job p.failed {color: #fca5a5}
#job .bar {position: relative; height: 24px; border-radius: 8px; overflow: hidden; text-align: center;
  background: var(--border-color-primary)}
#job .bar[hidden] {display: none}
#job .bar div {position: absolute; inset: 0 auto 0 0; background: #a5b4fc}
.dark #job .bar div {background: #4338ca}
#job .bar span {position: relative; line-height: 24px; font-size: 14px}
#viewer figure {position: relative; width: fit-content; max-width: 100%; margin: auto; overflow: hidden}
#viewer img {display: block; max-width: 100%; min-width: min(80vw, 320px); max-height: 640px; object-fit: contain;
  margin: 0}
#viewer img + img {position: absolute; inset: 0; width: 100%; height: 100%;
  clip-path: inset(0 calc(100% - var(--place, 50%)) 0 0)}
#viewer span {position: absolute; top: 8px; left: 8px; padding: 2px 8px; border-radius: 6px; color: white;
  background: #0f172acc; font-size: 14px}
#viewer span + span {left: auto; right: 8px}
/* Wider than the picture by half a thumb on each side, so that the thumb's middle is where the pictures meet. */
#viewer input {--thumb: radial-gradient(circle, white 0 14px, #4f46e5 14px 16px, transparent 16px),
  linear-gradient(90deg, transparent 21px, white 21px 23px, transparent 23px);
  position: absolute; inset: 0 -22px; width: calc(100% + 44px); height: 100%; margin: 0;
  appearance: none; background: none; cursor: ew-resize; touch-action: pan-y}
#viewer input::-webkit-slider-runnable-track {height: 100%}
#viewer input::-webkit-slider-thumb {appearance: none; width: 44px; height: 100%; border: 0;
  background: var(--thumb)}
#viewer input::-moz-range-thumb {width: 44px; height: 100%; border: 0; border-radius: 0; background: var(--thumb)}
#viewer .action {margin-top: 8px}
#viewer :fullscreen img {max-height: 90vh}
"""
