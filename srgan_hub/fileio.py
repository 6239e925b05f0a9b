"""Atomic file and directory writes: write to a temporary sibling, then rename."""

import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

if sys.platform != "win32":
    import fcntl

_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part", re.DOTALL)


@contextmanager
def atomic_write(path: Path, *, directory: bool = False, overwrite: bool = True, fsync: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file next to `path`; rename it to `path` after the block, or delete it on error.

    Args:
        path: Destination.
        directory: Create a directory. An existing one is renamed away first: a crash at that moment leaves none.
        overwrite: Replace an existing file and keep its permissions. Directories are always replaced.
        fsync: Flush to disk before and after renaming, so a power cut leaves either the old or the new file.

    Raises:
        FileExistsError: `overwrite` is false and `path` exists, possibly as a dangling symbolic link.
        OSError: The parent directory is not writable.
    """
    tmp_path, lock = _create_part(path, directory)
    try:
        yield tmp_path
        for each in [*tmp_path.rglob("*"), tmp_path] if fsync else []:
            _fsync(each)
        _commit(tmp_path, path, overwrite)
        if fsync:
            _fsync(path.parent)
    finally:
        if lock is not None:
            os.close(lock)
        _remove(tmp_path)


@contextmanager
def wrap_write_errors(path: Path) -> Iterator[None]:
    """Raise an OSError that names the path in place of an OSError or of safetensors' own error."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OSError(f"'{path}': cannot write: {reason}") from error


def remove_stale_parts(directory: Path) -> None:
    """Delete the temporary files and directories of interrupted runs from a directory.

    A running process holds a lock on its own, which ends with the process. File systems without locks keep all of them.
    """
    for path in [path for path in directory.iterdir() if _PART.fullmatch(path.name)] if directory.is_dir() else []:
        remove_unlocked(path)


def remove_unlocked(path: Path) -> None:
    """Delete a file or directory unless a running process holds a lock on it, or there are no locks."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        finally:
            os.close(lock)


def lock_directory(path: Path) -> int | None:
    """Create a directory if it is missing, and lock it until the returned descriptor is closed or the process ends.

    Returns:
        The descriptor; None on Windows, where directories cannot be locked.

    Raises:
        BlockingIOError: It is locked already.
    """
    while True:
        path.mkdir(exist_ok=True)
        if sys.platform == "win32":
            return None
        with suppress(FileNotFoundError):  # Another process removed it as stale before it was locked: retry.
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise
            except OSError:  # Some network file systems have no locks.
                return lock
            if path.exists():
                return lock
            os.close(lock)


def _part_name(path: Path) -> Path:
    # Random instead of the process id: containers that share a directory may have the same.
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.part")


def _create_part(path: Path, directory: bool) -> tuple[Path, int | None]:
    while True:
        tmp_path = _part_name(path)
        if directory:
            tmp_path.mkdir()
        else:
            tmp_path.touch(exist_ok=False)
        if sys.platform == "win32":  # Open files can be neither renamed nor deleted there.
            return tmp_path, None
        with suppress(FileNotFoundError):  # Another process removed it as stale before it was locked: retry.
            lock = os.open(tmp_path, os.O_RDONLY)
            with suppress(OSError):  # Some network file systems have no locks.
                fcntl.flock(lock, fcntl.LOCK_EX)
            if tmp_path.exists():
                return tmp_path, lock
            os.close(lock)


def _commit(tmp_path: Path, path: Path, overwrite: bool) -> None:
    if tmp_path.is_dir() and path.exists():
        old = path.rename(_part_name(path))  # A directory cannot be renamed over one that is not empty.
        tmp_path.rename(path)
        _remove(old)
    elif tmp_path.is_dir() or overwrite:
        with suppress(OSError):  # a new file; or a file system without permissions
            tmp_path.chmod(stat.S_IMODE(path.stat().st_mode))
        tmp_path.replace(path)
    else:
        try:
            path.hardlink_to(tmp_path)  # Fails if `path` exists, unlike a rename.
        except FileExistsError:
            raise
        except OSError:  # FAT and some network file systems have no hard links.
            path.open("xb").close()
            tmp_path.replace(path)


def _fsync(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():  # Directories cannot be opened there.
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)  # does nothing to a file
    with suppress(OSError):
        path.unlink()
