"""Directories of images: small ones are upscaled together, and each has its own order, output and error."""

import json
import os
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgan_hub.batch import FileResult, SaveOptions, upscale_files
from srgan_hub.images import decode, encode
from srgan_hub.images.errors import ImageError
from srgan_hub.images.tensors import TensorImage
from srgan_hub.upscaler import Upscaler


@pytest.fixture
def upscaler(tiny_generator, monkeypatch) -> Upscaler:
    monkeypatch.setattr("srgan_hub.backends.torch_backend.CPU_PIXELS", 4 * 6 * 5)  # four images of 6x5
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="fp32")


@pytest.fixture
def log(monkeypatch) -> list[list[tuple[int, ...]]]:
    """The shapes of the LR images that are upscaled, one for each batch."""
    shapes, upscale = [], Upscaler._stream_with_recovery

    def record(self, lr, *args):
        if threading.current_thread() is threading.main_thread():
            shapes.append(tuple(lr.shape))
        return upscale(self, lr, *args)

    monkeypatch.setattr(Upscaler, "_stream_with_recovery", record)
    return shapes


class Recorder:
    """A progress display."""

    def __init__(self, path: Path, calls: list[tuple[object, ...]]) -> None:
        self.path, self.calls = path, calls

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((self.path, done, total))

    def close(self) -> None:
        self.calls.append((self.path, "closed"))


