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
from typing import Any, TypeVar

from .. import hub
from .compare import ModelComparison, compare
from .eta import EtaEstimator
from .inputs import Prepared, prepare
from .queue import Client, JobCancelledError, JobQueue, JobState, count
from .settings import Settings
from .upscale import Completed, LoadedImage, UpscaleProgress, close_up, flatten_alpha, load, to_data_url, upscale

logger = logging.getLogger(__name__)

T = TypeVar("T")
MAX_COMPARED_MODELS, MAX_BATCH_FILES = 3, 100


@dataclass(frozen=True)
class Queued:
    """The job waits for `ahead` others."""

    ahead: int


@dataclass(frozen=True)
class Cancelled:
    """The job was cancelled, for the reason given to `JobQueue.cancel`."""

    reason: Any


@dataclass(frozen=True)
class BatchItem:
    """State of one file of a batch: a message, and when done the output's size, seconds and thumbnail (data URL)."""

    name: str
    state: JobState
    text: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0
    thumbnail: str = ""


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
        return self._run_queued(client, steps)

    def close_up(
        self, path: Path, preset: str, x: float, y: float, client: Client
    ) -> Iterator[Queued | dict[str, str] | Cancelled]:
        """Queue `close_up` of a region."""

        def steps() -> Iterator[dict[str, str]]:
            yield close_up(self.load(path), preset, x, y)

        return self._run_queued(client, steps())

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
        return self._run_queued(client, steps)

    def batch(
        self, paths: Sequence[Path], settings: Settings, directory: Path, client: Client
    ) -> Iterator[list[BatchItem]]:
        """Upscale images into DIRECTORY/results.zip and yield all items after each change; failures stop no others."""
        if not paths:
            raise ValueError("Choose images first.")
        if len(paths) > MAX_BATCH_FILES:
            raise ValueError(f"Choose at most {MAX_BATCH_FILES} images, got {len(paths)}.")
        items = [BatchItem(path.name, "queued") for path in paths]
        with self.queue.enqueue(client) as job, zipfile.ZipFile(directory / "results.zip", "w") as archive:
            for number, path in enumerate(paths):
                yield items
                try:
                    for ahead in self.queue.wait_turn(job):
                        items[number] = replace(items[number], text=format_ahead(ahead))
                        yield items
                    steps = upscale(path, settings, directory, max_pixels=self.max_pixels, eta=self.eta)
                    for step in self.queue.run(job, steps):
                        if isinstance(step, Completed):
                            archive.write(step.file, _unused_name(step.file, archive))
                            step.file.unlink()
                            items[number] = _completed_item(step)
                        elif items[number].state != "running":
                            items[number] = replace(items[number], state="running", text="")
                            yield items
                except JobCancelledError:
                    items[number:] = [replace(item, state="cancelled", text="") for item in items[number:]]
                    break
                except Exception as error:
                    items[number] = BatchItem(path.name, "failed", user_message(error, path))
                self.queue.requeue(job)
        yield items

    def _run_queued(self, client: Client, steps: Iterator[T]) -> Iterator[Queued | T | Cancelled]:
        """Wait in the queue, then iterate; the next job starts after the last step was consumed."""
        with self.queue.enqueue(client) as job:
            try:
                yield from map(Queued, self.queue.wait_turn(job))
                yield from self.queue.run(job, steps)
            except JobCancelledError as cancelled:
                yield Cancelled(*cancelled.args)


def format_ahead(ahead: int) -> str:
    """Describe a position in the queue."""
    return f"In queue: {count(ahead, 'job')} ahead"


def user_message(error: Exception, path: Path | None) -> str:
    """Return a message for the user that names the image and no path of the server; log all but a `ValueError`."""
    name = path.name if path else "the image"
    if isinstance(error, ValueError):
        return re.sub(r"'/[^']*/([^'/]*)'", r"'\1'", f"{error}")
    logger.error("%s failed", path, exc_info=error)
    return f"Something went wrong while upscaling {name}. Please try again."


def _completed_item(step: Completed) -> BatchItem:
    width, height = step.image.size
    text = f"{width} × {height} pixels in {step.seconds:.1f} s"
    step.image.thumbnail((96, 96))
    thumbnail = to_data_url(flatten_alpha(step.image), "JPEG")
    return BatchItem(step.source.name, "done", text, width, height, round(step.seconds, 2), thumbnail)


def _unused_name(file: Path, archive: zipfile.ZipFile) -> str:
    """Return the file's name, numbered if the archive already has it."""
    used = set(archive.namelist())
    names = (f"{file.stem}{f' ({number})' if number else ''}{file.suffix}" for number in range(len(used) + 1))
    return next(name for name in names if name not in used)
