"""The tab that upscales one image."""

import html
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.route_utils import get_root_url

from ...images import formats
from .. import comparison_viewer as view
from .. import theme
from ..eta import format_duration
from ..presets import PRESETS
from ..service import Cancelled, Client, Queued, Service, user_message
from ..settings import FORMATS, METADATA, SIZES, Settings, to_curl, to_python
from ..uploads import get_client, megabytes, only_uploaded, to_path, to_value
from ..upscale import Completed, Progress

EXAMPLES = Path(formats.__file__).parent.parent / "examples"
LONGEST = "Longest side"
# Who makes the results of the examples in advance.
NOBODY = Client("examples", "examples")

# What events get: the components' values by component.
Values = dict[Any, Any]
# The result panel, the download and the job, as the page shows them.
Outputs = tuple[Any, Any, Any]


def build(service: Service, *, warm_up: bool = True) -> None:
    """Add the tab's components and events to the Blocks and Tab around."""
    # Results of the examples under the default settings.
    ready: dict[str, Completed] = {}
    # By session, what is shown of an image that was chosen while a run went on.
    instead: dict[str, Outputs] = {}

    with gr.Row(elem_id="one"):
        with gr.Column(scale=2, min_width=300):
            image = gr.Image(
                label="Your image",
                alt_text="The image that you chose",
                sources=["upload", "webcam"],
                buttons=[],
                height=260,
                elem_id="image",
            )
            gr.HTML("Or paste one anywhere, or try one of these:", elem_classes="hint")
            with gr.Row(elem_id="examples"):
                buttons = [gr.Button(path.stem.capitalize(), icon=path) for path in example_paths()]
            size = gr.Radio([*SIZES, LONGEST], value="4x", label="Size", elem_id="size")
            longest = gr.Number(1600, label="Longest side in pixels", precision=0, minimum=1, visible=False)
            detail = gr.Slider(
                0, 1, 1, step=0.1, label="Detail", info="From 0, faithful, to 1, crisp.", buttons=[], elem_id="detail"
            )
            with gr.Accordion("More settings", open=False, elem_id="more"):
                kind = gr.Radio(
                    [(each.label, name) for name, each in PRESETS.items()],
                    value="photo",
                    label="Image kind",
                    info=" ".join(each.text for each in PRESETS.values()),
                )
                format = gr.Radio([*FORMATS], value="PNG", label="Format")
                quality = gr.Slider(1, 100, 90, step=1, label="Quality", visible=False, buttons=[])
                metadata = gr.Radio(
                    [(label, name) for name, label in METADATA.items()],
                    value="no place",
                    label="Metadata",
                    info="Date, camera and place, as the image holds them. The place is removed unless you keep it.",
                )
            job = theme.add_job("Upscale", "Choose an image.", "job")
        with gr.Column(scale=3, min_width=300):
            viewer = gr.HTML(None, html_template=view.VIEWER, js_on_load=view.VIEWER_SCRIPT, elem_id="viewer")
            download = gr.HTML(
                None, html_template=theme.DOWNLOAD, js_on_load=None, elem_id="download", elem_classes="download"
            )
    close = gr.HTML(None, html_template=view.CLOSE_UP, js_on_load=None, elem_id="close-up")
    paste = gr.HTML("", html_template="", js_on_load=theme.PASTE_SCRIPT)
    with gr.Accordion("The same in code", open=False, elem_id="code") as opened:
        code = gr.HTML(
            theme.code(to_python(Settings(), "image.png"), ""),
            html_template=theme.PROGRAMS,
            js_on_load=theme.PROGRAMS_SCRIPT,
        )

    settings: list[Any] = [size, longest, detail, kind, format, quality, metadata]

    def to_settings(values: Values) -> Settings:
        wish = str(int(values[longest] or 0)) if values[size] == LONGEST else values[size]
        return Settings(wish, values[detail], values[kind], values[format], int(values[quality]), values[metadata])

    def upscale(values: Values, request: gr.Request) -> Iterator[Outputs]:
        path = to_path(values[image])
        room = None
        with tempfile.TemporaryDirectory() as folder:
            try:
                if not path:
                    raise ValueError("Choose an image first: upload one or click an example.")
                chosen = to_settings(values)
                instead.pop(get_client(request).session, None)
                for step in service.upscale(path, chosen, Path(folder), get_client(request), previews=True):
                    match step:
                        case Queued():
                            yield gr.skip(), None, theme.job("queued", f"{path.name}: {step.count} ahead of you.", 0)
                        case Progress():
                            room = view.planned(html.escape(path.name), step.width, step.height)
                            yield _progress(step, room)
                        case Cancelled():
                            other = instead.pop(get_client(request).session, None)
                            yield other or (room, None, theme.job("cancelled", step.text))
                        case Completed():
                            yield _result(step, chosen)
            except Exception as error:
                yield None, None, theme.job("failed", user_message(error, path))

    def plan(values: Values, request: gr.Request) -> tuple[Any, Any]:
        """Say what will come of the image under the settings, in words and in code."""
        stopped = service.stop(get_client(request), "Stopped: another setting was chosen.")
        path = to_path(values[image])
        try:
            text = _plan(service, path, to_settings(values))[0] if path else "Choose an image."
        except Exception as error:
            return theme.job("failed", user_message(error, path)), gr.skip()
        # What was stopped says so itself.
        told = gr.skip() if stopped else theme.job("chosen" if path else "idle", text)
        return told, show_code(values, request)

    def show_code(values: Values, request: gr.Request) -> Any:
        try:
            path, chosen = to_path(values[image]), to_settings(values)
        except ValueError:  # said where the settings are
            return gr.skip()
        name = path.name if path else "image.png"
        assert request.request
        root = get_root_url(request.request, request.request.url.path, None)
        return theme.code(to_python(chosen, name), to_curl(chosen, name, root))

    def choose(values: Values, request: gr.Request, done: Completed | None = None) -> tuple[Any, ...]:
        """Check a new image, and stop the run and clear the result of the one before. It goes if it is bad.

        `done` is its result, if there is one already.
        """
        path = to_path(values[image])
        room, download, kept, state, text = None, None, None, "idle", "Choose an image."
        try:
            if path and done and to_settings(values) == Settings():
                room, download, _ = _result(done, Settings())
                kept, state, text = gr.skip(), "done", _say(done)
            elif path:
                text, room = _plan(service, path, to_settings(values))
                kept, state = gr.skip(), "chosen"
        except Exception as error:
            state, text = "failed", user_message(error, path)
        # The run says the same when it has stopped, so that it does not matter who is heard last.
        session = get_client(request).session
        instead[session] = room, download, theme.job(state, f"The run before was stopped. {text}")
        told = theme.job(state, text)
        if service.stop(get_client(request), "Stopped: another image was chosen."):
            told = theme.job(state, f"The run before was stopped. {text}")
        else:
            instead.pop(session, None)
        return kept, room, download, None, told

    def choose_example(example: dict[str, Any]) -> Callable[[Values, gr.Request], tuple[Any, ...]]:
        def choose_this(values: Values, request: gr.Request) -> tuple[Any, ...]:
            done = ready.get(Path(example["path"]).name)
            return example["path"], *choose({**values, image: example}, request, done)[1:]

        return choose_this

    def choose_pasted(values: Values, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        pasted = only_uploaded({**event._data["image"], "meta": {"_type": "gradio.FileData"}})
        kept, *shown = choose({**values, image: pasted}, request)
        return pasted["path"] if pasted and kept is not None else None, *shown

    def clear(request: gr.Request) -> tuple[Any, ...]:
        return choose({image: None}, request)

    def cancel(request: gr.Request) -> None:
        service.stop(get_client(request), "Cancelled.")

    def look_closer(values: Values, request: gr.Request, event: gr.EventData) -> Any:
        """Show the region around the place that was picked, by three ways to upscale it."""
        path = to_path(values[image])
        try:
            if not path:
                raise ValueError("The image is not here any more.")
            x, y = (min(1.0, max(0.0, float(event._data[axis]))) for axis in "xy")
            *_, last = service.close_up(path, values[kind], x, y, get_client(request))
            return last if isinstance(last, dict) else None
        except Exception as error:
            return html.escape(user_message(error, path))

    def make_examples() -> None:
        for path in example_paths():
            for step in service.upscale(path, Settings(), Path(service.folder.name), NOBODY, previews=True):
                if isinstance(step, Completed):
                    ready[path.name] = step

    # A set, so that a function gets its inputs by component.
    inputs: set[Any] = {image, *settings}
    shown = [viewer, download, job]
    job.submit(upscale, inputs, shown, **theme.QUEUED_EVENT)
    job.stop(cancel, **theme.SYNC_EVENT)
    viewer.select(look_closer, {image, kind}, close, **theme.SYNC_EVENT)
    size.change(lambda value: gr.update(visible=value == LONGEST), size, longest, **theme.SYNC_EVENT)
    format.change(lambda value: gr.update(visible=value != "PNG"), format, quality, **theme.SYNC_EVENT)
    opened.expand(show_code, inputs, code, **theme.SYNC_EVENT)
    for each in settings:
        each.input(plan, inputs, [job, code], **theme.SYNC_EVENT)
    fresh = [image, viewer, download, close, job]
    image.upload(choose, inputs, fresh, **theme.SYNC_EVENT)
    image.clear(clear, None, fresh, **theme.SYNC_EVENT)  # an image that came from here is still its value then
    paste.upload(choose_pasted, {*settings}, fresh, **theme.SYNC_EVENT)
    for button in buttons:
        assert button.icon
        button.keep_in_cache.add(button.icon["path"])  # Gradio's copy, which is an upload like any other
        button.click(choose_example(button.icon), {*settings}, fresh, **theme.SYNC_EVENT)
    if warm_up:
        threading.Thread(target=make_examples, daemon=True).start()


def example_paths() -> list[Path]:
    """List the bundled examples."""
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in formats.WRITE_SUFFIXES)


