"""Input component of an image, which may be larger than the limit."""

import html
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.utils import get_upload_folder

from . import theme
from .eta import format_duration
from .inputs import Prepared, fit_size
from .service import Service, user_message
from .uploads import MAX_FILE_MB, Demo, to_file_data


def image_input(**options: Any) -> gr.HTML:
    """Create the input of an image; `gr.Image` shows neither what it refuses nor why, and cannot crop.

    Its events are upload, crop, shrink and clear. Options are those of `gr.HTML`, and:

    Args:
        label, alt: What it is: for its buttons, and for its image.
        title: Heading, if it needs one.
        prompt: Text while it is empty.
    """
    defaults = {"label": "Image", "alt": "Input image", "title": "", "prompt": "Drop an image, paste, or click"}
    fixed: dict[str, Any] = {"megabytes": MAX_FILE_MB, "server_functions": [make_fetch()], "file_key": "file"}
    return theme.component("input", {"state": "empty"}, elem_classes="image-input", **defaults | fixed | options)


def on_choice(image: gr.HTML, choose: Callable[..., tuple[Any, ...]], inputs: set[Any], outputs: Sequence[Any]) -> None:
    """Call `choose` with values, request and options of `prepare` when the image is chosen, changed or removed.

    Its result is the outputs' values, of which the first is that of `image`.
    """

    def upload(values: dict[Any, Any], request: gr.Request) -> tuple[Any, ...]:
        return choose(values, request)

    def crop(values: dict[Any, Any], event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        data = event._data or {}
        region = tuple(int(data.get(name, 0)) for name in ("left", "top", "width", "height"))
        return choose(values, request, region=region)

    def shrink(values: dict[Any, Any], request: gr.Request) -> tuple[Any, ...]:
        return choose(values, request, shrink=True)

    def clear(values: dict[Any, Any], request: gr.Request) -> tuple[Any, ...]:
        return gr.skip(), *choose({**values, image: None}, request)[1:]  # it shows why

    for event, function in ((image.upload, upload), (image.crop, crop), (image.shrink, shrink), (image.clear, clear)):
        event(function, inputs, outputs, **theme.SYNC_EVENT)


def prepare_choice(
    service: Service, path: Path | None, newest: list[object], **options: Any
) -> tuple[dict[str, Any], Prepared | None] | None:
    """Prepare a chosen image, or None, and return its component's value too; None if another was chosen meanwhile.

    Args:
        service, path: Where, and the image.
        newest: The newest choice of the session, as the only item of a list that its events share.
        options: How to `prepare` it.
    """
    newest[0] = choice = object()
    shown: dict[str, Any] = {"state": "empty"}
    prepared = None
    try:
        if path:
            prepared = service.prepare(path, Path(tempfile.mkdtemp(dir=get_upload_folder())), **options)
            shown = input_value(prepared, service)
    except Exception as error:
        shown = {"state": "refused", "text": html.escape(user_message(error, path))}
    return (shown, prepared) if newest == [choice] else None


def make_fetch() -> Callable[[str], Awaitable[dict[str, Any]]]:
    """Return the function of the page being built that fetches an image for its components."""
    demo = Context.root_block
    assert isinstance(demo, Demo)

    async def fetch_image(url: str) -> dict[str, Any]:
        return await demo.fetch_image(url)

    return fetch_image


def input_value(prepared: Prepared, service: Service) -> dict[str, Any]:
    """Return the value of the image's component for an image, which may have more pixels than the limit."""
    width, height, limit = prepared.width, prepared.height, service.max_pixels
    shown = {
        "state": "ready",
        "name": html.escape(prepared.file.name),
        "text": html.escape(prepared.describe(limit)),
        "file": to_file_data(prepared.file),
        "preview": to_file_data(prepared.preview),
    }
    if prepared.image:
        return shown
    fixed, seconds = service.eta.estimate(0), service.eta.estimate(prepared.cost)
    rate = None if fixed is None or seconds is None else (seconds - fixed) / (width * height)
    duration = f", {format_duration(fixed + rate * limit)}" if fixed is not None and rate is not None else ""
    small = " × ".join(map(str, fit_size(width, height, limit)))
    return {
        **shown,
        "state": "large",
        "shrunk": f"{small}{duration}",
        "width": width,
        "height": height,
        "limit": limit,
        "seconds": None if rate is None else {"fixed": fixed, "per_pixel": rate},
    }
