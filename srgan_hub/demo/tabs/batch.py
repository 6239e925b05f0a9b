"""The tab that upscales many images into one zip."""

import html
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from .. import theme
from ..presets import PRESETS
from ..service import MANY, BatchItem, Service, user_message
from ..settings import FORMATS, SIZES, Settings
from ..uploads import get_client, megabytes, to_path, to_value


def build(service: Service) -> None:
    """Add the tab's components and events to the Blocks and Tab around."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            images = gr.UploadButton(
                f"Choose images, up to {MANY}", file_count="multiple", file_types=["image"], elem_id="images"
            )
            size = gr.Radio([*SIZES], value="4x", label="Size")
            detail = gr.Slider(0, 1, 1, step=0.1, label="Detail", info="From 0, faithful, to 1, crisp.", buttons=[])
            with gr.Accordion("More settings", open=False):
                kinds = [(each.label, name) for name, each in PRESETS.items()]
                kind = gr.Radio(kinds, value="photo", label="Image kind")
                format = gr.Radio([*FORMATS], value="PNG", label="Format")
            job = theme.add_job("Upscale all", "Choose images.", "many-job")
        with gr.Column(scale=3, min_width=300):
            gallery = gr.HTML(None, html_template=theme.GALLERY, js_on_load=None, elem_id="gallery")
            download = gr.HTML(
                None, html_template=theme.DOWNLOAD, js_on_load=None, elem_id="zip", elem_classes="download"
            )

    def upscale(
        files: Any, size: str, detail: float, kind: str, format: str, request: gr.Request
    ) -> Iterator[tuple[Any, Any, Any]]:
        paths = [path for path in map(to_path, files or []) if path]
        with tempfile.TemporaryDirectory() as folder:
            try:
                settings = Settings(size, detail, kind, format)
                for entries in service.batch(paths, settings, Path(folder), get_client(request)):
                    ended = sum(entry.state not in ("waiting", "running") for entry in entries)
                    running = next((entry for entry in entries if entry.state in ("waiting", "running")), None)
                    rows = [
                        {**vars(entry), "name": html.escape(entry.name), "text": html.escape(entry.text)}
                        for entry in entries
                    ]
                    if running:
                        text = f"{running.name}: {running.text or 'upscaling'}. {ended} of {len(entries)} are done."
                        yield rows, None, theme.job("running", text, ended / len(entries))
                done = sum(entry.state == "done" for entry in entries)
                failed = sum(entry.state == "failed" for entry in entries)
                archive = Path(folder) / "results.zip"
                label = f"Download {done} images as zip, {megabytes(archive)}"
                value = theme.link(to_value(archive, "results.zip"), label) if done else None
                state = "done" if done + failed == len(entries) else "cancelled"
                text = f"{done} of {len(entries)} are done" + (f", {failed} failed." if failed else ".")
                yield rows, value, theme.job(state if done or state != "done" else "failed", text)
            except Exception as error:
                yield None, None, theme.job("failed", user_message(error, None))

    def cancel(request: gr.Request) -> None:
        service.stop(get_client(request), "Cancelled.")

    def choose(files: Any) -> tuple[Any, Any, Any]:
        names = [path.name for path in map(to_path, files or []) if path]
        text = f"{len(names)} image{'' if len(names) == 1 else 's'}."
        return [_escaped(vars(BatchItem(name, "chosen"))) for name in names], None, theme.job("chosen", text)

    shown = [gallery, download, job]
    job.submit(upscale, [images, size, detail, kind, format], shown, **theme.QUEUED_EVENT)
    job.stop(cancel, **theme.SYNC_EVENT)
    images.upload(choose, images, shown, **theme.SYNC_EVENT)


def _escaped(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: html.escape(value) if isinstance(value, str) else value for key, value in entry.items()}
