"""Folders of images: small ones together, order and errors as if each came alone."""

import json
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgan_hub.batch import upscale_files
from srgan_hub.images import decode
from srgan_hub.images.decode import ImageError
from srgan_hub.images.tensors import TensorImage
from srgan_hub.upscaler import Upscaler


@pytest.fixture
def upscaler(tiny_generator, monkeypatch) -> Upscaler:
    monkeypatch.setattr("srgan_hub.backends.torch_backend.CPU_PIXELS", 4 * 6 * 5)  # four images of 6x5
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="fp32")


@pytest.fixture
def log(monkeypatch) -> list[list[tuple[int, ...]]]:
    """The shapes of the LR images that go into the network, push by push."""
    shapes = []
    stream = Upscaler._stream_with_recovery
    monkeypatch.setattr(
        Upscaler,
        "_stream_with_recovery",
        lambda self, lr, *args: shapes.append(tuple(lr.shape)) or stream(self, lr, *args),
    )
    return shapes


def make(folder: Path, sizes: list[tuple[int, ...]]) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [folder / f"{i:02d}.png" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(path)
    return paths


def test_small_images_of_one_size_go_together(upscaler, log, tmp_path):
    color, gray, wide = (6, 5, 3), (6, 5), (6, 10, 3)
    paths = make(tmp_path, [color] * 6 + [gray] + [wide] * 3 + [color])
    results = list(upscale_files(upscaler, paths, f"{tmp_path}/out"))
    assert log == [(4, 3, 6, 5), (2, 3, 6, 5), (1, 1, 6, 5), (2, 3, 6, 10), (1, 3, 6, 10), (1, 3, 6, 5)]
    assert [source for source, _, _ in results] == paths and not any(problem for *_, problem in results)
    for source, target, _ in results:
        with Image.open(target) as result:
            expected = np.asarray(upscaler.upscale(source)).astype(int)
            assert np.asarray(result).shape == expected.shape and np.abs(np.asarray(result) - expected).max() <= 1


def test_a_batch_mixes_transparent_opaque_and_gray_images(upscaler):
    """Each keeps what it is; transparent ones take twice the memory, so that the strip is half as high."""
    random = np.random.default_rng(0)
    clear, opaque, gray = random.integers(0, 256, (3, 6, 5, 4), dtype=np.uint8)
    opaque[..., 3] = 255
    gray[..., :3] = gray[..., :1]
    for array, result in zip((clear, opaque, gray), upscaler.upscale_batch([clear, opaque, gray]), strict=True):
        assert np.abs(result.astype(int) - upscaler.upscale(array)).max() <= 1
        assert (result[..., 3] == 255).all() == (array is opaque)
        assert (result[..., 0] == result[..., 1]).all() == (array is gray)


def test_memory_holds_for_batches(upscaler, monkeypatch):
    pushed = []
    load = TensorImage.to_input
    monkeypatch.setattr(TensorImage, "to_input", lambda self, rows: pushed.append(load(self, rows)) or pushed[-1])
    clear = np.full((6, 5, 4), 100, np.uint8)
    upscaler.upscale_batch([clear] * 4)  # each with its alpha: eight of 3 rows of 5
    assert [tuple(rows.shape) for rows in pushed] == [(2, 3, 3, 5)] * 8


def test_errors_stay_with_their_files(upscaler, log, tmp_path):
    paths = make(tmp_path, [(6, 5, 3)] * 5)
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    (tmp_path / "03_x4.png").write_text("mine")
    results = list(upscale_files(upscaler, [*paths, paths[0]]))
    assert [source for source, _, _ in results] == [*paths, paths[0]]
    assert [bool(problem) for *_, problem in results] == [False, True, False, True, False, True]
    assert "broken" in str(results[1][2]) and "exists already" in str(results[3][2])
    assert (tmp_path / "03_x4.png").read_text() == "mine"


def test_one_of_a_batch_that_cannot_be_written(upscaler, log, tmp_path, monkeypatch):
    write = decode.save_image

    def full(image, path, **options):
        if path.name == "01_x4.png":
            raise ImageError(f"{path} cannot be written: No space left on device")
        write(image, path, **options)

    monkeypatch.setattr(decode, "save_image", full)
    results = list(upscale_files(upscaler, make(tmp_path, [(6, 5, 3)] * 3)))
    assert log == [(3, 3, 6, 5)]
    assert ["No space" in str(problem) for *_, problem in results] == [False, True, False]
    assert [target.exists() for _, target, _ in results] == [True, False, True]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("odd"), struct.error("odd"), NotImplementedError("odd"), AssertionError("odd"), TypeError("odd"),
        SyntaxError("odd"), MemoryError(), OSError(36, "odd"), ZeroDivisionError("odd"), RecursionError("two\nlines"),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("stage", ["load_raster", "upscale", "save_image"])
def test_whatever_one_image_raises_is_its_own(upscaler, tmp_path, monkeypatch, stage, error):
    paths = make(tmp_path, [(6, 5, 3)] * 4)
    mark = np.asarray(Image.open(paths[1]))
    original = {name: getattr(decode, name) for name in ("load_raster", "save_image")}
    load = TensorImage.to_input

    def fail_to_load(self, rows):
        if self.lr.shape[2:] == mark.shape[:2] and np.array_equal(self.lr[0].permute(1, 2, 0), mark):
            raise error
        return load(self, rows)

    def fail(*arguments, **options):
        if any(isinstance(each, Path) and each.name in ("01.png", "01_x4.png") for each in arguments):
            raise error
        return original[stage](*arguments, **options)

    if stage == "upscale":
        monkeypatch.setattr(TensorImage, "to_input", fail_to_load)
    else:
        monkeypatch.setattr(decode, stage, fail)
    results = list(upscale_files(upscaler, paths))
    assert [source for source, _, _ in results] == paths
    assert [bool(problem) for *_, problem in results] == [False, True, False, False]
    problem = results[1][2]
    assert isinstance(problem, ImageError) and problem.__cause__ is error
    assert str(problem).startswith(str(paths[1])) and "\n" not in str(problem)
    assert ("out of memory" if isinstance(error, MemoryError) else type(error).__name__) in str(problem)
    assert sorted(path.name for path in tmp_path.glob("*_x4.png")) == ["00_x4.png", "02_x4.png", "03_x4.png"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_whoever_stops_a_run_stops_it(upscaler, tmp_path, monkeypatch, stop):
    def read(path, **options):
        raise stop

    monkeypatch.setattr(decode, "load_raster", read)
    with pytest.raises(stop):
        list(upscale_files(upscaler, make(tmp_path, [(6, 5, 3)] * 2)))


def test_names_that_are_too_long(upscaler, tmp_path):
    paths = make(tmp_path, [(6, 5, 3)] * 2)
    long, longer = tmp_path / ("x" * 250 + ".png"), tmp_path / ("y" * 300 + ".png")
    long.write_bytes(paths[0].read_bytes())  # its result has no room for _x4
    results = list(upscale_files(upscaler, [paths[0], long, longer, paths[1]]))
    assert [bool(problem) for *_, problem in results] == [False, True, True, False]
    assert all("File name too long" in str(results[i][2]) for i in (1, 2))


def test_finished_images_are_passed_over(upscaler, log, tmp_path, caplog):
    paths = make(tmp_path, [(6, 5, 3)] * 4)
    (tmp_path / "01_x4.png").write_bytes(b"finished")
    (tmp_path / "02_x4.png").write_bytes(b"")
    (tmp_path / "03_x4.png").symlink_to("nowhere")
    results = list(upscale_files(upscaler, paths, skip_existing=True))
    assert [str(problem) if problem else None for *_, problem in results] == [
        None, None, *(f"{tmp_path}/0{i}_x4.png exists already; set overwrite to replace it." for i in (2, 3)),
    ]  # fmt: skip
    assert [record.message for record in caplog.records] == [f"{tmp_path}/01_x4.png exists already; skipped"]
    assert (tmp_path / "01_x4.png").read_bytes() == b"finished" and log == [(1, 3, 6, 5)]


@pytest.mark.parametrize("skip", [False, True])
def test_a_result_that_appears_meanwhile_is_kept(upscaler, tmp_path, monkeypatch, skip):
    """As when two runs work into one folder."""
    write = decode.save_image

    def late(image, path, **options):
        if path.name == "00_x4.png":
            path.write_bytes(b"theirs")
        write(image, path, **options)

    monkeypatch.setattr(decode, "save_image", late)
    results = list(upscale_files(upscaler, make(tmp_path, [(6, 5, 3)] * 2), skip_existing=skip))
    assert [bool(problem) for *_, problem in results] == [not skip, False]
    assert (tmp_path / "00_x4.png").read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir() if "x4" in path.name) == ["00_x4.png", "01_x4.png"]


def test_part_files_of_killed_runs_are_swept(upscaler, tmp_path):
    paths = make(tmp_path, [(6, 5, 3)])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".99_x4.png.0123456789abcdef.part").write_bytes(b"half")
    list(upscale_files(upscaler, paths, f"{tmp_path}/out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00_x4.png"]


def test_progress_of_each(upscaler, tmp_path):
    calls = []
    paths = make(tmp_path, [(6, 5, 3)] * 2 + [(60, 6, 3)])
    list(upscale_files(upscaler, paths, progress=lambda path: lambda *rows: calls.append((path, *rows))))
    assert calls[:2] == [(paths[0], 6, 6), (paths[1], 6, 6)]
    large = calls[2:]
    assert len(large) > 2 and {(path, total) for path, _, total in large} == {(paths[2], 60)}
    assert [done for _, done, _ in large] == sorted(done for _, done, _ in large) and large[-1][1] == 60


def test_large_images_are_read_one_at_a_time_and_cancelled_between(upscaler, log, tmp_path, monkeypatch):
    read, opened = decode.load_raster, []
    monkeypatch.setattr(decode, "load_raster", lambda path, **options: opened.append(path) or read(path, **options))
    paths = make(tmp_path, [(30, 5, 3)] * 6)
    results = upscale_files(upscaler, paths)
    next(results)
    results.close()
    assert opened == paths[:3] and len(log) == 2  # one is read, one computed and one written at a time
    assert sorted(path.name for path in tmp_path.glob("*x4*")) == ["00_x4.png", "01_x4.png"]


@pytest.fixture
def album(tmp_path) -> Path:
    """Images in folders, hidden ones, a text, and what an earlier run has left."""
    for name in ("b.png", "A/a.JPG", "A/deep er/c.bmp", "A/.hidden.png", ".thumbnails/d.png", "out/old.png"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 5, 3), len(name), np.uint8)).save(path)
    (tmp_path / "album" / "A" / "notes.txt").write_text("none")
    return tmp_path / "album"


