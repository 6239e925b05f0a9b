"""Many picture files: each in, the same out, larger."""

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

from .moving import upscale_frames
from .pictures import carried, files, sources
from .pictures.files import PictureError
from .pictures.library_warnings import in_one_line
from .pictures.raster import Raster
from .pictures.resize import bicubic
from .pictures.rows import Rows
from .pictures.sizes import Size, SizeLike
from .pictures.source import Output, Source
from .replacing import sweep
from .upscaler import Progress, Upscaler

logger = logging.getLogger(__name__)

T = TypeVar("T")


# A picture that was read, where it came from and where its result goes.
_Job = tuple[Path, Path, Raster]
_Problem = PictureError | None
_Result = tuple[Path, Path, _Problem]
_Opened = tuple[Source, Output]
# Input, output, and what will become of it.
_Fate = tuple[Path, Path, "Future[_Problem]"]


def plan_outputs(inputs: Sequence[Path], output: str | None, *, label: str) -> list[tuple[Path, Path]]:
    """Plan which pictures are upscaled, and where each one's result goes.

    Args:
        inputs: picture files, and folders, of which all pictures below are taken, but for hidden ones, those in
            `output`, and results that lie beside their pictures.
        output: a file or a folder. A folder is meant when it exists, ends in a slash, or there are several inputs or a
            folder among them; below it a folder's structure is kept. None puts each result beside its input.
        label: of the size, for the name: NAME_x4.png, or the suffix of a file of several pictures.

    Raises:
        ValueError: there is no picture in a folder.
    """
    folders = [path for path in inputs if files.is_folder(path)]
    place = None if output is None else Path(output)
    several = len(inputs) > 1 or folders
    if output and place and not (several or output.endswith(("/", "\\")) or place.is_dir()):
        return [(inputs[0], place)]
    pairs = []
    for path in inputs:
        found = files.find(path, place) if path in folders else [path]
        targets = {each: each.with_name(f"{each.stem}_{label}{sources.suffix_of(each)}") for each in found}
        if path in folders:
            targets = {each: target for each, target in targets.items() if each not in targets.values()}
        if not targets:
            raise ValueError(f"{path} is a folder without pictures.")
        for each, target in targets.items():
            below = target.relative_to(path) if path in folders else target.name
            pairs.append((each, place / below if place else target))
    return pairs


