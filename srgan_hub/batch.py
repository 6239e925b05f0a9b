"""Upscale files and directories, with resumption, a manifest and per-file error isolation."""

import json
import logging
import math
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from .fileio import remove_stale_parts
from .frames import upscale_frames
from .images import animation, decode, encode, formats, tiff_media
from .images.decode import MAX_PIXELS
from .images.encode import SaveOptions
from .images.errors import ImageError, describe, one_line
from .images.media import MediaReader, MediaWriter, Opened, Output
from .images.raster import Raster
from .images.tensors import Alpha, Wrap, check_options
from .plan import LEFT_OUT, Job, names_program, plan_outputs
from .progress import Progress, ProgressCallback
from .resize import SizeLike, TargetSize
from .upscaler import ImageOptions, Upscaler
from .version import PROGRAM

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class FileResult:
    """Input, output, and the error if the input failed. An error of another type is its `__cause__`."""

    source: Path
    target: Path
    error: ImageError | None


def upscale_files(
    upscaler: Upscaler,
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    size: SizeLike | None = None,
    options: SaveOptions = SaveOptions(),  # noqa: B008  # frozen
    format: str | None = None,
    value_range: tuple[float, float] | None = None,
    skip_existing: bool = False,
    max_pixels: int | None = MAX_PIXELS,
    allow_truncated: bool = False,
    wrap: Wrap | None = None,
    alpha: Alpha = "opacity",
    progress: Callable[[Path], Progress] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[FileResult]:
    """Upscale image files in order; one that fails does not stop the others.

    Consecutive small images of equal size are upscaled together. Meanwhile a thread reads the next image and writes the
    previous ones. Stale temporary files of interrupted runs are removed first. If an input is a directory, each run
    appends a line per file to `manifest.jsonl` in the output directory: input, output, state (done, failed, skipped or
    left out), seconds in the network, and the error or reason.

    Args:
        inputs: Image files and directories. Of a directory all images below are taken, except for hidden ones and those
            in `output`. Of several inputs, images that this program upscaled are left out: those with its name in the
            metadata, and those with the name of an output of a file next to them. What is left out is logged.
        output: A file or a directory. It is a directory if it exists as one, ends in a slash, or there are several
            inputs or a directory among them; directories keep their structure below it. None writes NAME_x4.png, or
            .gif, .tif and the like for multi-image inputs, next to each input. Inputs of one name and different
            suffixes become NAME_SUFFIX_x4.png.
        size, wrap, alpha: As for `Upscaler.upscale`.
        format: Format of outputs that are named by their inputs: png, jpeg, webp, avif or tiff. Animations and the like
            keep theirs if this one cannot store them.
        value_range: Values of a floating-point, signed or 32-bit TIFF that are black and white, by default its minimum
            and maximum.
        skip_existing: Skip inputs whose output exists, and log that.
        max_pixels: The largest input, in pixels.
        allow_truncated: Upscale what is there of an image whose file is cut off, with a warning.
        progress: Called with an input, returns its progress display.
        shard: (rank, count): take every count-th image from index `rank` on. Several write `manifest-RANK.jsonl` each.

    Raises:
        ValueError: An argument is invalid, or an input directory contains no images.
    """
    size = TargetSize.parse(size)
    check_options(wrap, alpha)
    if value_range and not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise ValueError(f"`value_range` must be two finite values, the lower one first, got {value_range}.")
    paths = [Path(each) for each in ([inputs] if isinstance(inputs, (str, os.PathLike)) else inputs)]
    plan = plan_outputs(paths, None if output is None else os.fspath(output), size.suffix(upscaler.scale), format)
    jobs, manifest = plan.jobs, None
    rank, count = shard
    for warning in plan.warnings if rank == 0 else ():
        logger.warning("%s", warning)
    is_file = len(jobs) == 1 and output is not None and jobs[0].target == Path(output)
    if output is not None and not is_file:
        for directory in (Path(output), *(job.target.parent for job in jobs)):
            with suppress(OSError):  # reported for each image
                directory.mkdir(parents=True, exist_ok=True)
        if any(map(decode.is_directory, paths)):
            manifest = Path(output) / (f"manifest-{rank}.jsonl" if count > 1 else "manifest.jsonl")
    for directory in {job.target.parent for job in jobs}:
        with suppress(OSError):  # reported for each image
            remove_stale_parts(directory)
    read = partial(decode.open_image, max_pixels=max_pixels, allow_truncated=allow_truncated)
    skip_results = len(paths) > 1 or any(map(decode.is_directory, paths))
    with ThreadPoolExecutor(1) as io_pool:
        run = _BatchRunner(
            upscaler, size, wrap, alpha, options, value_range, skip_existing, skip_results, read, progress, manifest,
            io_pool,
        )  # fmt: skip
        for path, reason in list(plan.left_out.items())[rank::count]:
            run.write_manifest(path, state="left out", reason=reason)
        pending: list[Future[FileResult | None]] = []
        for batch in chain(run.batches(jobs[rank::count]), [[]]):
            yield from filter(None, (future.result() for future in pending))
            pending = batch


@dataclass
class _BatchRunner:
    """The loop over all inputs: read, upscale, write. Arguments as for `upscale_files`."""

    upscaler: Upscaler
    size: TargetSize
    wrap: Wrap | None
    alpha: Alpha
    options: SaveOptions
    value_range: tuple[float, float] | None
    skip_existing: bool
    skip_results: bool  # of this program, from before
    read: Callable[[Path], Opened]
    progress: Callable[[Path], Progress] | None
    manifest: Path | None
    io_pool: Executor  # one thread that reads and writes

    def batches(self, jobs: Sequence[Job]) -> Iterator[list[Future[FileResult | None]]]:
        """Yield results in batches that were upscaled together."""

        def shape_of(job: Job) -> tuple[int, ...] | None:
            return (*job.found.array.shape, job.found.bits) if isinstance(job.found, Raster) else None

        for shape, equal in groupby(self._read_ahead(jobs), shape_of):
            if shape is None:
                yield from ([self._process_other(job)] for job in equal)
                continue
            while batch := list(islice(equal, self.upscaler.max_batch_size(*shape[:2]))):
                yield list(self._upscale_batch(batch))

    def _read_ahead(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Yield all jobs in order, while the next one is read."""
        reading = (self.io_pool.submit(self._read, job) for job in jobs)
        ahead = next(reading, None)
        while ahead:
            job, ahead = ahead, next(reading, None)
            yield job.result()

    def _read(self, job: Job) -> Job:
        found = job.found or _capture_error(job.source, partial(self._open, job.source, job.target))
        return replace(job, found=found)

    def _open(self, source: Path, target: Path) -> Raster | MediaReader | str:
        """Load an image, or open media, unless the output exists or cannot be written, or the input is one."""
        if self.skip_existing and _is_finished(target):
            return "skipped"
        if os.path.lexists(target) and not self.options.overwrite:
            raise ImageError(f"'{target}' already exists; set `overwrite` to replace it, or `skip_existing`.")
        with ExitStack() as stack:
            opened = stack.enter_context(self.read(source))
            found: Raster | MediaReader
            validate = partial(encode.validate_output, target, quality=self.options.quality)
            is_tiff = target.suffix.lower() in formats.TIFF.suffixes
            if isinstance(opened, MediaReader) and (opened.kind != "rows" or is_tiff):
                found = opened
                output = self._output(source, opened, target)
                validate(width=output.width, height=output.height, kind=opened.kind)
                if self.alpha == "independent" and target.suffix.lower() in (".gif", ".webp"):
                    message = "'%s': animations of this format store no colors where alpha is 0; use .apng"
                    logger.warning(message, target)
                stack.pop_all()
            else:
                found = encode.without_alpha(opened.load(), target, self.options.background)
                width, height = self._resolve_size(source, found.width, found.height)
                bits = self.options.bit_depth or found.bits
                validate(width=width, height=height, alpha=found.has_alpha, bits=bits)
                # 8 bits are widened ahead of the network, which computes with more; 16 are reduced after it.
                found = found.with_bits(max(bits, found.bits))
        metadata = getattr(found, "metadata", None)
        if self.skip_results and names_program(metadata):
            logger.warning("'%s': left out, since %s made it; pass it alone to upscale it again", source, PROGRAM)
            if isinstance(found, MediaReader):
                found.close()
            return LEFT_OUT
        hints = metadata.hints(self.wrap) if metadata else []
        for warning in dict.fromkeys(found.warnings + hints):
            logger.warning("'%s': %s", source, warning)
        return found

    def _resolve_size(self, source: Path, width: int, height: int) -> tuple[int, int]:
        try:
            return self.size.resolve(width, height, scale=self.upscaler.scale)
        except ValueError as error:
            raise ImageError(f"'{source}': {error}") from None

    def _output(self, source: Path, reader: MediaReader, target: Path) -> Output:
        width, height = self._resolve_size(source, reader.width, reader.height)
        if reader.kind == "video":  # encoders need even sides
            width, height = (max(2, side - side % 2) for side in (width, height))
        resumable = (width, height) == (reader.width * self.upscaler.scale, reader.height * self.upscaler.scale)
        key = f"{self.upscaler.fingerprint()} {self.size} {self.options.bit_depth} {self.wrap} {self.alpha}"
        return Output(target, width, height, self.options, resumable, key)

    def _upscale_batch(self, batch: Sequence[Job]) -> Iterator[Future[FileResult | None]]:
        """Upscale images together, and submit them for writing."""
        images = [job.found for job in batch if isinstance(job.found, Raster)]
        source, height = batch[0].source, images[0].height
        started = time.monotonic()
        # The images of a batch are done at the same time: only a single one has progress.
        with self._show_progress(source if len(batch) == 1 else None) as progress:
            arrays = [image.array for image in images]
            options = ImageOptions(size=self.size, wrap=self.wrap, alpha=self.alpha)
            upscale = partial(self.upscaler.upscale_batch, arrays, progress=progress, **options)
            results = _capture_error(source, upscale)
        seconds = (time.monotonic() - started) / len(batch)
        if isinstance(results, ImageError) and len(batch) > 1:  # find the one that fails
            for job in batch:
                yield from self._upscale_batch([job])
        elif isinstance(results, ImageError):
            yield self.io_pool.submit(self._finish, batch[0], results, seconds)
        else:
            for job, image, array in zip(batch, images, results, strict=True):
                with self._show_progress(job.source if len(batch) > 1 else None) as progress:
                    progress(height, height)
                yield self.io_pool.submit(self._finish, job, replace(image, array=array), seconds)

    def _process_other(self, job: Job) -> Future[FileResult | None]:
        """Upscale and write media, or pass on why there is nothing to do."""
        started = time.monotonic()
        result = job.found or "done"
        if isinstance(result, MediaReader):
            result = _capture_error(job.source, partial(self._process_media, job, result)) or "done"
        return self.io_pool.submit(self._finish, job, result, time.monotonic() - started)

    def _process_media(self, job: Job, reader: MediaReader) -> None:
        output = self._output(job.source, reader, job.target)
        with (
            reader,
            self._show_progress(job.source) as progress,
            encode.atomic_output(job.target, overwrite=self.options.overwrite) as temporary,
            _open_writer(reader, temporary, output) as writer,
        ):
            steps = {"channels": self._upscale_channels, "rows": self._upscale_rows}
            writer.write(steps.get(reader.kind, self._upscale_frames)(reader, writer, progress))

    def _upscale_frames(self, reader: MediaReader, writer: MediaWriter, progress: ProgressCallback) -> Iterator[Raster]:
        pending: deque[Raster] = deque()
        bits, size = self.options.bit_depth, self.size
        if reader.kind == "video" and size != TargetSize():
            size = TargetSize(width=writer.output.width, height=writer.output.height)

        def arrays() -> Iterator[np.ndarray]:
            for frame in reader.read(writer.done):
                pending.append(frame)
                yield frame.with_bits(max(bits or frame.bits, frame.bits)).array

        options: Any = {"wrap": self.wrap, "alpha": self.alpha, "restart_interval": writer.restart_interval}
        results = upscale_frames(self.upscaler, arrays(), size, **options)
        for number, array in enumerate(results, writer.done + 1):
            progress(min(number, reader.count), reader.count)
            frame = replace(pending.popleft(), array=array)
            frame = frame.with_bits(bits or frame.bits)
            yield replace(frame, metadata=self.options.apply_to(frame.metadata))

    def _upscale_rows(
        self, reader: MediaReader, writer: MediaWriter, progress: ProgressCallback
    ) -> Iterator[np.ndarray]:
        height, done, bits = writer.output.height, writer.done, self.options.bit_depth
        if done == height:
            return
        (rows,) = reader.read()
        if bits == 16 and rows.dtype == np.uint8:
            read = rows.read
            rows = replace(rows, dtype=np.dtype(np.uint16), read=lambda top, end: read(top, end) * np.uint16(257))
        for strip in self.upscaler.stream(rows, size=self.size, wrap=self.wrap, alpha=self.alpha, start=done):
            done += len(strip)
            progress(done * reader.height // height, reader.height)
            yield Raster(strip).with_bits(bits or 8 * strip.itemsize).array

    def _upscale_channels(
        self, reader: MediaReader, writer: MediaWriter, progress: ProgressCallback
    ) -> Iterator[tiff_media.ChannelStack]:
        for number, stack in enumerate(reader.read(writer.done), 1):
            low, high = self.value_range or stack.value_range
            yield stack.map(partial(self._upscale_channel, low=low, high=high, nodata=stack.nodata))
            progress(number, reader.count)

    def _upscale_channel(self, channel: np.ndarray, *, low: float, high: float, nodata: float) -> np.ndarray:
        lr = tiff_media.normalize(channel, low, high, nodata, self.wrap)
        width, height = self.size.resolve(channel.shape[1], channel.shape[0], scale=self.upscaler.scale)
        down, across = (repeated // side for repeated, side in zip(lr.shape, channel.shape, strict=True))
        sr = self.upscaler.upscale(
            torch.from_numpy(lr).expand(3, -1, -1),
            size=(width * across, height * down),
            wrap=self.wrap if lr.shape == channel.shape else None,
        ).mean(0)
        top, left = down // 2 * height, across // 2 * width
        sr = sr[top : top + height, left : left + width]
        return tiff_media.denormalize(sr.numpy(), channel, low, high, nodata)

    def _finish(self, job: Job, result: Raster | ImageError | str, seconds: float) -> FileResult | None:
        """Write an image that is not written yet, and the line in the manifest; None if it is left out."""
        if isinstance(result, Raster):
            write = partial(encode.write_raster, result, job.target, self.options)
            result = _capture_error(job.source, write) or "done"
        if isinstance(result, ImageError) and not isinstance(job.found, ImageError) and self.skip_existing:
            result = "skipped" if _is_finished(job.target) else result  # written by another run meanwhile
        error = result if isinstance(result, ImageError) else None
        line = {"output": str(job.target), "state": "failed" if error else str(result), "seconds": round(seconds, 3)}
        self.write_manifest(job.source, **line, **({"error": str(error)} if error else {}))
        return None if result == LEFT_OUT else FileResult(job.source, job.target, error)

    def write_manifest(self, source: Path, **values: object) -> None:
        """Append a line to the manifest, if there is one."""
        if self.manifest:
            try:
                with self.manifest.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"input": str(source), **values}) + "\n")
            except OSError as error:
                logger.warning("'%s' cannot be written: %s", self.manifest, describe(error))
                self.manifest = None

    @contextmanager
    def _show_progress(self, source: Path | None) -> Iterator[ProgressCallback]:
        """Open an input's progress display, if there is any, and close it at the end, also after an error."""
        progress = self.progress(source) if self.progress and source else None
        try:
            yield progress or (lambda done, total: None)
        finally:
            if progress:
                progress.close()


def _open_writer(reader: Any, path: Path, output: Output) -> MediaWriter:
    if reader.kind == "video":
        from .images.video import VideoWriter  # requires PyAV

        return VideoWriter(reader, path, output)
    writers: dict[str, type[MediaWriter]] = {
        "animation": animation.AnimationWriter,
        "pages": tiff_media.PagesWriter,
        "channels": tiff_media.ChannelsWriter,
        "rows": tiff_media.RowsWriter,
    }
    return writers[reader.kind](reader, path, output)


def _is_finished(target: Path) -> bool:
    """Return whether an output exists, and log it. An empty file, as a power failure leaves it, does not count."""
    finished = target.is_file() and target.stat().st_size > 0
    if finished:
        logger.warning("'%s' already exists; skipped", target)
    return finished


def _capture_error(source: Path, action: Callable[[], T]) -> T | ImageError:
    """Run an action and return its result, or its error as one that names the input."""
    try:
        return action()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # which hold the image and its result
        if isinstance(error, ImageError):
            return error
        kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        reason = one_line(str(error))
        wrapped = ImageError(f"'{source}' cannot be upscaled: {kind}{': ' if reason else ''}{reason}")
        wrapped.__cause__ = error
        return wrapped
