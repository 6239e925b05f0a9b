"""\"Upscale\" tab."""

import html
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.route_utils import get_root_url
from PIL import Image

from .. import theme
from ..controls import SettingsControls, Values
from ..eta import format_duration
from ..queue import Client, JobState, Queued
from ..service import Cancelled, Service, format_place, user_message
from ..settings import Settings, to_curl, to_python
from ..uploads import get_client, only_known, only_uploaded, to_file_data, to_path
from ..upscale import Completed, UpscaleProgress, flatten_alpha, limit_size, to_data_url

EXAMPLES = Path(__file__).parents[2] / "examples"

Outputs = tuple[Any, Any, Any]  # viewer, download, job


def build(service: Service, *, warm_up: bool = True) -> None:
    """Add the tab's components and events; `warm_up` upscales the examples in the background."""
    ready: dict[str, Completed] = {}  # examples with default settings

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            options: dict[str, Any] = {"sources": ["upload", "webcam"], "buttons": [], "height": 260}
            image = gr.Image(label="Image", alt_text="Input image", elem_id="image", **options)
            gr.HTML("Or paste an image, or try an example:", elem_classes="hint")
            with gr.Row(elem_id="examples"):
                buttons = [gr.Button(path.stem.capitalize(), icon=path) for path in list_examples()]
            controls = SettingsControls()
            job = theme.job_component(service, "upscale", "Upscale", "Choose an image.")
        with gr.Column(scale=3, min_width=300):
            # Unlike that of `gr.ImageSlider`, its handle can be reached by keyboard and its halves have labels.
            viewer = theme.component("viewer", elem_id="viewer", elem_classes="viewer")
            download = theme.component("download", elem_id="download", elem_classes="download")
            history = theme.component("history", [], elem_id="history")
    close_up = theme.component("close_up", elem_id="close-up")
    paste = theme.component("paste")
    with gr.Accordion("Use in code", open=False) as code:
        python = to_python(Settings(), "image.png")
        snippets = theme.component("snippets", theme.snippets(Python=python), elem_id="snippets")

    settings, to_settings = controls.all, controls.to_settings

    def upscale(values: Values, request: gr.Request) -> Iterator[Outputs]:
        path, frame = to_path(values[image]), None
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                if not path:
                    raise ValueError("Choose an image first: upload one or click an example.")
                chosen, client = to_settings(values), get_client(request, "upscale")
                for step in service.upscale(path, chosen, Path(directory), client, previews=True):
                    match step:
                        case Queued():
                            yield gr.skip(), None, theme.job("queued", f"{format_place(step)} ({path.name})", 0)
                        case UpscaleProgress():
                            frame = _frame(path.name, step.width, step.height)
                            preview = {**frame, "preview": step.preview} if step.preview else gr.skip()
                            yield preview, gr.skip(), _running(step)
                        case Cancelled(str(reason)):
                            yield frame, None, theme.job("cancelled", reason)
                        case Cancelled(outputs):
                            yield outputs
                        case Completed():
                            shown, file, done = _completed(service, step, chosen)
                            yield shown, file | _to_history(step, path, shown, done), done
            except Exception as error:
                yield None, None, theme.job("failed", user_message(error, path))

    def change_settings(values: Values, request: gr.Request) -> tuple[Any, Any]:
        """Cancel the job, and show the output size, time and code for the settings."""
        path = to_path(values[image])
        # A cancelled job reports that itself.
        cancelled = service.queue.cancel(get_client(request, "upscale"), "Cancelled: settings changed.")
        try:
            text = _plan(service, path, to_settings(values))[0] if path else "Choose an image."
        except Exception as error:
            return theme.job("failed", user_message(error, path)), gr.skip()
        return gr.skip() if cancelled else theme.job("ready" if path else "idle", text), show_code(values, request)

    def show_code(values: Values, request: gr.Request) -> Any:
        try:
            path, chosen = to_path(values[image]), to_settings(values)
        except ValueError:  # shown by `change_settings`
            return gr.skip()
        name = path.name if path else "image.png"
        assert request.request
        root = get_root_url(request.request, request.request.url.path, None)
        return theme.snippets(Python=to_python(chosen, name), curl=to_curl(chosen, name, root))

    def choose(values: Values, request: gr.Request, completed: Completed | None = None) -> tuple[Any, ...]:
        """Replace the image with its job and result; `completed` is its result with default settings, if there is."""
        path = to_path(values[image])
        state: JobState = "idle"
        kept, frame, file, text = None, None, None, "Choose an image."
        try:
            if path and completed and to_settings(values) == Settings():
                frame, file, _ = _completed(service, completed, Settings())
                kept, state, text = gr.skip(), "done", _describe(completed)
            elif path:
                text, frame = _plan(service, path, to_settings(values))
                kept, state = gr.skip(), "ready"
        except Exception as error:
            state, text = "failed", user_message(error, path)
        # The cancelled job shows the same: either may reach the browser last.
        outputs = frame, file, theme.job(state, f"Previous job cancelled. {text}")
        if not service.queue.cancel(get_client(request, "upscale"), outputs):
            outputs = frame, file, theme.job(state, text)
        return kept, None, *outputs

    def choose_example(example: dict[str, Any]) -> Callable[[Values, gr.Request], tuple[Any, ...]]:
        def choose_this(values: Values, request: gr.Request) -> tuple[Any, ...]:
            completed = ready.get(Path(example["path"]).name)
            return example["path"], *choose({**values, image: example}, request, completed)[1:]

        return choose_this

    def choose_pasted(values: Values, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        pasted = only_uploaded({**event._data["image"], "meta": {"_type": "gradio.FileData"}})
        kept, *outputs = choose({**values, image: pasted}, request)
        return pasted["path"] if pasted and kept is not None else None, *outputs

    def choose_result(values: Values, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Replace the image with a result."""
        result = only_uploaded(event._data["image"])
        kept, *outputs = choose({**values, image: result}, request)
        return result["path"] if result and kept is not None else None, *outputs

    def show_result(event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Show a result of the history again, and its image."""
        file = only_known(event._data)
        file.pop("thumbnail", None)  # it is in the history already
        source, shown, done = file.get("source"), file.get("viewer"), file.get("job")
        if not (file.get("file") and shown and shown.get("before") and shown.get("after")):
            file, shown, done = None, None, theme.job("failed", "This result is no longer available.")
        outputs = shown, file, done
        service.queue.cancel(get_client(request, "upscale"), outputs)
        return source and source["path"], None, *outputs

    def clear(request: gr.Request) -> tuple[Any, ...]:
        return choose({image: None}, request)

    def show_close_up(values: Values, request: gr.Request, event: gr.EventData) -> Any:
        path = to_path(values[image])
        try:
            if not path:
                raise ValueError("The image is no longer available.")
            x, y = (min(1.0, max(0.0, float(event._data[axis]))) for axis in "xy")
            *_, last = service.close_up(path, values[controls.preset], x, y, get_client(request, "upscale"))
            return last if isinstance(last, dict) else None
        except Exception as error:
            return html.escape(user_message(error, path))

    def upscale_examples() -> None:
        client = Client("examples", "examples")
        for path in list_examples():
            for step in service.upscale(path, Settings(), Path(service.directory.name), client, previews=True):
                if isinstance(step, Completed):
                    ready[path.name] = step

    # A set makes Gradio pass values by component.
    inputs: set[Any] = {image, *settings}
    job.submit(upscale, inputs, [viewer, download, job], **theme.QUEUED_EVENT)
    viewer.select(show_close_up, {image, controls.preset}, close_up, **theme.SYNC_EVENT)
    code.expand(show_code, inputs, snippets, **theme.SYNC_EVENT)
    for each in settings:
        each.input(change_settings, inputs, [job, snippets], **theme.SYNC_EVENT)
    outputs = [image, close_up, viewer, download, job]
    image.upload(choose, inputs, outputs, **theme.SYNC_EVENT)
    image.clear(clear, None, outputs, **theme.SYNC_EVENT)  # an example would still be the value of `image`
    paste.upload(choose_pasted, {*settings}, outputs, **theme.SYNC_EVENT)
    download.again(choose_result, {*settings}, outputs, **theme.SYNC_EVENT).then(
        upscale, inputs, [viewer, download, job], **theme.QUEUED_EVENT
    )
    history.select(show_result, None, outputs, **theme.SYNC_EVENT)
    for button in buttons:
        assert button.icon
        button.keep_in_cache.add(button.icon["path"])  # Gradio's copy, which counts as an upload
        button.click(choose_example(button.icon), {*settings}, outputs, **theme.SYNC_EVENT)
    if warm_up:
        threading.Thread(target=upscale_examples, daemon=True).start()


def list_examples() -> list[Path]:
    """List the bundled example images."""
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".jpg", ".png"))