def read_manifest(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_keeps_its_structure_and_leaves_out_the_output(upscaler, album):
    (album / "A" / "a.JPG").write_bytes(b"broken")
    for skip, states in ((False, ["failed", "done", "done"]), (True, ["failed", "skipped", "skipped"])):
        results = list(upscale_files(upscaler, [album], f"{album}/out", skip_existing=skip))
        assert [str(source.relative_to(album)) for source, *_ in results] == ["A/a.JPG", "A/deep er/c.bmp", "b.png"]
        lines = read_manifest(album / "out" / "manifest.jsonl")[-3:]
        assert [line["state"] for line in lines] == states
        assert [Path(line["output"]) for line in lines] == [target for _, target, _ in results]
        assert lines[0]["why"] == str(results[0][2]) and "a.JPG is" in lines[0]["why"]
        assert all((line["seconds"] > 0) == (line["state"] == "done") for line in lines)
    found = sorted(str(path.relative_to(album)) for path in album.rglob("*_x4*"))
    assert found == ["out/A/deep er/c_x4.png", "out/b_x4.png"]


def test_results_beside_a_folders_images_are_no_inputs(upscaler, album):
    first = list(upscale_files(upscaler, [album]))
    again = list(upscale_files(upscaler, [album], overwrite=True))
    assert first == again and len(first) == 4 and not any(problem for *_, problem in first)
    assert not list(album.rglob("manifest*"))


def test_a_folder_and_a_file(upscaler, album, tmp_path):
    alone = tmp_path / "alone.png"
    alone.write_bytes((album / "b.png").read_bytes())
    targets = [target for _, target, _ in upscale_files(upscaler, [alone, album], f"{tmp_path}/new")]
    assert [str(target.relative_to(tmp_path / "new")) for target in targets] == [
        "alone_x4.png", "A/a_x4.png", "A/deep er/c_x4.png", "b_x4.png", "out/old_x4.png",
    ]  # fmt: skip


def test_a_folder_without_images(upscaler, tmp_path):
    with pytest.raises(ValueError, match="is a folder without images"):
        list(upscale_files(upscaler, [tmp_path]))


def test_several_processes_share_a_folder(upscaler, album, tmp_path):
    sources = [source for source, *_ in upscale_files(upscaler, [album], f"{tmp_path}/whole")]
    shares = [
        [source for source, *_ in upscale_files(upscaler, [album], f"{tmp_path}/shared", shard=(rank, 3))]
        for rank in range(3)
    ]
    assert shares == [[sources[0], sources[3]], [sources[1]], [sources[2]]]
    assert [len(read_manifest(tmp_path / "shared" / f"manifest-{rank}.jsonl")) for rank in range(3)] == [2, 1, 1]


def test_the_next_is_read_and_the_last_written_while_one_is_computed(upscaler, tmp_path, monkeypatch):
    """Each waits for the other: without that this test would not end."""
    reading, writing = threading.Event(), threading.Event()
    read, write, upscale = decode.load_raster, decode.save_image, Upscaler.upscale_batch

    def slow_upscale(self, arrays, **options):
        assert (reading if arrays[0].shape[0] == 31 else writing).wait(20)
        return upscale(self, arrays, **options)

    def noted_read(path, **options):
        if path.name == "01.png":
            reading.set()
        return read(path, **options)

    def noted_write(image, path, **options):
        if path.name == "00_x4.png":
            writing.set()
        write(image, path, **options)

    monkeypatch.setattr(Upscaler, "upscale_batch", slow_upscale)
    monkeypatch.setattr(decode, "load_raster", noted_read)
    monkeypatch.setattr(decode, "save_image", noted_write)
    results = list(upscale_files(upscaler, make(tmp_path, [(31, 5, 3), (30, 5, 3)])))
    assert not any(problem for *_, problem in results)


def test_images_of_several_sizes_are_no_batch(upscaler):
    with pytest.raises(ValueError, match=r"one shape and dtype, got .*\(2, 3\).*\(3, 2\)"):
        upscaler.upscale_batch([np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)])


def test_batch_size(tiny_generator, upscaler):
    network = tiny_generator()
    assert [upscaler.max_batch_size(*size) for size in ((6, 5), (3, 5), (7, 5), (100, 25))] == [4, 8, 3, 1]
    assert Upscaler(network, scale=4, strip_height=40, device="cpu").max_batch_size(10, 25) == 4
    assert Upscaler(network, scale=4, strip_height=5, device="cpu").max_batch_size(10, 25) == 1
