"""Encoded training images: directories, and data sets of the Hub."""

import io
from pathlib import Path
from typing import Any, BinaryIO

from ..images.decode import find_images
from ..images.formats import WRITE_SUFFIXES


class ImageFolder:
    """The image files in a directory and its subdirectories, except for those in `exclude`.

    Raises:
        ValueError: It is not a directory.
    """

    def __init__(self, directory: Path, exclude: Path | None = None) -> None:
        if not directory.is_dir():
            raise ValueError(f"'{directory}' is not a directory of training images.")
        self.title = str(directory)
        self._directory = directory
        self.names = [
            path.relative_to(directory).as_posix() for path in find_images(directory, exclude, WRITE_SUFFIXES)
        ]

    def path(self, name: str) -> Path:
        """Return the path of an image."""
        return self._directory / name

    def open(self, name: str) -> BinaryIO:
        """Open an image."""
        return self.path(name).open("rb")

    def version(self) -> dict[str, Any]:
        """Return what changes with the images: their sizes and modification times."""
        stats = {name: self.path(name).stat() for name in self.names}
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


class HubImages:
    """The images in a column of a data set: on the Hub, or a local directory that the `datasets` library reads.

    Images are named by the number of their row.

    Raises:
        ValueError: The library is not installed, or the data set has no such column of images.
        OSError: The data set cannot be found or downloaded.
    """

    def __init__(self, name: str, column: str = "image") -> None:
        try:
            import datasets
        except ImportError as error:
            hint = "pip install 'srgan-hub[datasets]'"
            raise ValueError(f"--dataset-name requires the `datasets` package: {hint}.") from error
        self.title = name
        self._column = column
        data: Any = datasets.load_dataset(name, split="train")
        images = [key for key, feature in data.features.items() if isinstance(feature, datasets.Image)]
        if column not in images:
            found = f"its columns of images are: {', '.join(images) or 'none'}"
            raise ValueError(f"--image-column '{column}' is no column of images of '{name}'; {found}.")
        self._rows = data.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self._fingerprint = data._fingerprint
        self.names = [f"{number:08d}" for number in range(len(data))]

    def path(self, name: str) -> Path:
        """Return the row as a path, for messages."""
        return Path(self.title, name)

    def open(self, name: str) -> BinaryIO:
        """Open an image."""
        value = self._rows[int(name)][self._column]
        return io.BytesIO(value["bytes"]) if value["bytes"] is not None else Path(value["path"]).open("rb")

    def version(self) -> dict[str, Any]:
        """Return what changes with the images: the fingerprint of the data set."""
        return {"column": self._column, "fingerprint": self._fingerprint}


Images = ImageFolder | HubImages
