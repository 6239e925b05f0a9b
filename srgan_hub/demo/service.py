"""Upscale, batch and compare jobs."""

import logging
import re
import reprlib
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from .. import hub
from ..images.decode import open_image
from ..images.errors import DamagedImageError, ImageError, TruncatedImageError
from .close_up import CloseUp, close_up, preview_detail
from .compare import ModelComparison, compare
from .eta import EtaEstimator, format_duration
from .inputs import Prepared, prepare
from .queue import Client, JobCancelledError, JobQueue, JobState, Queued, count
from .settings import Settings
from .upscale import (
    Completed,
    LoadedImage,
    UpscaleProgress,
    flatten_alpha,
    load,
    to_data_url,
    upscale,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
ItemState = JobState | Literal["large"]
MAX_COMPARED_MODELS, MAX_BATCH_FILES = 3, 100


@dataclass(frozen=True)
class Cancelled:
    """The job was cancelled, for the reason given to `JobQueue.cancel`."""

    reason: Any


@dataclass(frozen=True)
class BatchItem:
    """State of one file of a batch: a message, size, a thumbnail (data URL) and a file, of the output when it is done.

    Before the batch, the file is the one to upscale. A "large" one has to be shrunk first.
    """

    name: str
    state: ItemState
    text: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0
    thumbnail: str = ""
    file: Path | None = None


class Service:
    """The demo without its UI; thread-safe. `models` can be compared in addition to the bundled ones."""

    def __init__(
        self, models: Sequence[str] = (), *, max_pixels: int = 4_000_000, concurrency: int = 1, queue_size: int = 20
    ) -> None:
        self.models = [*hub.bundled_models(), *models]
        self.max_pixels = max_pixels
        self.queue = JobQueue(concurrency=concurrency, size=queue_size)
        self.eta = EtaEstimator()
        self._decoding = threading.BoundedSemaphore(2)  # a decoded image may take half a gigabyte
        self.directory = tempfile.TemporaryDirectory()  # removed with the service

    def load(self, path: Path) -> LoadedImage:
        """Load an image of at most `max_pixels`. Raises `ImageError`."""
        return load(path, max_pixels=self.max_pixels)

    def prepare(self, path: Path, directory: Path, **options: Any) -> Prepared:
        """Call `prepare` with the service's limit, for few images at once."""
        with self._decoding:
            return prepare(path, directory, max_pixels=self.max_pixels, **options)

    def upscale(
        self, path: Path, settings: Settings, directory: Path, client: Client, *, previews: bool = False
    ) -> Iterator[Queued | UpscaleProgress | Completed | Cancelled]:
        """Queue `upscale` of an image into a directory."""
        steps = upscale(path, settings, directory, max_pixels=self.max_pixels, eta=self.eta, previews=previews)
        return self._run_queued(client, steps, self.estimate(path))

    def close_up(
        self, path: Path, preset: str, x: float, y: float, client: Client
    ) -> Iterator[Queued | CloseUp | Cancelled]:
        """Queue `close_up` of a region."""

        def steps() -> Iterator[CloseUp]:
            yield close_up(self.load(path), preset, x, y)

        return self._run_queued(client, steps(), self.eta.estimate(10_000))

    def preview_detail(
        self, path: Path, preset: str, detail: float, x: float, y: float, client: Client
    ) -> Iterator[Queued | CloseUp | Cancelled]:
        """Queue `preview_detail` of a region."""

        def steps() -> Iterator[CloseUp]:
            yield preview_detail(self.load(path), preset, detail, x, y)

        return self._run_queued(client, steps(), self.eta.estimate(7_000), urgent=True)

    def compare(
        self, path: Path, models: Sequence[str], ground_truth: Path | None, client: Client
    ) -> Iterator[Queued | float | ModelComparison | Cancelled]:
        """Queue `compare` of an image by two or three models."""
        if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
            raise ValueError(f"`models` must be a list of names, got {reprlib.repr(models)}.")
        models = list(dict.fromkeys(models))
        if unknown := [name for name in models if name not in self.models]:
            raise ValueError(f"Model {unknown[0]!r} is not available here; choose from {', '.join(self.models)}.")
        if not 2 <= len(models) <= MAX_COMPARED_MODELS:
            raise ValueError(f"Choose two or three models, got {len(models)}.")
        steps = compare(self.load(path), models, self.load(ground_truth) if ground_truth else None)
        return self._run_queued(client, steps, self.estimate(path, len(models)))

    def batch(
        self, paths: Sequence[Path], settings: Settings, directory: Path, client: Client
    ) -> Iterator[list[BatchItem]]:
        """Upscale images into a directory and yield all items after each change; failures stop no others.

        At the end DIRECTORY/results.zip has the outputs, if there are any.
        """
        if not paths:
            raise ValueError("Choose images first.")
        if len(paths) > MAX_BATCH_FILES:
            raise ValueError(f"Choose at most {MAX_BATCH_FILES} images, got {len(paths)}.")
        items = [BatchItem(path.name, "queued") for path in paths]
        archive = directory / "results.zip"
        with self.queue.enqueue(client) as job, zipfile.ZipFile(archive, "w") as content:
            for number, path in enumerate(paths):
                self.queue.requeue(job, self.estimate(path))
                yield items
                try:
                    for place in self.queue.wait_turn(job):
                        items[number] = replace(items[number], text=format_place(place))
                        yield items
                    outputs = Path(tempfile.mkdtemp(dir=directory))
                    steps = upscale(path, settings, outputs, max_pixels=self.max_pixels, eta=self.eta)
                    for step in self.queue.run(job, steps):
                        if isinstance(step, Completed):
                            file = step.file.rename(outputs / _unused_name(step.file, content))
                            content.write(file, file.name)
                            items[number] = _completed_item(step, file)
                        else:
                            assert isinstance(step, UpscaleProgress)
                            job.expect(step.seconds_left)
                            if items[number].state != "running":
                                items[number] = replace(items[number], state="running", text="")
                                yield items
                except JobCancelledError:
                    items[number:] = [replace(item, state="cancelled", text="") for item in items[number:]]
                    break
                except Exception as error:
                    items[number] = BatchItem(path.name, "failed", user_message(error, path))
        if not any(item.state == "done" for item in items):
            archive.unlink()
        yield items

    def preview(self, path: Path, directory: Path, *, shrink: bool = False) -> BatchItem:
        """Prepare a file for a batch, and return its item: with its size, or the reason for which it would fail."""
        try:
            prepared = self.prepare(path, directory, shrink=shrink)
        except Exception as error:
            return BatchItem(path.name, "failed", user_message(error, path))
        with Image.open(prepared.preview) as preview:
            thumbnail = _make_thumbnail(preview)
        state: ItemState = "ready" if prepared.image else "large"
        size = prepared.width, prepared.height
        text = prepared.describe(self.max_pixels)
        return BatchItem(prepared.file.name, state, text, *size, thumbnail=thumbnail, file=prepared.file)

    def estimate(self, path: Path, passes: int = 1) -> float | None:
        """Estimate from a file's header the seconds for some passes through a network; None if unknown."""
        try:
            with open_image(path, max_pixels=None) as opened:
                return self.eta.estimate(opened.width * opened.height * passes)
        except (ImageError, OSError):  # reported by the job
            return None

    def _run_queued(
        self, client: Client, steps: Iterator[T], seconds: float | None, *, urgent: bool = False
    ) -> Iterator[Queued | T | Cancelled]:
        """Wait in the queue, then iterate; the next job starts after the last step was consumed."""
        with self.queue.enqueue(client, seconds, urgent=urgent) as job:
            try:
                yield from self.queue.wait_turn(job)
                for step in self.queue.run(job, steps):
                    if isinstance(step, UpscaleProgress):
                        job.expect(step.seconds_left)
                    yield step
            except JobCancelledError:
                reason = None
                while reason is not job.cancel_reason:  # the session may give another one meanwhile
                    reason = job.cancel_reason
                    yield Cancelled(reason)


def format_place(place: Queued) -> str:
    """Describe a place in the queue."""
    if not place.ahead:
        return "Starting"
    duration = "" if place.seconds is None else f", {format_duration(place.seconds)}"
    return f"In queue: {count(place.ahead, 'job')} ahead{duration}"


def user_message(error: Exception, path: Path | None, *, api: bool = False) -> str:
    """Return a message for the user that names the image and no path of the server; log all but a `ValueError`.

    Unless it is for the API, it names no arguments in Python either.
    """
    name = path.name if path else "the image"
    if not isinstance(error, ValueError):
        logger.error("%s failed", path, exc_info=error)
        return f"Something went wrong while upscaling {name}. Please try again."
    if isinstance(error, DamagedImageError) and not api:
        what = "its end is missing" if isinstance(error, TruncatedImageError) else "it cannot be read"
        return f"{name} is damaged: {what}. Please save or download it again."
    text = re.sub(r"'/[^']*/([^'/]*)'", r"'\1'", f"{error}")
    if api:
        return text
    return re.sub(r"; [^;]*`[^;]*(?=\.$)|`", "", re.sub(r" \(`[^`]*`\)", "", text))


def _completed_item(step: Completed, file: Path) -> BatchItem:
    width, height = step.image.size
    text = f"{width} × {height} pixels in {step.seconds:.1f} s"
    thumbnail = _make_thumbnail(step.image)
    return BatchItem(step.source.name, "done", text, width, height, round(step.seconds, 2), thumbnail, file)


def _make_thumbnail(image: Image.Image) -> str:
    """Reduce an image in place, and return it as a data URL."""
    image.thumbnail((96, 96))
    return to_data_url(flatten_alpha(image), "JPEG")


def _unused_name(file: Path, archive: zipfile.ZipFile) -> str:
    """Return the file's name, numbered if the archive already has it."""
    used = set(archive.namelist())
    names = (f"{file.stem}{f' ({number})' if number else ''}{file.suffix}" for number in range(len(used) + 1))
    return next(name for name in names if name not in used)
