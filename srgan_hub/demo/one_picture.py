"""The tab that enlarges one picture."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.route_utils import get_root_url

from ..pictures import files
from . import page
from .enlarge import Done, close_up
from .kinds import KINDS
from .service import Ahead, Cancelled, Service, Visitor, sentence
from .settings import FORMATS, METADATA, SIZES, Settings, to_curl, to_python
from .speed import words
from .uploads import megabytes, to_path, to_value, to_visitor

EXAMPLES = Path(files.__file__).parent.parent / "examples"
LONGEST = "Longest side"
# Who makes the results of the examples beforehand.
NOBODY = Visitor("examples", "examples")

# What events get: the components' values by component.
Values = dict[Any, Any]
# The result panel, the download and the job, as the page shows them.
Outputs = tuple[Any, Any, Any]


def build(service: Service, *, warm_up: bool = True) -> None:
    """Add the tab's components and events to the Blocks and Tab around."""
    # Results of the examples under the default settings.
    ready: dict[str, Done] = {}
    kept = tempfile.TemporaryDirectory()

    with gr.Row(elem_id="one"):
        with gr.Column(scale=2, min_width=300):
            picture = gr.Image(
                label="Your picture",
                alt_text="The picture that you chose",
                sources=["upload", "clipboard", "webcam"],
                buttons=[],
                height=260,
                elem_id="picture",
            )
            with gr.Row(elem_id="examples"):
                buttons = [gr.Button(path.stem.capitalize(), icon=path) for path in example_paths()]
            size = gr.Radio([*SIZES, LONGEST], value="4x", label="Size", elem_id="size")
            longest = gr.Number(1600, label="Longest side in pixels", precision=0, minimum=1, visible=False)
            detail = gr.Slider(
                0, 1, 1, step=0.1, label="Detail", info="From 0, faithful, to 1, crisp.", buttons=[], elem_id="detail"
            )
            with gr.Accordion("More settings", open=False, elem_id="more"):
                kind = gr.Radio(
                    [(each.label, name) for name, each in KINDS.items()],
                    value="photo",
                    label="Picture kind",
                    info=" ".join(each.text for each in KINDS.values()),
                )
                format = gr.Radio([*FORMATS], value="PNG", label="Format")
                quality = gr.Slider(1, 100, 90, step=1, label="Quality", visible=False, buttons=[])
                metadata = gr.Radio(
                    [(label, name) for name, label in METADATA.items()],
                    value="no place",
                    label="Metadata",
                    info="Date, camera and place, as the picture holds them. The place is removed unless you keep it.",
                )
            job = gr.HTML(
                page.job("idle", "Choose a picture."), html_template=page.JOB, js_on_load=page.JOB_SCRIPT, elem_id="job"
            )
        with gr.Column(scale=3, min_width=300):
            viewer = gr.HTML(None, html_template=page.VIEWER, js_on_load=page.VIEWER_SCRIPT, elem_id="viewer")
            download = gr.HTML(None, html_template=page.DOWNLOAD, js_on_load=None, elem_id="download")
            close = gr.HTML(None, html_template=page.CLOSE_UP, js_on_load=None, elem_id="close-up")
    with gr.Accordion("The same in code", open=False, elem_id="code"):
        python = gr.Code(to_python(Settings(), "picture.png"), language="python", label="Python", interactive=False)
        curl = gr.Code(language="shell", label="curl", interactive=False)

    settings: list[Any] = [size, longest, detail, kind, format, quality, metadata]

    def to_settings(values: Values) -> Settings:
        wish = str(int(values[longest] or 0)) if values[size] == LONGEST else values[size]
        return Settings(wish, values[detail], values[kind], values[format], int(values[quality]), values[metadata])

    def upscale(values: Values, request: gr.Request) -> Iterator[Outputs]:
        path = to_path(values[picture])
        with tempfile.TemporaryDirectory() as folder:
            try:
                if not path:
                    raise ValueError("Choose a picture first: upload one or click an example.")
                chosen = to_settings(values)
                for step in service.upscale(path, chosen, Path(folder), to_visitor(request), previews=True):
                    yield _result(step, chosen) if isinstance(step, Done) else _progress(step, path.name)
            except Exception as error:
                yield None, None, page.job("failed", sentence(error, path))

    def plan(values: Values, request: gr.Request) -> tuple[Any, str, str]:
        """Say what will come of the picture under the settings, in words and in code."""
        stopped = service.stop(to_visitor(request), "StoppedError: another setting was chosen.")
        path = to_path(values[picture])
        root = get_root_url(
            request.request,  # type: ignore[arg-type]
            "/gradio_api/queue/join",
            None,
        )
        try:
            chosen = to_settings(values)
            code = to_python(chosen, path.name if path else "picture.png"), to_curl(chosen, "picture.png", root)
            text = _plan(service, path, chosen) if path else "Choose a picture."
        except Exception as error:
            return page.job("failed", sentence(error, path)), gr.skip(), gr.skip()
        return (gr.skip() if stopped else page.job("chosen" if path else "idle", text)), *code

    def choose(values: Values, request: gr.Request) -> tuple[Any, ...]:
        """Check a new picture, and stop the run and clear the result of the one before."""
        stopped = service.stop(to_visitor(request), "StoppedError: another picture was chosen.")
        before = "The run before was stopped. " if stopped else ""
        path = to_path(values[picture])
        if not path:
            return None, None, None, None, page.job("idle", f"{before}Choose a picture.")
        try:
            text = _plan(service, path, to_settings(values))
        except Exception as error:
            return None, None, None, None, page.job("failed", before + sentence(error, path))
        return values[picture], None, None, None, page.job("chosen", before + text)

    def choose_example(example: dict[str, Any]) -> Callable[[Values, gr.Request], tuple[Any, ...]]:
        def choose_this(values: Values, request: gr.Request) -> tuple[Any, ...]:
            shown = choose({**values, picture: example}, request)
            done = ready.get(example["orig_name"])
            if done and to_settings(values) == Settings():
                return shown[0], *_result(done, Settings())[:2], None, _result(done, Settings())[2]
            return shown

        return choose_this

    def clear(request: gr.Request) -> tuple[Any, ...]:
        return choose({picture: None}, request)

    def cancel(request: gr.Request) -> None:
        service.stop(to_visitor(request), "Cancelled.")

    def look_closer(values: Values, event: gr.EventData) -> Any:
        """Show the region around the place that was picked, by three ways to enlarge it."""
        path = to_path(values[picture])
        if not path:
            return None
        x, y = (min(1.0, max(0.0, float(event._data[axis]))) for axis in "xy")
        return close_up(service.read(path), values[kind], x, y)

    def make_examples() -> None:
        for path in example_paths():
            for step in service.upscale(path, Settings(), Path(kept.name), NOBODY, previews=True):
                if isinstance(step, Done):
                    ready[path.name] = step

    # The line decides who waits, not Gradio's queue, since the line can tell a visitor's place.
    quiet: dict[str, Any] = {
        "show_progress": "hidden",
        "queue": False,
        "api_visibility": "private",
        "preprocess": False,
    }
    waiting: dict[str, Any] = {**quiet, "queue": True, "trigger_mode": "multiple", "concurrency_limit": None}
    # A set, so that a function gets its inputs by component.
    inputs: set[Any] = {picture, *settings}
    shown = [viewer, download, job]
    job.submit(upscale, inputs, shown, **waiting)
    job.stop(cancel, **quiet)
    viewer.select(look_closer, {picture, kind}, close, **quiet)
    size.change(lambda value: gr.update(visible=value == LONGEST), size, longest, **quiet)
    format.change(lambda value: gr.update(visible=value != "PNG"), format, quality, **quiet)
    for each in settings:
        each.input(plan, inputs, [job, python, curl], **quiet)
    fresh = [picture, viewer, download, close, job]
    gr.on([picture.upload, picture.input], choose, inputs, fresh, **quiet)
    picture.clear(clear, None, fresh, **quiet)
    for button in buttons:
        assert button.icon
        button.keep_in_cache.add(button.icon["path"])  # Gradio's copy, which is an upload like any other
        button.click(choose_example(button.icon), {*settings}, fresh, **quiet)
    if warm_up:
        threading.Thread(target=make_examples, daemon=True).start()


