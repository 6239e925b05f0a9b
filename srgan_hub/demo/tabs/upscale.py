"""\"Upscale\" tab."""

import html
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.route_utils import get_root_url
from gradio.utils import get_upload_folder

from .. import theme
from ..eta import format_duration
from ..inputs import Prepared, fit_size
from ..presets import PRESETS, load_model
from ..queue import Client, JobState
from ..service import Cancelled, Queued, Service, format_ahead, user_message
from ..settings import FORMATS, SIZES, STRIP_METADATA, Settings, to_curl, to_python
from ..uploads import MAX_FILE_MB, Demo, get_client, to_file_data, to_path
from ..upscale import Completed, LoadedImage, UpscaleProgress

EXAMPLES = Path(__file__).parents[2] / "examples"

Values = dict[Any, Any]  # inputs of an event, by component
Outputs = tuple[Any, Any, Any]  # viewer, download, job


def build(service: Service, *, warm_up: bool = True) -> None:
    """Add the tab's components and events; `warm_up` upscales the examples in the background."""
    ready: dict[str, Completed] = {}  # examples with default settings
    newest: dict[str, object] = {}  # choice of each session while it is prepared

    with gr.Row(elem_id="workspace"):
        with gr.Column(elem_id="input", min_width=300):
            image = _image_component()
            with gr.Row(elem_id="examples"):
                buttons = [gr.Button(path.stem.capitalize(), icon=path) for path in list_examples()]
            job = theme.job_component(service, "upscale", "Upscale", "Choose an image.")
            download = theme.component("download", elem_id="download", elem_classes="download")
        with gr.Column(elem_id="result", min_width=300):
            # Unlike that of `gr.ImageSlider`, its handle can be reached by keyboard and its halves have labels.
            viewer = theme.component("viewer", elem_id="viewer")
        with gr.Column(elem_id="settings", min_width=300):
            # Unlike `gr.Number`, it refuses fractions instead of rounding them, next to the field.
            size = theme.component("size", _sizes("4x", 0), label="Size", sizes=[*SIZES], elem_id="size")
            detail = theme.detail_slider()
            automatic = gr.Checkbox(True, label="Start automatically", elem_id="automatic")
            with gr.Accordion("More settings", open=False):
                preset = theme.preset_segments(" ".join(each.description for each in PRESETS.values()))
                format = theme.segments("Format", [(name, name) for name in FORMATS], "PNG")
                quality = gr.Slider(1, 100, 90, step=1, label="Quality", visible=False, buttons=[])
                choices = [(label, name) for name, label in STRIP_METADATA.items()]
                info = "Date, camera and location stored in the image. GPS location is removed by default."
                strip_metadata = theme.segments("Metadata", choices, "gps", info)
    close_up = theme.component("close_up", elem_id="close-up")
    with gr.Accordion("Use in code", open=False) as code:
        python = to_python(Settings(), "image.png")
        snippets = theme.component("snippets", theme.snippets(Python=python), elem_id="snippets")

    settings: list[Any] = [size, detail, preset, format, quality, strip_metadata]

    def to_settings(values: Values) -> Settings:
        chosen = (values[each] for each in (detail, preset, format, quality, strip_metadata))
        return Settings(values[size]["size"] or values[size]["edge"], *chosen)

    def upscale(values: Values, request: gr.Request) -> Iterator[Outputs]:
        path, frame = to_path(values[image]), None
        with tempfile.TemporaryDirectory() as directory:
            try:
                if not path:
                    raise ValueError("Choose an image first.")
                chosen, client = to_settings(values), get_client(request, "upscale")
                for step in service.upscale(path, chosen, Path(directory), client, previews=True):
                    match step:
                        case Queued(ahead):
                            yield gr.skip(), None, theme.job("queued", f"{format_ahead(ahead)} ({path.name})", 0)
                        case UpscaleProgress():
                            frame = _frame(path.name, step.width, step.height)
                            preview = {**frame, "preview": step.preview} if step.preview else gr.skip()
                            yield preview, gr.skip(), _running(step)
                        case Cancelled(str(reason)):
                            yield frame, None, theme.job("cancelled", reason)
                        case Cancelled(outputs):
                            yield outputs
                        case Completed():
                            yield _completed(step, chosen)
            except Exception as error:
                yield None, None, theme.job("failed", user_message(error, path))

    def change_settings(values: Values, request: gr.Request) -> tuple[Any, Any]:
        """Cancel the job, and show the output size, time and code for the settings; a result stays."""
        path, result = to_path(values[image]), bool(values[job].get("result"))
        # A cancelled job reports that itself.
        cancelled = service.queue.cancel(get_client(request, "upscale"), "Cancelled: settings changed.")
        try:
            text = _plan(service, service.load(path), to_settings(values))[0] if path else ""
        except Exception as error:
            return theme.job("failed", user_message(error, path), result=result), gr.skip()
        update = not cancelled and path
        return theme.job("ready", text, result=result) if update else gr.skip(), show_code(values, request)

    def show_code(values: Values, request: gr.Request) -> Any:
        try:
            path, chosen = to_path(values[image]), to_settings(values)
        except ValueError:  # shown by `change_settings`
            return gr.skip()
        name = path.name if path else "image.png"
        assert request.request
        root = get_root_url(request.request, request.request.url.path, None)
        return theme.snippets(Python=to_python(chosen, name), curl=to_curl(chosen, name, root))

    def choose(
        values: Values, request: gr.Request, completed: Completed | None = None, **options: Any
    ) -> tuple[Any, ...]:
        """Replace the image, and with it job and result.

        Args:
            values, request: As Gradio passes them.
            completed: The image's result with default settings, if there is.
            options: How to `prepare` the image.
        """
        path, text = to_path(values[image]), "Choose an image."
        state: JobState = "idle"
        prepared = frame = file = None
        shown: dict[str, Any] = {"state": "empty"}
        client = get_client(request, "upscale")
        choice = newest[client.session] = object()
        try:
            if path:
                prepared = service.prepare(path, Path(tempfile.mkdtemp(dir=get_upload_folder())), **options)
                shown = _shown(prepared, service)
        except Exception as error:
            shown = {"state": "refused", "text": html.escape(user_message(error, path))}
        if newest.get(client.session) is not choice:  # another image was chosen meanwhile, or this one removed
            return tuple(gr.skip() for _ in outputs)
        del newest[client.session]
        limit = load_model(PRESETS["photo"].perceptual).scale * max(prepared.width, prepared.height) if prepared else 0
        values = {**values, size: _sizes(values[size]["size"], limit, values[size]["edge"])}
        if prepared and not prepared.image:
            text = "Crop or shrink the image first."
        try:
            if completed and to_settings(values) == Settings():
                frame, file, _ = _completed(completed, Settings())
                state, text = "done", _describe(completed)
            elif prepared and prepared.image:
                text, frame = _plan(service, prepared.image, to_settings(values))
                state = "ready"
        except Exception as error:
            state, text = "failed", user_message(error, path)

        def replaced(text: str, *, start: bool = False) -> Outputs:
            return frame, file, theme.job(state, text, result=state == "done", start=start)

        # The cancelled job shows the same: either may reach the browser last. It does not start: it may arrive before
        # the image.
        cancelled_text = f"Previous job cancelled. {text}"
        if service.queue.cancel(client, replaced(cancelled_text)):
            text = cancelled_text
        start = state == "ready" and values[automatic] is True
        return shown, values[size], None, *replaced(text, start=start)

    def choose_example(example: dict[str, Any]) -> Callable[[Values, gr.Request], tuple[Any, ...]]:
        def choose_this(values: Values, request: gr.Request) -> tuple[Any, ...]:
            return choose({**values, image: example}, request, ready.get(Path(example["path"]).name))

        return choose_this

    def crop(values: Values, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        data = event._data or {}
        region = tuple(int(data.get(name, 0)) for name in ("left", "top", "width", "height"))
        return choose(values, request, region=region)

    def shrink(values: Values, request: gr.Request) -> tuple[Any, ...]:
        return choose(values, request, shrink=True)

    def clear(values: Values, request: gr.Request) -> tuple[Any, ...]:
        return gr.skip(), *choose({**values, image: None}, request)[1:]

    def show_close_up(values: Values, request: gr.Request, event: gr.EventData) -> Any:
        path = to_path(values[image])
        try:
            if not path:
                raise ValueError("The image is no longer available.")
            x, y = (min(1.0, max(0.0, float(event._data[axis]))) for axis in "xy")
            *_, last = service.close_up(path, values[preset], x, y, get_client(request, "upscale"))
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
    viewer.select(show_close_up, {image, preset}, close_up, **theme.SYNC_EVENT)
    format.change(lambda value: gr.update(visible=value != "PNG"), format, quality, **theme.SYNC_EVENT)
    code.expand(show_code, inputs, snippets, **theme.SYNC_EVENT)
    for each in settings:
        each.input(change_settings, {job, *inputs}, [job, snippets], **theme.SYNC_EVENT)
    chosen, outputs = {automatic, *inputs}, [image, size, close_up, viewer, download, job]
    for event, change in ((image.upload, choose), (image.crop, crop), (image.shrink, shrink), (image.clear, clear)):
        event(change, chosen, outputs, **theme.SYNC_EVENT)
    for button in buttons:
        assert button.icon
        button.keep_in_cache.add(button.icon["path"])  # Gradio's copy, which counts as an upload
        button.click(choose_example(button.icon), chosen - {image}, outputs, **theme.SYNC_EVENT)
    if warm_up:
        threading.Thread(target=upscale_examples, daemon=True).start()


def list_examples() -> list[Path]:
    """List the bundled example images."""
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".jpg", ".png"))