def make(directory: Path, sizes: list[tuple[int, ...]]) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [directory / f"{i:02d}.png" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(path)
    return paths


def errors(results: list[FileResult]) -> list[bool]:
    return [result.error is not None for result in results]


def test_inputs_and_output_may_be_strings_or_path_like(upscaler, tmp_path):
    (path,) = make(tmp_path, [(6, 5, 3)])
    for number, kind in enumerate((str, Path)):
        output = tmp_path / f"out{number}.png"
        assert list(upscale_files(upscaler, [kind(path)], kind(output))) == [FileResult(path, output, None)]
    (result,) = upscale_files(upscaler, [str(tmp_path / path.name)], f"{tmp_path}/directory/")
    assert result.target == tmp_path / "directory" / f"{path.stem}_x4.png" and result.target.is_file()


def test_small_images_of_equal_size_are_upscaled_together(upscaler, log, tmp_path):
    color, gray, wide = (6, 5, 3), (6, 5), (6, 10, 3)
    paths = make(tmp_path, [color] * 6 + [gray] + [wide] * 3 + [color])
    results = list(upscale_files(upscaler, paths, f"{tmp_path}/out"))
    assert log == [(4, 3, 6, 5), (2, 3, 6, 5), (1, 1, 6, 5), (2, 3, 6, 10), (1, 3, 6, 10), (1, 3, 6, 5)]
    assert [result.source for result in results] == paths and not any(errors(results))
    for result in results:
        with Image.open(result.target) as image:
            expected = np.asarray(upscaler.upscale(result.source)).astype(int)
            assert np.asarray(image).shape == expected.shape and np.abs(np.asarray(image) - expected).max() <= 1


def test_batch_of_transparent_opaque_and_gray_images(upscaler):
    """Each stays what it is; transparent ones take twice the memory, which halves the strip height."""
    random = np.random.default_rng(0)
    transparent, opaque, gray = random.integers(0, 256, (3, 6, 5, 4), dtype=np.uint8)
    opaque[..., 3] = 255
    gray[..., :3] = gray[..., :1]
    images = (transparent, opaque, gray)
    for array, result in zip(images, upscaler.upscale_batch(images), strict=True):
        assert np.abs(result.astype(int) - upscaler.upscale(array)).max() <= 1
        assert (result[..., 3] == 255).all() == (array is opaque)
        assert (result[..., 0] == result[..., 1]).all() == (array is gray)


def test_memory_of_batches_is_bounded(upscaler, monkeypatch):
    shapes, to_input = [], TensorImage.to_input

    def record(self, rows):
        if threading.current_thread() is threading.main_thread():
            shapes.append(tuple(to_input(self, rows).shape))
        return to_input(self, rows)

    monkeypatch.setattr(TensorImage, "to_input", record)
    transparent = np.full((6, 5, 4), 100, np.uint8)
    upscaler.upscale_batch([transparent] * 4)  # each with its alpha: eight of 3 rows of 5
    assert shapes == [(2, 3, 3, 5)] * 8


def test_errors_stay_with_their_files(upscaler, log, tmp_path):
    paths = make(tmp_path, [(6, 5, 3)] * 5)
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    (tmp_path / "03_x4.png").write_text("mine")
    results = list(upscale_files(upscaler, [*paths, paths[0]]))
    assert [result.source for result in results] == [*paths, paths[0]]
    assert errors(results) == [False, True, False, True, False, True]
    assert "truncated" in str(results[1].error) and "already exists" in str(results[3].error)
    assert "passed twice" in str(results[5].error)
    assert (tmp_path / "03_x4.png").read_text() == "mine"


def test_one_of_a_batch_that_cannot_be_written(upscaler, log, tmp_path, monkeypatch):
    write = encode.write_raster

    def fail(image, path, options):
        if path.name == "01_x4.png":
            raise ImageError(f"'{path}' cannot be written: No space left on device")
        write(image, path, options)

    monkeypatch.setattr(encode, "write_raster", fail)
    results = list(upscale_files(upscaler, make(tmp_path, [(6, 5, 3)] * 3)))
    assert log == [(3, 3, 6, 5)]
    assert ["No space" in str(result.error) for result in results] == [False, True, False]
    assert [result.target.exists() for result in results] == [True, False, True]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("odd"), struct.error("odd"), NotImplementedError("odd"), AssertionError("odd"), TypeError("odd"),
        SyntaxError("odd"), MemoryError(), OSError(36, "odd"), ZeroDivisionError("odd"), RecursionError("two\nlines"),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("stage", ["read", "upscale", "write"])
def test_any_error_of_one_image_is_its_own(upscaler, tmp_path, monkeypatch, stage, error):
    paths = make(tmp_path, [(6, 5, 3)] * 4)
    failing = np.asarray(Image.open(paths[1]))
    owner, name = {
        "read": (decode, "open_image"),
        "upscale": (TensorImage, "to_input"),
        "write": (encode, "write_raster"),
    }[stage]
    original = getattr(owner, name)

    def fail(*arguments, **options):
        for each in arguments:
            if isinstance(each, Path) and each.name in ("01.png", "01_x4.png"):
                raise error
            if isinstance(each, TensorImage) and np.array_equal(each.lr[0].permute(1, 2, 0), failing):
                raise error
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, fail)
    results = list(upscale_files(upscaler, paths))
    assert [result.source for result in results] == paths
    assert errors(results) == [False, True, False, False]
    wrapped = results[1].error
    assert isinstance(wrapped, ImageError) and wrapped.__cause__ is error
    assert str(paths[1]) in str(wrapped) and "\n" not in str(wrapped)
    assert ("out of memory" if isinstance(error, MemoryError) else type(error).__name__) in str(wrapped)
    assert sorted(path.name for path in tmp_path.glob("*_x4.png")) == ["00_x4.png", "02_x4.png", "03_x4.png"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_interrupts_stop_a_run(upscaler, tmp_path, monkeypatch, stop):
    def open_image(path, **options):
        raise stop

    monkeypatch.setattr(decode, "open_image", open_image)
    with pytest.raises(stop):
        list(upscale_files(upscaler, make(tmp_path, [(6, 5, 3)] * 2)))


def test_names_that_are_too_long(upscaler, tmp_path):
    paths = make(tmp_path, [(6, 5, 3)] * 2)
    long, longer = tmp_path / ("x" * 250 + ".png"), tmp_path / ("y" * 300 + ".png")
    long.write_bytes(paths[0].read_bytes())  # whose output has no room for _x4
    results = list(upscale_files(upscaler, [paths[0], long, longer, paths[1]]))
    assert errors(results) == [False, True, True, False]
    assert all("File name too long" in str(results[i].error) for i in (1, 2))


def test_skip_existing(upscaler, log, tmp_path, caplog):
    paths = make(tmp_path, [(6, 5, 3)] * 4)
    (tmp_path / "01_x4.png").write_bytes(b"finished")
    (tmp_path / "02_x4.png").write_bytes(b"")
    (tmp_path / "03_x4.png").symlink_to("nowhere")
    results = list(upscale_files(upscaler, paths, skip_existing=True))
    assert errors(results) == [False, False, True, True]
    assert all(f"0{i}_x4.png' already exists" in str(results[i].error) for i in (2, 3))
    assert [record.message for record in caplog.records] == [f"'{tmp_path}/01_x4.png' already exists; skipped"]
    assert (tmp_path / "01_x4.png").read_bytes() == b"finished" and log == [(1, 3, 6, 5)]


@pytest.mark.parametrize("skip", [False, True])
def test_output_of_a_concurrent_run_is_kept(upscaler, tmp_path, monkeypatch, skip):
    write = encode.write_raster

    def write_late(image, path, options):
        if path.name == "00_x4.png":
            path.write_bytes(b"theirs")
        write(image, path, options)

    monkeypatch.setattr(encode, "write_raster", write_late)
    results = list(upscale_files(upscaler, make(tmp_path, [(6, 5, 3)] * 2), skip_existing=skip))
    assert errors(results) == [not skip, False]
    assert (tmp_path / "00_x4.png").read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir() if "x4" in path.name) == ["00_x4.png", "01_x4.png"]


