"""A file is whole or not there, whoever else writes into the folder, and whatever was killed there before."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from srgan_hub.fileio import atomic_write, remove_stale_parts

ROOT = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_writers_of_one_file_do_not_share_a_part_file(tmp_path):
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
        assert len(names(tmp_path)) == 2 and all(name.startswith(".a.") for name in names(tmp_path))
        first.write_bytes(b"first")
        second.write_bytes(b"second, longer")
    assert (tmp_path / "a").read_bytes() == b"first" and names(tmp_path) == ["a"]  # the last to end


@pytest.mark.parametrize("hard_links", [True, False])
def test_what_appears_meanwhile_is_kept(tmp_path, monkeypatch, hard_links):
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


def test_a_file_has_the_rights_of_any_new_file_and_may_have_a_long_name(tmp_path):
    longest = tmp_path / ("é" * 125 + ".png")
    with atomic_write(longest, overwrite=False) as part:
        part.write_bytes(b"x")
    (tmp_path / "usual").write_bytes(b"")
    assert longest.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_killed_runs_are_swept_and_running_ones_are_not(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from srgan_hub.fileio import atomic_write\n"
        "with atomic_write(Path(sys.argv[1]), overwrite=False) as aside:\n"
        "    aside.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == -9
    (tmp_path / ".video.mkv.part").write_bytes(b"another program's")
    (tmp_path / "0123456789abcdef.part").write_bytes(b"another program's")
    assert len(names(tmp_path)) == 3
    with atomic_write(tmp_path / "running", overwrite=False) as part:
        remove_stale_parts(tmp_path)
        assert len(names(tmp_path)) == 3 and not any("killed" in name for name in names(tmp_path))
        part.write_bytes(b"whole")
    assert names(tmp_path) == [".video.mkv.part", "0123456789abcdef.part", "running"]
    remove_stale_parts(tmp_path / "missing")


def test_a_part_file_that_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    flock, swept = fcntl.flock, []

    def late(file, operation):
        if not swept:
            swept.extend(names(tmp_path))
            (tmp_path / swept[0]).unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "a", overwrite=False) as part:
        assert names(tmp_path) == [part.name] != swept
        part.write_bytes(b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_without_locks_part_files_stay(tmp_path, monkeypatch):
    def unsupported(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with atomic_write(tmp_path / "a", overwrite=False) as part:
        remove_stale_parts(tmp_path)
        part.write_bytes(b"whole")
    assert names(tmp_path) == ["a"]


def test_a_folder_is_replaced_whole_and_swept_if_it_is_not(tmp_path):
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


def test_what_is_durable_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    seen: list[tuple[str, list[str]]] = []

    def note(handle: int) -> None:
        seen.append((Path(f"/proc/self/fd/{handle}").readlink().name, names(tmp_path)))

    monkeypatch.setattr(os, "fsync", note)
    with atomic_write(tmp_path / "a", fsync=True) as part:
        part.write_bytes(b"whole")
    assert seen == [(part.name, [part.name]), (tmp_path.name, ["a"])]