def example_paths() -> list[Path]:
    """List the bundled examples."""
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in files.SUFFIXES)


def _plan(service: Service, path: Path, settings: Settings) -> str:
    """Say a picture's size, that of its result, and how long it will take, once this machine's speed is known."""
    picture = service.read(path)
    width, height = picture.size(settings)
    seconds = service.speed.predict(picture.cost)
    time = f", {words(seconds)}" if seconds is not None else ""
    before = f"{picture.image.width} x {picture.image.height}"
    return f"{picture.name}: {before} to {width} x {height}{time}. {picture.notes}"


def _progress(step: Any, name: str) -> Outputs:
    if isinstance(step, Ahead):
        return gr.skip(), None, page.job("queued", f"{name}: {step.count} ahead of you.", 0)
    if isinstance(step, Cancelled):
        return None, None, page.job("cancelled", step.text)
    left = f", {words(step.left)} left" if step.left is not None and step.share < 1 else ""
    text = f"Enlarging {name} to {step.width} x {step.height}{left}."
    view = {"name": name, "width": step.width, "height": step.height, "preview": step.preview}
    return view if step.preview else gr.skip(), gr.skip(), page.job("running", text, step.share)


def _result(done: Done, settings: Settings) -> Outputs:
    name = done.picture.name
    width, height = done.image.size
    text = f"{name}: {done.picture.image.width} x {done.picture.image.height} to {width} x {height} pixels in "
    text += f"{done.seconds:.1f} s. {done.picture.notes}"
    view = {
        "name": name,
        "width": width,
        "height": height,
        "bicubic": to_value(done.pair[0], "bicubic.png"),
        "result": to_value(done.pair[1], "result.png"),
    }
    label = f"Download {settings.format}, {megabytes(done.file)}"
    return view, {"file": to_value(done.file, done.file.name), "label": label}, page.job("done", text)