def test_output_of_a_concurrent_run_is_not_reported_as_done(upscaler, tmp_path, monkeypatch):
    frames = [Image.new("RGB", (6, 5), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    make(tmp_path, [(6, 5, 3)] * 2)
    upscale, out = Upscaler._stream_with_recovery, tmp_path / "out"

    def write_meanwhile(self, *args):
        if threading.current_thread() is threading.main_thread():
            for name in ("00_x4.png", "a_x4.gif"):
                (out / name).write_bytes(b"theirs")
        return upscale(self, *args)

    monkeypatch.setattr(Upscaler, "_stream_with_recovery", write_meanwhile)
    results = list(upscale_files(upscaler, [tmp_path], str(out), skip_existing=True))
    assert not any(errors(results)) and (out / "a_x4.gif").read_bytes() == b"theirs"
    assert [line["state"] for line in read_manifest(out / "manifest.jsonl")] == ["skipped", "done", "skipped"]


def test_stale_temporary_files_are_removed(upscaler, tmp_path):
    paths = make(tmp_path, [(6, 5, 3)])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".99_x4.png.0123456789abcdef.part").write_bytes(b"half")
    list(upscale_files(upscaler, paths, f"{tmp_path}/out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00_x4.png"]


def test_progress_is_closed_also_after_errors(upscaler, tmp_path, monkeypatch):
    calls = []
    paths = make(tmp_path, [(6, 5, 3)] * 2 + [(60, 6, 3), (50, 6, 3)])
    frames = [Image.fromarray(np.full((6, 5, 3), i, np.uint8)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "b.gif").write_bytes(data[:-5])
    to_input = TensorImage.to_input

    def fail(self, rows):
        if self.lr.shape[2] == 50:
            raise RuntimeError("odd")
        return to_input(self, rows)

    monkeypatch.setattr(TensorImage, "to_input", fail)
    inputs = [*paths, tmp_path / "a.gif", tmp_path / "b.gif"]
    results = list(upscale_files(upscaler, inputs, progress=lambda path: Recorder(path, calls)))
    assert errors(results) == [False, False, False, True, False, True]
    assert [call for call in calls if call[1] == "closed"] == [(path, "closed") for path in inputs]
    assert calls[:4] == [
        (paths[0], 6, 6), (paths[0], "closed"), (paths[1], 6, 6), (paths[1], "closed"),
    ]  # fmt: skip
    rows = [call[1:] for call in calls if call[0] == paths[2] and call[1] != "closed"]
    assert len(rows) > 2 and {total for _, total in rows} == {60}
    assert rows == sorted(rows) and rows[-1] == (60, 60)
    assert [call[1:] for call in calls if call[0].name == "a.gif"] == [(1, 3), (2, 3), (3, 3), ("closed",)]


def test_large_images_are_read_one_at_a_time_and_cancelled_between(upscaler, log, tmp_path, monkeypatch):
    open_image, opened = decode.open_image, []
    monkeypatch.setattr(
        decode, "open_image", lambda path, **options: opened.append(path) or open_image(path, **options)
    )
    paths = make(tmp_path, [(30, 5, 3)] * 6)
    results = upscale_files(upscaler, paths)
    next(results)
    results.close()
    assert opened == paths[:3] and len(log) == 2  # one is read, one computed and one written at a time
    assert sorted(path.name for path in tmp_path.glob("*x4*")) == ["00_x4.png", "01_x4.png"]


def test_warnings_are_logged_with_the_path(upscaler, tmp_path, caplog):
    Image.new("RGB", (6, 5)).save(tmp_path / "a.png", exif=b"Exif\0\0garbage")
    list(upscale_files(upscaler, [tmp_path / "a.png"]))
    assert [record.message.partition(" EXIF")[0] for record in caplog.records] == [
        f"'{tmp_path}/a.png': dropped corrupt"
    ]


@pytest.fixture
def album(tmp_path) -> Path:
    """Images in directories, hidden ones, a text, and what an earlier run has left."""
    for name in ("b.png", "A/a.JPG", "A/deep er/c.bmp", "A/.hidden.png", ".thumbnails/d.png", "out/old.png"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 5, 3), len(name), np.uint8)).save(path)
    (tmp_path / "album" / "A" / "notes.txt").write_text("none")
    return tmp_path / "album"


def read_manifest(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_directory_keeps_its_structure_and_excludes_the_output(upscaler, album):
    (album / "A" / "a.JPG").write_bytes(b"corrupt")
    for skip, states in ((False, ["failed", "done", "done"]), (True, ["failed", "skipped", "skipped"])):
        results = list(upscale_files(upscaler, [album], f"{album}/out", skip_existing=skip))
        sources = [str(result.source.relative_to(album)) for result in results]
        assert sources == ["A/a.JPG", "A/deep er/c.bmp", "b.png"]
        lines = read_manifest(album / "out" / "manifest.jsonl")[-3:]
        assert [line["state"] for line in lines] == states
        assert [line["input"] for line in lines] == [str(result.source) for result in results]
        assert [line["output"] for line in lines] == [str(result.target) for result in results]
        assert ["a.JPG" in line.get("error", "") for line in lines] == [True, False, False]
        assert all((line["seconds"] > 0) == (line["state"] == "done") for line in lines)
    found = sorted(str(path.relative_to(album)) for path in album.rglob("*_x4*"))
    assert found == ["out/A/deep er/c_x4.png", "out/b_x4.png"]


def test_outputs_next_to_their_inputs_are_no_inputs(upscaler, album):
    first = list(upscale_files(upscaler, [album]))
    again = list(upscale_files(upscaler, [album], options=SaveOptions(overwrite=True)))
    assert first == again and len(first) == 4 and not any(errors(first))
    assert not list(album.rglob("manifest*"))


def test_directory_and_file(upscaler, album, tmp_path):
    alone = tmp_path / "alone.png"
    alone.write_bytes((album / "b.png").read_bytes())
    results = upscale_files(upscaler, [alone, album], f"{tmp_path}/new")
    assert [str(result.target.relative_to(tmp_path / "new")) for result in results] == [
        "alone_x4.png", "A/a_x4.png", "A/deep er/c_x4.png", "b_x4.png", "out/old_x4.png",
    ]  # fmt: skip


def test_directory_without_images(upscaler, tmp_path):
    with pytest.raises(ValueError, match="contains no images"):
        list(upscale_files(upscaler, [tmp_path]))


def test_shards_of_several_processes(upscaler, album, tmp_path):
    sources = [result.source for result in upscale_files(upscaler, [album], f"{tmp_path}/all")]
    shards = [
        [result.source for result in upscale_files(upscaler, [album], f"{tmp_path}/shards", shard=(rank, 3))]
        for rank in range(3)
    ]
    assert shards == [[sources[0], sources[3]], [sources[1]], [sources[2]]]
    lines = [read_manifest(tmp_path / "shards" / f"manifest-{rank}.jsonl") for rank in range(3)]
    assert [sum(line["state"] == "done" for line in each) for each in lines] == [2, 1, 1]
    assert [sum(line["state"] == "left out" for line in each) for each in lines] == [1, 1, 1]


def test_images_of_one_name_in_several_processes_are_all_upscaled(upscaler, tmp_path):
    paths = make(tmp_path, [(6, 5, 3)] * 3)
    for path in paths:
        Image.open(path).save(path.with_suffix(".jpg"))
    for _ in range(2):
        for rank in range(2):
            list(upscale_files(upscaler, [tmp_path], f"{tmp_path}/out", shard=(rank, 2), skip_existing=True))
    lines = [line for rank in range(2) for line in read_manifest(tmp_path / "out" / f"manifest-{rank}.jsonl")]
    done = [line["output"] for line in lines if line["state"] == "done"]
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert sorted(Path(name).name for name in done) == names and len(names) == 6
    assert names[:2] == ["00_jpg_x4.png", "00_png_x4.png"]


def test_what_is_left_out_is_logged_and_in_the_manifest(upscaler, album, caplog):
    for name in ("film.mp4", "link"):
        (album / name).symlink_to("A" if name == "link" else "nowhere")
    (result,) = upscale_files(upscaler, [album / "b.png"])
    assert result.target.name == "b_x4.png" and not caplog.records
    list(upscale_files(upscaler, [album], f"{album}/out"))
    (summary,) = (record.message for record in caplog.records)
    assert all(part in summary for part in (".mp4", ".txt", "link", "hidden", "1 already upscaled (b_x4.png)"))
    left_out = {line["input"]: line for line in read_manifest(album / "out" / "manifest.jsonl") if "reason" in line}
    assert {Path(name).relative_to(album).as_posix() for name in left_out} == {
        "film.mp4", "link", "A/notes.txt", "A/.hidden.png", ".thumbnails", "b_x4.png",
    }  # fmt: skip
    assert {line["state"] for line in left_out.values()} == {"left out"}


def test_results_are_known_by_their_tag_unless_passed_alone(upscaler, tmp_path, caplog):
    (path,) = make(tmp_path, [(6, 5, 3)])
    options = SaveOptions(software="srgan-hub 1.0.0, m, x4")
    (tagged,) = upscale_files(upscaler, path, f"{tmp_path}/album/renamed.png", options=options)
    (tmp_path / "album").mkdir()
    (tagged,) = upscale_files(upscaler, path, f"{tmp_path}/album/renamed.png", options=options)
    frames = [Image.new("RGB", (6, 5), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    list(upscale_files(upscaler, tmp_path / "b.gif", f"{tmp_path}/album/renamed.gif", options=options))
    (tmp_path / "album" / "new.png").write_bytes(path.read_bytes())
    for inputs in ([tmp_path / "album"], sorted((tmp_path / "album").iterdir())):
        results = list(upscale_files(upscaler, inputs, f"{tmp_path}/out", options=SaveOptions(overwrite=True)))
        assert [result.source.name for result in results] == ["new.png"] and not results[0].error
    assert sum("renamed.png" in record.message for record in caplog.records) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.jsonl", "new_x4.png"]
    states = [line["state"] for line in read_manifest(tmp_path / "out" / "manifest.jsonl")]
    assert states == ["done", "left out", "left out"]
    (alone,) = upscale_files(upscaler, tagged.target)
    assert not alone.error and alone.target.is_file()


def test_links_to_themselves_missing_and_undecodable_names_are_single_failures(upscaler, tmp_path):
    album = tmp_path / "album"
    album.mkdir()
    (album / "loop.png").symlink_to("loop.png")
    (album / "dangling.png").symlink_to("nowhere.png")
    odd = album / os.fsdecode(b"na\xffme.png")
    Image.new("RGB", (6, 5)).save(odd)
    for inputs in ([album], sorted(album.iterdir())):
        found = {
            result.source.name: result.error
            for result in upscale_files(upscaler, inputs, f"{tmp_path}/out", options=SaveOptions(overwrite=True))
        }
        assert {name for name, error in found.items() if not error} == {odd.name}
        assert "symbolic links" in str(found["loop.png"]) and "does not exist" in str(found["dangling.png"])
    lines = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert sorted(line["state"] for line in lines) == ["done", "failed", "failed"]
    assert lines[-1]["input"] == str(odd)


def test_file_that_vanishes_after_planning_is_a_single_failure(upscaler, tmp_path, monkeypatch):
    paths = make(tmp_path, [(31, 5, 3), (30, 5, 3), (29, 5, 3)])
    upscale = Upscaler.upscale_batch

    def upscale_and_delete(self, arrays, **options):
        paths[2].unlink(missing_ok=True)
        return upscale(self, arrays, **options)

    monkeypatch.setattr(Upscaler, "upscale_batch", upscale_and_delete)
    assert errors(list(upscale_files(upscaler, [tmp_path]))) == [False, False, True]


def test_directory_that_cannot_be_read_is_a_failure(upscaler, album, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path="."):
        if not isinstance(path, int) and Path(path).name == "deep er":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    *others, failed = upscale_files(upscaler, [album], f"{tmp_path}/new")
    assert len(others) == 3 and not any(errors(others))
    assert failed.source == album / "A" / "deep er" and "Permission denied" in str(failed.error)
    assert read_manifest(tmp_path / "new" / "manifest.jsonl")[-1]["state"] == "failed"
    (failed,) = upscale_files(upscaler, [album / "A" / "deep er"], f"{tmp_path}/new")
    assert failed.error


def test_manifest_that_cannot_be_written_is_a_warning(upscaler, album, tmp_path, caplog):
    (tmp_path / "new" / "manifest.jsonl").mkdir(parents=True)
    results = list(upscale_files(upscaler, [album], f"{tmp_path}/new"))
    assert len(results) == 4 and not any(errors(results))
    assert sum("manifest.jsonl' cannot be written" in record.message for record in caplog.records) == 1


def test_background_and_opaque_alpha_in_jpeg(upscaler, tmp_path):
    array = np.full((6, 5, 4), 100, np.uint8)
    array[..., 3] = 255
    Image.fromarray(array).save(tmp_path / "opaque.png")
    array[2, 2, 3] = 254
    Image.fromarray(array).save(tmp_path / "transparent.png")
    opaque, transparent = upscale_files(upscaler, sorted(tmp_path.glob("*.png")), format="jpeg")
    assert opaque.error is None and opaque.target.name == "opaque_x4.jpg"
    assert "`background`" in str(transparent.error) and not transparent.target.exists()
    options = SaveOptions(background="white")
    (flat,) = upscale_files(upscaler, tmp_path / "transparent.png", f"{tmp_path}/b.jpg", options=options)
    with Image.open(flat.target) as image:
        assert image.mode == "RGB" and image.size == (20, 24)


def test_reading_and_writing_overlap_with_upscaling(upscaler, tmp_path, monkeypatch):
    """Each waits for the other: otherwise this test would not end."""
    reading, writing = threading.Event(), threading.Event()
    open_image, write, upscale = decode.open_image, encode.write_raster, Upscaler.upscale_batch

    def slow_upscale(self, arrays, **options):
        assert (reading if arrays[0].shape[0] == 31 else writing).wait(20)
        return upscale(self, arrays, **options)

    def record_read(path, **options):
        if path.name == "01.png":
            reading.set()
        return open_image(path, **options)

    def record_write(image, path, options):
        if path.name == "00_x4.png":
            writing.set()
        write(image, path, options)

    monkeypatch.setattr(Upscaler, "upscale_batch", slow_upscale)
    monkeypatch.setattr(decode, "open_image", record_read)
    monkeypatch.setattr(encode, "write_raster", record_write)
    assert not any(errors(list(upscale_files(upscaler, make(tmp_path, [(31, 5, 3), (30, 5, 3)])))))


def test_images_of_different_sizes_are_no_batch(upscaler):
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        upscaler.upscale_batch([np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)])


def test_max_batch_size(tiny_generator, upscaler):
    network = tiny_generator()
    assert [upscaler.max_batch_size(*size) for size in ((6, 5), (3, 5), (7, 5), (100, 25))] == [4, 8, 3, 1]
    assert Upscaler(network, scale=4, strip_height=40, device="cpu").max_batch_size(10, 25) == 4
    assert Upscaler(network, scale=4, strip_height=5, device="cpu").max_batch_size(10, 25) == 1


@pytest.mark.parametrize("value_range", [(0, 0), (1, 0), (0, float("inf")), (float("nan"), 1)])
def test_invalid_value_range_is_refused(upscaler, tmp_path, value_range):
    with pytest.raises(ValueError, match="value_range"):
        list(upscale_files(upscaler, make(tmp_path, [(3, 5, 3)]), value_range=value_range))


def test_one_path_may_be_passed_alone(upscaler, tmp_path):
    (path,) = make(tmp_path, [(3, 5, 3)])
    (result,) = upscale_files(upscaler, str(path))
    assert result.error is None and result.source == path and result.target.is_file()
