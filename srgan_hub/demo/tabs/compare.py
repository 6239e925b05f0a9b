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
from ..controls import Values
from ..image_input import image_input, on_choice, prepare_choice
from ..queue import Queued, count
from ..service import Cancelled, Service, format_place, user_message
from ..uploads import get_client, to_cached_file_data, to_path
from ..upscale import LoadedImage

ORIGINAL, BICUBIC, GROUND_TRUTH = "Original", "Bicubic", "Ground truth"

Outputs = tuple[Any, Any, Any, Any, Any]  # sides, viewer, table, files, job
Files = dict[str, Any]  # `FileData` dicts by label, and the viewer's "name", "width" and "height"


def build(service: Service) -> None:
    """Add the tab's components and events."""
    truth_options = {"label": "Ground truth", "alt": "Ground truth", "prompt": "Drop an image here, or click"}
    with gr.Row():
        with gr.Column(min_width=300):
            image = image_input(elem_id="compare-image", title="Image")
        with gr.Column(min_width=300):
            ground_truth = image_input(elem_id="ground-truth", title="Ground truth (optional)", **truth_options)
    names = [name for name in LABELS if name in service.models]
    choices = [(LABELS.get(name, name), name) for name in dict.fromkeys([*names, *service.models])]
    default = [hub.FIDELITY_MODEL, hub.DEFAULT_MODEL]
    models = gr.CheckboxGroup(choices, value=default, label="Models, two or three", elem_id="models")
    job = theme.job_component(service, "compare", "Compare", "Choose an image and two or three models.")
    sides = theme.component("sides", elem_id="sides")
    viewer = theme.component("viewer", elem_id="compare-viewer", elem_classes="viewer")
    comparison = theme.component("comparison", elem_id="comparison")
    files = gr.State({})
    # The session's newest choice of each image, as the only item of a list that concurrent events share.
    newest = {image: gr.State([None]), ground_truth: gr.State([None])}
    outputs = [sides, viewer, comparison, files, job]

    def compare(values: Values, request: gr.Request) -> Iterator[Outputs]:
        path, rows = to_path(values[image]), []
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                if not path:
                    raise ValueError("Choose an image first.")
                truth, client = to_path(values[ground_truth]), get_client(request, "compare")
                found: Files = {}
                for step in service.compare(path, values[models], truth, client):
                    match step:
                        case Queued():
                            text = f"{format_place(step)} ({path.name})"
                            yield None, None, None, {}, theme.job("queued", text, 0)
                        case Cancelled(str(reason)):
                            yield None, None, None, {}, theme.job("cancelled", reason)
                            return
                        case Cancelled(replaced):
                            yield replaced
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

    def choose_image(values: Values, request: gr.Request, **options: Any) -> tuple[Any, ...]:
        """Replace the image, and with it job and result."""
        chosen = prepare_choice(service, to_path(values[image]), values[newest[image]], **options)
        if not chosen:
            return tuple(gr.skip() for _ in (image, *outputs))
        shown, prepared = chosen
        done = theme.job("idle", "Choose an image.")
        if prepared and prepared.image:
            done = theme.job("ready", f"{prepared.file.name}. {prepared.image.warnings}")
        elif prepared:  # to crop or shrink it is the primary action
            done = theme.job("idle", "Crop or shrink the image first.", result=True)
        replaced: Outputs = None, None, None, {}, done
        service.queue.cancel(get_client(request, "compare"), replaced)
        return shown, *replaced

    def choose_truth(values: Values, request: gr.Request, **options: Any) -> tuple[Any, Any]:
        """Replace the ground truth; a result without it stays until the next one."""
        chosen = prepare_choice(service, to_path(values[ground_truth]), values[newest[ground_truth]], **options)
        if not chosen:
            return gr.skip(), gr.skip()
        # A cancelled job reports that itself.
        cancelled = service.queue.cancel(get_client(request, "compare"), "Cancelled: ground truth changed.")
        path = to_path(values[image])
        changed = values[job].get("state") not in ("idle", "ready") and path and not cancelled
        return chosen[0], theme.job("ready", f"{path.name}.") if changed and path else gr.skip()

    def show(sides: Any, files: Files) -> Any:
        return _viewer(files, sides)

    job.submit(compare, {image, ground_truth, models}, outputs, **theme.QUEUED_EVENT)
    on_choice(image, choose_image, {image, newest[image]}, [image, *outputs])
    on_choice(ground_truth, choose_truth, {image, ground_truth, newest[ground_truth], job}, [ground_truth, job])
    sides.input(show, [sides, files], viewer, **theme.LATEST_EVENT)


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
