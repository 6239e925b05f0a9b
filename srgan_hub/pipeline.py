"""Many picture files: each in, the same out, larger."""

import json
import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from .moving import upscale_frames
from .pictures import carried, files, films
from .pictures.files import PictureError
from .pictures.film import Film, Output
from .pictures.large import Large, open_large
from .pictures.library_warnings import in_one_line
from .pictures.raster import Raster
from .pictures.rows import Rows
from .pictures.sizes import Size, SizeLike
from .replacing import sweep
from .upscaler import Progress, Upscaler

logger = logging.getLogger(__name__)

T = TypeVar("T")


# A picture that was read, where it came from and where its result goes.
_Job = tuple[Path, Path, Raster]
_Result = tuple[Path, Path, PictureError | None]
# Input, output, and what will become of it.
_Fate = tuple[Path, Path, "Future[PictureError | None]"]


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
        targets = {each: each.with_name(f"{each.stem}_{label}{films.suffix_of(each)}") for each in found}
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
    manifest = Path(output) / f"manifest{f'-{rank}' if count > 1 else ''}.jsonl" if output else None
    if not any(map(files.is_folder, inputs)):
        manifest = None
    taken: set[Path] = set()

    def read(source: Path, target: Path) -> Raster | Film | Large | None:
        """Read a picture, or open what is not read at once, unless its result is there or cannot be written."""
        if target in taken:
            raise PictureError(f"{source}: another input has its result in {target}; rename one of them.")
        taken.add(target)
        if skip_existing and _is_finished(target):
            return None
        if os.path.lexists(target) and not overwrite:
            raise PictureError(f"{target} exists already; set overwrite to replace it.")
        with in_one_line(source):
            raster: Raster | Film | Large | None = films.open_film(source, max_pixels=max_pixels)
            if raster is None and target.suffix.lower() in (".tif", ".tiff"):
                raster = open_large(source, max_pixels=max_pixels)
            raster = raster or files.read(source, max_pixels=max_pixels)
        try:
            width, height = wish.fit(raster.width, raster.height, scale=upscaler.scale)
        except ValueError as error:
            raise PictureError(f"{source}: {error}") from None
        if not single:
            target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(raster, Film):
            films.check(raster, target, width=width, height=height, quality=quality)
            return raster
        bits = depth or raster.bits
        alpha = isinstance(raster, Raster) and raster.alpha
        files.check_output(target, width=width, height=height, alpha=alpha, bits=bits, quality=quality)
        if isinstance(raster, Large):
            return raster
        # From 16 bits to 8 it goes at the end, the other way at once: the network computes with more than it was given.
        return raster.with_bits(max(bits, raster.bits))

    def complete(result: Raster) -> Raster:
        result = result.with_bits(depth or result.bits)
        if strip:
            carried.strip(result, gps=strip == "gps")
        if program and strip != "all":
            carried.sign(result, program)
        return result

    def write(result: Raster, target: Path) -> None:
        try:
            with in_one_line(target):
                files.write(complete(result), target, overwrite=overwrite, quality=quality)
        except PictureError:
            # Another run may have been faster.
            if not (skip_existing and _is_finished(target)):
                raise

    def play(source: Path, target: Path, film: Film) -> None:
        """Enlarge a film and write it as it comes."""
        update = progress(source) if progress else None
        size = wish
        if film.even and wish != Size():
            width, height = (
                max(2, side - side % 2) for side in wish.fit(film.width, film.height, scale=upscaler.scale)
            )
            size = Size(width=width, height=height)

        def enlarge(frames: Iterator[Raster], first: int) -> Iterator[Raster]:
            infos: deque[dict[Any, Any]] = deque()

            def arrays() -> Iterator[np.ndarray]:
                for frame in frames:
                    infos.append(frame.info)
                    yield frame.with_bits(max(depth or frame.bits, frame.bits)).array

            for number, array in enumerate(upscale_frames(upscaler, arrays(), size), first + 1):
                if update:
                    update(min(number, film.count), film.count)
                yield complete(Raster(array, infos.popleft()))

        key = f"{upscaler.fingerprint()} {size} {depth}"
        output = Output(target, quality, codec, crf, strip, program, key)
        with in_one_line(source), files.placed(target, overwrite=overwrite) as aside:
            film.write(enlarge, aside, output)

    def pour(source: Path, target: Path, picture: Large) -> None:
        """Enlarge a picture that is not in memory, by rows."""
        size = wish.fit(picture.width, picture.height, scale=upscaler.scale)
        update = progress(source) if progress else None
        bits = depth or picture.bits
        if strip:
            carried.strip(picture, gps=strip == "gps")
        if program and strip != "all":
            carried.sign(picture, program)

        def enlarge(rows: Rows) -> Iterator[np.ndarray]:
            done = size[1] - rows.shape[2] * size[1] // picture.height
            if bits > picture.bits:
                rows = replace(
                    rows, dtype=np.dtype(np.uint16), read=lambda a, b: picture.rows.read(a, b) * np.uint16(257)
                )
            for band in upscaler.stream(rows, size=wish if rows.first == 0 else None):
                done += len(band)
                if update:
                    update(done * picture.height // size[1], picture.height)
                yield Raster(band).with_bits(bits).array

        output = Output(target, program=program, key=upscaler.fingerprint())
        with in_one_line(source), files.placed(target, overwrite=overwrite) as aside:
            picture.write(enlarge, aside, output, size=size, scale=upscaler.scale, reach=upscaler.radius, bits=bits)

    def finish(source: Path, target: Path, result: Raster | PictureError | str, seconds: float) -> PictureError | None:
        """Write a result that is not written yet, and the line in the manifest."""
        problem = result if isinstance(result, PictureError) else None
        if isinstance(result, Raster):
            problem = _attempt(source, partial(write, result, target))
            result = "done"
        if manifest:
            state = "failed" if problem else str(result)
            _note(manifest, input=source, output=target, state=state, seconds=seconds, why=problem)
        return problem

    def enlarge(batch: Sequence[_Job]) -> Iterator[_Fate]:
        source, target, first = batch[0]
        # The pictures of a batch are all done at once: only one that goes alone shows how far it is.
        alone = progress(source) if progress and len(batch) == 1 else None
        arrays = [raster.array for _, _, raster in batch]
        started = time.monotonic()
        results = _attempt(source, lambda: upscaler.upscale_batch(arrays, size=wish, progress=alone))
        seconds = (time.monotonic() - started) / len(batch)
        if not isinstance(results, PictureError):
            for (source, target, raster), array in zip(batch, results, strict=True):
                if progress and not alone:
                    progress(source)(first.height, first.height)
                yield source, target, beside.submit(finish, source, target, Raster(array, raster.info), seconds)
        elif len(batch) == 1:
            yield source, target, beside.submit(finish, source, target, results, seconds)
        else:  # each alone shows which one failed
            for job in batch:
                yield from enlarge([job])

    def groups() -> Iterator[list[_Fate]]:
        """Yield what becomes of the pictures, in groups that went through the network together."""
        batch: list[_Job] = []
        mine = pairs[rank::count]
        reads = _ahead(beside, [partial(_attempt, source, partial(read, source, target)) for source, target in mine])
        for (source, target), raster in zip(mine, reads, strict=True):
            fits = isinstance(raster, Raster) and all(
                (raster.array.shape, raster.bits) == (other.array.shape, other.bits) for *_, other in batch
            )
            if batch and not fits:
                yield list(enlarge(batch))
                batch = []
            if not isinstance(raster, Raster):
                started = time.monotonic()
                result: PictureError | str = "skipped"
                if isinstance(raster, (Film, Large)):
                    action = (
                        partial(play, source, target, raster)
                        if isinstance(raster, Film)
                        else partial(pour, source, target, raster)
                    )
                    result = _attempt(source, action) or "done"
                elif raster:
                    result = raster
                seconds = time.monotonic() - started
                yield [(source, target, beside.submit(finish, source, target, result, seconds))]
                continue
            batch.append((source, target, raster))
            if len(batch) == upscaler.batch_size(raster.height, raster.width):
                yield list(enlarge(batch))
                batch = []
        if batch:
            yield list(enlarge(batch))

    # One thread, since `in_one_line` changes stderr for all of them.
    with ThreadPoolExecutor(1) as beside:
        under_way: list[_Fate] = []
        for group in chain(groups(), [[]]):
            for source, target, fate in under_way:
                yield source, target, fate.result()
            under_way = group


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