def _plan(service: Service, path: Path, settings: Settings) -> tuple[str, dict[str, Any]]:
    """Say an image's size, that of its result, and how long it will take, once this machine's speed is known.

    Returns:
        The sentence, and the viewer's value.
    """
    image = service.read(path)
    width, height = image.size(settings)
    seconds = service.speed.estimate(image.cost)
    time = f", {format_duration(seconds)}" if seconds is not None else ""
    before = f"{image.image.width} x {image.image.height}"
    text = f"{image.name}: {before} to {width} x {height}{time}. {image.notes}"
    return text, view.planned(html.escape(image.name), width, height)


def _progress(step: Progress, room: dict[str, Any]) -> Outputs:
    left = f", {format_duration(step.left)} left" if step.left is not None and step.share < 1 else ""
    text = f"Upscaling {step.source.name} to {step.width} x {step.height}{left}."
    shown = {**room, "preview": step.preview} if step.preview else gr.skip()
    return shown, gr.skip(), theme.job("running", text, step.share)


def _result(done: Completed, settings: Settings) -> Outputs:
    name = done.source.name
    width, height = done.image.size
    bicubic, large = (to_value(path, path.name) for path in done.pair)
    shown = {**view.planned(html.escape(name), width, height), "bicubic": bicubic, "result": large}
    label = f"Download {settings.format}, {megabytes(done.file)}"
    return shown, theme.link(to_value(done.file, done.file.name), label), theme.job("done", _say(done))


def _say(done: Completed) -> str:
    before, (width, height) = done.source.image, done.image.size
    size = f"{before.width} x {before.height} to {width} x {height} pixels"
    return f"{done.source.name}: {size} in {done.seconds:.1f} s. {done.source.notes}"
