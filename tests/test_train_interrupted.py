"""Training that is interrupted: signals in every phase, full disks, errors of one rank, trackers that go on."""

import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import interrupted_runs
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from interrupted_runs import Kill, run_forked
from PIL import Image
from safetensors.torch import save_file

import train_accelerate
from srgan_hub.evaluate.datasets import PairedDataset
from srgan_hub.model_card import get_section
from srgan_hub.training import checkpoint, checkpointing, dataloader, losses, validation
from srgan_hub.training.dataset import PreparedImages, Source, build_shards

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
    argv = make_argv(images, "--max-train-steps", "13", "--validation-steps", "2", "--checkpointing-steps", "1")
    interrupt(argv, tmp_path / "interrupted", [(way, phase, 1 + (phase == "step")) for way in WAYS])
    assert_same_run(argv, tmp_path / "interrupted", tmp_path / "full")


@pytest.mark.slow
def test_bfloat16_gan_run_interrupted_in_six_ways_is_bit_identical(benchmark_data, tmp_path):
    """200 steps with data loading processes on photos that are degraded as cameras do; some minutes on two cores."""
    argv = make_argv(benchmark_data / "photos", "--max-train-steps", "200", "--validation-steps", "50")
    argv += ["--checkpointing-steps", "20", "--degradation", "real-world", "--mixed-precision", "bf16"]
    argv += ["--channels", "8", "--num-blocks", "2", "--num-validation-images", "4", "--downscale-prob", "0.5"]
    kills = zip(WAYS, itertools.cycle(PHASES), (25, 3, 2, 1, 30, 1), strict=False)
    interrupt(argv, tmp_path / "interrupted", list(kills))
    assert_same_run(argv, tmp_path / "interrupted", tmp_path / "full")


# --- Full disks


