"""Many image files: each in, the same out, larger."""

import json
import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from .fileio import remove_stale_parts
from .frames import upscale_frames
from .images import decode, metadata, open_media
from .images.decode import ImageError
from .images.lazy import LazyRows
from .images.library_warnings import in_one_line
from .images.media import Media, OutputOptions
from .images.raster import Raster
from .progress import Progress
from .resize import SizeLike, TargetSize, resize
from .upscaler import Upscaler

logger = logging.getLogger(__name__)

T = TypeVar("T")


# An image that was read, where it came from and where its result goes.
_Job = tuple[Path, Path, Raster]
_Problem = ImageError | None
_Result = tuple[Path, Path, _Problem]
_Opened = tuple[Media, OutputOptions]
# Input, output, and what will become of it.
_Fate = tuple[Path, Path, "Future[_Problem]"]


def plan_outputs(inputs: Sequence[Path], output: str | None, *, suffix: str) -> list[tuple[Path, Path]]:
    """Plan which images are upscaled, and where each one's result goes.

    Args:
        inputs: image files, and folders, of which all images below are taken, but for hidden ones, those in
            `output`, and results that lie beside their images.
        output: a file or a folder. A folder is meant when it exists, ends in a slash, or there are several inputs or a
            folder among them; below it a folder's structure is kept. None puts each result beside its input.
        suffix: of the size, for the name: NAME_x4.png, or the suffix of a file of several images.

    Raises:
        ValueError: there is no image in a folder.
    """
    folders = [path for path in inputs if decode.is_folder(path)]
    destination = None if output is None else Path(output)
    several = len(inputs) > 1 or folders
    if output and destination and not (several or output.endswith(("/", "\\")) or destination.is_dir()):
        return [(inputs[0], destination)]
    pairs = []
    for path in inputs:
        found = decode.find_images(path, destination) if path in folders else [path]
        targets = {each: each.with_name(f"{each.stem}_{suffix}{open_media.default_suffix(each)}") for each in found}
        if path in folders:
            targets = {each: target for each, target in targets.items() if each not in targets.values()}
        if not targets:
            raise ValueError(f"{path} is a folder without images.")
        for each, target in targets.items():
            below = target.relative_to(path) if path in folders else target.name
            pairs.append((each, destination / below if destination else target))
    return pairs


