"""\"Compare models\" tab."""

import html
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ... import hub
from ...evaluate.scorers import METRICS
from .. import theme
from ..compare import PROTOCOL, ModelComparison
from ..queue import count
from ..service import Cancelled, Queued, Service, format_ahead, user_message
from ..uploads import get_client, to_file_data, to_path


def build(service: Service) -> None:
    """Add the tab's components and events."""
    with gr.Row():
        style: dict[str, Any] = {"buttons": [], "height": 220}
        image = gr.Image(label="Image", sources=["upload", "clipboard"], elem_id="compare-image", **style)
        ground_truth = gr.Image(label="Ground truth (optional)", sources=["upload"], elem_id="ground-truth", **style)
    default = [hub.FIDELITY_MODEL, hub.DEFAULT_MODEL]
    models = gr.CheckboxGroup(service.models, value=default, label="Models, two or three", elem_id="models")
    job = theme.job_component(service, "compare", "Compare", "Choose an image and two or three models.")
    comparison = theme.component("comparison", elem_id="comparison")

    def compare(image: Any, ground_truth: Any, models: list[str], request: gr.Request) -> Iterator[tuple[Any, Any]]:
        path, figures = to_path(image), []
        with tempfile.TemporaryDirectory() as directory:
            try:
                if not path:
                    raise ValueError("Choose an image first.")
                for step in service.compare(path, models, to_path(ground_truth), get_client(request, "compare")):
                    match step:
                        case Queued(ahead):
                            yield None, theme.job("queued", f"{format_ahead(ahead)} ({path.name})", 0)
                        case Cancelled(reason):
                            yield None, theme.job("cancelled", reason)
                            return
                        case ModelComparison():
                            figures.append(_figure(step, Path(directory)))
                            yield {"figures": figures, "protocol": PROTOCOL.format(scale=step.scale)}, gr.skip()
                        case _:
                            yield gr.skip(), theme.job("running", f"Upscaling {path.name}", step)
                yield gr.skip(), theme.job("done", f"{path.name}: {count(len(figures), 'model')} compared.")
            except Exception as error:
                yield None, theme.job("failed", user_message(error, path))

    def choose(image: Any) -> tuple[Any, Any]:
        path = to_path(image)
        return None, theme.job("ready", f"{path.name}.") if path else theme.job("idle", "Choose an image.")

    job.submit(compare, [image, ground_truth, models], [comparison, job], **theme.QUEUED_EVENT)
    image.upload(choose, image, [comparison, job], **theme.SYNC_EVENT)
    image.clear(lambda: choose(None), None, [comparison, job], **theme.SYNC_EVENT)


def _figure(step: ModelComparison, directory: Path) -> dict[str, Any]:
    scores = [f"{METRICS[name].text}: {value:.{METRICS[name].digits}f}" for name, value in step.scores.items()]
    return {
        "model": html.escape(step.model),
        "image": to_file_data(step.save(directory, compress_level=1)),
        "lines": [f"{step.seconds:.1f} s", *scores],
    }
