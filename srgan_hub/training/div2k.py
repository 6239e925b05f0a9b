"""DIV2K (Agustsson and Timofte 2017): its official archives, fetched, checked, unpacked. For academic research."""

import errno
import hashlib
import http.client
import re
import shutil
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..fileio import atomic_write, remove_stale_parts
from .dataset import Progress, build_shards

URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
CHUNK = 2**20
# A server that breaks off this many times in a row without sending a byte is taken to be down.
ATTEMPTS = 5
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """A zip of PNGs `name/0001.png` and so on: its size in bytes, its SHA-256 and how many images it holds."""

    name: str
    size: int
    sha256: str
    images: int


# Sizes and hashes as TensorFlow Datasets records them.
TRAIN = Archive("DIV2K_train_HR", 3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335", 800)
VALID = Archive("DIV2K_valid_HR", 448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc", 100)


def prepare_div2k(
    output: Path,
    *,
    minimum_size: int = 96,
    url: str = URL,
    archives: tuple[Archive, ...] = (TRAIN, VALID),
    progress: Progress | None = None,
) -> Path:
    """Download DIV2K beside `output` and prepare its training images in it; see `download` and `prepare`.

    The images stay in `OUTPUT-images/DIV2K_train_HR` and `OUTPUT-images/DIV2K_valid_HR` (for validation).
    Returns `output`.
    """
    output = Path(output)
    images = download(output.with_name(f"{output.name}-images"), url=url, archives=archives, progress=progress)
    train = archives[0]
    return build_shards(
        images / train.name, output, minimum_size=minimum_size, min_images=train.images, progress=progress
    )


def download(
    output: Path,
    *,
    url: str = URL,
    archives: tuple[Archive, ...] = (TRAIN, VALID),
    progress: Progress | None = None,
) -> Path:
    """Download and unpack DIV2K's HR archives (3.53 GB and 0.45 GB); what is there already is not fetched again.

    A transfer that breaks off goes on where it stopped, in this call or the next. Before unpacking, an archive's size
    and SHA-256 must be the recorded ones. While unpacking, each file's checksum is checked, and its name, which can't
    leave the folder; then the count of images. An archive is deleted once unpacked.

    Args:
        output: Folder that gets `DIV2K_train_HR/0001.png` and so on, and `DIV2K_valid_HR/0801.png` and so on.
        url: Folder on a server that has the archives.
        archives: What to fetch.
        progress: Called as `progress(file name, bytes done, bytes in all)`.

    Returns:
        The output folder.

    Raises:
        ValueError: If the server's archive has another size or hash, or is no good zip of the images.
        OSError: If the server can't be reached or breaks off for good (what came is kept), or the disk is too small.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(output)
    for archive in archives:
        folder = output / archive.name
        if folder.is_dir():  # renamed to this name when it was whole
            continue
        file = output / f"{archive.name}.zip"
        if not file.exists():
            part = output / f"{archive.name}.zip.part"
            _fetch(f"{url.rstrip('/')}/{file.name}", part, archive, progress)
            _check_hash(part, archive)
            part.rename(file)
        _unpack(file, folder, archive)
        file.unlink()
    return output


def _fetch(url: str, part: Path, archive: Archive, progress: Progress | None) -> None:
    """Bring `part` to its full size, from where it stands."""
    if part.exists() and part.stat().st_size > archive.size:
        part.unlink()
    _check_disk(part, archive)
    idle = 0
    while (start := _size(part)) < archive.size:
        reason = "the connection was closed"
        try:
            _fetch_some(url, part, archive, progress)
        except urllib.error.HTTPError as error:
            raise ConnectionError(f"{url} answers {error.code} {error.reason}.") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            reason = str(error) or type(error).__name__
        idle = 0 if _size(part) > start else idle + 1
        if idle == ATTEMPTS:
            raise ConnectionError(
                f"{url} broke off at {_size(part):,} of {archive.size:,} bytes: {reason}. "
                "Run the same again later: it goes on from there."
            )


def _fetch_some(url: str, part: Path, archive: Archive, progress: Progress | None) -> None:
    """Append what one request for the rest gives."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ConnectionError(f"Asked for bytes from {start}, got {response.headers.get('Content-Range')}.")
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        if length and start + int(length) != archive.size:
            raise ValueError(f"Expected {archive.size:,} bytes at {url}, got {start + int(length):,}: another file.")
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                start += len(chunk)
                if progress:
                    progress(f"{archive.name}.zip", start, archive.size)


def _check_disk(part: Path, archive: Archive) -> None:
    # The rest of the archive, and the images, which PNG has compressed already.
    needed, free = 2 * archive.size - _size(part), shutil.disk_usage(part.parent).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{archive.name} needs {needed / 1e9:.1f} GB under {part.parent}, {free / 1e9:.1f} GB are free",
        )


def _check_hash(part: Path, archive: Archive) -> None:
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != archive.sha256:
        part.unlink()
        raise ValueError(
            f"Expected {archive.name}.zip with SHA-256 {archive.sha256}, got {digest.hexdigest()}. "
            "It was deleted; run the same again to fetch it again."
        )


def _unpack(file: Path, folder: Path, archive: Archive) -> None:
    try:
        with atomic_write(folder, directory=True) as tmp_path, zipfile.ZipFile(file) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for member in members:
                # No other name is let through, so that nothing is written elsewhere.
                match = re.fullmatch(rf"{re.escape(archive.name)}/(\d+\.png)", member.filename)
                if not match:
                    raise ValueError(f"Expected {archive.name}/NUMBER.png in {file}, got {member.filename!r}.")
                with opened.open(member) as source, (tmp_path / match[1]).open("wb") as target:
                    shutil.copyfileobj(source, target, CHUNK)
            if len(members) != archive.images:
                raise ValueError(f"Expected {archive.images} images in {file}, got {len(members)}.")
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file} is damaged ({error}). Delete it and run the same again.") from error


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
