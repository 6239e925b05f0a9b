"""Many picture files: each in, the same out, larger."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .pictures import files
from .pictures.files import PictureError
from .upscaler import Progress, Upscaler


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
    max_pixels: int | None = files.MAX_PIXELS,
    progress: Callable[[Path], Progress] | None = None,
) -> Iterator[tuple[Path, Path, PictureError | None]]:
    """Upscale picture files in their order; one that fails does not stop the others.

    Small ones of one size that follow one another go through the network together.

    Args:
        upscaler: from ``SRGAN.upscaler``.
        inputs: picture files.
        output: as in ``plan_outputs``.
        overwrite: replace outputs that exist.
        max_pixels: the largest input, in pixels.
        progress: called with an input, gives its ``Upscaler.upscale`` progress callback.

    Yields:
        Input, output, and what went wrong or None.
    """
    outputs = plan_outputs(inputs, output, scale=upscaler.scale)
    if output is not None and outputs != [Path(output)]:
        Path(output).mkdir(parents=True, exist_ok=True)
    jobs = _read(inputs, outputs, upscaler.scale, overwrite, max_pixels)
    for batch in _batches(jobs, upscaler):
        yield from _upscale_batch(upscaler, batch, progress)


def _read(
    inputs: Sequence[Path], outputs: Sequence[Path], scale: int, overwrite: bool, max_pixels: int | None
) -> Iterator[_Job]:
    taken: set[Path] = set()
    for source, target in zip(inputs, outputs, strict=True):
        try:
            if target in taken:
                raise PictureError(f"{source}: another input has its result in {target}; rename one of them")
            taken.add(target)
            with files.open_header(source, max_pixels=max_pixels) as header:
                width, height = header.width * scale, header.height * scale
                files.check_output(target, width=width, height=height, alpha=header.has_transparency_data)
            if target.exists() and not overwrite:
                raise PictureError(f"{target} exists already; say --overwrite to replace it")
            job = _Job(source, target, files.read(source, max_pixels=max_pixels), None)
        except PictureError as error:
            job = _Job(source, target, None, error)
        yield job


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
    upscaler: Upscaler, batch: Sequence[_Job], progress: Callable[[Path], Progress] | None
) -> Iterator[tuple[Path, Path, PictureError | None]]:
    images = [job.image for job in batch if job.image]
    if not images:
        yield from ((job.source, job.target, job.problem) for job in batch)
        return
    # One of a batch is done when all are: only a picture that goes alone shows how far it is.
    alone = progress(batch[0].source) if progress and len(batch) == 1 else None
    results = upscaler.upscale_batch(images, progress=alone)
    for job, result in zip(batch, results, strict=True):
        problem = None
        if progress and not alone:
            progress(job.source)(images[0].height, images[0].height)
        try:
            files.write(result, job.target)
        except PictureError as error:
            problem = error
        yield job.source, job.target, problem
