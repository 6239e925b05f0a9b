"""The tab that enlarges many pictures into one zip."""

import html
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from . import page
from .kinds import KINDS
from .service import MANY, Entry, Service, sentence
from .settings import FORMATS, SIZES, Settings
from .uploads import megabytes, to_path, to_value, to_visitor


def build(service: Service) -> None:
    """Add the tab's components and events to the Blocks and Tab around."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            pictures = gr.UploadButton(
                f"Choose pictures, up to {MANY}", file_count="multiple", file_types=["image"], elem_id="pictures"
            )
            size = gr.Radio([*SIZES], value="4x", label="Size")
            detail = gr.Slider(0, 1, 1, step=0.1, label="Detail", info="From 0, faithful, to 1, crisp.", buttons=[])
            with gr.Accordion("More settings", open=False):
                kinds = [(each.label, name) for name, each in KINDS.items()]
                kind = gr.Radio(kinds, value="photo", label="Picture kind")
                format = gr.Radio([*FORMATS], value="PNG", label="Format")
            job = page.add_job("Upscale all", "Choose pictures.", "many-job")
        with gr.Column(scale=3, min_width=300):
            gallery = gr.HTML(None, html_template=page.GALLERY, js_on_load=None, elem_id="gallery")
            download = gr.HTML(
                None, html_template=page.DOWNLOAD, js_on_load=None, elem_id="zip", elem_classes="download"
            )

    def upscale(
        files: Any, size: str, detail: float, kind: str, format: str, request: gr.Request
    ) -> Iterator[tuple[Any, Any, Any]]:
        paths = [path for path in map(to_path, files or []) if path]
        with tempfile.TemporaryDirectory() as folder:
            try:
                settings = Settings(size, detail, kind, format)
                for entries in service.batch(paths, settings, Path(folder), to_visitor(request)):
                    ended = sum(entry.state not in ("waiting", "running") for entry in entries)
                    running = next((entry for entry in entries if entry.state in ("waiting", "running")), None)
                    rows = [
                        {**vars(entry), "name": html.escape(entry.name), "text": html.escape(entry.text)}
                        for entry in entries
                    ]
                    if running:
                        text = f"{running.name}: {running.text or 'enlarging'}. {ended} of {len(entries)} are done."
                        yield rows, None, page.job("running", text, ended / len(entries))
                done = sum(entry.state == "done" for entry in entries)
                failed = sum(entry.state == "failed" for entry in entries)
                archive = Path(folder) / "results.zip"
                label = f"Download {done} pictures as zip, {megabytes(archive)}"
                value = page.link(to_value(archive, "results.zip"), label) if done else None
                state = "done" if done + failed == len(entries) else "cancelled"
                text = f"{done} of {len(entries)} are done" + (f", {failed} failed." if failed else ".")
                yield rows, value, page.job(state if done or state != "done" else "failed", text)
            except Exception as error:
                yield None, None, page.job("failed", sentence(error, None))

    def cancel(request: gr.Request) -> None:
        service.stop(to_visitor(request), "Cancelled.")

    def choose(files: Any) -> tuple[Any, Any, Any]:
        names = [path.name for path in map(to_path, files or []) if path]
        text = f"{len(names)} picture{'' if len(names) == 1 else 's'}."
        return [_escaped(vars(Entry(name, "chosen"))) for name in names], None, page.job("chosen", text)

    shown = [gallery, download, job]
    job.submit(upscale, [pictures, size, detail, kind, format], shown, **page.WAITING)
    job.stop(cancel, **page.QUIET)
    pictures.upload(choose, pictures, shown, **page.QUIET)


def _escaped(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: html.escape(value) if isinstance(value, str) else value for key, value in entry.items()}
