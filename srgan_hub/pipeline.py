"""Many picture files: each in, the same out, larger."""

import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image

from .pictures import files
from .pictures.files import PictureError
from .pictures.library_warnings import in_one_line
from .replacing import sweep
from .upscaler import Progress, Upscaler

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Existing(NamedTuple):
    """What happens to outputs that exist: neither means that they are an error."""

    overwrite: bool
    skip: bool


class _Job(NamedTuple):
    source: Path
    target: Path
    image: Image.Image | None
    problem: PictureError | None


def plan_outputs(inputs: Sequence[Path], output: str | None, *, scale: int) -> list[Path]:
    """Say where each input's result goes.

    Args:
        inputs: picture files.
        output: a file or a folder. A folder is meant when it exists, ends in a slash, or there are several inputs. None
            puts each result beside its input.
        scale: for the name: NAME_x4.png.
    """
    if output is not None and len(inputs) == 1 and not output.endswith(("/", "\\")) and not Path(output).is_dir():
        return [Path(output)]
    names = [f"{path.stem}_x{scale}.png" for path in inputs]
    return [(path.parent if output is None else Path(output)) / name for path, name in zip(inputs, names, strict=True)]


def upscale_files(
    upscaler: Upscaler,
    inputs: Sequence[Path],
    output: str | None = None,
    *,
    overwrite: bool = False,
    skip_existing: bool = False,
    max_pixels: int | None = files.MAX_PIXELS,
    progress: Callable[[Path], Progress] | None = None,
) -> Iterator[tuple[Path, Path, PictureError | None]]:
    """Upscale picture files in their order; one that fails does not stop the others.

    Small ones of one size that follow one another go through the network together. What killed runs left half written
    in the folders of the outputs is deleted first.

    Args:
        upscaler: from ``SRGAN.upscaler``.
        inputs: picture files.
        output: as in ``plan_outputs``.
        overwrite: replace outputs that exist.
        skip_existing: take outputs that exist for done, and log that.
        max_pixels: the largest input, in pixels.
        progress: called with an input, gives its ``Upscaler.upscale`` progress callback.

    Yields:
        Input, output, and what went wrong or None. What was no ``PictureError`` to begin with is its ``__cause__``.
    """
    outputs = plan_outputs(inputs, output, scale=upscaler.scale)
    if output is not None and outputs != [Path(output)]:
        Path(output).mkdir(parents=True, exist_ok=True)
    for folder in {target.parent for target in outputs}:
        sweep(folder)
    existing = _Existing(overwrite, skip_existing)
    for batch in _batches(_jobs(inputs, outputs, upscaler.scale, existing, max_pixels), upscaler):
        yield from _upscale_batch(upscaler, batch, existing, progress)


def _jobs(
    inputs: Sequence[Path], outputs: Sequence[Path], scale: int, existing: _Existing, max_pixels: int | None
) -> Iterator[_Job]:
    taken: set[Path] = set()
    for source, target in zip(inputs, outputs, strict=True):
        image = _attempt(source, _read, source, target, taken, scale, existing, max_pixels)
        taken.add(target)
        if isinstance(image, PictureError):
            yield _Job(source, target, None, image)
        else:
            yield _Job(source, target, image, None)


def _read(
    source: Path, target: Path, taken: set[Path], scale: int, existing: _Existing, max_pixels: int | None
) -> Image.Image | None:
    """Read a picture, unless its result is there already or cannot be written."""
    if target in taken:
        raise PictureError(f"{source}: another input has its result in {target}; rename one of them")
    if existing.skip and _is_finished(target):
        return None
    if os.path.lexists(target) and not existing.overwrite:
        raise PictureError(f"{target} exists already; say --overwrite to replace it")
    with in_one_line(source):
        image = files.read(source, max_pixels=max_pixels)
    files.check_output(target, width=image.width * scale, height=image.height * scale, alpha="A" in image.mode)
    return image


def _write(result: Image.Image, target: Path, existing: _Existing) -> None:
    try:
        with in_one_line(target):
            files.write(result, target, overwrite=existing.overwrite)
    except PictureError:
        # Another run may have been faster.
        if not (existing.skip and _is_finished(target)):
            raise


def _is_finished(target: Path) -> bool:
    """Return whether an output is there, and log it. A file without a byte is what a power cut leaves."""
    finished = target.is_file() and target.stat().st_size > 0
    if finished:
        logger.warning("%s exists already; skipped", target)
    return finished


def _attempt(source: Path, action: Callable[..., T], *arguments: object) -> T | PictureError:
    """Return what an action gives, or what went wrong: whatever one picture raises is that picture's alone."""
    try:
        return action(*arguments)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they hold the picture and its result
        if isinstance(error, PictureError):
            return error
        kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        reason = " ".join(str(error).split())
        problem = PictureError(f"{source} cannot be upscaled: {kind}{': ' if reason else ''}{reason}")
        problem.__cause__ = error
        return problem


def _batches(jobs: Iterator[_Job], upscaler: Upscaler) -> Iterator[list[_Job]]:
    """Gather what can go through the network together. Nothing is read ahead once a batch is full."""
    batch: list[_Job] = []
    for job in jobs:
        if batch and _kind(job) != _kind(batch[0]):
            yield batch
            batch = []
        batch.append(job)
        if job.image is None or len(batch) == upscaler.batch_size(job.image.height, job.image.width):
            yield batch
            batch = []
    if batch:
        yield batch


def _kind(job: _Job) -> tuple[tuple[int, int], str] | None:
    return (job.image.size, job.image.mode) if job.image else None


def _upscale_batch(
    upscaler: Upscaler,
    batch: Sequence[_Job],
    existing: _Existing,
    progress: Callable[[Path], Progress] | None,
) -> Iterator[tuple[Path, Path, PictureError | None]]:
    images = [job.image for job in batch if job.image]
    if not images:
        yield from ((job.source, job.target, job.problem) for job in batch)
        return
    # One of a batch is done when all are: only a picture that goes alone shows how far it is.
    alone = progress(batch[0].source) if progress and len(batch) == 1 else None
    results = _attempt(batch[0].source, partial(upscaler.upscale_batch, images, progress=alone))
    if isinstance(results, PictureError):
        if len(batch) == 1:
            yield batch[0].source, batch[0].target, results
            return
        for job in batch:  # whose fault it was shows when each goes alone
            yield from _upscale_batch(upscaler, [job], existing, progress)
        return
    for job, result in zip(batch, results, strict=True):
        if progress and not alone:
            progress(job.source)(images[0].height, images[0].height)
        yield job.source, job.target, _attempt(job.source, _write, result, job.target, existing)