def _image_component() -> gr.HTML:
    """Create the input of an image; `gr.Image` shows neither what it refuses nor why, and cannot crop."""
    demo = Context.root_block
    assert isinstance(demo, Demo)

    async def fetch_image(url: str) -> dict[str, Any]:
        return await demo.fetch_image(url)

    options: dict[str, Any] = {"label": "Image", "megabytes": MAX_FILE_MB, "server_functions": [fetch_image]}
    return theme.component("input", {"state": "empty"}, elem_id="image", file_key="file", **options)


def _shown(prepared: Prepared, service: Service) -> dict[str, Any]:
    """Return the value of the image's component for an image, which may have more pixels than the limit."""
    width, height, limit = prepared.width, prepared.height, service.max_pixels
    shown = {
        "state": "ready",
        "name": html.escape(prepared.file.name),
        "text": html.escape(f"{width} × {height} pixels. {prepared.note}"),
        "file": to_file_data(prepared.file),
        "preview": to_file_data(prepared.preview),
    }
    if prepared.image:
        return shown
    fixed, seconds = service.eta.estimate(0), service.eta.estimate(prepared.cost)
    rate = None if fixed is None or seconds is None else (seconds - fixed) / (width * height)
    duration = f", {format_duration(fixed + rate * limit)}" if fixed is not None and rate is not None else ""
    small = " × ".join(map(str, fit_size(width, height, limit)))
    pixels = f"{width} × {height} pixels, which is more than {limit / 1e6:.3g} million. {prepared.note}"
    return {
        **shown,
        "state": "large",
        "text": html.escape(pixels),
        "shrunk": f"{small}{duration}",
        "width": width,
        "height": height,
        "limit": limit,
        "seconds": None if rate is None else {"fixed": fixed, "per_pixel": rate},
    }


def _sizes(size: str, limit: int, edge: Any = "") -> dict[str, Any]:
    """Return the value of the size's component: a factor or "", and a longest edge within a limit, 0 for none."""
    if size or not str(edge).isdecimal() or (limit and int(edge) > limit):
        edge = min(1600, limit or 1600)
    return {"size": size, "edge": str(edge), "limit": limit}


def _plan(service: Service, source: LoadedImage, settings: Settings) -> tuple[str, dict[str, Any]]:
    """Describe what upscaling an image will give, and return the viewer's value for it."""
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


def _completed(step: Completed, settings: Settings) -> Outputs:
    bicubic, result = map(to_file_data, step.viewer_files)
    viewer = {**_frame(step.source.name, *step.image.size), "bicubic": bicubic, "result": result}
    job = theme.job("done", _describe(step), result=True)
    return viewer, theme.download(step.file, f"Download {settings.format}"), job


def _describe(step: Completed) -> str:
    before, (width, height) = step.source.image, step.image.size
    size = f"{before.width} × {before.height} to {width} × {height}"
    return f"{step.source.name}: {size} in {step.seconds:.1f} s. {step.source.warnings}"
