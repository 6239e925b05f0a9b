"""What the demo does for its users, one after the other: upscale, upscale many, compare."""

import logging
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from .. import hub
from .compare import ModelComparison, compare
from .eta import EtaEstimator
from .queue import JobCancelledError, JobQueue
from .settings import Settings
from .upscale import Completed, LoadedImage, Progress, close_up, flatten_alpha, read, to_data_url, upscale

logger = logging.getLogger(__name__)

T = TypeVar("T")
# How many models are compared, and how many files are taken at once.
COMPARED, MANY = 3, 100
THUMBNAIL = 96


@dataclass(frozen=True)
class Client:
    """Who asks: a session, which can be stopped, and an address, which has only so many places in the line."""

    session: str
    address: str


@dataclass(frozen=True)
class Queued:
    """So many runs end before this one begins."""

    count: int


@dataclass(frozen=True)
class Cancelled:
    """The user stopped the run; the text says how."""

    text: str


@dataclass(frozen=True)
class BatchItem:
    """A file of many: its state is waiting, running, done, failed or cancelled; the text says what became of it.

    A result that is done has its size, the seconds it took, and a small image as a data address.
    """

    name: str
    state: str
    text: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0
    thumbnail: str = ""


class Service:
    """The demo without its page. Threads share it.

    Args:
        models: what may be compared beside the bundled ones: folders or Hub ids.
        max_pixels: the largest image that is accepted.
        concurrency: how many images are upscaled at once.
        queue: how many runs the line holds.
        each: how many of them may be one user's.
    """

    def __init__(
        self,
        models: Sequence[str] = (),
        *,
        max_pixels: int = 4_000_000,
        concurrency: int = 1,
        queue: int = 20,
        each: int = 3,
    ) -> None:
        self.models = [*hub.bundled_models(), *models]
        self.max_pixels = max_pixels
        self.queue = JobQueue(concurrency=concurrency, length=queue, each=each)
        self.speed = EtaEstimator()
        # For what lives as long as this.
        self.folder = tempfile.TemporaryDirectory()

    def read(self, path: Path) -> LoadedImage:
        """Read an image within the limit. ValueError if it cannot be read."""
        return read(path, max_pixels=self.max_pixels)

    def upscale(
        self, path: Path, settings: Settings, folder: Path, client: Client, *, previews: bool = False
    ) -> Iterator[Queued | Progress | Completed | Cancelled]:
        """Wait and upscale an image into a folder; see `upscale`."""
        return self._in_turn(client, self._upscale(path, settings, folder, previews))

    def close_up(
        self, path: Path, kind: str, x: float, y: float, client: Client
    ) -> Iterator[Queued | dict[str, str] | Cancelled]:
        """Wait and upscale the region around a place; see `close_up`."""

        def steps() -> Iterator[dict[str, str]]:
            yield close_up(self.read(path), kind, x, y)

        return self._in_turn(client, steps())

    def batch(
        self, paths: Sequence[Path], settings: Settings, folder: Path, client: Client
    ) -> Iterator[list[BatchItem]]:
        """Upscale images into results.zip in a folder; one that fails does not stop the others.

        Yields:
            The state of all, whenever one changes. The file is whole after the last.
        """
        if not paths:
            raise ValueError("Choose images first.")
        if len(paths) > MANY:
            raise ValueError(f"Expected at most {MANY} images at once, got {len(paths)}; choose fewer.")
        entries = [BatchItem(path.name, "waiting") for path in paths]
        with (
            self.queue.enqueue(client.session, client.address) as job,
            zipfile.ZipFile(folder / "results.zip", "w", zipfile.ZIP_STORED) as archive,
        ):
            for number, path in enumerate(paths):
                yield entries
                try:
                    for count in self.queue.wait_turn(job):
                        entries[number] = replace(entries[number], text=f"{count} ahead of you")
                        yield entries
                    for step in self.queue.run(job, self._upscale(path, settings, folder, False)):
                        if isinstance(step, Completed):
                            archive.write(step.file, _free_name(step.file, archive))
                            step.file.unlink()
                            width, height = step.image.size
                            step.image.thumbnail((THUMBNAIL, THUMBNAIL))
                            entries[number] = BatchItem(
                                path.name,
                                "done",
                                f"{width} x {height} pixels in {step.seconds:.1f} s",
                                width,
                                height,
                                round(step.seconds, 2),
                                to_data_url(flatten_alpha(step.image), "JPEG"),
                            )
                        elif entries[number].state != "running":
                            entries[number] = replace(entries[number], state="running", text="")
                            yield entries
                except JobCancelledError:
                    entries[number:] = [replace(each, state="cancelled", text="") for each in entries[number:]]
                    break
                except Exception as error:
                    entries[number] = BatchItem(path.name, "failed", user_message(error, path))
                self.queue.requeue(job)
        yield entries

    def compare(
        self, path: Path, models: Sequence[str], truth: Path | None, client: Client
    ) -> Iterator[Queued | float | ModelComparison | Cancelled]:
        """Wait and upscale an image by two or three models; see `compare`."""
        unknown = [name for name in models if name not in self.models]
        if unknown:
            raise ValueError(f"The model {unknown[0]!r} is not offered here; there are: {', '.join(self.models)}.")
        if not 2 <= len(set(models)) <= COMPARED:
            raise ValueError(f"Choose two or {COMPARED} models, got {len(set(models))}.")
        steps = compare(self.read(path), list(dict.fromkeys(models)), self.read(truth) if truth else None)
        return self._in_turn(client, steps)

    def stop(self, client: Client, why: str) -> bool:
        """Stop a user's runs, and return whether there were any."""
        return self.queue.cancel(client.session, why)

    def _in_turn(self, client: Client, steps: Iterator[T]) -> Iterator[Queued | T | Cancelled]:
        """Wait in the line and then do the steps. The last one is taken before another user's turn comes."""
        with self.queue.enqueue(client.session, client.address) as job:
            try:
                yield from map(Queued, self.queue.wait_turn(job))
                yield from self.queue.run(job, steps)
            except JobCancelledError as stopped:
                yield Cancelled(f"{stopped}")

    def _upscale(self, path: Path, settings: Settings, folder: Path, previews: bool) -> Iterator[Progress | Completed]:
        return upscale(path, settings, folder, max_pixels=self.max_pixels, speed=self.speed, previews=previews)


def user_message(error: Exception, path: Path | None) -> str:
    """Describe an error by the image's name instead of its path, which is the server's."""
    name = path.name if path else "The image"
    if isinstance(error, ValueError):
        return f"{error}".replace(str(path), name)
    logger.error("%s failed", path, exc_info=error)
    return f"{name} cannot be upscaled: the server failed ({type(error).__name__})."


def _free_name(file: Path, archive: zipfile.ZipFile) -> str:
    """Return the file's name, numbered where the archive has one of that name."""
    taken = set(archive.namelist())
    names = (f"{file.stem}{f' ({number})' if number else ''}{file.suffix}" for number in range(len(taken) + 1))
    return next(name for name in names if name not in taken)
