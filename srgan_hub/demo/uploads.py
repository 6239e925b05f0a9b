"""Which files the demo reads: those that were uploaded to it, and no other."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from .service import Client


class Demo(gr.Blocks):
    """Blocks that take no image but what was uploaded to them."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Replace what is no upload by None before Gradio follows it."""
        inputs = [
            only_uploaded(value) if isinstance(block, gr.Image | gr.File | gr.UploadButton) else value
            for block, value in zip(block_fn.inputs, inputs, strict=False)
        ]
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def to_path(value: Any) -> Path | None:
    """Return the path of an uploaded file as Gradio names it, None where nothing was uploaded."""
    return Path(value["path"]) if value else None


def to_value(path: Path, name: str) -> dict[str, Any]:
    """Name a file for the page: Gradio copies it to where it serves files from."""
    return gr.FileData(path=str(path), orig_name=name).model_dump()


def megabytes(file: Path) -> str:
    """Say how large a file is."""
    return f"{max(0.1, file.stat().st_size / 1e6):.1f} MB"


def get_client(request: gr.Request) -> Client:
    """Tell users apart.

    By their address, which the nearest proxy states; on this machine, where all have the same, by their session.
    """
    session = request.session_hash or ""
    forwarded = str(request.headers.get("x-forwarded-for", "")).split(",")[-1].strip()
    address = forwarded or (request.client.host if request.client else "")
    return Client(session, session if address in ("127.0.0.1", "::1", "") else address)


def only_uploaded(value: Any) -> Any:
    """Return a file, or those of a list, as far as this is how Gradio names what was uploaded here; else None."""
    if isinstance(value, list):
        return [each for each in map(only_uploaded, value) if each]
    match value:
        case {"path": str(name), "meta": {"_type": "gradio.FileData"}}:
            # An address of this server's names the file; whichever server it names, nothing is fetched.
            path = Path(name.rpartition("/gradio_api/file=")[2])
            with suppress(OSError, ValueError):  # a name that no file can have
                if ".." not in path.parts and path.is_relative_to(get_upload_folder()) and path.is_file():
                    return {**value, "path": str(path), "url": None}
    return None
