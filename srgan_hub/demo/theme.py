"""Theme and shared components. Their HTML, CSS and JavaScript are in `static/`."""

import html
import uuid
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from .queue import JobState
from .service import Service
from .uploads import get_client, to_file_data

# Event options. The UI's events are no API endpoints. Gradio's preprocessing would decode images before their size is
# checked, and drop alpha.
SYNC_EVENT: dict[str, Any] = {
    "show_progress": "hidden", "queue": False, "api_visibility": "private", "preprocess": False
}  # fmt: skip
# Of events while one is handled, the last one follows.
LATEST_EVENT: dict[str, Any] = {**SYNC_EVENT, "trigger_mode": "always_last"}
# Gradio runs queued events at once; `JobQueue` decides which of them waits.
QUEUED_EVENT: dict[str, Any] = {**SYNC_EVENT, "queue": True, "trigger_mode": "multiple", "concurrency_limit": None}


def read_static(name: str) -> str:
    """Read a file in `static/`; "" if there is none."""
    file = resources.files(__package__).joinpath("static", name)
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def component(name: str, value: Any = None, **options: Any) -> gr.HTML:
    """Create the component with the template `static/NAME.html` and the script `static/NAME.js`."""
    script = read_static(f"{name}.js") or None
    return gr.HTML(value, html_template=read_static(f"{name}.html"), js_on_load=script, **options)


def job_component(service: Service, tab: str, action: str, text: str, **options: Any) -> gr.HTML:
    """Create a button with status text and progress bar; `submit` is its event, `job` makes its value with options."""

    def cancel(request: gr.Request) -> None:
        # What was done after this click, such as choosing another image, may have arrived before it.
        service.queue.cancel(get_client(request, tab), "Cancelled.", override=False)

    created = component("job", job("idle", text, **options), elem_id=f"{tab}-job", elem_classes="job", action=action)
    created.stop(cancel, **SYNC_EVENT)
    return created


def job(
    state: JobState, text: str, progress: float | None = None, *, result: bool = False, start: bool = False
) -> dict[str, Any]:
    """Return the value of a job component.

    Args:
        state, text: What it shows.
        progress: In [0, 1], None if no job runs.
        result: Whether the page shows a result; its button updates that.
        start: Start the job without a click.
    """
    token = uuid.uuid4().hex if start else None  # the page starts once for each
    return {"state": state, "text": html.escape(text.strip()), "progress": progress, "result": result, "start": token}


def download(file: Path, label: str, **options: Any) -> dict[str, Any]:
    """Return the value of a download component.

    With the option `again` the file is an image that can be copied, and upscaled again if it is true. One with a
    `thumbnail` becomes part of the history.
    """
    size = file.stat().st_size
    label = f"{label}, {size / 1e6:.1f} MB" if size >= 1e5 else f"{label}, {max(1, size // 1000)} kB"
    return {"file": to_file_data(file), "label": html.escape(label), "name": html.escape(file.name), **options}


def snippets(**code: str) -> dict[str, str]:
    """Return the value of a component with code snippets by language; empty ones are hidden."""
    return {language: html.escape(text) for language, text in code.items()}


def create_theme() -> gr.themes.Base:
    """Create the demo's theme."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color_dark="*neutral_800",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_800",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        checkbox_label_text_color_selected="white",
        slider_color="*primary_600",
        input_background_fill="white",
    )
