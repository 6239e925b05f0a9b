"""Training that is interrupted: signals in every phase, full disks, errors of one rank, trackers that go on."""

import itertools
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import interrupted_runs
import numpy as np
import pytest
import torch
from interrupted_runs import Kill, run_forked
from PIL import Image

from srgan_hub.training import checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

TINY = ["--channels", "4", "--num-blocks", "1", "--threads", "1", "--hr-crop", "32", "--batch-size", "2"]
GAN = ["--stage", "gan", "--content-loss", "l1", "--discriminator", "patch", "--report-to", "none"]
# Signals, whether they are sent to the process group, and the exit code.
WAYS = {
    "SIGTERM to the group": ((signal.SIGTERM,), True, 0),
    "SIGTERM": ((signal.SIGTERM,), False, 0),
    "Ctrl-C": ((signal.SIGINT,), True, 0),
    "Ctrl-C twice": ((signal.SIGINT, signal.SIGINT), True, 130),
    "SIGKILL": ((signal.SIGKILL,), False, -signal.SIGKILL),
    "SIGKILL to the group": ((signal.SIGKILL,), True, -signal.SIGKILL),
}
PHASES = {
    "step": ("train_accelerate", "generator_step"),
    "validation": ("srgan_hub.training.validation", "_validate_image"),
    "save": ("srgan_hub.training.checkpoint", "save_file"),
    "export": ("srgan_hub.training.checkpointing", "card_fields"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Six training images in train/, two validation images in valid/."""
    directory, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(8):
        (directory / ("train" if i < 6 else "valid")).mkdir(exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (10, 10, 3), dtype=np.uint8))
        coarse.resize((80, 84), Image.Resampling.BICUBIC).save(directory / ("train" if i < 6 else "valid") / f"{i}.png")
    return directory


def make_argv(images: Path, *argv: str) -> list[str]:
    data = ["--train-data", str(images / "train"), "--val-data", str(images / "valid"), "--logging-steps", "1"]
    return [*TINY, *GAN, *data, "--dataloader-num-workers", "2", *argv]


def read_log(directory: Path) -> list[dict]:
    """Return metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if name not in ("samples_per_second", "data_wait")} for line in lines]


def interrupt(argv: list[str], output: Path, kills: Sequence[tuple[str, str, int]]) -> None:
    """Start or resume the run once for each (way, phase, call of the phase's function), until it is interrupted."""
    for way, phase, call in kills:
        signals, group, code = WAYS[way]
        kill = Kill(*PHASES[phase], call, signals=signals, group=group)
        words = [*argv, "--output-dir", str(output), "--resume-from-checkpoint"]
        assert run_forked((interrupted_runs.train, words, kill)) == [code], (way, phase)


def assert_same_run(argv: list[str], interrupted: Path, full: Path) -> None:
    """Finish the interrupted run and run another one without interruption; compare all that they leave."""
    words = [*argv, "--resume-from-checkpoint", "--output-dir"]
    assert run_forked(*((interrupted_runs.train, [*words, str(path)]) for path in (interrupted, full))) == [0, 0]
    names = {path.name for path in full.iterdir()}
    assert {path.name for path in interrupted.iterdir()} == names
    for name in sorted(name for name in names if name.startswith("step-")):
        a, b = (checkpoint.load(path / name) for path in (full, interrupted))
        assert a[1]["scores"] == b[1]["scores"] and a[1]["best"] == b[1]["best"]
        for part, tensors in a[0].items():
            assert tensors.keys() == b[0][part].keys()
            assert all(torch.equal(value, b[0][part][key]) for key, value in tensors.items()), (name, part)
    for name in ("best", "last", "final"):
        file = f"{name}/model.safetensors"
        assert (interrupted / file).read_bytes() == (full / file).read_bytes(), name
    assert read_log(interrupted) == read_log(full)


def test_interrupted_run_resumes_bit_identical(images, tmp_path):
    argv = make_argv(images, "--max-train-steps", "5", "--validation-steps", "2", "--checkpointing-steps", "3")
    output = tmp_path / "interrupted"
    interrupt(argv, output, [("SIGTERM to the group", "step", 2)])
    # No validation after the signal, but first thing when the run resumes.
    assert [path.stem for path in checkpoint.find(output)] == ["step-2"]
    assert [line["step"] for line in read_log(output)] == [1, 2] and "val_psnr_y" not in read_log(output)[1]
    interrupt(argv, output, [("SIGTERM", "validation", 1)])
    assert [line["step"] for line in read_log(output)] == [1, 2] and not (output / "best").exists()
    interrupt(argv, output, [("Ctrl-C", "save", 1), ("Ctrl-C twice", "export", 1)])
    assert [path.stem for path in checkpoint.find(output)] == ["step-3", "step-4"]
    assert_same_run(argv, output, tmp_path / "full")
    assert [line["step"] for line in read_log(output) if "val_psnr_y" in line] == [2, 4, 5]


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_every_signal_in_every_phase(phase, images, tmp_path):
    argv = make_argv(images, "--max-train-steps", "9", "--validation-steps", "2", "--checkpointing-steps", "1")
    interrupt(argv, tmp_path / "interrupted", [(way, phase, 1 + (phase == "step")) for way in WAYS])
    assert_same_run(argv, tmp_path / "interrupted", tmp_path / "full")


@pytest.mark.slow
def test_bfloat16_gan_run_interrupted_in_six_ways_is_bit_identical(benchmark_data, tmp_path):
    """200 steps with data loading processes on photos that are degraded as cameras do; two minutes on two cores."""
    argv = make_argv(benchmark_data / "photos", "--max-train-steps", "200", "--validation-steps", "50")
    argv += ["--checkpointing-steps", "20", "--degradation", "real-world", "--mixed-precision", "bf16"]
    argv += ["--channels", "8", "--num-blocks", "2", "--num-validation-images", "4", "--downscale-prob", "0.5"]
    kills = zip(WAYS, itertools.cycle(PHASES), (25, 3, 2, 1, 30, 1), strict=False)
    interrupt(argv, tmp_path / "interrupted", list(kills))
    assert_same_run(argv, tmp_path / "interrupted", tmp_path / "full")
