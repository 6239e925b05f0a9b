"""The demo in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import app

SERVER = """
import sys, app
demo = app.create_demo(**{options})
_, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{{**app.launch_options(), "mcp_server": False}})
print(url, flush=True)
sys.stdin.read()
"""


@contextmanager
def serve(directory: Path, *, backend: str = "torch", **options: Any) -> Iterator[tuple[str, int]]:
    """Start a demo with options of `create_demo`, files in DIRECTORY/files; provide its URL and process id."""
    environment = {**os.environ, "PYTHONPATH": str(Path(app.__file__).parent), "SRGAN_BACKEND": backend}
    environment |= {"GRADIO_TEMP_DIR": str(directory / "files"), "TMPDIR": str(directory)}
    command = [sys.executable, "-c", SERVER.format(options=options)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.kill()
        process.wait()
