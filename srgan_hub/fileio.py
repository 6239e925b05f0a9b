"""A file or a folder that is whole or not there: made aside under a random name, then put in its place."""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part", re.DOTALL)


@contextmanager
def atomic_write(path: Path, *, directory: bool = False, overwrite: bool = True, fsync: bool = False) -> Iterator[Path]:
    """Make an empty file or folder beside `path` for the block to fill; it gets the name when the block ends.

    If the block raises, nothing is left of it. A folder that is there is renamed away first: there is a moment in which
    a crash leaves none.

    Args:
        path: its name.
        directory: make a folder.
        overwrite: replace what has that name by then. Folders are always replaced.
        fsync: wait until the disk has it, so that a power cut leaves the old or the new one.

    Yields:
        Where the block writes.

    Raises:
        FileExistsError: `overwrite` is false and the name is taken, if only by a link that leads nowhere.
        OSError: the place cannot be written.
    """
    tmp_path, lock = _create_part(path, directory)
    try:
        yield tmp_path
        if fsync:
            for each in [*tmp_path.rglob("*"), tmp_path]:
                _fsync(each)
        _commit(tmp_path, path, overwrite)
        if fsync:
            _fsync(path.parent)
    finally:
        if lock is not None:
            os.close(lock)
        _remove(tmp_path)


def remove_stale_parts(folder: Path) -> None:
    """Delete the part files and folders of killed runs in a folder, and none that a run still writes.

    A run holds a lock on its part, which the system lets go when the run ends, however it ends. Where there are no
    locks, the parts stay.
    """
    if sys.platform == "win32" or not folder.is_dir():
        return
    for path in [path for path in folder.iterdir() if _PART.fullmatch(path.name)]:
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(lock)


def _part_name(path: Path) -> Path:
    # A process id would not do: two containers that share a folder may have the same.
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.part")


def _create_part(path: Path, folder: bool) -> tuple[Path, int | None]:
    while True:
        tmp_path = _part_name(path)
        if folder:
            tmp_path.mkdir()
        else:
            tmp_path.touch(exist_ok=False)
        if sys.platform == "win32":  # which renames and deletes nothing that is open
            return tmp_path, None
        with suppress(FileNotFoundError):  # another run swept it away before it was locked
            lock = os.open(tmp_path, os.O_RDONLY)
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if tmp_path.exists():
                return tmp_path, lock
            os.close(lock)


def _commit(tmp_path: Path, path: Path, overwrite: bool) -> None:
    if tmp_path.is_dir() and path.exists():
        old = path.rename(_part_name(path))
        tmp_path.rename(path)
        _remove(old)
    elif tmp_path.is_dir() or overwrite:
        tmp_path.replace(path)
    else:
        try:
            path.hardlink_to(tmp_path)  # fails if the name is taken, which a rename does not
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):  # FAT and some network file systems have no hard links
            path.open("xb").close()
            tmp_path.replace(path)


def _fsync(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():  # which opens no folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
