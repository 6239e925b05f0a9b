"""Download DIV2K (Agustsson and Timofte 2017), a data set for academic research."""

import errno
import hashlib
import logging
import re
import shutil
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import errors
from huggingface_hub.file_download import http_get

from ..fileio import atomic_write, remove_stale_parts
from ..hub import shorten_error
from ..progress import ProgressCallback
from .dataset import build_shards

logger = logging.getLogger(__name__)

URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
WAITS = (2, 5, 15, 30, 60)  # seconds before another attempt


class Archive(NamedTuple):
    """A zip file of PNGs `name/0001.png`, ..., its size in bytes, SHA-256 and number of images."""

    name: str
    size: int
    sha256: str
    images: int


TRAIN_HR = "DIV2K_train_HR"
# As recorded by TensorFlow Datasets.
TRAIN = Archive(TRAIN_HR, 3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335", 800)
VALID = Archive("DIV2K_valid_HR", 448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc", 100)


def find_split(directory: Path, split: str) -> Path:
    """Return DIV2K's subdirectory of a split if `directory` has the layout of DIV2K, else `directory`.

    `split` is "train" or "valid" for HR images, "X2", "X3" or "X4" for LR images of the training split.
    """
    lr = Path("DIV2K_train_LR_bicubic", split)
    found = directory / {"train": TRAIN_HR, "valid": "DIV2K_valid_HR"}.get(split, lr)
    return found if found.is_dir() and (directory / TRAIN_HR).is_dir() else directory


def prepare_div2k(output: Path, *, url: str | None = None, progress: ProgressCallback | None = None) -> Path:
    """Download DIV2K to the directory `OUTPUT-images` and build shards of its training images in `output`.

    See `download` and `build_shards`, also for errors.
    """
    train, _ = (download(output.with_name(f"{output.name}-images"), archive, url=url) for archive in (TRAIN, VALID))
    return build_shards(train, output, min_images=TRAIN.images, progress=progress)


def download(output: Path, archive: Archive, *, url: str | None = None) -> Path:
    """Download and unpack an archive of HR images to `OUTPUT/NAME`, unless that is done already; return that directory.

    An interrupted transfer is resumed, by this call or the next one. Size and SHA-256 are checked before unpacking, the
    names, checksums and number of files while unpacking. Then the archive is deleted. `url` is the address of a mirror.

    Raises:
        ValueError: The archive has another size or hash, or is not a valid zip file of the images.
        OSError: The server cannot be reached or closes the connection, or the disk is too small.
    """
    output.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(output)
    directory = output / archive.name
    if directory.is_dir():  # renamed into place when it was complete
        return directory
    file, part = output / f"{archive.name}.zip", output / f"{archive.name}.zip.part"
    if not file.exists():
        _fetch(f"{(url or URL).rstrip('/')}/{file.name}", part, archive)
        _check_hash(part, archive)
        part.rename(file)
    _unpack(file, directory, archive)
    file.unlink()
    return directory


def _fetch(url: str, part: Path, archive: Archive) -> None:
    """Complete a partial download; retry as long as attempts get further, and `WAITS` if one does not."""
    part.touch()
    # The rest of the archive, and the PNGs, which have about the size of the archive.
    needed, free = 2 * archive.size - part.stat().st_size, shutil.disk_usage(part.parent).free
    if free < needed:
        text = f"{archive.name} needs {needed / 1e9:.1f} GB in '{part.parent}', but only {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, text)
    waits = iter(WAITS)
    while (start := part.stat().st_size) < archive.size:
        try:
            with part.open("ab") as file:
                http_get(url, file, resume_size=start, expected_size=archive.size)
        except (OSError, errors.HTTPError) as error:
            if part.stat().st_size > start:
                waits = iter(WAITS)
            elif _is_temporary(error) and (wait := next(waits, None)):
                logger.warning("%s: %s; trying again in %d s", url, shorten_error(error), wait)
                time.sleep(wait)
            else:
                reason = f"cannot download at byte {start:,} of {archive.size:,}: {shorten_error(error)}"
                raise ConnectionError(f"{url}: {reason}. Run the command again to resume.") from error


def _is_temporary(error: Exception) -> bool:
    """Return whether the server is overloaded or restarting."""
    response = getattr(error, "response", None)
    return response is not None and (response.status_code >= 500 or response.status_code == 429)


def _check_hash(part: Path, archive: Archive) -> None:
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != archive.sha256:
        found = f"{part.stat().st_size:,} bytes and SHA-256 {digest.hexdigest()}"
        expected = f"{archive.size:,} bytes and {archive.sha256}"
        part.unlink()
        raise ValueError(f"{archive.name}.zip had {found}, expected {expected}; run the command again.")


def _unpack(file: Path, directory: Path, archive: Archive) -> None:
    try:
        with atomic_write(directory, directory=True) as tmp_path, zipfile.ZipFile(file) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for member in members:
                # Any other name could be written outside the directory.
                match = re.fullmatch(rf"{re.escape(archive.name)}/(\d+\.png)", member.filename)
                if not match:
                    raise ValueError(f"'{file}' holds '{member.filename}', expected {archive.name}/NUMBER.png.")
                with opened.open(member) as source, (tmp_path / match[1]).open("wb") as target:
                    shutil.copyfileobj(source, target)
            if len(members) != archive.images:
                raise ValueError(f"'{file}' holds {len(members)} images, expected {archive.images}.")
    except zipfile.BadZipFile as error:
        raise ValueError(f"'{file}' is corrupt ({error}); delete it and run the command again.") from error