@pytest.fixture
def disk(tmp_path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A directory on a disk of its own, and a function that leaves a number of bytes free on it.

    It is a tmpfs of 16 MB if this user may mount one. If not, no file may grow once the disk is full.
    """
    directory = tmp_path / "disk"
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", "size=16m", "tmpfs", str(directory)]
    mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(free: int) -> None:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
            return
        with contextlib.suppress(OSError), (directory / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
        os.truncate(directory / "filler", (directory / "filler").stat().st_size - free)

    yield directory, fill
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    if mounted:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)  # a failed test may hold files


FULL = ("No space left on device", "File too large")


def fill_before(monkeypatch, module: object, function: str, call: int, fill: Callable[[int], None]) -> None:
    """Fill the disk before the numbered call of a function."""
    original, calls = getattr(module, function), itertools.count(1)

    def counted(*args, **options):
        if next(calls) == call:
            fill(0)
        return original(*args, **options)

    monkeypatch.setattr(module, function, counted)


def assert_one_sentence(text: str, path: Path) -> None:
    (line,) = (line for line in text.splitlines() if line.startswith("train_accelerate.py: "))
    assert f"'{path}'" in line and any(reason in line for reason in FULL) and "Traceback" not in text


def train(*argv: object) -> int:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return train_accelerate.main([str(word) for word in argv])


def test_full_disk_at_the_shards(images, disk, capsys):
    directory, fill = disk
    fill(64 * 1024)
    assert train(*make_argv(images), "--output-dir", directory / "out") == 2
    assert_one_sentence(capsys.readouterr().err, directory / "out" / "data")
    assert list((directory / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("module", "function", "call", "named", "kept"),
    [
        (checkpoint, "save_file", 2, "step-4.safetensors", "step-2"),
        (checkpointing, "export", 2, "last", "step-4"),
        (train_accelerate, "log", 1, "metrics.jsonl", "step-2"),
    ],
)
def test_full_disk_keeps_the_last_checkpoint(module, function, call, named, kept, images, disk, monkeypatch, capsys):
    directory, fill = disk
    fill_before(monkeypatch, module, function, call, fill)
    argv = [*TINY, "--report-to", "none", "--train-data", images / "train", "--logging-steps", 3]
    assert train(*argv, "--max-train-steps", 5, "--checkpointing-steps", 2, "--output-dir", directory) == 2
    assert_one_sentence(capsys.readouterr().err, directory / named)
    assert checkpoint.find(directory)[-1].stem == kept
    checkpoint.load(directory / f"{kept}.safetensors")
    assert not list(directory.glob(".*.part"))


# --- Errors of one rank


def train_rank(rank: int, port: int, argv: list[str], failing: str, error: Path) -> None:
    """Run one of two ranks, of which rank 0 fails in a function; write its stderr to a file."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def fail(*args: object, **options: object) -> None:
        raise OSError("the disk is gone")

    if rank == 0:
        places = {"data": (dataloader, "build_shards"), "download": (losses, "ContentLoss")}
        setattr(*places.get(failing, (checkpoint, "save_file")), fail)
    with error.open("w") as file, contextlib.redirect_stderr(file):
        code = train_accelerate.main(argv)
    raise SystemExit(code)


@pytest.mark.parametrize("failing", ["data", "download", "save"])
def test_error_of_rank_0_stops_all_ranks_with_its_message(failing, images, tmp_path):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = make_argv(images, "--max-train-steps", "2", "--output-dir", str(tmp_path / "out"))
    errors = [tmp_path / f"error-{rank}" for rank in (0, 1)]
    assert run_forked(*((train_rank, rank, port, argv, failing, errors[rank]) for rank in (0, 1))) == [2, 2]
    sentences = [
        [line for line in error.read_text().splitlines() if line.startswith("train_accelerate.py: ")]
        for error in errors
    ]
    assert sentences[0] == sentences[1] and len(sentences[0]) == 1 and "the disk is gone" in sentences[0][0]


# --- Checkpoints and trackers


def vgg_weights(path: Path, seed: int) -> Path:
    """Random weights of VGG19 up to the layer 2_2."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}
    state = {f"features.{i}.weight": torch.randn(*shape, 3, 3, generator=generator) / 20 for i, shape in shapes.items()}
    save_file(state | {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}, path)
    return path


def test_resume_refuses_other_vgg_weights(images, tmp_path, capsys):
    argv = [*TINY, "--report-to", "none", "--train-data", images / "train", "--content-loss", "vgg22"]
    argv += ["--output-dir", tmp_path / "out"]
    first, other = (vgg_weights(tmp_path / f"{seed}.safetensors", seed) for seed in (0, 1))
    assert train(*argv, "--max-train-steps", 1, "--vgg-weights", first) == 0
    resume = [*argv, "--max-train-steps", 2, "--resume-from-checkpoint", "--vgg-weights"]
    assert train(*resume, other) == 2
    assert "--vgg-weights has other content" in capsys.readouterr().err
    moved = first.rename(tmp_path / "moved.safetensors")
    assert train(*resume, moved) == 0


def test_collapse_counter_survives_an_interruption(images, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(train_accelerate, "COLLAPSE_LOSS", 100)
    monkeypatch.setattr(train_accelerate, "COLLAPSE_STEPS", 3)
    argv = make_argv(images, "--output-dir", str(tmp_path / "out"), "--resume-from-checkpoint")
    argv += ["--dataloader-num-workers", "0", "--max-train-steps"]
    assert train(*argv, 2) == 0 and "discriminator loss <" not in caplog.text
    assert train(*argv, 4) == 0 and "step 3: discriminator loss < 100 for 3 steps" in caplog.text


def test_tensorboard_shows_a_resumed_run_once(images, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    argv = [*TINY, "--report-to", "tensorboard", "--train-data", images / "train", "--logging-steps", 1]
    argv += ["--output-dir", tmp_path / "out", "--checkpointing-steps", 2, "--checkpoints-total-limit", 9]
    assert train(*argv, "--max-train-steps", 4) == 0
    (tmp_path / "out" / "step-4.safetensors").unlink()
    assert train(*argv, "--max-train-steps", 5, "--resume-from-checkpoint") == 0
    shown = EventAccumulator(str(tmp_path / "out" / "srgan")).Reload()
    assert [each.step for each in shown.Scalars("g_loss")] == [1, 2, 3, 4, 5]


def test_trackers_resume_in_the_same_run(images, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        Accelerator, "init_trackers", lambda self, name, config, init_kwargs: started.append(init_kwargs)
    )
    argv = [*TINY, "--report-to", "tensorboard", "--train-data", images / "train", "--max-train-steps"]
    for output, steps, flags in (("a", 1, []), ("a", 2, ["--resume-from-checkpoint"]), ("b", 1, [])):
        assert train(*argv, steps, "--output-dir", tmp_path / output, *flags) == 0
    first, resumed, other = started
    assert first["wandb"] == resumed["wandb"] and first["wandb"]["resume"] == "allow"
    assert first["wandb"]["id"].startswith("a-") and other["wandb"]["id"] != first["wandb"]["id"]
    assert first["trackio"] == resumed["trackio"] == {"name": first["wandb"]["id"], "resume": "allow"}
    assert (first["tensorboard"], resumed["tensorboard"]) == ({}, {"purge_step": 2})


# --- Validation and the model card


def test_validation_reads_a_fixed_choice_of_images_once(images, tmp_path, monkeypatch):
    read, benchmarks = [], []
    get, score = PairedDataset.__getitem__, validation._score
    monkeypatch.setattr(PairedDataset, "__getitem__", lambda self, index: read.append(index) or get(self, index))
    monkeypatch.setattr(
        validation, "_score", lambda *args: benchmarks.append(torch.backends.cudnn.benchmark) or score(*args)
    )
    (tmp_path / "valid").mkdir()
    for path in (images / "train").iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_180).save(tmp_path / "valid" / path.name)
    argv = [*TINY, "--report-to", "none", "--train-data", images / "train", "--val-data", tmp_path / "valid"]
    argv += ["--validation-steps", 1, "--max-train-steps", 2, "--num-validation-images", 3]
    train_step = train_accelerate.train_step

    def with_benchmark(*args):  # as on a GPU
        torch.backends.cudnn.benchmark = True
        return train_step(*args)

    monkeypatch.setattr(train_accelerate, "train_step", with_benchmark)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # restored after the test
    assert train(*argv, "--output-dir", tmp_path / "out") == 0
    assert read == [0, 2, 4]  # of six
    assert benchmarks == [False] * (3 + 2 * 3)  # bicubic upscaling once, the model twice
    assert torch.backends.cudnn.benchmark
    first, second = (line for line in read_log(tmp_path / "out") if "val_psnr_y" in line)
    assert first["val_bicubic_psnr_y"] == second["val_bicubic_psnr_y"] and first["val_psnr_y"] != second["val_psnr_y"]


def test_card_states_the_terms_of_div2k(images, tmp_path, monkeypatch):
    shards = build_shards(images / "train", tmp_path / "shards", min_size=32)
    sources = [Source(PreparedImages(shards))]
    monkeypatch.setattr(train_accelerate, "prepare_data", lambda *args: (sources, []))
    argv = [*TINY, "--report-to", "none", "--max-train-steps", 1, "--train-data"]
    assert train(*argv, "div2k", "--output-dir", tmp_path / "div2k") == 0
    assert train(*argv, shards, "--output-dir", tmp_path / "other") == 0
    card, other = ((tmp_path / name / "final" / "README.md").read_text() for name in ("div2k", "other"))
    assert "- eugenesiow/Div2k" in card and "academic research only" in get_section(card, "License")
    assert "Div2k" not in other and "academic" not in other
