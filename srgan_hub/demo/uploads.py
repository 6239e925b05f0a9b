"""Restrict file inputs to uploaded files."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from .queue import Client


class Demo(gr.Blocks):
    """Blocks whose file inputs accept uploads to this server only."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Replace anything but uploads by None before Gradio reads or fetches it."""
        inputs = [
            only_uploaded(value) if isinstance(block, gr.Image | gr.File | gr.UploadButton) else value
            for block, value in zip(block_fn.inputs, inputs, strict=False)
        ]
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def only_uploaded(value: Any) -> Any:
    """Return the `FileData` dict of an uploaded file, or those in a list; None for anything else."""
    if isinstance(value, list):
        return [each for each in map(only_uploaded, value) if each]
    match value:
        case {"path": str(name), "meta": {"_type": "gradio.FileData"}}:
            # A URL of any server is read as the path in it; nothing is fetched.
            path = Path(name.rpartition("/gradio_api/file=")[2])
            with suppress(OSError, ValueError):  # not a valid file name
                if ".." not in path.parts and path.is_relative_to(get_upload_folder()) and path.is_file():
                    return {**value, "path": str(path), "url": None}
    return None


def to_path(value: Any) -> Path | None:
    """Return the path of a `FileData` dict, None if there is no file."""
    return Path(value["path"]) if value else None


def to_paths(values: Any) -> list[Path]:
    """Return the paths of a list of `FileData` dicts, or of None."""
    return [path for path in map(to_path, values or []) if path]


def to_file_data(path: Path) -> dict[str, Any]:
    """Return the `FileData` dict of a file that Gradio should copy to its cache and serve."""
    return gr.FileData(path=str(path), orig_name=path.name).model_dump()


def get_client(request: gr.Request, tab: str = "") -> Client:
    """Identify the client by its session in a tab, and by its address as the nearest proxy reports it.

    Local clients share one address, so each session counts as one.
    """
    session = request.session_hash or ""
    forwarded = str(request.headers.get("x-forwarded-for", "")).split(",")[-1].strip()
    address = forwarded or (request.client.host if request.client else "")
    return Client(f"{session} {tab}", session if address in ("127.0.0.1", "::1", "") else address)
