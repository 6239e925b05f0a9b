"""Many picture files: each in, the same out, larger."""

import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from .pictures import carried, files
from .pictures.files import PictureError
from .pictures.library_warnings import in_one_line
from .pictures.raster import Raster
from .pictures.sizes import Size, SizeLike
from .replacing import sweep
from .upscaler import Progress, Upscaler

logger = logging.getLogger(__name__)

T = TypeVar("T")


# A picture that was read, where it came from and where its result goes.
_Job = tuple[Path, Path, Raster]
_Result = tuple[Path, Path, PictureError | None]


def plan_outputs(inputs: Sequence[Path], output: str | None, *, label: str) -> list[Path]:
    """Plan where each input's result goes.

    Args:
        inputs: picture files.
        output: a file or a folder. A folder is meant when it exists, ends in a slash, or there are several inputs. None
            puts each result beside its input.
        label: of the size, for the name: NAME_x4.png.
    """
    if output is not None and len(inputs) == 1 and not output.endswith(("/", "\\")) and not Path(output).is_dir():
        return [Path(output)]
    names = [f"{path.stem}_{label}.png" for path in inputs]
    return [(path.parent if output is None else Path(output)) / name for path, name in zip(inputs, names, strict=True)]


def upscale_files(
    upscaler: Upscaler,
    inputs: Sequence[Path],
    output: str | None = None,
    *,
    size: SizeLike | None = None,
    quality: int | None = None,
    depth: Literal[8, 16] | None = None,
    strip: Literal["all", "gps"] | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    max_pixels: int | None = files.MAX_PIXELS,
    progress: Callable[[Path], Progress] | None = None,
) -> Iterator[_Result]:
    """Upscale picture files in their order; one that fails does not stop the others.

    Small ones of one size that follow one another go through the network together. What killed runs left half written
    in the folders of the outputs is deleted first.

    Args:
        upscaler: from `SRGAN.upscaler`.
        inputs: picture files.
        output: as in `plan_outputs`.
        size: as for `Upscaler.upscale`.
        quality: of JPEG and WebP, as for `pictures.files.write`.
        depth: bits per channel of the results, by default those of each input. What goes to 16 is computed so.
        strip: drop all metadata or only the place, as `pictures.carried.strip` does.
        overwrite: replace outputs that exist.
        skip_existing: take outputs that exist for done, and log that.
        max_pixels: the largest input, in pixels.
        progress: called with an input, returns its progress callback for `Upscaler.upscale`.

    Yields:
        Input, output, and what went wrong or None. An error of another type is the `__cause__` of the `PictureError`.
    """
    wish = Size.parse(size)
    outputs = plan_outputs(inputs, output, label=wish.label(upscaler.scale))
    if output is not None and outputs != [Path(output)]:
        Path(output).mkdir(parents=True, exist_ok=True)
    for folder in {target.parent for target in outputs}:
        sweep(folder)
    taken: set[Path] = set()

    def read(source: Path, target: Path) -> Raster | None:
        """Read a picture, unless its result is there already or cannot be written."""
        if target in taken:
            raise PictureError(f"{source}: another input has its result in {target}; rename one of them.")
        taken.add(target)
        if skip_existing and _is_finished(target):
            return None
        if os.path.lexists(target) and not overwrite:
            raise PictureError(f"{target} exists already; set overwrite to replace it.")
        with in_one_line(source):
            raster = files.read(source, max_pixels=max_pixels)
        try:
            width, height = wish.fit(raster.width, raster.height, scale=upscaler.scale)
        except ValueError as error:
            raise PictureError(f"{source}: {error}") from None
        bits = depth or raster.bits
        files.check_output(target, width=width, height=height, alpha=raster.alpha, bits=bits, quality=quality)
        # From 16 bits to 8 it goes at the end, the other way at once: the network computes with more than it was given.
        return raster.with_bits(max(bits, raster.bits))

    def write(result: Raster, target: Path) -> None:
        result = result.with_bits(depth or result.bits)
        if strip:
            carried.strip(result, gps=strip == "gps")
        try:
            with in_one_line(target):
                files.write(result, target, overwrite=overwrite, quality=quality)
        except PictureError:
            # Another run may have been faster.
            if not (skip_existing and _is_finished(target)):
                raise

    def enlarge(batch: Sequence[_Job]) -> Iterator[_Result]:
        if not batch:
            return
        source, target, first = batch[0]
        # The pictures of a batch are all done at once: only one that goes alone shows how far it is.
        alone = progress(source) if progress and len(batch) == 1 else None
        arrays = [raster.array for _, _, raster in batch]
        results = _attempt(source, lambda: upscaler.upscale_batch(arrays, size=wish, progress=alone))
        if not isinstance(results, PictureError):
            for (source, target, raster), array in zip(batch, results, strict=True):
                if progress and not alone:
                    progress(source)(first.height, first.height)
                yield source, target, _attempt(source, partial(write, Raster(array, raster.info), target))
        elif len(batch) == 1:
            yield source, target, results
        else:  # each alone shows which one failed
            for job in batch:
                yield from enlarge([job])

    batch: list[_Job] = []
    for source, target in zip(inputs, outputs, strict=True):
        raster = _attempt(source, partial(read, source, target))
        fits = isinstance(raster, Raster) and all(
            (raster.array.shape, raster.bits) == (other.array.shape, other.bits) for *_, other in batch
        )
        if not fits:
            yield from enlarge(batch)
            batch = []
        if not isinstance(raster, Raster):
            yield source, target, raster
            continue
        batch.append((source, target, raster))
        if len(batch) == upscaler.batch_size(raster.height, raster.width):  # so that nothing is read ahead of it
            yield from enlarge(batch)
            batch = []
    yield from enlarge(batch)


def _is_finished(target: Path) -> bool:
    """Return whether an output is there, and log it. An empty file is what a power cut leaves."""
    finished = target.is_file() and target.stat().st_size > 0
    if finished:
        logger.warning("%s exists already; skipped", target)
    return finished


def _attempt(source: Path, action: Callable[[], T]) -> T | PictureError:
    """Run an action and return its result, or its error as one that names the picture."""
    try:
        return action()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they hold the picture and its result
        if isinstance(error, PictureError):
            return error
        kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        reason = " ".join(str(error).split())
        problem = PictureError(f"{source} cannot be upscaled: {kind}{': ' if reason else ''}{reason}")
        problem.__cause__ = error
        return problem
