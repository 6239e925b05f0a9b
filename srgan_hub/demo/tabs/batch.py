"""\"Batch\" tab."""

import functools
import html
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from .. import theme
from ..controls import SettingsControls, Values
from ..eta import format_duration
from ..image_input import make_fetch
from ..queue import JobState, count
from ..service import MAX_BATCH_FILES, BatchItem, Service, user_message
from ..uploads import get_client, only_uploaded, to_cached_file_data, to_file_data, to_path


def build(service: Service) -> None:
    """Add the tab's components and events."""

    demo = Context.root_block
    assert demo

    def prepare(upload: Any, **options: Any) -> dict[str, Any]:
        path = to_path(only_uploaded(upload))
        if not path:
            return {"state": "failed", "text": "The upload failed."}
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            item = service.preview(path, Path(directory), **options)
            file = to_cached_file_data(item.file or path)
        demo.upload_file_set.add(file["path"])  # deleted when it is old
        texts = {"name": html.escape(item.name), "text": html.escape(item.text), "thumbnail": item.thumbnail}
        return {"state": item.state, **texts, "upload": file}

    def preview(upload: Any) -> dict[str, Any]:
        """Return what a file that was just uploaded adds to its item in the gallery."""
        return prepare(upload)

    def shrink(upload: Any) -> dict[str, Any]:
        """Return what becomes of the item of a file that is shrunk to the limit."""
        return prepare(upload, shrink=True)

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            # `gr.File` and `gr.UploadButton` replace the files that were chosen before.
            theme.component("drop", elem_id="batch-drop", elem_classes="image-input")
            controls = SettingsControls()
            job = theme.job_component(service, "batch", "Upscale all", "Choose images.")
        with gr.Column(scale=3, min_width=300):
            functions = [preview, shrink, make_fetch()]
            options: dict[str, Any] = {"limit": MAX_BATCH_FILES, "left_out": 0, "server_functions": functions}
            gallery = theme.component("gallery", [], elem_id="gallery", **options)
            download = theme.component("download", elem_id="batch-download", elem_classes="download")

    def upscale(values: Values, request: gr.Request) -> Iterator[tuple[Any, Any, Any]]:
        to_data = functools.cache(to_cached_file_data)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                chosen, client = values[gallery], get_client(request, "batch")
                paths, large = _paths(chosen), _too_large(chosen)
                if large and not paths:
                    raise ValueError(f"{large} Shrink or remove first.")
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
                text = f"{done} of {len(items)} done" + (f", {failed} failed." if failed else ".") + large
                label = f"Download {count(done, 'image')} as ZIP"
                archive = theme.download(Path(directory) / "results.zip", label) if done else None
                state: JobState = "cancelled" if "cancelled" in states else "done" if done else "failed"
                yield shown, archive, theme.job(state, text)
            except Exception as error:
                yield gr.skip(), None, theme.job("failed", user_message(error, None))

    def describe(values: Values) -> tuple[Any, Any]:
        """Describe the batch that the chosen images make, in place of the previous one."""
        paths, large = _paths(values[gallery]), _too_large(values[gallery])
        seconds = [each for path in paths if (each := service.estimate(path)) is not None]
        duration = f", {format_duration(sum(seconds))}" if len(seconds) == len(paths) > 0 else ""
        if not paths:  # to shrink them is the primary action
            return None, theme.job("idle", large or "Choose images.", result=bool(large))
        return None, theme.job("ready", f"{count(len(paths), 'image')}{duration}.{large}")

    job.submit(upscale, {gallery, *controls.all}, [gallery, download, job], **theme.QUEUED_EVENT)
    gallery.input(describe, {gallery}, [download, job], **theme.LATEST_EVENT)


def _path(item: Any) -> Path | None:
    """Return the file of an item of the gallery's value; None if it cannot be upscaled, or is not uploaded yet."""
    return (
        to_path(only_uploaded(item.get("upload"))) if isinstance(item, dict) and item.get("state") != "large" else None
    )


def _paths(items: Any) -> list[Path]:
    return [path for item in items if (path := _path(item))] if isinstance(items, list) else []


def _too_large(items: Any) -> str:
    """Describe how many items have to be shrunk first; "" if none."""
    items = items if isinstance(items, list) else []
    number = sum(isinstance(item, dict) and item.get("state") == "large" for item in items)
    return f" {count(number, 'image')} too large." if number else ""


def _gallery(
    items: Sequence[BatchItem], chosen: list[dict[str, Any]], to_data: Callable[[Path], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the gallery's value: `chosen`, with those of the batch in their new state."""
    shown, states = [], iter(items)
    for old in chosen:
        kept: dict[str, Any] = {key: str(old.get(key) or "") for key in ("key", "name", "state", "text", "thumbnail")}
        path, upload = _path(old), to_path(only_uploaded(old.get("upload")))
        if path:
            item = next(states)
            kept.update(name=html.escape(item.name), state=item.state, text=html.escape(item.text))
            kept["thumbnail"] = item.thumbnail or kept["thumbnail"]
            kept["file"] = to_data(item.file) if item.file else None
        shown.append(kept | {"upload": to_file_data(upload) if upload else None})
    return shown
