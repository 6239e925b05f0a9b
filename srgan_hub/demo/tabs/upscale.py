"""\"Upscale\" tab."""

import html
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.route_utils import get_root_url
from PIL import Image

from .. import theme
from ..controls import SettingsControls, Values
from ..eta import format_duration
from ..presets import PRESETS
from ..queue import Client, JobState, Queued
from ..service import Cancelled, Service, format_place, user_message
from ..settings import Settings, to_curl, to_python
from ..spaces import ZERO_GPU
from ..uploads import get_client, only_known, only_uploaded, to_file_data, to_path
from ..upscale import (
    CloseUp,
    Completed,
    LoadedImage,
    Preview,
    UpscaleProgress,
    flatten_alpha,
    limit_size,
    to_data_url,
)

EXAMPLES = Path(__file__).parents[2] / "examples"

Outputs = tuple[Any, Any, Any]  # viewer, download, job


def build(service: Service, *, warm_up: bool = True) -> None:
    """Add the tab's components and events; `warm_up` upscales the examples in the background."""
    ready: dict[str, Completed] = {}  # examples with default settings
    server = Client("examples", "examples")

    def upscale_example(path: Path) -> None:
        for step in service.upscale(path, Settings(), Path(service.directory.name), server, previews=True):
            if isinstance(step, Completed):
                ready[path.name] = step

    def upscale_examples() -> None:
        for amount in (0, 0.25, 0.5, 0.75, 1):  # loads the models of previews
            list(service.preview_detail(list_examples()[0], "photo", amount, 0.5, 0.5, server))
        for path in list_examples():
            if path.name not in ready:
                upscale_example(path)

    def show_hero() -> tuple[Any, Any]:
        """Return the viewer's and the download's value without an image: those of the first example."""
        hero = list_examples()[0]
        if hero.name in ready:
            return _completed(service, ready[hero.name], Settings())[:2]
        return _preview(*_plan(service, hero, Settings())[1:]), None

    if warm_up and not ZERO_GPU:  # the page opens with it
        upscale_example(list_examples()[0])
    initial_view, initial_download = show_hero()

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            options: dict[str, Any] = {"sources": ["upload", "webcam"], "buttons": [], "height": 260}
            image = gr.Image(label="Image", alt_text="Input image", elem_id="image", **options)
            gr.HTML("Or paste an image, or try an example:", elem_classes="hint")
            with gr.Row(elem_id="examples"):
                buttons = [gr.Button(path.stem.capitalize(), icon=path) for path in list_examples()]
            controls = SettingsControls(live_detail=True)
            job = theme.job_component(service, "upscale", "Upscale", "Choose an image.")
        with gr.Column(scale=3, min_width=300):
            with gr.Column(elem_classes="view"):
                # Unlike that of `gr.ImageSlider`, its handle can be reached by keyboard, and it zooms.
                viewer = theme.component("viewer", initial_view, elem_id="viewer", elem_classes="viewer")
                close_up = theme.component("close_up", elem_id="close-up")
            download = theme.component("download", initial_download, elem_id="download", elem_classes="download")
            history = theme.component("history", [], elem_id="history")
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
                            view: Any = gr.skip()
                            if step.preview:
                                view = _preview(step.source, step.width, step.height, step.preview)
                                frame = frame or view
                            yield view, gr.skip(), _running(step)
                        case Cancelled(str(reason)):
                            yield frame, None, theme.job("cancelled", reason)
                        case Cancelled(outputs):
                            yield outputs
                        case Completed():
                            shown, file, done = _completed(service, step, chosen)
                            yield shown, file | _to_history(step, path, shown, done), done
            except Exception as error:
                yield frame, None, theme.job("failed", user_message(error, path))

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
                text, source, width, height = _plan(service, path, to_settings(values))
                frame = _preview(source, width, height)
                kept, state = gr.skip(), "ready"
            else:
                frame, file = show_hero()
        except Exception as error:
            frame, file = show_hero()
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
        path = to_path(values[image]) or list_examples()[0]
        try:
            x, y = (min(1.0, max(0.0, float(event._data[axis]))) for axis in "xy")
            *_, last = service.close_up(path, values[controls.preset], x, y, get_client(request, "close-up"))
            return vars(last) if isinstance(last, CloseUp) else None
        except Exception as error:
            return {"error": html.escape(user_message(error, path))}

    def show_detail(values: Values, request: gr.Request, event: gr.EventData) -> dict[str, Any]:
        path = to_path(values[image]) or list_examples()[0]
        asked = event._data if isinstance(event._data, dict) else {}
        # The time makes each answer differ from the last one, as the browser's script is called for changes only.
        answer = {"detail": asked.get("detail"), "number": asked.get("number"), "time": time.time()}
        try:
            x, y, amount = (min(1.0, max(0.0, float(asked[name]))) for name in ("x", "y", "detail"))
            client = get_client(request, "detail")
            *_, last = service.preview_detail(path, values[controls.preset], amount, x, y, client)
            return {**answer, **vars(last)} if isinstance(last, CloseUp) else answer
        except Exception as error:
            user_message(error, path)  # logs it
            return answer

    # A set makes Gradio pass values by component.
    inputs: set[Any] = {image, *settings}
    job.submit(upscale, inputs, [viewer, download, job], **theme.QUEUED_EVENT)
    if warm_up and ZERO_GPU:  # the example may be ready when the page is loaded
        gr.on(None, show_hero, None, [viewer, download], **theme.SYNC_EVENT)
    close_up.select(show_close_up, {image, controls.preset}, close_up, **theme.SYNC_EVENT)
    preview = controls.detail_preview
    preview.select(show_detail, {image, controls.preset}, preview, trigger_mode="multiple", **theme.SYNC_EVENT)
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
    """List the bundled example images; the page opens with the first."""
    return [EXAMPLES / name for name in ("cat.png", "coffee.jpg", "astronaut.png")]


def _plan(service: Service, path: Path, settings: Settings) -> tuple[str, LoadedImage, int, int]:
    """Describe what upscaling an image will give, and return the image and the output's width and height."""
    source = service.load(path)
    width, height = source.output_size(settings)
    seconds = service.eta.estimate(source.cost)
    duration = f", {format_duration(seconds)}" if seconds is not None else ""
    text = f"{source.name}: {source.image.width} × {source.image.height} to {width} × {height}{duration}."
    return f"{text} {source.warnings}", source, width, height


def _preview(source: LoadedImage, width: int, height: int, url: str | None = None) -> dict[str, Any]:
    """Return the viewer's value for an output that is not complete, with a preview of it, by default bicubic."""
    url = url or Preview(source.image, (width, height)).render()
    return {"name": html.escape(source.name), "width": width, "height": height, "preview": url}


def _running(step: UpscaleProgress) -> dict[str, Any]:
    left = f", {format_duration(step.seconds_left)} left" if step.seconds_left and step.fraction < 1 else ""
    return theme.job("running", f"Upscaling {step.source.name} to {step.width} × {step.height}{left}", step.fraction)


def _completed(service: Service, step: Completed, settings: Settings) -> Outputs:
    before, after = step.viewer_files
    model, detail = PRESETS[settings.preset].select_model(settings.detail)
    width, height = step.image.size
    viewer = {
        "name": html.escape(step.source.name),
        "width": width,
        "height": height,
        "before": to_file_data(before),
        "after": to_file_data(after),
        "labels": ["Before: bicubic", f"After: {model}{'' if detail is None else f', detail {detail:g}'}"],
        "full": to_file_data(step.file) if after != step.file else None,
    }
    again = width * height <= service.max_pixels
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
