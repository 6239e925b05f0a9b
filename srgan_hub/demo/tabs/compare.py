"""\"Compare models\" tab."""

import html
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ... import hub
from ...evaluate.scorers import METRICS
from .. import theme
from ..compare import LABELS, PROTOCOL, SCORES, ModelComparison
from ..queue import JobState, Queued, count
from ..service import Cancelled, Service, format_place, user_message
from ..uploads import get_client, only_uploaded, to_cached_file_data, to_path
from ..upscale import LoadedImage

ORIGINAL, BICUBIC, GROUND_TRUTH = "Original", "Bicubic", "Ground truth"

Files = dict[str, Any]  # `FileData` dicts by label, and the viewer's "name", "width" and "height"


def build(service: Service) -> None:
    """Add the tab's components and events."""
    with gr.Row():
        style: dict[str, Any] = {"buttons": [], "height": 220}
        image = gr.Image(label="Image", sources=["upload", "clipboard"], elem_id="compare-image", **style)
        ground_truth = gr.Image(label="Ground truth (optional)", sources=["upload"], elem_id="ground-truth", **style)
    names = [name for name in LABELS if name in service.models]
    choices = [(LABELS.get(name, name), name) for name in dict.fromkeys([*names, *service.models])]
    default = [hub.FIDELITY_MODEL, hub.DEFAULT_MODEL]
    models = gr.CheckboxGroup(choices, value=default, label="Models, two or three", elem_id="models")
    job = theme.job_component(service, "compare", "Compare", "Choose an image and two or three models.")
    sides = theme.component("sides", elem_id="sides")
    viewer = theme.component("viewer", elem_id="compare-viewer", elem_classes="viewer")
    comparison = theme.component("comparison", elem_id="comparison")
    files = gr.State({})
    outputs = [sides, viewer, comparison, files, job]

    def compare(
        image: Any, ground_truth: Any, models: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, Any, Any, Any, Any]]:
        path, rows = to_path(image), []
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                if not path:
                    raise ValueError("Choose an image first.")
                truth, client = to_path(ground_truth), get_client(request, "compare")
                found: Files = {}
                for step in service.compare(path, models, truth, client):
                    match step:
                        case Queued():
                            text = f"{format_place(step)} ({path.name})"
                            yield None, None, None, {}, theme.job("queued", text, 0)
                        case Cancelled(reason):
                            yield None, None, None, {}, theme.job("cancelled", reason)
                            return
                        case ModelComparison():
                            label = LABELS.get(step.model, step.model)
                            if not found:
                                truth_image = service.load(truth).image if truth else None
                                found = _references(service.load(path), truth_image, step.scale, Path(directory))
                            found[label] = to_cached_file_data(step.save(Path(directory), compress_level=1))
                            rows.append(_row(label, step, found[label]))
                            first = rows[0]["label"] if len(rows) > 1 else BICUBIC
                            chosen = _sides(found, first, label)
                            yield chosen, _viewer(found, chosen), _table(rows, step.scale), found, gr.skip()
                        case _:
                            yield *[gr.skip()] * 4, theme.job("running", f"Upscaling {path.name}", step)
                yield *[gr.skip()] * 4, theme.job("done", f"{path.name}: {count(len(rows), 'model')} compared.")
            except Exception as error:
                yield None, None, None, {}, theme.job("failed", user_message(error, path))

    def choose(image: Any) -> tuple[Any, ...]:
        path = to_path(image)
        state: JobState = "ready" if path else "idle"
        return None, None, None, {}, theme.job(state, f"{path.name}." if path else "Choose an image.")

    def choose_dropped(event: gr.EventData) -> tuple[Any, ...]:
        dropped = only_uploaded({**event._data["image"], "meta": {"_type": "gradio.FileData"}})
        return dropped and dropped["path"], *choose(dropped)

    def show(sides: Any, files: Files) -> Any:
        return _viewer(files, sides)

    job.submit(compare, [image, ground_truth, models], outputs, **theme.QUEUED_EVENT)
    image.upload(choose, image, outputs, **theme.SYNC_EVENT)
    image.clear(lambda: choose(None), None, outputs, **theme.SYNC_EVENT)
    sides.input(show, [sides, files], viewer, **theme.LATEST_EVENT)
    sides.upload(choose_dropped, None, [image, *outputs], **theme.SYNC_EVENT)


def _references(source: LoadedImage, truth: Image.Image | None, scale: int, directory: Path) -> Files:
    """Write the images to which the models are compared."""
    size = source.image.width * scale, source.image.height * scale
    images = {ORIGINAL: source.image, BICUBIC: source.image.resize(size, Image.Resampling.BICUBIC)}
    if truth:
        images[GROUND_TRUTH] = truth
    files: Files = {"name": html.escape(source.name), "width": size[0], "height": size[1]}
    for label, image in images.items():
        path = directory / f"{label.lower()}.png"
        image.save(path, compress_level=1)
        files[label] = to_cached_file_data(path)
    return files


def _sides(files: Files, left: str, right: str) -> dict[str, Any]:
    """Return the value of the choice of what the viewer shows."""
    choices = [label for label in files if label not in ("name", "width", "height")]
    return {"choices": [*map(html.escape, choices)], "left": html.escape(left), "right": html.escape(right)}


def _viewer(files: Files, sides: Any) -> dict[str, Any] | None:
    """Return the viewer's value for chosen sides; None if there is no such image."""
    sides = sides if isinstance(sides, dict) else {}
    by_label = {html.escape(label): file for label, file in files.items()}
    labels = [sides.get("left"), sides.get("right")]
    if not all(isinstance(by_label.get(label), dict) for label in labels):
        return None
    size = {key: files[key] for key in ("name", "width", "height")}
    return {**size, "before": by_label[labels[0]], "after": by_label[labels[1]], "labels": labels}


def _row(label: str, step: ModelComparison, file: dict[str, Any]) -> dict[str, Any]:
    scores = [f"{step.scores[name]:.{METRICS[name].digits}f}" for name in SCORES if name in step.scores]
    name = html.escape(file["orig_name"])
    return {
        "label": html.escape(label),
        "seconds": f"{step.seconds:.1f} s",
        "scores": scores,
        "file": file,
        "name": name,
    }


def _table(rows: list[dict[str, Any]], scale: int) -> dict[str, Any]:
    """Return the value of the table of models, with the explanation of their scores if they have any."""
    scored = any(row["scores"] for row in rows)
    explained = {text.partition(":")[0]: text for text in SCORES.values()} if scored else {}
    return {"rows": rows, "scores": explained, "protocol": PROTOCOL.format(scale=scale) if scored else ""}
