"""The tab that shows one picture by several models, with scores where there is a ground truth."""

import html
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from .. import hub
from ..evaluate.judges import TITLES
from . import page
from .compare import PROTOCOL, Compared
from .service import COMPARED, Ahead, Cancelled, Service, sentence
from .uploads import to_path, to_value, to_visitor


def build(service: Service) -> None:
    """Add the tab's components and events to the Blocks and Tab around."""
    with gr.Row():
        picture = gr.Image(label="Picture", sources=["upload", "clipboard"], buttons=[], height=220, elem_id="compared")
        truth = gr.Image(
            label="Ground truth, if you have it", sources=["upload"], buttons=[], height=220, elem_id="truth"
        )
    models = gr.CheckboxGroup(
        service.models, value=[hub.FAITHFUL, hub.DEFAULT], label=f"Models, two or {COMPARED}", elem_id="models"
    )
    job = page.add_job("Compare", "Choose a picture and two or three models.", "compare-job")
    results = gr.HTML(None, html_template=page.COMPARED, js_on_load=None, elem_id="results")

    def compare(picture: Any, truth: Any, models: list[str], request: gr.Request) -> Iterator[tuple[Any, Any]]:
        path, figures = to_path(picture), []
        with tempfile.TemporaryDirectory() as folder:
            try:
                if not path:
                    raise ValueError("Choose a picture first.")
                for step in service.compare(path, models, to_path(truth), to_visitor(request)):
                    match step:
                        case Ahead(count):
                            yield None, page.job("queued", f"{path.name}: {count} ahead of you.", 0)
                        case Cancelled(text):
                            yield None, page.job("cancelled", text)
                            return
                        case Compared():
                            figures.append(_figure(step, Path(folder)))
                            yield {"figures": figures, "protocol": PROTOCOL.format(scale=step.scale)}, gr.skip()
                        case _:
                            yield gr.skip(), page.job("running", f"Enlarging {path.name}.", step)
                yield gr.skip(), page.job("done", f"{path.name} by {len(figures)} models.")
            except Exception as error:
                yield None, page.job("failed", sentence(error, path))

    def cancel(request: gr.Request) -> None:
        service.stop(to_visitor(request), "Cancelled.")

    def choose(picture: Any) -> tuple[Any, Any]:
        path = to_path(picture)
        return None, page.job("chosen", f"{path.name}.") if path else page.job("idle", "Choose a picture.")

    job.submit(compare, [picture, truth, models], [results, job], **page.WAITING)
    job.stop(cancel, **page.QUIET)
    picture.upload(choose, picture, [results, job], **page.QUIET)
    picture.clear(lambda: choose(None), None, [results, job], **page.QUIET)


def _figure(step: Compared, folder: Path) -> dict[str, Any]:
    file = folder / f"{step.model.replace('/', '--')}.png"
    step.image.save(file, compress_level=1)
    scores = [f"{TITLES[name].text}: {value:.{TITLES[name].digits}f}" for name, value in step.scores.items()]
    return {
        "model": html.escape(step.model),
        "picture": to_value(file, file.name),
        "lines": [f"{step.seconds:.1f} s", *scores],
    }
