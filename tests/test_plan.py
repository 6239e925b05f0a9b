"""The plan of a run: distinct outputs, results of earlier runs, and what is left out of directories."""

import os
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from srgan_hub.images import decode, formats
from srgan_hub.images.errors import ImageError
from srgan_hub.images.metadata import Metadata
from srgan_hub.plan import names_program, plan_outputs


def make(directory: Path, *names: str, size: tuple[int, int] = (4, 3)) -> list[Path]:
    paths = [directory / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path, "JPEG" if path.suffix == ".jpg" else "PNG")
    return paths


def targets(inputs: list[Path], output: Path | None = None, **options: str) -> list[str]:
    plan = plan_outputs(inputs, output and f"{output}/", "x4", **options)
    return [job.target.name for job in plan.jobs if job.found is None]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg", "a.png"], ["a_jpg_x4.png", "a_png_x4.png"]),
        (["a.png", "b.jpg", "a.jpg"], ["a_png_x4.png", "b_x4.png", "a_jpg_x4.png"]),
        (["a.jpg", "a"], ["a_jpg_x4.png", "a_x4.png"]),
    ],
)
def test_inputs_of_one_name_get_distinct_outputs(tmp_path, names, expected):
    paths = make(tmp_path, *names)
    assert targets(paths) == expected
    assert targets(paths[::-1]) == expected[::-1]  # in any order, so each process and each run finds the same


@pytest.mark.parametrize(
    "names",
    [
        ["A.png", "a.png"],
        ["ü.png", "u\u0308.png"],
        ["x/a.png", "y/a.png"],
        ["a.jpg", "a.png", "a_jpg.png", "A_JPG.png"],
    ],
)
def test_outputs_differ_in_more_than_case_and_normalization(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    paths = make(Path(), *names)
    found = targets(paths, Path("out"))
    assert len({name.casefold().replace("u\u0308", "ü") for name in found}) == len(names)
    assert sorted(targets(paths[::-1], Path("out"))) == sorted(found)


def test_one_input_twice_and_an_output_that_is_another_input(tmp_path):
    (path, other) = make(tmp_path, "a.png", "y/a_x4.png")
    plan = plan_outputs([path, tmp_path, path, other], f"{tmp_path}/y", "x4")
    assert [(job.source, isinstance(job.found, ImageError)) for job in plan.jobs] == [
        (path, True), (path, True), (path, True), (other, False),
    ]  # fmt: skip
    assert [str(job.found).count("passed twice") for job in plan.jobs] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("name", "size", "is_result"),
    [
        ("a_x4.png", (4, 3), True), ("a_x2.jpg", (4, 3), True), ("a_512.png", (512, 8), True),
        ("a_8x.png", (8, 6), True), ("a_x6.png", (8, 6), True), ("a_8x6.png", (8, 6), True),
        ("a_png_x4.png", (4, 3), True), ("a_0123abcd_png_x4.png", (4, 3), True), ("a_2.png", (4, 3), False),
        ("a_2024.png", (4, 3), False),
        ("a_8x6.png", (4, 3), False), ("b_x4.png", (4, 3), False), ("a_x.png", (4, 3), False),
        ("a_b_x4.png", (4, 3), False),
    ],
)  # fmt: skip
def test_results_are_known_by_name_and_size_next_to_their_original(tmp_path, name, size, is_result):
    (original,) = make(tmp_path, "a.png")
    (result,) = make(tmp_path, name, size=size)
    for inputs in ([original, result], [tmp_path]):
        plan = plan_outputs(inputs, f"{tmp_path}/out", "x4")
        assert [job.source for job in plan.jobs] == ([original] if is_result else [original, result])
        assert plan.left_out == ({result: "already upscaled"} if is_result else {})
        assert [name in warning for warning in plan.warnings] == [True] * is_result
    assert [job.source for job in plan_outputs([result], None, "x4").jobs] == [result]  # passed alone


def test_no_inputs():
    assert not plan_outputs([], None, "x4").jobs


def test_nothing_but_results(tmp_path):
    make(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"a_x2.png, a_x4.png.*alone"):
        plan_outputs(make(tmp_path, "a_x2.png", "a_x4.png"), None, "x4")


