"""\"Batch\" tab."""

import html
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from .. import theme
from ..queue import JobState, count
from ..service import MAX_BATCH_FILES, BatchItem, Service, user_message
from ..settings import FORMATS, SIZES, Settings
from ..uploads import get_client, to_paths


def build(service: Service) -> None:
    """Add the tab's components and events."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            text = f"Choose images, up to {MAX_BATCH_FILES}"
            images = gr.UploadButton(text, file_count="multiple", file_types=["image"], elem_id="batch-images")
            size = gr.Radio([*SIZES], value="4x", label="Size")
            detail = theme.detail_slider()
            with gr.Accordion("More settings", open=False):
                preset = theme.preset_segments()
                format = gr.Radio([*FORMATS], value="PNG", label="Format")
            job = theme.job_component(service, "batch", "Upscale all", "Choose images.")
        with gr.Column(scale=3, min_width=300):
            gallery = theme.component("gallery", elem_id="gallery")
            download = theme.component("download", elem_id="batch-download", elem_classes="download")

    def upscale(
        files: Any, size: str, detail: float, preset: str, format: str, request: gr.Request
    ) -> Iterator[tuple[Any, Any, Any]]:
        with tempfile.TemporaryDirectory() as directory:
            try:
                settings, client = Settings(size, detail, preset, format), get_client(request, "batch")
                for items in service.batch(to_paths(files), settings, Path(directory), client):
                    states = [item.state for item in items]
                    # One after the other, so the first unfinished item is also the number of finished ones.
                    finished = sum(state not in ("queued", "running") for state in states)
                    if finished < len(items):
                        active = items[finished]
                        text = f"{active.name}: {active.text or 'upscaling'}. {finished} of {len(items)} done."
                        yield _gallery(items), None, theme.job("running", text, finished / len(items))
                done, failed = states.count("done"), states.count("failed")
                text = f"{done} of {len(items)} done" + (f", {failed} failed." if failed else ".")
                label = f"Download {count(done, 'image')} as ZIP"
                archive = theme.download(Path(directory) / "results.zip", label) if done else None
                state: JobState = "cancelled" if "cancelled" in states else "done" if done else "failed"
                yield _gallery(items), archive, theme.job(state, text)
            except Exception as error:
                yield None, None, theme.job("failed", user_message(error, None))

    def choose(files: Any) -> tuple[Any, Any, Any]:
        items = [BatchItem(path.name, "ready") for path in to_paths(files)]
        return _gallery(items), None, theme.job("ready", f"{count(len(items), 'image')}.")

    outputs = [gallery, download, job]
    job.submit(upscale, [images, size, detail, preset, format], outputs, **theme.QUEUED_EVENT)
    images.upload(choose, images, outputs, **theme.SYNC_EVENT)


def _gallery(items: Sequence[BatchItem]) -> list[dict[str, Any]]:
    return [{**vars(item), "name": html.escape(item.name), "text": html.escape(item.text)} for item in items]
