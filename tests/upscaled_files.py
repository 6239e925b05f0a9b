"""Upscale one file, or a file in a process of its own, for tests of file formats."""

import os
import subprocess
import sys
from pathlib import Path

from srgan_hub.batch import SaveOptions, upscale_files
from srgan_hub.upscaler import Upscaler

ROOT = Path(__file__).parent.parent


def upscale_file(
    upscaler: Upscaler,
    source: Path,
    target: Path | None = None,
    *,
    size: object = None,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    **options: object,
) -> Path:
    """Return the output of an input, or raise its error. Other options are those of `SaveOptions`."""
    (result,) = upscale_files(
        upscaler,
        [source],
        target and str(target),
        size=size,
        value_range=value_range,
        max_pixels=max_pixels,
        options=SaveOptions(**options),
    )
    if result.error:
        raise result.error
    return result.target


def run_python(code: str, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a program that imports this package."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
