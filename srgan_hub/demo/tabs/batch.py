"""\"Batch\" tab."""

import functools
import html
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from .. import theme
from ..controls import SettingsControls, Values
from ..eta import format_duration
from ..queue import JobState, count
from ..service import MAX_BATCH_FILES, BatchItem, Service, user_message
from ..uploads import get_client, only_uploaded, to_cached_file_data, to_file_data, to_path


def build(service: Service) -> None:
    """Add the tab's components and events."""

    def preview(upload: Any) -> dict[str, Any]:
        """Return what a file that was just uploaded adds to its item in the gallery."""
        path = to_path(only_uploaded(upload))
        item = service.preview(path) if path else BatchItem("", "failed", "The upload failed.")
        return {"state": item.state, "text": html.escape(item.text), "thumbnail": item.thumbnail}

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            # `gr.File` and `gr.UploadButton` replace the files that were chosen before.
            theme.component("drop", elem_id="batch-drop")
            controls = SettingsControls()
            job = theme.job_component(service, "batch", "Upscale all", "Choose images.")
        with gr.Column(scale=3, min_width=300):
            gallery = theme.component(
                "gallery", [], elem_id="gallery", limit=MAX_BATCH_FILES, left_out=0, server_functions=[preview]
            )
            download = theme.component("download", elem_id="batch-download", elem_classes="download")

    def upscale(values: Values, request: gr.Request) -> Iterator[tuple[Any, Any, Any]]:
        to_data = functools.cache(to_cached_file_data)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                chosen, client = values[gallery], get_client(request, "batch")
                paths = [path for path in _paths(chosen) if path]
                for items in service.batch(paths, controls.to_settings(values), Path(directory), client):
                    shown = _gallery(items, chosen, to_data)
                    states = [item.state for item in items]
                    # One after the other, so the first unfinished item is also the number of finished ones.
                    finished = sum(state not in ("queued", "running") for state in states)
                    if finished < len(items):
                        active = items[finished]
                        text = f"{active.name}: {active.text or 'upscaling'}. {finished} of {len(items)} done."
                        yield shown, None, theme.job("running", text, finished / len(items))
                done, failed = states.count("done"), states.count("failed")
                text = f"{done} of {len(items)} done" + (f", {failed} failed." if failed else ".")
                label = f"Download {count(done, 'image')} as ZIP"
                archive = theme.download(Path(directory) / "results.zip", label) if done else None
                state: JobState = "cancelled" if "cancelled" in states else "done" if done else "failed"
                yield shown, archive, theme.job(state, text)
            except Exception as error:
                yield gr.skip(), None, theme.job("failed", user_message(error, None))

    def describe(values: Values) -> tuple[Any, Any]:
        """Describe the batch that the chosen images make, in place of the previous one."""
        paths = [path for path in _paths(values[gallery]) if path]
        seconds = [each for path in paths if (each := service.estimate(path)) is not None]
        duration = f", {format_duration(sum(seconds))}" if len(seconds) == len(paths) > 0 else ""
        text = f"{count(len(paths), 'image')}{duration}." if paths else "Choose images."
        return None, theme.job("ready" if paths else "idle", text)

    job.submit(upscale, {gallery, *controls.all}, [gallery, download, job], **theme.QUEUED_EVENT)
    gallery.input(describe, {gallery}, [download, job], **theme.LATEST_EVENT)


def _paths(items: Any) -> list[Path | None]:
    """Return the uploaded file of each item of the gallery's value, None if it has none yet."""
    items = items if isinstance(items, list) else []
    return [to_path(only_uploaded(item.get("upload"))) if isinstance(item, dict) else None for item in items]


def _gallery(
    items: Sequence[BatchItem], chosen: Any, to_data: Callable[[Path], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the gallery's value: `chosen`, with the uploaded ones in their new state."""
    shown, states = [], iter(items)
    for path, old in zip(_paths(chosen), chosen, strict=True):
        kept: dict[str, Any] = {key: str(old.get(key) or "") for key in ("key", "name", "state", "text", "thumbnail")}
        if path:
            item = next(states)
            kept.update(name=html.escape(item.name), state=item.state, text=html.escape(item.text))
            kept["thumbnail"] = item.thumbnail or kept["thumbnail"]
            kept |= {"upload": to_file_data(path), "file": to_data(item.file) if item.file else None}
        shown.append(kept)
    return shown