def test_metadata_that_names_the_program():
    exif = Image.Exif()
    exif[0x0131] = "srgan-hub 1.0.0, m, x4"
    named = [Metadata(text={"Software": "srgan-hub 1"}), Metadata(text={"Comment": "srgan-hub 1"})]
    assert all(map(names_program, [*named, Metadata(exif=exif.tobytes())]))
    exif[0x0131] = "Camera 1"
    others = [None, Metadata(), Metadata(text={"Software": "GIMP"}), Metadata(exif=exif.tobytes()), Metadata(exif=b"x")]
    assert not any(map(names_program, others))


def test_what_is_left_out_of_a_directory(tmp_path):
    album = tmp_path / "album"
    taken = make(album, "a.png", "b/c.jpg")
    for name in ("d.mpo", "d.ico", "d.hif", "d.HEIC", "d.dds"):
        (album / name).write_bytes(b"x")
        taken.append(album / name)
    for name in ("a.mp4", "b/notes.txt", "README", ".hidden.png", ".thumbnails/e.png", "out/a_x4.png"):
        (album / name).parent.mkdir(exist_ok=True)
        (album / name).write_bytes(b"x")
    (album / "link").symlink_to("b")
    (album / "loop.png").symlink_to("loop.png")
    taken.append(album / "loop.png")  # which fails alone
    os.mkfifo(album / "pipe.png")
    found = decode.list_directory(album, album / "out")
    assert found.images == sorted(taken, key=lambda path: path.relative_to(album).as_posix()) and not found.errors
    reasons = {path.relative_to(album).as_posix(): reason for path, reason in found.left_out.items()}
    assert reasons.keys() == {"a.mp4", "b/notes.txt", "README", ".hidden.png", ".thumbnails", "link", "pipe.png"}
    assert "video" in reasons["a.mp4"] and reasons["b/notes.txt"].startswith(".txt") and "link" in reasons["link"]
    plan = plan_outputs([album], f"{album}/out", "x4")
    (summary,) = plan.warnings
    assert f"'{album}'" in summary and "2 hidden" in summary and "1 .mp4" in summary


def test_training_data_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match="Input/output"):
        decode.find_images(tmp_path, None, (".png",))
    (job,) = plan_outputs([tmp_path], None, "x4").jobs
    assert job.source == tmp_path and "Input/output error" in str(job.found)


def test_output_directory_may_be_the_input_or_contain_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(Path("album"), "a.png")
    for output in ("album", "."):
        assert targets([Path("album")], Path(output)) == ["a_x4.png"]


@pytest.mark.parametrize(
    ("format", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp"), ("avif", ".avif"), ("tiff", ".tif")]
)
def test_format_selects_the_suffix_of_single_images(tmp_path, format, suffix):
    paths = make(tmp_path, "a.png", "b.jpg", "corrupt.png")
    paths[2].write_bytes(b"x")
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    for name in ("c.gif", "d.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        paths.append(tmp_path / name)
    animation = suffix if "animation" in formats.find_format(suffix).media else ".gif"
    expected = [f"a_x4{suffix}", f"b_x4{suffix}", f"corrupt_x4{suffix}", f"c_x4{animation}", "d_x4.tif"]
    assert targets(paths, format=format) == expected


def test_format_that_is_unknown_or_contradicts_the_output(tmp_path):
    (path,) = make(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"`format`.+bmp"):
        plan_outputs([path], None, "x4", "bmp")
    with pytest.raises(ValueError, match=r"`format`.*b\.jpg"):
        plan_outputs([path], f"{tmp_path}/b.jpg", "x4", "png")
    (job,) = plan_outputs([path], f"{tmp_path}/b.jpeg", "x4", "jpeg").jobs
    assert job.target.name == "b.jpeg"


def test_tag_of_this_program_in_a_file(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "srgan-hub 1.0.0, m, x4")
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png", pnginfo=info)
    assert names_program(decode.load_raster(tmp_path / "a.png").metadata)


@pytest.mark.parametrize("address", ["s3://bucket/a.png", "hf://datasets/org/name", "https://host/a.png", "memory://a"])
def test_remote_addresses_are_refused(tmp_path, monkeypatch, address):
    """Before anything is written; they would be local directories of such a name."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("a.png")
    for inputs, output in (([address], None), (["a.png", address], "out/"), (["a.png"], f"{address}/")):
        with pytest.raises(ValueError, match=f"'{address}.*' is a remote address; pass local paths"):
            plan_outputs([Path(each) for each in inputs], output, "x4")
    assert plan_outputs([Path("a.png")], "C:/out.png", "x4").jobs[0].target == Path("C:/out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
