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

from .. import theme, views
from ..close_up import CloseUp
from ..controls import SettingsControls, Values, size_value
from ..image_input import image_input, on_choice, prepare_choice
from ..queue import Client, JobState, Queued
from ..service import Cancelled, Service, format_place, user_message
from ..settings import Settings, to_curl, to_python
from ..spaces import ZERO_GPU
from ..uploads import get_client, only_known, only_uploaded, to_path
from ..upscale import Completed, UpscaleProgress

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
            return views.show_result(service, ready[hero.name], Settings())[:2]
        return views.show_preview(service.load(hero), Settings()), None

    def show_planned(path: Path, settings: Settings) -> Any:
        """Return the viewer's value for an image without a result; that of the hero if it cannot be read."""
        try:
            return views.show_preview(service.load(path), settings)
        except Exception:  # reported already
            return show_hero()[0]

    if warm_up and not ZERO_GPU:  # the page opens with it
        upscale_example(list_examples()[0])
    initial_view, initial_download = show_hero()

    with gr.Row(elem_id="workspace"):
        with gr.Column(elem_id="input", min_width=300):
            image = image_input(elem_id="image")
            with gr.Row(elem_id="examples"):
                buttons = [gr.Button(path.stem.capitalize(), icon=path) for path in list_examples()]
            shown = {"result": initial_download is not None}
            job = theme.job_component(service, "upscale", "Upscale", "Choose an image.", **shown)
            download = theme.component("download", initial_download, elem_id="download", elem_classes="download")
        with gr.Column(elem_id="result", min_width=300):
            with gr.Column(elem_classes="view"):
                # Unlike that of `gr.ImageSlider`, its handle can be reached by keyboard, and it zooms.
                viewer = theme.component("viewer", initial_view, elem_id="viewer", elem_classes="viewer")
                close_up = theme.component("close_up", elem_id="close-up")
            history = theme.component("history", [], elem_id="history")
        with gr.Column(elem_id="settings", min_width=300):
            controls = SettingsControls(live_detail=True)
            automatic = gr.Checkbox(True, label="Start automatically", elem_id="automatic")
    with gr.Accordion("Use in code", open=False) as code:
        python = to_python(Settings(), "image.png")
        snippets = theme.component("snippets", theme.snippets(Python=python), elem_id="snippets")

    settings, size, to_settings = controls.all, controls.size, controls.to_settings
    # The session's newest choice of an image, as the only item of a list that concurrent events share.
    newest = gr.State([None])

    def upscale(values: Values, request: gr.Request) -> Iterator[Outputs]:
        path, chosen, frame = to_path(values[image]), Settings(), None
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                if not path:
                    raise ValueError("Choose an image first.")
                chosen, client = to_settings(values), get_client(request, "upscale")
                for step in service.upscale(path, chosen, Path(directory), client, previews=True):
                    match step:
                        case Queued():
                            yield gr.skip(), None, theme.job("queued", f"{format_place(step)} ({path.name})", 0)
                        case UpscaleProgress():
                            view: Any = gr.skip()
                            if step.preview:
                                view = views.show_preview(step.source, chosen, step.preview)
                                frame = frame or view
                            yield view, gr.skip(), views.show_progress(step)
                        case Cancelled(str(reason)):
                            yield frame or show_planned(path, chosen), None, theme.job("cancelled", reason)
                        case Cancelled(outputs):
                            yield outputs
                        case Completed():
                            shown, file, done = views.show_result(service, step, chosen)
                            yield shown, file | views.history_entry(step, path, shown, done), done
            except Exception as error:
                shown = frame or show_planned(path, chosen) if path else gr.skip()
                yield shown, None if path else gr.skip(), theme.job("failed", user_message(error, path))
        # Gradio sends the last values again when the job has ended: another image may be shown by then.
        yield gr.skip(), gr.skip(), gr.skip()

    def change_settings(values: Values, request: gr.Request) -> tuple[Any, Any]:
        """Cancel the job, and show the output size, time and code for the settings; a result stays."""
        path, result = to_path(values[image]), bool(values[job].get("result"))
        (choice,) = values[newest]
        if values[job].get("state") == "idle":  # no image, or one that is too large as it is
            return gr.skip(), show_code(values, request)
        # A cancelled job reports that itself.
        cancelled = service.queue.cancel(get_client(request, "upscale"), "Cancelled: settings changed.")
        try:
            text = views.describe_plan(service, service.load(path), to_settings(values)) if path else ""
            described = theme.job("ready", text, result=result)
        except Exception as error:
            described = theme.job("failed", user_message(error, path), result=result)
        if values[newest] != [choice]:  # another image was chosen meanwhile
            return gr.skip(), gr.skip()
        update = (path and not cancelled) or described["state"] == "failed"
        return described if update else gr.skip(), show_code(values, request)

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
        frame, file = show_hero()
        found = prepare_choice(service, path, values[newest], **options)
        if found is None:  # another image was chosen meanwhile, or this one removed
            return tuple(gr.skip() for _ in outputs)
        shown, prepared = found
        limit = views.largest_edge(prepared) if prepared else 0
        values = {**values, size: size_value(values[size]["size"], limit, values[size]["edge"])}
        if prepared and not prepared.image:
            text, frame, file = "Crop or shrink the image first.", views.show_large(prepared), None
        try:
            if completed and to_settings(values) == Settings():
                assert path
                frame, file, done = views.show_result(service, completed, Settings())
                file |= views.history_entry(completed, path, frame, done)
                state, text = "done", views.describe_result(completed)
            elif prepared and prepared.image:
                file, settings = None, to_settings(values)
                text = views.describe_plan(service, prepared.image, settings)
                frame = views.show_preview(prepared.image, settings)
                state = "ready"
        except Exception as error:
            state, text = "failed", user_message(error, path)

        # While nothing can be upscaled, something else is the primary action.
        shows_result = state == "done" or (state == "idle" and (file is not None or prepared is not None))

        def replaced(text: str, *, start: bool = False) -> Outputs:
            return frame, file, theme.job(state, text, result=shows_result, start=start)

        # The cancelled job shows the same: either may reach the browser last. It does not start: it may arrive before
        # the image.
        cancelled_text = f"Previous job cancelled. {text}"
        if service.queue.cancel(get_client(request, "upscale"), replaced(cancelled_text)):
            text = cancelled_text
        start = state == "ready" and values[automatic] is True
        return shown, values[size], None, *replaced(text, start=start)

    def choose_example(example: dict[str, Any]) -> Callable[[Values, gr.Request], tuple[Any, ...]]:
        def choose_this(values: Values, request: gr.Request) -> tuple[Any, ...]:
            return choose({**values, image: example}, request, ready.get(Path(example["path"]).name))

        return choose_this

    def choose_result(values: Values, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Replace the image with a result, and start."""
        return choose({**values, image: only_uploaded(event._data["image"]), automatic: True}, request)

    def show_earlier(values: Values, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Show a result of the history again, and its image."""
        file = only_known(event._data)
        file.pop("thumbnail", None)  # it is in the history already
        path, shown, done = to_path(file.get("source")), file.get("viewer"), file.get("job")
        complete = file.get("file") and shown and shown.get("before") and shown.get("after")
        found = prepare_choice(service, path if complete else None, values[newest])
        if found is None:
            return tuple(gr.skip() for _ in outputs)
        source, prepared = found
        result: Outputs = shown, file, done
        sizes = values[size]
        if prepared:
            sizes = size_value(sizes["size"], views.largest_edge(prepared), sizes["edge"])
        else:
            result = *show_hero(), theme.job("failed", "This result is no longer available.")
        service.queue.cancel(get_client(request, "upscale"), result)
        return source, sizes, None, *result

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
        each.input(change_settings, {job, newest, *inputs}, [job, snippets], **theme.SYNC_EVENT)
    chosen, outputs = {automatic, newest, *inputs}, [image, size, close_up, viewer, download, job]
    on_choice(image, choose, chosen, outputs)
    download.again(choose_result, {newest, *settings}, outputs, **theme.SYNC_EVENT)
    history.select(show_earlier, {newest, size}, outputs, **theme.SYNC_EVENT)
    for button in buttons:
        assert button.icon
        button.keep_in_cache.add(button.icon["path"])  # Gradio's copy, which counts as an upload
        button.click(choose_example(button.icon), chosen - {image}, outputs, **theme.SYNC_EVENT)
    if warm_up:
        threading.Thread(target=upscale_examples, name="warm-up", daemon=True).start()


def list_examples() -> list[Path]:
    """List the bundled example images; the page opens with the first."""
    return [EXAMPLES / name for name in ("cat.png", "coffee.jpg", "astronaut.png")]
