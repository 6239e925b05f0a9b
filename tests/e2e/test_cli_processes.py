"""The command line in processes of its own: signals, and a launcher with two ranks."""

import json
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.batch import upscale_files
from srgan_hub.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    SRGAN(channels=4, num_blocks=1).save_pretrained("model")
    return SRGAN.from_pretrained("model")


def save_random_image(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 12 + seed, 3), dtype=np.uint8)).save(path)


def test_interrupted_runs_leave_complete_files_only(model, tmp_path, capsys):
    cases = {
        ("writing", signal.SIGKILL): -signal.SIGKILL,
        ("writing", signal.SIGTERM): 128 + signal.SIGTERM,
        ("computing", signal.SIGINT): 130,
    }
    arguments = []
    for moment, number in cases:
        directory = tmp_path / number.name
        directory.mkdir()
        save_random_image(directory / "a.png", 0)
        arguments += [str(directory), moment, str(int(number))]
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("cli_worker.py"), tmp_path / "model", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert json.loads(run.stdout.splitlines()[-1]) == list(cases.values()), run.stderr
    for _, number in cases:
        directory = tmp_path / number.name
        assert "Traceback" not in (directory / "stderr").read_text()
        # After SIGTERM the write is finished. After SIGKILL a hidden temporary file stays, which is no image.
        assert (directory / "a_x4.png").exists() == (number == signal.SIGTERM)
        assert len(list(directory.glob(".*.part"))) == (number == signal.SIGKILL)
        assert main(["upscale", str(directory / "a.png"), "--model", "model", "--skip-existing"]) == 0
        assert not list(directory.glob(".*.part"))
        with Image.open(directory / "a_x4.png") as result:
            assert result.size == (48, 80)
            result.load()


def test_pipe_with_closed_stderr(model):
    save_random_image(Path("a.png"), 0)
    command = f"'{sys.executable}' -m srgan_hub upscale - --output - --format webp --model model < a.png > b.webp 2>&-"
    run = subprocess.run(["sh", "-c", command], env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0
    with Image.open("b.webp") as result:
        assert result.format == "WEBP" and result.size == (48, 80)


def test_launcher_shards_a_directory_and_resumes_an_interrupted_run(model):
    Path("in").mkdir()
    names = [f"{i:02d}" for i in range(12)]
    for i, name in enumerate(names):
        save_random_image(Path(f"in/{name}.png"), i)
    Path("in/08.png").write_bytes(b"no image")
    # One of two processes was interrupted after two images.
    first = upscale_files(model.upscaler(device="cpu", dtype="float32"), [Path("in")], "out", shard=(0, 2))
    assert len(list(islice(first, 2))) == 2
    first.close()
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert 2 <= len(before) < 6
    stale = Path("out/.03_x4.png.0123456789abcdef.part")
    stale.write_bytes(b"half")
    run = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
            "-m", "srgan_hub", "upscale", "in", "--output", "out", "--model", "model", "--dtype", "float32",
            "--skip-existing",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"},  # 0: any free port
    )  # fmt: skip
    assert run.returncode == 1 and "in/08.png" in run.stderr
    expected = [name for name in names if name != "08"]
    assert sorted(path.name for path in Path("out").iterdir() if path.suffix != ".jsonl") == [
        f"{name}_x4.png" for name in expected
    ]
    assert sorted(run.stdout.split()) == [f"out/{name}_x4.png" for name in expected]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    lines = [json.loads(line) for rank in "01" for line in Path(f"out/manifest-{rank}.jsonl").read_text().splitlines()]
    done = sorted(line["input"] for line in lines if line["state"] == "done")
    assert done == [f"in/{name}.png" for name in expected]
    assert [line["input"] for line in lines if line["state"] == "failed"] == ["in/08.png"]
    for name in ("00", "11"):
        with Image.open(f"out/{name}_x4.png") as result:
            expected_image = model.upscale(f"in/{name}.png", dtype="float32")
            assert np.abs(np.asarray(result).astype(int) - np.asarray(expected_image)).max() <= 1
