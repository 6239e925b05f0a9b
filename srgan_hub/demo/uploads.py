"""Restrict file inputs to uploaded files and public web addresses."""

import html
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from .fetch import fetch
from .queue import Client, count

MAX_FILE_MB = 50


class Demo(gr.Blocks):
    """Blocks whose file inputs accept uploads to this server, and public web addresses, which they fetch."""

    _mcp_server: Any = None

    # Set by Gradio, to a server that `McpServer` corrects.
    @property
    def mcp_server_obj(self) -> Any:
        """The MCP server, or None."""
        return self._mcp_server

    @mcp_server_obj.setter
    def mcp_server_obj(self, server: Any) -> None:
        if server is not None:
            from .mcp import McpServer  # requires the package mcp

            server = McpServer(self)
        self._mcp_server = server

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Replace what is neither an upload nor a web address by None before Gradio reads it."""
        expected, names = len(block_fn.inputs), ", ".join(f"`{block.label}`" for block in block_fn.inputs)
        if len(inputs) != expected:
            raise _error(f"`{block_fn.api_name}` takes {count(expected, 'value')} ({names}), got {len(inputs)}.")
        inputs = [await self._guard(block, value) for block, value in zip(block_fn.inputs, inputs, strict=True)]
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except InvalidPathError as error:  # a file where none is expected
            raise _error("Pass files that were uploaded to this server, or web addresses.") from error

    async def fetch_image(self, url: str) -> dict[str, Any]:
        """Return the `FileData` dict of a web address, or `{"error": message}`; a server function for components."""
        try:
            upload = await self._to_uploads({"path": url, "meta": {"_type": "gradio.FileData"}}, several=False)
        except gr.Error as error:
            return {"error": error.message}
        return upload or {"error": "Enter an address that starts with https:// or http://."}

    async def _guard(self, block: Any, value: Any) -> Any:
        if isinstance(block, gr.HTML) and (key := block.props.get("file_key")):  # functions get only that of the value
            value = value.get(key) if isinstance(value, dict) else None
        elif not isinstance(block, gr.Image | gr.File | gr.UploadButton):
            return value
        return await self._to_uploads(value, several=getattr(block, "file_count", "single") != "single")

    async def _to_uploads(self, value: Any, *, several: bool) -> Any:
        if several:
            values = value if isinstance(value, list) else []
            return [upload for each in values if (upload := await self._to_uploads(each, several=False))]
        upload = only_uploaded(value)
        match value:
            case {"path": str(url), "meta": {"_type": "gradio.FileData"}} if not upload and "://" in url:
                try:
                    path = await fetch(url, Path(get_upload_folder()), max_bytes=MAX_FILE_MB * 1_000_000)
                except ValueError as error:
                    raise _error(f"{error}") from error
                self.upload_file_set.add(str(path))  # deleted when it is old
                return {**value, "path": str(path), "url": None, "orig_name": path.name}
        return upload


def only_uploaded(value: Any) -> Any:
    """Return the `FileData` dict of an uploaded file; None for anything else."""
    match value:
        case {"path": str(name), "meta": {"_type": "gradio.FileData"}}:
            # The URL of a file of this server is read as the path in it.
            path = Path(name.rpartition("/gradio_api/file=")[2])
            with suppress(OSError, ValueError):  # not a valid file name
                if ".." not in path.parts and path.is_relative_to(get_upload_folder()) and path.is_file():
                    return {**value, "path": str(path), "url": None}
    return None


def only_known(value: Any) -> Any:
    """Return a value that a browser kept for the server: files only as `only_uploaded` does, and text as escaped."""
    match value:
        case {"path": _}:
            upload = only_uploaded(value)
            return upload and to_file_data(Path(upload["path"]))
        case dict():
            return {name: only_known(each) for name, each in value.items()}
        case list():
            return [only_known(each) for each in value]
        case str():
            return html.escape(html.unescape(value))
    return value


def _error(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


def to_path(value: Any) -> Path | None:
    """Return the path of a `FileData` dict, None if there is no file."""
    return Path(value["path"]) if value else None


def to_paths(values: Any) -> list[Path]:
    """Return the paths of a list of `FileData` dicts, or of None."""
    return [path for path in map(to_path, values or []) if path]


def to_file_data(path: Path) -> dict[str, Any]:
    """Return the `FileData` dict of a file that Gradio should copy to its cache and serve."""
    return gr.FileData(path=str(path), orig_name=path.name).model_dump()


def to_cached_file_data(path: Path) -> dict[str, Any]:
    """Return the `FileData` dict of a copy in Gradio's cache, which is not copied again at each event that has it."""
    return to_file_data(Path(save_file_to_cache(path, get_upload_folder())))


def get_client(request: gr.Request, tab: str = "") -> Client:
    """Identify the client by its session in a tab, and by its address as the nearest proxy reports it.

    Local clients share one address, so each session counts as one.
    """
    session = request.session_hash or ""
    forwarded = str(request.headers.get("x-forwarded-for", "")).split(",")[-1].strip()
    address = forwarded or (request.client.host if request.client else "")

    def unread() -> int:
        if not request.request:
            return 0
        messages = request.request.app.get_blocks()._queue.pending_messages_per_session.get(session)
        return 0 if messages is None else messages.qsize()

    return Client(f"{session} {tab}", session if address in ("127.0.0.1", "::1", "") else address, unread)
