"""A file that is whole or not there: written aside under a random name, then put in its place."""

import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part", re.DOTALL)


@contextmanager
def whole_file(path: Path, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name when the block ends; if the block raises, nothing is left of it.

    Args:
        path: its name.
        overwrite: replace what has that name by then.

    Raises:
        FileExistsError: ``overwrite`` is false and the name is taken, if only by a link that leads nowhere.
        OSError: the place cannot be written.
    """
    aside, file = _create_part(path)
    try:
        with file:
            yield file
            file.flush()
            if sys.platform == "win32":  # which renames no open file
                file.close()
            _put(aside, path, overwrite=overwrite)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete the part files of killed runs in a folder, and none that a run still writes.

    A run holds a lock on its part file, which the system lets go when the run ends, however it ends. Where there are no
    locks, the part files stay.
    """
    if not folder.is_dir():
        return
    for path in [path for path in folder.iterdir() if _PART.fullmatch(path.name)]:
        with suppress(OSError), path.open("r+b") as file:
            if sys.platform == "win32":  # which deletes no open file
                file.close()
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _create_part(path: Path) -> tuple[Path, IO[bytes]]:
    while True:
        # A process id would not do: two containers that share a folder may have the same.
        aside = path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.part")
        file = aside.open("xb")
        if sys.platform != "win32":
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if aside.exists():  # else another run swept it away before it was locked
            return aside, file
        file.close()


def _put(aside: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        aside.replace(path)
        return
    try:
        path.hardlink_to(aside)  # fails if the name is taken, which a rename does not
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # FAT and some network file systems have no hard links
        path.open("xb").close()
        aside.replace(path)
