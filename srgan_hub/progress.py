"""Progress callbacks."""

from collections.abc import Callable
from typing import Protocol

ProgressCallback = Callable[[int, int], None]  # called with the number of rows or images that are done, and their total


class Progress(Protocol):
    """A progress display, such as a bar, that is closed when its image is done or has failed."""

    def __call__(self, done: int, total: int, /) -> None:
        """Show that `done` of `total` rows or images are done."""

    def close(self) -> None:
        """Close the display."""
