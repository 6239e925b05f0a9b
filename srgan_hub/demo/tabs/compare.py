"""The tab that shows one image by several models, with scores where there is a ground truth."""

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
from ..service import COMPARED, Cancelled, Queued, Service, user_message
from ..uploads import get_client, to_path, to_value


def build(service: Service) -> None:
    """Add the tab's components and events to the Blocks and Tab around."""
    with gr.Row():
        image = gr.Image(label="Image", sources=["upload", "clipboard"], buttons=[], height=220, elem_id="compared")
        truth = gr.Image(
            label="Ground truth, if you have it", sources=["upload"], buttons=[], height=220, elem_id="truth"
        )
    models = gr.CheckboxGroup(
        service.models,
        value=[hub.FIDELITY_MODEL, hub.DEFAULT_MODEL],
        label=f"Models, two or {COMPARED}",
        elem_id="models",
    )
    job = theme.add_job("Compare", "Choose an image and two or three models.", "compare-job")
    results = gr.HTML(None, html_template=theme.COMPARED, js_on_load=None, elem_id="results")

    def compare(image: Any, truth: Any, models: list[str], request: gr.Request) -> Iterator[tuple[Any, Any]]:
        path, figures = to_path(image), []
        with tempfile.TemporaryDirectory() as folder:
            try:
                if not path:
                    raise ValueError("Choose an image first.")
                for step in service.compare(path, models, to_path(truth), get_client(request)):
                    match step:
                        case Queued(count):
                            yield None, theme.job("queued", f"{path.name}: {count} ahead of you.", 0)
                        case Cancelled(text):
                            yield None, theme.job("cancelled", text)
                            return
                        case ModelComparison():
                            figures.append(_figure(step, Path(folder)))
                            yield {"figures": figures, "protocol": PROTOCOL.format(scale=step.scale)}, gr.skip()
                        case _:
                            yield gr.skip(), theme.job("running", f"Upscaling {path.name}.", step)
                yield gr.skip(), theme.job("done", f"{path.name} by {len(figures)} models.")
            except Exception as error:
                yield None, theme.job("failed", user_message(error, path))

    def cancel(request: gr.Request) -> None:
        service.stop(get_client(request), "Cancelled.")

    def choose(image: Any) -> tuple[Any, Any]:
        path = to_path(image)
        return None, theme.job("chosen", f"{path.name}.") if path else theme.job("idle", "Choose an image.")

    job.submit(compare, [image, truth, models], [results, job], **theme.QUEUED_EVENT)
    job.stop(cancel, **theme.SYNC_EVENT)
    image.upload(choose, image, [results, job], **theme.SYNC_EVENT)
    image.clear(lambda: choose(None), None, [results, job], **theme.SYNC_EVENT)


def _figure(step: ModelComparison, folder: Path) -> dict[str, Any]:
    file = folder / f"{step.model.replace('/', '--')}.png"
    step.image.save(file, compress_level=1)
    scores = [f"{METRICS[name].text}: {value:.{METRICS[name].digits}f}" for name, value in step.scores.items()]
    return {
        "model": html.escape(step.model),
        "image": to_value(file, file.name),
        "lines": [f"{step.seconds:.1f} s", *scores],
    }
