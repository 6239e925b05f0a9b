"""The demo's looks: the theme, the style, and what the three tabs share."""

import html
import os
from typing import Any

import gradio as gr

from .. import hub
from . import comparison_viewer


def job(state: str, text: str, share: float | None = None) -> dict[str, Any]:
    """Make the value of a job.

    Args:
        state: idle, chosen, queued, running, done, cancelled or failed.
        text: the status line.
        share: how much is done, in [0, 1]; None where nothing is running.
    """
    return {"state": state, "text": html.escape(text.strip()), "share": share}


def add_job(action: str, text: str, name: str) -> gr.HTML:
    """Add the button for an action, its status line and its progress; `submit` and `stop` are its events."""
    return gr.HTML(
        job("idle", text),
        html_template=JOB,
        js_on_load=JOB_SCRIPT,
        elem_id=name,
        elem_classes="job",
        action=action,
    )


def link(file: dict[str, Any], label: str) -> dict[str, Any]:
    """Make the value of a download."""
    return {"file": file, "label": html.escape(label), "name": html.escape(file["orig_name"])}


def code(python: str, curl: str) -> dict[str, str]:
    """Make the value of the programs."""
    return {"Python": html.escape(python), "curl": html.escape(curl)}


# Options of the page's events, which are no endpoints. Gradio's preprocessing would decode an image before the limits
# are checked, and drop alpha.
SYNC_EVENT: dict[str, Any] = {
    "show_progress": "hidden",
    "queue": False,
    "api_visibility": "private",
    "preprocess": False,
}
# The line decides who waits, not Gradio's queue, since the line can tell a user's place.
QUEUED_EVENT: dict[str, Any] = {**SYNC_EVENT, "queue": True, "trigger_mode": "multiple", "concurrency_limit": None}
# One component for the button, the status line and the progress. Its value is the state of the user's job (see
# `job`), and what it shows depends on that value alone, whether the server or this page set it.
JOB = """
<button type="button" class="action ${value.share === null ? 'primary' : ''}">
${value.share === null ? action : 'Cancel'}</button>
<p class="${value.state}" role="${value.state === 'failed' ? 'alert' : 'status'}">${value.text}</p>
<div class="bar" ${value.share === null ? 'data-idle' : ''} role="progressbar" aria-label="Progress"
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
  props.value = {state: 'queued', text: 'Sending the image.', share: 0};
  settle();
  trigger('submit');
  requestAnimationFrame(() => element.scrollIntoView({block: 'nearest'}));
});
"""
# Takes an image that is pasted anywhere on the page while its tab is open.
PASTE_SCRIPT = """
document.addEventListener('paste', async event => {
  const file = [...(event.clipboardData?.files || [])].find(each => each.type.startsWith('image/'));
  if (!file || !document.querySelector('#image')?.offsetParent) return;
  event.preventDefault();
  trigger('upload', {image: await upload(file)});
});
"""
DOWNLOAD = """
${value ? `<a class="action primary" href="${value.file.url}" download="${value.name}">${value.label}</a>`
: '<button type="button" class="action" disabled>Download</button>'}
"""
GALLERY = """
${value ? `<ul>${value.map(entry => `<li class="${entry.state}">${entry.thumbnail ?
`<img src="${entry.thumbnail}" alt="">` : '<span class="blank"></span>'}<div><strong>${entry.name}</strong>
<span>${entry.text || entry.state}</span></div></li>`).join('')}</ul>`
: '<p class="blank-page">Each image and what became of it stand here. The results come in one zip file.</p>'}
"""
COMPARED = """
${value ? `<div class="figures">${value.figures.map(each => `<figure><img src="${each.image.url}" alt="${each.model}">
<figcaption><strong>${each.model}</strong>${each.lines.map(line => `<span>${line}</span>`).join('')}</figcaption>
</figure>`).join('')}</div><p class="hint">${value.protocol}</p>`
: '<p class="blank-page">The results stand here side by side, with scores where there is a ground truth.</p>'}
"""
PROGRAMS = """
${Object.entries(value).filter(([_, text]) => text).map(([name, text]) => `<section><h2>${name}</h2>
<button type="button" class="action">Copy</button><pre tabindex="0" aria-label="${name}"><code>${text}</code></pre>
</section>`).join('')}
"""
PROGRAMS_SCRIPT = """
element.addEventListener('click', async event => {
  const button = event.target.closest('button');
  if (!button) return;
  await navigator.clipboard.writeText(button.parentElement.querySelector('pre').innerText);
  button.textContent = 'Copied';
  setTimeout(() => button.textContent = 'Copy', 2000);
});
"""
HEADER = """
<h1>Small image in, large image out</h1>
<p>SRGAN redraws the detail that a small image lost. The new detail is plausible, not evidence.</p>
"""