def _plan(service: Service, path: Path, settings: Settings) -> tuple[str, dict[str, Any]]:
    """Describe what upscaling an image will give, and return the viewer's value for it."""
    source = service.load(path)
    width, height = source.output_size(settings)
    seconds = service.eta.estimate(source.cost)
    duration = f", {format_duration(seconds)}" if seconds is not None else ""
    text = f"{source.name}: {source.image.width} × {source.image.height} to {width} × {height}{duration}."
    return f"{text} {source.warnings}", _frame(source.name, width, height)


def _frame(name: str, width: int, height: int) -> dict[str, Any]:
    """Return the viewer's value for an output that does not exist yet: an empty frame with its proportions."""
    return {"name": html.escape(name), "width": width, "height": height}


def _running(step: UpscaleProgress) -> dict[str, Any]:
    left = f", {format_duration(step.seconds_left)} left" if step.seconds_left and step.fraction < 1 else ""
    return theme.job("running", f"Upscaling {step.source.name} to {step.width} × {step.height}{left}", step.fraction)


def _completed(service: Service, step: Completed, settings: Settings) -> Outputs:
    bicubic, result = map(to_file_data, step.viewer_files)
    viewer = {**_frame(step.source.name, *step.image.size), "before": bicubic, "after": result}
    viewer["labels"] = ["Bicubic", "Upscaled"]
    again = step.image.width * step.image.height <= service.max_pixels
    file = theme.download(step.file, f"Download {settings.format}", again=again)
    return viewer, file, theme.job("done", _describe(step))


def _to_history(step: Completed, path: Path, viewer: Any, job: Any) -> dict[str, Any]:
    """Return what the download's value of a result needs to be shown again."""
    size = limit_size(step.image.size, 96)
    thumbnail = flatten_alpha(step.image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2))
    return {"thumbnail": to_data_url(thumbnail, "JPEG"), "source": to_file_data(path), "viewer": viewer, "job": job}


def _describe(step: Completed) -> str:
    before, (width, height) = step.source.image, step.image.size
    size = f"{before.width} × {before.height} to {width} × {height}"
    return f"{step.source.name}: {size} in {step.seconds:.1f} s. {step.source.warnings}"