def upscale_files(
    upscaler: Upscaler,
    inputs: Sequence[Path],
    output: str | None = None,
    *,
    size: SizeLike | None = None,
    quality: int | None = None,
    depth: Literal[8, 16] | None = None,
    limits: tuple[float, float] | None = None,
    strip: Literal["all", "gps"] | None = None,
    program: str | None = None,
    codec: str | None = None,
    crf: int | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    max_pixels: int | None = files.MAX_PIXELS,
    progress: Callable[[Path], Progress] | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[_Result]:
    """Upscale picture files in their order; one that fails does not stop the others.

    Small ones of one size that follow one another go through the network together. While they do, the next one is read
    and the last ones are written, in a thread. What killed runs left half written in the folders of the outputs is
    deleted first. Where an input is a folder, each run adds a line for each picture to `manifest.jsonl` in the output
    folder: input, output, state (done, failed or skipped), seconds in the network, and why it failed.

    Args:
        upscaler: from `SRGAN.upscaler`.
        inputs: picture files and folders, as in `plan_outputs`.
        output: as in `plan_outputs`.
        size: as for `Upscaler.upscale`.
        quality: of JPEG and WebP, as for `pictures.files.write`.
        depth: bits per channel of the results, by default those of each input. What goes to 16 is computed so.
        limits: what black and white mean in a TIFF of floats, by default its lowest and highest number.
        strip: drop all metadata or only the place, as `pictures.carried.strip` does.
        program: what the results name as the program that made them, unless all metadata is dropped.
        codec, crf: of a video, its encoder and constant rate factor; what suits by default.
        overwrite: replace outputs that exist.
        skip_existing: take outputs that exist for done, and log that.
        max_pixels: the largest input, in pixels.
        progress: called with an input, returns its progress callback for `Upscaler.upscale`.
        share: (rank, count): take every count-th picture, beginning with this one. The manifest is then
            `manifest-RANK.jsonl`.

    Yields:
        Input, output, and what went wrong or None. An error of another type is the `__cause__` of the `PictureError`.
    """
    wish = Size.parse(size)
    pairs = plan_outputs(inputs, output, label=wish.label(upscaler.scale))
    single = len(pairs) == 1 and output is not None and pairs[0][1] == Path(output)
    if output is not None and not single:
        Path(output).mkdir(parents=True, exist_ok=True)
    for folder in {target.parent for _, target in pairs}:
        sweep(folder)
    rank, count = share
    manifest = None
    if output is not None and any(map(files.is_folder, inputs)):
        manifest = Path(output) / (f"manifest-{rank}.jsonl" if count > 1 else "manifest.jsonl")
    named = None if strip == "all" else program
    key = f"{upscaler.fingerprint()} {wish} {depth}"
    plan = Output(Path(), 0, 0, upscaler.scale, upscaler.radius, quality, depth, codec, crf, strip, named, key)
    # One thread, since `in_one_line` changes stderr for all of them.
    with ThreadPoolExecutor(1) as beside:
        run = _Run(
            upscaler, wish, plan, limits, overwrite, skip_existing, max_pixels, progress, manifest, single, beside
        )
        under_way: list[_Fate] = []
        for group in chain(run.groups(pairs[rank::count]), [[]]):
            for source, target, fate in under_way:
                yield source, target, fate.result()
            under_way = group


@dataclass
class _Run:
    """What all pictures of a run have in common: the arguments of `upscale_files`, and these.

    Args:
        plan: what shall become of each, but for its place and size.
        manifest: where lines go, if anywhere.
        single: one input that becomes one file, whose folder must be there.
        beside: the thread that reads and writes.
        taken: the outputs that inputs have so far.
    """

    upscaler: Upscaler
    wish: Size
    plan: Output
    limits: tuple[float, float] | None
    overwrite: bool
    skip_existing: bool
    max_pixels: int | None
    progress: Callable[[Path], Progress] | None
    manifest: Path | None
    single: bool
    beside: Executor
    taken: set[Path] = field(default_factory=set)

    def groups(self, pairs: Sequence[tuple[Path, Path]]) -> Iterator[list[_Fate]]:
        """Yield what becomes of inputs with their outputs, in groups that went through the network together."""
        batch: list[_Job] = []
        reads = _ahead(self.beside, [partial(_attempt, source, partial(self.read, source, to)) for source, to in pairs])
        for (source, target), found in zip(pairs, reads, strict=True):
            fits = isinstance(found, Raster) and all(
                (found.array.shape, found.bits) == (other.array.shape, other.bits) for *_, other in batch
            )
            if batch and not fits:
                yield list(self.enlarge(batch))
                batch = []
            if isinstance(found, Raster):
                batch.append((source, target, found))
                if len(batch) == self.upscaler.batch_size(found.height, found.width):
                    yield list(self.enlarge(batch))
                    batch = []
                continue
            result: PictureError | str = found if isinstance(found, PictureError) else "skipped"
            started = time.monotonic()
            if isinstance(found, tuple):
                result = _attempt(source, partial(self.transfer, source, *found)) or "done"
            seconds = time.monotonic() - started
            yield [(source, target, self.beside.submit(self.finish, source, target, result, seconds))]
        if batch:
            yield list(self.enlarge(batch))

    def read(self, source: Path, target: Path) -> Raster | _Opened | None:
        """Read a picture, or open what is not read at once, unless its result is there or cannot be written."""
        if target in self.taken:
            raise PictureError(f"{source}: another input has its result in {target}; rename one of them.")
        self.taken.add(target)
        if self.skip_existing and _is_finished(target):
            return None
        if os.path.lexists(target) and not self.overwrite:
            raise PictureError(f"{target} exists already; set overwrite to replace it.")
        with in_one_line(source):
            opened = sources.open_source(source, target.suffix, max_pixels=self.max_pixels, limits=self.limits)
            found = opened or files.read(source, max_pixels=self.max_pixels)
        try:
            width, height = self.wish.fit(found.width, found.height, scale=self.upscaler.scale)
        except ValueError as error:
            raise PictureError(f"{source}: {error}") from None
        if not self.single:
            target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(found, Source):
            if found.even:
                width, height = (max(2, side - side % 2) for side in (width, height))
            output = replace(self.plan, path=target, width=width, height=height)
            sources.check(found, output)
            return found, output
        bits = self.plan.depth or found.bits
        quality = self.plan.quality
        files.check_output(target, width=width, height=height, alpha=found.alpha, bits=bits, quality=quality)
        # From 16 bits to 8 it goes at the end, the other way at once: the network computes with more than it was given.
        return found.with_bits(max(bits, found.bits))

    def enlarge(self, batch: Sequence[_Job]) -> Iterator[_Fate]:
        """Enlarge pictures together, and have them written."""
        source, target, first = batch[0]
        # The pictures of a batch are all done at once: only one that goes alone shows how far it is.
        alone = self.progress(source) if self.progress and len(batch) == 1 else None
        arrays = [raster.array for _, _, raster in batch]
        started = time.monotonic()
        results = _attempt(source, lambda: self.upscaler.upscale_batch(arrays, size=self.wish, progress=alone))
        seconds = (time.monotonic() - started) / len(batch)
        if not isinstance(results, PictureError):
            for (source, target, raster), array in zip(batch, results, strict=True):
                if self.progress and not alone:
                    self.progress(source)(first.height, first.height)
                result = Raster(array, raster.info)
                yield source, target, self.beside.submit(self.finish, source, target, result, seconds)
        elif len(batch) == 1:
            yield source, target, self.beside.submit(self.finish, source, target, results, seconds)
        else:  # each alone shows which one failed
            for job in batch:
                yield from self.enlarge([job])

    def transfer(self, source: Path, opened: Source, output: Output) -> None:
        """Enlarge what is not read at once, and write it as it comes."""
        fitted = opened.even and self.wish != Size()
        size = Size(width=output.width, height=output.height) if fitted else self.wish
        progress = self.progress(source) if self.progress else None
        enlarger = _Enlarger(self.upscaler, size, opened, output, self.complete, progress)
        with in_one_line(source), files.placed(output.path, overwrite=self.overwrite) as aside:
            opened.write(enlarger, aside, output)

    def finish(self, source: Path, target: Path, result: Raster | PictureError | str, seconds: float) -> _Problem:
        """Write a result that is not written yet, and the line in the manifest."""
        problem = result if isinstance(result, PictureError) else None
        if isinstance(result, Raster):
            problem = _attempt(source, partial(self.write, result, target))
            result = "done"
        if self.manifest:
            state = "failed" if problem else str(result)
            _note(self.manifest, input=source, output=target, state=state, seconds=seconds, why=problem)
        return problem

    def write(self, result: Raster, target: Path) -> None:
        """Write a picture."""
        try:
            with in_one_line(target):
                files.write(self.complete(result), target, overwrite=self.overwrite, quality=self.plan.quality)
        except PictureError:
            # Another run may have been faster.
            if not (self.skip_existing and _is_finished(target)):
                raise

    def complete(self, result: Raster) -> Raster:
        """Give a result the depth and the metadata that were asked for."""
        result = result.with_bits(self.plan.depth or result.bits)
        if self.plan.strip:
            carried.strip(result, gps=self.plan.strip == "gps")
        if self.plan.program:
            carried.sign(result, self.plan.program)
        return result


@dataclass
class _Enlarger:
    """What a source's pictures go through.

    Args:
        upscaler: the network.
        size: of the results.
        opened: the source.
        output: what shall become of it.
        complete: gives a result its depth and metadata.
        progress: is told how far it is.
    """

    upscaler: Upscaler
    size: Size
    opened: Source
    output: Output
    complete: Callable[[Raster], Raster]
    progress: Progress | None

    def frames(self, frames: Iterator[Raster], first: int) -> Iterator[Raster]:
        infos: deque[dict[Any, Any]] = deque()

        def arrays() -> Iterator[np.ndarray]:
            for frame in frames:
                infos.append(frame.info)
                yield frame.with_bits(max(self.output.depth or frame.bits, frame.bits)).array

        for number, array in enumerate(upscale_frames(self.upscaler, arrays(), self.size), first + 1):
            if self.progress:
                self.progress(min(number, self.opened.count), self.opened.count)
            yield self.complete(Raster(array, infos.popleft()))

    def rows(self, rows: Rows) -> Iterator[np.ndarray]:
        height, whole = self.output.height, self.opened.height
        done = height - rows.shape[2] * height // whole
        for band in self.upscaler.stream(rows, size=self.size if rows.first == 0 else None):
            done += len(band)
            if self.progress:
                self.progress(done * whole // height, whole)
            yield self.complete(Raster(band)).array

    def plane(self, plane: np.ndarray) -> np.ndarray:
        result = self.upscaler.upscale(torch.from_numpy(plane).expand(3, -1, -1)).mean(0)
        width, height = self.size.fit(plane.shape[1], plane.shape[0], scale=self.upscaler.scale)
        return bicubic(result[None, None], (height, width)).clamp(0, 1)[0, 0].numpy()


def _ahead(beside: Executor, actions: Sequence[Callable[[], T]]) -> Iterator[T]:
    """Yield the actions' results in their order; the next one is at work while its predecessor's result is used."""
    under_way: deque[Future[T]] = deque()
    for action in actions:
        under_way.append(beside.submit(action))
        if len(under_way) == 2:
            yield under_way.popleft().result()
    if under_way:
        yield under_way.popleft().result()


def _note(manifest: Path, *, seconds: float, why: PictureError | None, **named: object) -> None:
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