def footer(max_pixels: int, max_file_size: str, kept: int) -> str:
    """Return the page's foot: limits, what becomes of the images, and where more is."""
    hours = "an hour" if kept == 3600 else f"{kept / 3600:.3g} hours"
    space = os.environ.get("SPACE_ID")
    links = {f"https://huggingface.co/spaces/{space}/tree/main": "Code"} if space else {}
    links |= {"about/license": "License"} | {f"about/{name}": f"Card of {name}" for name in hub.bundled_models()}
    shown = "".join(f'<a href="{address}">{text}</a>' for address, text in links.items())
    # Gradio opens its page on the API by its own button only, which the style hides.
    press = "document.querySelector('footer .show-api').click(); return false"
    return (
        f"<p>PNG, JPEG, WebP, BMP or TIFF, up to {max_pixels / 1e6:.3g} megapixels and {max_file_size[:-2]} MB; no "
        f"animations. Images are deleted after {hours}. The place (GPS) in a photo is removed unless you keep it.</p>"
        f'<nav aria-label="More">{shown}<a href="?view=api" onclick="{press}">API</a></nav>'
    )


THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="stone",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
    text_size="md",
    radius_size="md",
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_background_fill="white",
    block_background_fill_dark="*neutral_900",
    block_border_width="1px",
    block_border_color_dark="*neutral_800",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_300",
    block_title_text_color="*neutral_800",
    block_title_text_color_dark="*neutral_200",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_400",
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
    checkbox_label_text_color_selected="white",
    slider_color="*primary_600",
    input_background_fill="white",
)
CSS = (
    """
.gradio-container {--accent: #0f766e; max-width: 1200px !important; margin: auto !important}
.dark .gradio-container, .gradio-container.dark {--accent: #5eead4}
.gradio-container h1 {font-size: 28px; line-height: 1.2; margin: 8px 0 4px}
.gradio-container h2 {font-size: 18px}
:is(#header, #footer, .job, .download, #viewer, #close-up, #gallery, #results) .html-container {padding: 0}
#header p, #footer, .hint {color: var(--body-text-color-subdued)}
.hint {font-size: 14px}
#footer {border-top: 1px solid var(--border-color-primary); padding-top: 12px}
#footer nav {display: flex; flex-wrap: wrap; gap: 0 16px}
#footer a {display: inline-flex; align-items: center; min-height: 44px; min-width: 44px; text-decoration: underline;
  color: var(--body-text-color)}
footer {display: none !important}
.gradio-container input[type=range]:not(#viewer input)::-webkit-slider-thumb {box-shadow: inset 0 0 0 3px var(--accent)}
.gradio-container input[type=range]:not(#viewer input)::-moz-range-thumb {box-shadow: inset 0 0 0 3px var(--accent)}
#image button:not([aria-dropeffect]), .gradio-container [role=radiogroup] label, fieldset label, [role=tab],
.gradio-container .label-wrap {min-width: 44px; min-height: 44px}
.gradio-container .label-wrap {align-items: center; margin: -8px 0}
[role=tab] {padding: 0 12px !important}
#image button svg {width: 20px; height: 20px; margin: auto}
#examples {gap: 8px; flex-wrap: nowrap}
.gradio-container .hint .html-container {padding: 0}
#examples button {min-width: 0; height: 76px; padding: 4px; flex: 1 1 0; font-size: 14px; font-weight: 400;
  flex-direction: column; gap: 4px; border: 1px solid var(--border-color-primary);
  background: var(--block-background-fill)}
#examples img {width: 40px; height: 40px; object-fit: cover; border-radius: 6px; margin: 0; flex: none}
.action, #viewer .tools button {display: flex; min-height: 44px; align-items: center; justify-content: center;
  border: 1px solid var(--border-color-primary); border-radius: 8px; font-weight: 600; font-size: 16px; cursor: pointer;
  color: var(--body-text-color) !important; background: var(--block-background-fill); text-decoration: none}
.action {width: 100%}
#viewer .tools button {min-width: 44px; padding: 0 12px; margin: 0; font-weight: 400}
[role=tab][aria-selected=true] {color: var(--accent) !important}
.action.primary {color: white !important; background: #0f766e; border-color: #0f766e}
:is(.action, .tools button):disabled {opacity: .55; cursor: default}
:is(.action, .tools button, #footer a):focus-visible {outline: 3px solid var(--accent); outline-offset: 2px}
[data-settling] .action {pointer-events: none}
.job p {min-height: 3em; line-height: 1.5; margin: 8px 0}
.job p.failed {color: #b91c1c}
.dark .job p.failed {color: #fca5a5}
.job .bar {position: relative; height: 24px; border-radius: 8px; overflow: hidden; text-align: center;
  background: var(--border-color-primary)}
.job .bar[data-idle] {visibility: hidden}
.job .bar div {position: absolute; inset: 0 auto 0 0; background: #5eead4}
.dark .job .bar div {background: #0f766e}
.job .bar span {position: relative; line-height: 24px; font-size: 14px}
#code section {display: grid; grid-template-columns: 1fr auto; align-items: center; gap: 8px; margin-bottom: 16px}
#code .action {width: auto; padding: 0 16px}
#code h2 {margin: 0; font-size: 16px}
#code pre {grid-column: 1 / -1; margin: 0; padding: 12px; overflow-x: auto; font-size: 14px; border-radius: 8px;
  border: 1px solid var(--border-color-primary); background: var(--body-background-fill)}
#code code {padding: 0; border: 0; background: none; color: var(--body-text-color)}
#code pre:focus-visible {outline: 3px solid var(--accent); outline-offset: 2px}
.blank-page {display: grid; place-items: center; min-height: 200px; padding: 24px; text-align: center;
  border: 1px dashed var(--border-color-primary); border-radius: 8px; color: var(--body-text-color-subdued)}
#gallery ul {list-style: none; margin: 0; padding: 0; display: grid; gap: 8px}
#gallery li {display: flex; gap: 12px; align-items: center; padding: 8px; border-radius: 8px; margin: 0;
  border: 1px solid var(--border-color-primary); background: var(--block-background-fill)}
#gallery :is(img, .blank) {width: 56px; height: 56px; flex: none; object-fit: cover; border-radius: 6px; margin: 0;
  background: var(--border-color-primary)}
#gallery li div {display: grid; min-width: 0; overflow-wrap: anywhere}
#gallery .failed span {color: #b91c1c}
.dark #gallery .failed span {color: #fca5a5}
#gallery .failed .blank {background: #fca5a5}
.figures {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 16px}
.figures img {width: 100%; border-radius: 8px; margin: 0}
.figures figcaption {display: grid; gap: 2px; padding: 4px 0}
"""
    + comparison_viewer.CSS
    + """
@media (max-width: 500px) {
  .gradio-container h1 {font-size: 24px}
  #viewer .hint {display: none}
}
"""
)
