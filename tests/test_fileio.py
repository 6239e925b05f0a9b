"""Atomic writes with concurrent writers, interrupted processes and file systems that lack locks or hard links."""

import fcntl
import os
import signal
import stat
from pathlib import Path

import pytest

from srgan_hub.fileio import atomic_write, lock_directory, remove_stale_parts, remove_unlocked


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_concurrent_writers_use_separate_temporary_files(tmp_path):
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
        assert len(names(tmp_path)) == 2 and all(name.startswith(".a.") for name in names(tmp_path))
        first.write_bytes(b"first")
        second.write_bytes(b"second, longer")
    assert (tmp_path / "a").read_bytes() == b"first" and names(tmp_path) == ["a"]  # The last to finish wins.


@pytest.mark.parametrize("hard_links", [True, False], ids=["hard links", "no hard links"])
def test_overwrite_false_keeps_a_file_created_meanwhile(tmp_path, monkeypatch, hard_links):
    def unsupported(self, target):
        raise PermissionError(1, "Operation not permitted")

    if not hard_links:
        monkeypatch.setattr(Path, "hardlink_to", unsupported)
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "a", overwrite=False) as part:
        part.write_bytes(b"mine")
        (tmp_path / "a").write_bytes(b"theirs")
    assert (tmp_path / "a").read_bytes() == b"theirs" and names(tmp_path) == ["a"]
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "link", overwrite=False) as part:
        part.write_bytes(b"mine")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["a", "link"] and (tmp_path / "link").is_symlink()
    with atomic_write(tmp_path / "b", overwrite=False) as part:
        part.write_bytes(b"mine")
    assert (tmp_path / "b").read_bytes() == b"mine" and names(tmp_path) == ["a", "b", "link"]


def test_output_has_default_permissions_and_may_have_the_longest_name(tmp_path):
    longest = tmp_path / ("é" * 125 + ".png")
    with atomic_write(longest, overwrite=False) as part:
        part.write_bytes(b"x")
    (tmp_path / "usual").write_bytes(b"")
    assert longest.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_replaced_file_keeps_its_permissions(tmp_path, mode):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(mode)
    with atomic_write(tmp_path / "a") as part:
        part.write_bytes(b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_stale_parts_of_a_killed_process_are_removed_and_those_in_use_stay(tmp_path):
    child = os.fork()
    if child == 0:
        with atomic_write(tmp_path / "killed", overwrite=False) as part:
            part.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (tmp_path / ".film.mkv.part").write_bytes(b"another program's")
    (tmp_path / "0123456789abcdef.part").write_bytes(b"another program's")
    assert len(names(tmp_path)) == 3
    with atomic_write(tmp_path / "running", overwrite=False) as part:
        remove_stale_parts(tmp_path)
        assert len(names(tmp_path)) == 3 and not any("killed" in name for name in names(tmp_path))
        part.write_bytes(b"complete")
    assert names(tmp_path) == [".film.mkv.part", "0123456789abcdef.part", "running"]
    remove_stale_parts(tmp_path / "missing")


def test_temporary_file_removed_before_it_is_locked_is_created_again(tmp_path, monkeypatch):
    flock, removed = fcntl.flock, []

    def late(file, operation):
        if not removed:
            removed.extend(names(tmp_path))
            (tmp_path / removed[0]).unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "a", overwrite=False) as part:
        assert names(tmp_path) == [part.name] != removed
        part.write_bytes(b"complete")
    assert (tmp_path / "a").read_bytes() == b"complete"


def test_temporary_files_stay_on_file_systems_without_locks(tmp_path, monkeypatch):
    def unsupported(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with atomic_write(tmp_path / "a", overwrite=False) as part:
        remove_stale_parts(tmp_path)
        part.write_bytes(b"complete")
    assert names(tmp_path) == ["a"]


def test_directory_is_replaced_only_when_complete(tmp_path):
    for text in ("old", "new"):
        with atomic_write(tmp_path / "model", directory=True, fsync=True) as part:
            (part / "inner").mkdir()
            (part / "inner" / "weights").write_text(text)
            remove_stale_parts(tmp_path)
    assert (tmp_path / "model" / "inner" / "weights").read_text() == "new" and names(tmp_path) == ["model"]
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "model", directory=True) as part:
        (part / "weights").write_text("half")
        raise RuntimeError
    assert (tmp_path / "model" / "inner" / "weights").read_text() == "new" and names(tmp_path) == ["model"]
    (tmp_path / ".model.0123456789abcdef.part" / "inner").mkdir(parents=True)
    remove_stale_parts(tmp_path)
    assert names(tmp_path) == ["model"]


def test_fsync_flushes_the_file_before_the_rename_and_the_directory_after(tmp_path, monkeypatch):
    calls: list[tuple[str, list[str]]] = []

    def record(handle: int) -> None:
        calls.append((Path(f"/proc/self/fd/{handle}").readlink().name, names(tmp_path)))

    monkeypatch.setattr(os, "fsync", record)
    with atomic_write(tmp_path / "a", fsync=True) as part:
        part.write_bytes(b"complete")
    assert calls == [(part.name, [part.name]), (tmp_path.name, ["a"])]


def test_directory_in_use_is_locked(tmp_path, monkeypatch):
    lock = lock_directory(tmp_path / "work")
    with pytest.raises(BlockingIOError):
        lock_directory(tmp_path / "work")
    remove_unlocked(tmp_path / "work")
    assert names(tmp_path) == ["work"]
    os.close(lock)
    flock, removed = fcntl.flock, []

    def late(file, operation):
        if not removed:
            removed.extend(names(tmp_path))
            (tmp_path / "work").rmdir()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    os.close(lock_directory(tmp_path / "work"))  # created again, as another process removed it
    assert names(tmp_path) == ["work"] == removed
    monkeypatch.undo()
    remove_unlocked(tmp_path / "work")
    assert not names(tmp_path)


def test_directory_can_be_used_on_file_systems_without_locks(tmp_path, monkeypatch):
    def unsupported(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    os.close(lock_directory(tmp_path / "work"))
    remove_unlocked(tmp_path / "work")
    assert names(tmp_path) == ["work"]