def upscale_files(
    upscaler: Upscaler,
    inputs: Sequence[Path],
    output: str | None = None,
    *,
    size: SizeLike | None = None,
    quality: int | None = None,
    bit_depth: Literal[8, 16] | None = None,
    value_range: tuple[float, float] | None = None,
    strip_metadata: Literal["all", "gps"] | None = None,
    software: str | None = None,
    codec: str | None = None,
    crf: int | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    max_pixels: int | None = decode.MAX_PIXELS,
    progress: Callable[[Path], Progress] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[_Result]:
    """Upscale image files in their order; one that fails does not stop the others.

    Small ones of one size that follow one another go through the network together. While they do, the next one is read
    and the last ones are written, in a thread. What killed runs left half written in the folders of the outputs is
    deleted first. Where an input is a folder, each run adds a line for each image to `manifest.jsonl` in the output
    folder: input, output, state (done, failed or skipped), seconds in the network, and why it failed.

    Args:
        upscaler: from `SRGAN.upscaler`.
        inputs: image files and folders, as in `plan_outputs`.
        output: as in `plan_outputs`.
        size: as for `Upscaler.upscale`.
        quality: of JPEG and WebP, as for `images.decode.save_image`.
        bit_depth: bits per channel of the results, by default those of each input. What goes to 16 is computed so.
        value_range: what black and white mean in a TIFF of floats, by default its lowest and highest number.
        strip_metadata: drop all metadata or only the place, as `images.metadata.strip` does.
        software: what the results name as the program that made them, unless all metadata is dropped.
        codec, crf: of a video, its encoder and constant rate factor; what suits by default.
        overwrite: replace outputs that exist.
        skip_existing: take outputs that exist for done, and log that.
        max_pixels: the largest input, in pixels.
        progress: called with an input, returns its progress callback for `Upscaler.upscale`.
        shard: (rank, count): take every count-th image, beginning with this one. The manifest is then
            `manifest-RANK.jsonl`.

    Yields:
        Input, output, and what went wrong or None. An error of another type is the `__cause__` of the `ImageError`.
    """
    size = TargetSize.parse(size)
    pairs = plan_outputs(inputs, output, suffix=size.suffix(upscaler.scale))
    single = len(pairs) == 1 and output is not None and pairs[0][1] == Path(output)
    if output is not None and not single:
        Path(output).mkdir(parents=True, exist_ok=True)
    for folder in {target.parent for _, target in pairs}:
        remove_stale_parts(folder)
    rank, count = shard
    manifest = None
    if output is not None and any(map(decode.is_folder, inputs)):
        manifest = Path(output) / (f"manifest-{rank}.jsonl" if count > 1 else "manifest.jsonl")
    software = None if strip_metadata == "all" else software
    key = f"{upscaler.fingerprint()} {size} {bit_depth}"
    options = OutputOptions(
        Path(),
        0,
        0,
        upscaler.scale,
        upscaler.receptive_field,
        quality,
        bit_depth,
        codec,
        crf,
        strip_metadata,
        software,
        key,
    )
    # One thread, since `in_one_line` changes stderr for all of them.
    with ThreadPoolExecutor(1) as io_pool:
        run = _BatchRunner(
            upscaler,
            size,
            options,
            value_range,
            overwrite,
            skip_existing,
            max_pixels,
            progress,
            manifest,
            single,
            io_pool,
        )
        under_way: list[_Fate] = []
        for group in chain(run._batches(pairs[rank::count]), [[]]):
            for source, target, fate in under_way:
                yield source, target, fate.result()
            under_way = group


@dataclass
class _BatchRunner:
    """What all images of a run have in common: the arguments of `upscale_files`, and these.

    Args:
        options: what shall become of each, but for its place and size.
        manifest: where lines go, if anywhere.
        single: one input that becomes one file, whose folder must be there.
        io_pool: the thread that reads and writes.
        claimed: the outputs that inputs have so far.
    """

    upscaler: Upscaler
    size: TargetSize
    options: OutputOptions
    value_range: tuple[float, float] | None
    overwrite: bool
    skip_existing: bool
    max_pixels: int | None
    progress: Callable[[Path], Progress] | None
    manifest: Path | None
    single: bool
    io_pool: Executor
    claimed: set[Path] = field(default_factory=set)

    def _batches(self, pairs: Sequence[tuple[Path, Path]]) -> Iterator[list[_Fate]]:
        """Yield what becomes of inputs with their outputs, in groups that went through the network together."""
        batch: list[_Job] = []
        reads = _prefetch(
            self.io_pool, [partial(_capture_error, source, partial(self.read, source, to)) for source, to in pairs]
        )
        for (source, target), found in zip(pairs, reads, strict=True):
            fits = isinstance(found, Raster) and all(
                (found.array.shape, found.bits) == (other.array.shape, other.bits) for *_, other in batch
            )
            if batch and not fits:
                yield list(self.upscale(batch))
                batch = []
            if isinstance(found, Raster):
                batch.append((source, target, found))
                if len(batch) == self.upscaler.max_batch_size(found.height, found.width):
                    yield list(self.upscale(batch))
                    batch = []
                continue
            result: ImageError | str = found if isinstance(found, ImageError) else "skipped"
            started = time.monotonic()
            if isinstance(found, tuple):
                result = _capture_error(source, partial(self._process_media, source, *found)) or "done"
            seconds = time.monotonic() - started
            yield [(source, target, self.io_pool.submit(self._finalize, source, target, result, seconds))]
        if batch:
            yield list(self.upscale(batch))

    def read(self, source: Path, target: Path) -> Raster | _Opened | None:
        """Read an image, or open what is not read at once, unless its result is there or cannot be written."""
        if target in self.claimed:
            raise ImageError(f"{source}: another input has its result in {target}; rename one of them.")
        self.claimed.add(target)
        if self.skip_existing and _is_finished(target):
            return None
        if os.path.lexists(target) and not self.overwrite:
            raise ImageError(f"{target} exists already; set overwrite to replace it.")
        with in_one_line(source):
            opened = open_media.open_media(
                source, target.suffix, max_pixels=self.max_pixels, value_range=self.value_range
            )
            found = opened or decode.load_raster(source, max_pixels=self.max_pixels)
        try:
            width, height = self.size.resolve(found.width, found.height, scale=self.upscaler.scale)
        except ValueError as error:
            raise ImageError(f"{source}: {error}") from None
        if not self.single:
            target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(found, Media):
            if found.requires_even_size:
                width, height = (max(2, side - side % 2) for side in (width, height))
            output = replace(self.options, path=target, width=width, height=height)
            open_media.validate(found, output)
            return found, output
        bits = self.options.bit_depth or found.bits
        quality = self.options.quality
        decode.validate_output(target, width=width, height=height, alpha=found.alpha, bits=bits, quality=quality)
        # From 16 bits to 8 it goes at the end, the other way at once: the network computes with more than it was given.
        return found.with_bits(max(bits, found.bits))

    def upscale(self, batch: Sequence[_Job]) -> Iterator[_Fate]:
        """Upscale images together, and have them written."""
        source, target, first = batch[0]
        # The images of a batch are all done at once: only one that goes alone shows how far it is.
        alone = self.progress(source) if self.progress and len(batch) == 1 else None
        arrays = [raster.array for _, _, raster in batch]
        started = time.monotonic()
        results = _capture_error(source, lambda: self.upscaler.upscale_batch(arrays, size=self.size, progress=alone))
        if alone:
            alone.close()
        seconds = (time.monotonic() - started) / len(batch)
        if not isinstance(results, ImageError):
            for (source, target, raster), array in zip(batch, results, strict=True):
                if self.progress and not alone:
                    progress = self.progress(source)
                    progress(first.height, first.height)
                    progress.close()
                result = Raster(array, raster.info)
                yield source, target, self.io_pool.submit(self._finalize, source, target, result, seconds)
        elif len(batch) == 1:
            yield source, target, self.io_pool.submit(self._finalize, source, target, results, seconds)
        else:  # each alone shows which one failed
            for job in batch:
                yield from self.upscale([job])

    def _process_media(self, source: Path, opened: Media, output: OutputOptions) -> None:
        """Upscale what is not read at once, and write it as it comes."""
        fitted = opened.requires_even_size and self.size != TargetSize()
        size = TargetSize(width=output.width, height=output.height) if fitted else self.size
        progress = self.progress(source) if self.progress else None
        media_upscaler = _MediaUpscaler(self.upscaler, size, opened, output, self._postprocess, progress)
        try:
            with in_one_line(source), decode.atomic_output(output.path, overwrite=self.overwrite) as tmp_path:
                opened.write(media_upscaler, tmp_path, output)
        finally:
            if progress:
                progress.close()

    def _finalize(self, source: Path, target: Path, result: Raster | ImageError | str, seconds: float) -> _Problem:
        """Write a result that is not written yet, and the line in the manifest."""
        problem = result if isinstance(result, ImageError) else None
        if isinstance(result, Raster):
            problem = _capture_error(source, partial(self.write, result, target))
            result = "done"
        if self.manifest:
            state = "failed" if problem else str(result)
            _append_manifest(self.manifest, input=source, output=target, state=state, seconds=seconds, why=problem)
        return problem

    def write(self, result: Raster, target: Path) -> None:
        """Write an image."""
        try:
            with in_one_line(target):
                decode.save_image(
                    self._postprocess(result), target, overwrite=self.overwrite, quality=self.options.quality
                )
        except ImageError:
            # Another run may have been faster.
            if not (self.skip_existing and _is_finished(target)):
                raise

    def _postprocess(self, result: Raster) -> Raster:
        """Give a result the depth and the metadata that were asked for."""
        result = result.with_bits(self.options.bit_depth or result.bits)
        if self.options.strip_metadata:
            metadata.strip(result, gps=self.options.strip_metadata == "gps")
        if self.options.software:
            metadata.set_software(result, self.options.software)
        return result


@dataclass
class _MediaUpscaler:
    """What a source's images go through.

    Args:
        upscaler: the network.
        size: of the results.
        opened: the source.
        output: what shall become of it.
        postprocess: gives a result its depth and metadata.
        progress: is told how far it is.
    """

    upscaler: Upscaler
    size: TargetSize
    opened: Media
    output: OutputOptions
    postprocess: Callable[[Raster], Raster]
    progress: Progress | None

    def frames(self, frames: Iterator[Raster], first: int) -> Iterator[Raster]:
        infos: deque[dict[Any, Any]] = deque()

        def arrays() -> Iterator[np.ndarray]:
            for frame in frames:
                infos.append(frame.info)
                yield frame.with_bits(max(self.output.bit_depth or frame.bits, frame.bits)).array

        for number, array in enumerate(upscale_frames(self.upscaler, arrays(), self.size), first + 1):
            if self.progress:
                self.progress(min(number, self.opened.count), self.opened.count)
            yield self.postprocess(Raster(array, infos.popleft()))

    def rows(self, rows: LazyRows) -> Iterator[np.ndarray]:
        height, whole = self.output.height, self.opened.height
        done = height - rows.shape[2] * height // whole
        for strip in self.upscaler.stream(rows, size=self.size if rows.first == 0 else None):
            done += len(strip)
            if self.progress:
                self.progress(done * whole // height, whole)
            yield self.postprocess(Raster(strip)).array

    def plane(self, plane: np.ndarray) -> np.ndarray:
        result = self.upscaler.upscale(torch.from_numpy(plane).expand(3, -1, -1)).mean(0)
        width, height = self.size.resolve(plane.shape[1], plane.shape[0], scale=self.upscaler.scale)
        return resize(result[None, None], (height, width)).clamp(0, 1)[0, 0].numpy()


def _prefetch(io_pool: Executor, actions: Sequence[Callable[[], T]]) -> Iterator[T]:
    """Yield the actions' results in their order; the next one is at work while its predecessor's result is used."""
    under_way: deque[Future[T]] = deque()
    for action in actions:
        under_way.append(io_pool.submit(action))
        if len(under_way) == 2:
            yield under_way.popleft().result()
    if under_way:
        yield under_way.popleft().result()


def _append_manifest(manifest: Path, *, seconds: float, why: ImageError | None, **named: object) -> None:
    """Add a line to a manifest."""
    line = {**{name: str(value) for name, value in named.items()}, "seconds": round(seconds, 3)}
    with manifest.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "why": str(why)} if why else line) + "\n")


def _is_finished(target: Path) -> bool:
    """Return whether an output is there, and log it. An empty file is what a power cut leaves."""
    finished = target.is_file() and target.stat().st_size > 0
    if finished:
        logger.warning("%s exists already; skipped", target)
    return finished


def _capture_error(source: Path, action: Callable[[], T]) -> T | ImageError:
    """Run an action and return its result, or its error as one that names the image."""
    try:
        return action()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they hold the image and its result
        if isinstance(error, ImageError):
            return error
        kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        reason = " ".join(str(error).split())
        problem = ImageError(f"{source} cannot be upscaled: {kind}{': ' if reason else ''}{reason}")
        problem.__cause__ = error
        return problem
