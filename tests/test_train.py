"""The training script: what each flag does, bit-identical resumption, several processes, failures."""

import contextlib
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import distributed_worker
import interrupted_runs
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from interrupted_runs import ROOT, Kill, run_forked
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import VGG19_Weights

import train_accelerate
from srgan_hub import SRGAN, metrics
from srgan_hub.publish import PushError
from srgan_hub.resize import downscale
from srgan_hub.training import checkpoint, checkpointing, dry_run
from srgan_hub.training import logging as training_logging
from srgan_hub.training.arguments import FLAGS, GROUPS, TrainConfig, flag_name, make_parser, parse_args, resolve_args
from srgan_hub.training.dataset import RandomCropDataset, build_shards
from srgan_hub.training.state import ema_model
from srgan_hub.training.validation import COLUMNS

SMALL = ["--hr-crop", "32", "--batch-size", "2", "--report-to", "none"]
TINY = [*SMALL, "--channels", "4", "--num-blocks", "1", "--threads", "1", "--learning-rate", "1e-3"]
REQUIRED = ["--train-data", "a", "--output-dir", "b"]
GAN = ["--stage", "gan", "--content-loss", "l1", "--discriminator", "patch"]


@pytest.fixture(scope="session", autouse=True)
def fork_server():
    """Let the server import torch while the first tests run."""
    if hasattr(os, "fork"):
        interrupted_runs.fork_context()


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Reset Accelerate's process-wide state."""
    threads = torch.get_num_threads()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.set_num_threads(threads)


def draw_images(directory: Path, count: int, size: int = 80, seed: int = 0) -> Path:
    """Smooth blobs, which can be learned."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (10, 10, 3), dtype=np.uint8))
        coarse.resize((size, size + 4), Image.Resampling.BICUBIC).save(directory / f"{i}.png")
    return directory


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images") / "train", 6)


@pytest.fixture(scope="session")
def valid(tmp_path_factory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images") / "valid", 2, seed=1)


@pytest.fixture(scope="session")
def shards(images, tmp_path_factory) -> Path:
    return build_shards(images, tmp_path_factory.mktemp("shards") / "shards", min_size=32)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "start"
    torch.manual_seed(5)
    SRGAN(scale=4, channels=4, num_blocks=1).save_pretrained(directory)
    with (directory / "README.md").open("a") as card:
        card.write("\n## Origin\n\nMade by a test.\n\n## More\n\nNothing.\n")
    return directory


@pytest.fixture
def run(shards, tmp_path):
    """Run the script in this process, with output in tmp_path/out: run("--max-train-steps", 3) -> exit code."""
    return run_in(tmp_path, shards)


def run_in(directory: Path, shards: Path) -> Callable[..., int]:
    def call(*argv: object, output: str = "out", data: Path | None = shards, flags: list[str] = TINY) -> int:
        words = ["--output-dir", directory / output, *(["--train-data", data] if data else []), *flags]
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        return train_accelerate.main([str(word) for word in (*words, *argv)])

    return call


def make_config(*argv: str) -> TrainConfig:
    return resolve_args(parse_args([*REQUIRED, *argv]))


def read_log(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def read_weights(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


def record_builds(monkeypatch) -> list:
    """Collect what `build` returns: the context and the state of each run."""
    runs, build = [], train_accelerate.build
    monkeypatch.setattr(train_accelerate, "build", lambda *args: runs.append(build(*args)) or runs[-1])
    return runs


# --- Command line


def test_flags_have_help_and_accept_dashes_and_underscores(capsys):
    help_text = make_parser().format_help()
    for name, field in FLAGS.items():
        assert flag_name(name) in help_text and field.metadata["help"]
    dashes = make_config("--max-train-steps", "7", "--report-to=none", "--no-freeze-bn", "--val-data=a_b-c")
    underscores = make_config("--max_train_steps", "7", "--report_to=none", "--no_freeze_bn", "--val_data=a_b-c")
    assert dashes == underscores and (dashes.max_train_steps, dashes.val_data) == (7, "a_b-c")
    for name, field in FLAGS.items():
        word = field.metadata.get("choices", ["0" if name in ("ema", "beta2") else "1"])[0]
        words = [] if "action" in field.metadata else [word] * (2 if field.metadata.get("nargs") == 2 else 1)
        assert parse_args([*REQUIRED, f"--{name}", *words]) == parse_args([*REQUIRED, flag_name(name), *words])
    for argv in (["--max-train", "7"], ["--seed", "x"], ["--beta2", "1"], ["--batch-size", "0"], ["--ema", "nan"]):
        with pytest.raises(SystemExit):
            make_config(*argv)
        assert argv[0] in capsys.readouterr().err


def test_help_is_grouped():
    groups = {}
    for title, block in re.findall(r"^(\w[\w, ]+):\n((?:  .*\n?|\n)+)", make_parser().format_help(), re.MULTILINE):
        groups[title] = re.findall(r"^  (--[\w-]+)", block, re.MULTILINE)
    assert list(groups) == ["options", *GROUPS.values()]
    flags = [flag for title in GROUPS.values() for flag in groups[title]]
    assert flags == [flag_name(name) for name in FLAGS]
    assert (
        "--train-data" in groups["data"] and "--upsampler" in groups["networks"] and "--seed" in groups["optimization"]
    )


def test_defaults_are_the_papers():
    config = make_config()
    assert (config.max_train_steps, config.batch_size, config.hr_crop) == (1_000_000, 16, 96)
    assert (config.scale, config.channels, config.num_blocks) == (4, 64, 16)
    assert (config.content_loss, config.learning_rate, config.degradation) == ("mse", 1e-4, "bicubic")
    config = make_config("--stage", "gan")
    assert (config.max_train_steps, config.content_loss) == (200_000, "vgg54")
    assert (config.adversarial_weight, config.discriminator) == (1e-3, "paper")
    assert train_accelerate.learning_rate_at(config, "generator", 99_999) == 1e-4
    assert math.isclose(train_accelerate.learning_rate_at(config, "discriminator", 100_000), 1e-5)


def test_cosine_schedule_decays_to_zero():
    config = make_config("--lr-scheduler", "cosine", "--learning-rate", "2", "--max-train-steps", "100")
    rates = [train_accelerate.learning_rate_at(config, "generator", step) for step in (0, 50, 100)]
    assert np.allclose(rates, [2, 1, 0])


def test_dry_run_prints_estimates_and_writes_nothing(run, capsys, tmp_path):
    assert run("--stage", "gan", "--dry-run", data=Path("nowhere"), flags=[]) == 0
    text = capsys.readouterr().out
    count = sum(p.numel() for p in SRGAN().parameters())
    assert f"{count:,} parameters" in text and "200,000 steps" in text and "3,200,000 crops" in text
    assert "checkpoint" in text and "GB per process" in text and "to 1e-05" in text
    assert "'nowhere' does not exist" in text and "unknown" in text
    assert not (tmp_path / "out").exists()


def test_dry_run_names_data_disk_space_and_time(run, images, shards, valid, capsys, tmp_path):
    """The disk space of shards and of a checkpoint more than are kept; the time at the throughput of the last steps."""
    (images / "notes.txt").write_text("no image")
    (images / "broken.png").write_bytes(b"no image")
    argv = ["--dry-run", "--val-data", valid, "--max-train-steps", 10_000]
    try:
        assert run(*argv, data=images) == 0
    finally:
        (images / "notes.txt").unlink()
        (images / "broken.png").unlink()
    text = capsys.readouterr().out
    stored = sum(path.stat().st_size for path in images.iterdir()) + len(b"no image")
    assert f"'{images}', 7 images, {stored / 1e9:.2f} GB, {6 * 80 * 84 * 3 / 1e9:.2f} GB of shards" in text
    assert f"'{valid}', 2 images" in text
    config = make_config("--train-data", str(images), "--output-dir", str(tmp_path), "--checkpoints-total-limit", "4")
    assert dry_run.describe_train_data(config)[1] == 6 * 80 * 84 * 3
    parameters = sum(p.numel() for p in SRGAN().parameters())
    disk = 6 * 80 * 84 * 3 + 5 * 16 * parameters + 3 * 4 * parameters
    assert f"about {disk / 1e9:.2f} GB in all" in dry_run.estimate_run(config, processes=1, last_rate=0)

    out = tmp_path / "out"
    out.mkdir()
    lines = [{"step": 50, "samples_per_second": 1}, {"step": 1000, "samples_per_second": 4.0}, {"step": 1000, "val": 1}]
    (out / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 10')
    assert run(*argv) == 0
    text = capsys.readouterr().out
    assert "6 images" in text and dry_run.describe_train_data(make_config("--train-data", str(shards)))[1] == 0
    assert "about 1.4 hours for 10,000 steps of 0.5 s" in text  # batches of 2
    assert run(*argv, "--resume-from-checkpoint") == 0
    assert "about 1.2 hours for 9,000 steps of 0.5 s" in capsys.readouterr().out


def test_dry_run_names_the_downloads_of_div2k(capsys, tmp_path):
    config = make_config("--train-data", "div2k", "--val-data", "div2k", "--data-dir", str(tmp_path))
    text, needed = dry_run.describe_train_data(config)
    assert "800 images, 3.98 GB to download" in text and needed > 2 * 3.98e9 + 800 * 3 * 2040 * 1356
    assert dry_run.describe_val_data(config) == "DIV2K, 100 images"


def test_the_thesis_generator_can_be_trained(run, capsys, tmp_path):
    """Its parameters, and a model that loads."""
    assert run("--dry-run", "--upsampler", "nearest", flags=[]) == 0
    assert "2,039,555 parameters" in capsys.readouterr().out
    argv = ["--max-train-steps", 1, "--upsampler", "nearest", "--trunk-end", "prelu", "--output-activation", "clamp"]
    assert run(*argv) == 0
    config = SRGAN.from_pretrained(tmp_path / "out" / "final").config
    assert config == {
        "scale": 4, "channels": 4, "num_blocks": 1,
        "upsampler": "nearest", "trunk_end": "prelu", "output_activation": "clamp",
    }  # fmt: skip
    argv = ["--pretrained-model-name-or-path", tmp_path / "out" / "final", "--upsampler"]
    assert run("--max-train-steps", 1, *argv, "nearest", flags=SMALL, output="tuned") == 0
    assert SRGAN.from_pretrained(tmp_path / "tuned" / "final").config == config
    assert run("--max-train-steps", 1, *argv, "pixelshuffle", flags=SMALL, output="other") == 2
    assert "--upsampler pixelshuffle contradicts" in capsys.readouterr().err


# --- Training


def test_pretraining_reduces_the_loss_and_exports_the_ema_weights(run, valid, tmp_path):
    argv = ["--val-data", valid, "--validation-steps", 30, "--logging-steps", 1, "--learning-rate", 1e-2, "--ema", 0.9]
    assert run("--max-train-steps", 60, *argv) == 0
    out = tmp_path / "out"
    losses = [line["g_mse"] for line in read_log(out) if "g_mse" in line]
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    model = SRGAN.from_pretrained(out / "final")
    parts, header = checkpoint.load(out / "step-60.safetensors")
    assert all(torch.equal(model.generator.state_dict()[name], value) for name, value in parts["ema"].items())
    assert not torch.equal(parts["ema"]["tail_conv.weight"], parts["generator"]["tail_conv.weight"])
    assert header["environment"] == {
        "processes": 1,
        "effective_batch": 2,
        "threads": 1,
        "torch": torch.__version__,
    }
    scores = [line for line in read_log(out) if "val_psnr_y" in line]
    assert [line["step"] for line in scores] == [30, 60] and len(scores[0]) == 1 + len(COLUMNS)
    assert {"val_content", "val_psnr_y", "val_ssim_y", "val_bicubic_content"} <= scores[0].keys()
    assert scores[1]["val_psnr_y"] > scores[0]["val_psnr_y"]
    assert read_weights(out / "best") == read_weights(out / "final")
    assert Image.open(out / "images" / "step-60.png").width > 4 * 80


def test_validation_scores_equal_those_of_the_exported_model(run, valid, tmp_path):
    assert run("--max-train-steps", 2, "--val-data", valid) == 0
    model, psnr, ssim, content = SRGAN.from_pretrained(tmp_path / "out" / "final"), [], [], []
    for path in sorted(valid.iterdir()):
        hr = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
        lr = downscale(hr, 4, round_to_uint8=True)
        sr = model.upscale(lr, dtype="fp32", device="cpu").mul(255).round() / 255
        psnr.append(metrics.psnr(sr, hr, crop_border=4).item())
        ssim.append(metrics.ssim(sr, hr, crop_border=4).item())
        content.append((sr - hr).square().mean().item())
    last = read_log(tmp_path / "out")[-1]
    assert math.isclose(last["val_psnr_y"], np.mean(psnr), rel_tol=1e-4)
    assert math.isclose(last["val_ssim_y"], np.mean(ssim), rel_tol=1e-4)
    assert math.isclose(last["val_content"], np.mean(content), rel_tol=1e-3)


def test_fine_tuning_starts_at_the_pretrained_weights_and_inherits_the_card(run, pretrained, valid, tmp_path):
    argv = ["--pretrained-model-name-or-path", pretrained, "--learning-rate", 0, "--freeze-bn", "--val-data", valid]
    assert run(*GAN, *argv, "--max-train-steps", 1, "--data-license", "CC0", flags=SMALL) == 0
    assert read_weights(tmp_path / "out" / "final") == read_weights(pretrained)
    card = (tmp_path / "out" / "final" / "README.md").read_text()
    assert "base_model: start" in card and "Made by a test." in card and "Nothing." not in card
    assert "fine-tuned from" in card.lower() and "(CC0)" in card and "model-index" in card
    assert "accelerate launch train_accelerate.py" in card and "--learning-rate 0" in card
    assert [line["step"] for line in read_log(tmp_path / "out") if "val_psnr_y" in line] == [0, 1]


def test_model_card_has_no_local_paths(run, shards, valid, pretrained, tmp_path):
    argv = ["--max-train-steps", 1, "--pretrained-model-name-or-path"]
    assert run(*argv, pretrained, "--resume-from-checkpoint", output="first") == 0
    argv[-1] += f"={tmp_path / 'first' / 'final'}"
    assert run(*argv, "--val-data", f"{valid}/", "--validation-steps", 1) == 0
    card = (tmp_path / "out" / "final" / "README.md").read_text()
    assert str(tmp_path) not in card and str(shards.parent) not in card and str(valid.parent) not in card
    words = shlex.split(next(line for line in card.splitlines() if line.startswith("accelerate launch")))
    assert words[3:7] == ["--output-dir", "out", "--train-data", "shards"]
    assert "--pretrained-model-name-or-path=first/final" in words and words[words.index("--val-data") + 1] == "valid"
    assert "base_model: first/final" in card and "`first/final`" in card


BASE = ["--max-train-steps", 2, *GAN, "--adversarial-weight", 0.1]
REAL_WORLD = [["--clean-prob", 0], ["--noise", 9, 9], ["--jpeg-quality", 5, 5], ["--second-order-prob", 1]]
CHANGES = [
    ["--seed", 1],
    ["--batch-size", 1],
    ["--gradient-accumulation-steps", 2],
    ["--hr-crop", 40],
    ["--downscale-prob", 1],
    ["--degradation", "gaussian"],
    ["--sigma", 3, 4, "--degradation", "gaussian"],
    ["--degradation", "real-world"],
    *(["--degradation", "real-world", *flag] for flag in REAL_WORLD),
    ["--content-loss", "mse"],
    ["--lr-consistency", 1],
    ["--artifact-weight", 100],
    ["--checkerboard-weight", 10],
    ["--adversarial-weight", 0],
    ["--adversarial-warmup-steps", 9],
    ["--discriminator", "paper"],
    ["--freeze-bn"],
    ["--upsampler", "nearest"],
    ["--trunk-end", "prelu"],
    ["--output-activation", "clamp"],
    ["--learning-rate", 2e-3],
    ["--discriminator-learning-rate", 0.1],
    ["--beta2", 0.5],
    ["--lr-scheduler", "cosine"],
    ["--max-grad-norm", 1e-9],
    ["--ema", 0],
    ["--max-train-steps", 3],
    ["--mixed-precision", "bf16"],
]


@pytest.fixture(scope="module")
def seen_weights(shards, tmp_path_factory) -> dict[bytes, str]:
    """Final weights of all runs so far, with the flag that was changed."""
    directory = tmp_path_factory.mktemp("base")
    assert run_in(directory, shards)(*BASE) == 0
    return {read_weights(directory / "out" / "final"): "nothing"}


def test_runtime_flags_do_not_change_the_weights(run, seen_weights, tmp_path):
    argv = ["--dataloader-num-workers", 1, "--no-freeze-bn", "--logging-steps", 1, "--checkpoints-total-limit", 3]
    assert run(*BASE, *argv) == 0
    assert seen_weights[read_weights(tmp_path / "out" / "final")] == "nothing"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: " ".join(map(str, change)))
def test_each_training_flag_changes_the_weights(run, seen_weights, tmp_path, change):
    assert run(*BASE, *change) == 0
    weights = read_weights(tmp_path / "out" / "final")
    assert weights not in seen_weights, f"same weights as with a change of {seen_weights[weights]}"
    seen_weights[weights] = change[0]


def test_gradient_accumulation_equals_a_larger_batch(run, tmp_path):
    argv = ["--max-train-steps", 2, "--freeze-bn", "--logging-steps", 1]  # batch statistics would differ
    assert run(*argv, output="one") == 0
    assert run(*argv, "--batch-size", 1, "--gradient-accumulation-steps", 2, output="two") == 0
    a, b = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    losses = [[line["g_mse"] for line in read_log(tmp_path / name)] for name in ("one", "two")]
    assert np.allclose(*losses, rtol=1e-4)


def test_freeze_bn_keeps_batch_norms(run, pretrained, tmp_path):
    argv = ["--max-train-steps", 2, "--freeze-bn", "--pretrained-model-name-or-path", pretrained]
    assert run(*argv, flags=SMALL) == 0
    before, after = (load_file(path / "model.safetensors") for path in (pretrained, tmp_path / "out" / "final"))
    norms = [name for name in before if ".bn" in name]
    assert len(norms) == 3 * 5 and all(torch.equal(before[name], after[name]) for name in norms)
    assert not torch.equal(before["generator.tail_conv.weight"], after["generator.tail_conv.weight"])


def test_vgg_loss_trains_the_generator(run, tmp_path):
    """With random weights of VGG19."""
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}
    state = {f"features.{i}.weight": torch.randn(*shape, 3, 3, generator=generator) / 20 for i, shape in shapes.items()}
    state |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}
    save_file(state, tmp_path / "vgg.safetensors")
    argv = [*GAN, "--content-loss", "vgg22=1", "--adversarial-weight", 0, "--vgg-weights", tmp_path / "vgg.safetensors"]
    assert run(*argv, "--max-train-steps", 12, "--logging-steps", 1, "--learning-rate", 0.01) == 0
    lines = read_log(tmp_path / "out")
    assert all(line["g_norm"] > 0 for line in lines)
    assert np.mean([line["g_vgg22"] for line in lines[-3:]]) < 0.9 * np.mean([line["g_vgg22"] for line in lines[:3]])


def test_shards_are_built_on_first_use(run, images, tmp_path):
    assert run("--max-train-steps", 1, data=images) == 0
    assert (tmp_path / "out" / "data" / "index.json").is_file()


@pytest.mark.slow
def test_small_network_from_scratch_beats_bicubic(tmp_path, benchmark_data):
    """600 steps, about four minutes on one thread, scored on images that were not trained on."""
    photos = benchmark_data / "photos"
    words = ["--train-data", photos / "train", "--val-data", photos / "valid", "--output-dir", tmp_path / "out"]
    words += ["--channels", 32, "--num-blocks", 1, "--freeze-bn", "--max-train-steps", 600, "--hr-crop", 64]
    words += ["--batch-size", 32, "--learning-rate", 4e-3, "--beta2", 0.95, "--max-grad-norm", 0.02]
    words += ["--lr-scheduler", "cosine", "--threads", 1, "--report-to", "none", "--validation-steps", 600]
    assert train_accelerate.main([str(word) for word in words]) == 0
    last = read_log(tmp_path / "out")[-1]
    assert last["step"] == 600 and last["val_psnr_y"] > last["val_bicubic_psnr_y"] > 29


# --- Checkpoints, interruption, failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("dtype", ["no", pytest.param("bf16", marks=pytest.mark.slow)])
def test_resume_after_sigkill_is_bit_identical(dtype, shards, tmp_path):
    """Killed within steps and within saves, before and after calls."""
    full, killed = tmp_path / "full", tmp_path / "killed"
    argv = [*TINY, *GAN, "--train-data", str(shards), "--mixed-precision", dtype, "--logging-steps", "1"]
    argv += ["--max-train-steps", "6", "--checkpointing-steps", "2", "--output-dir"]
    resume = [*argv, str(killed), "--resume-from-checkpoint"]
    for kill in (
        Kill("train_accelerate", "train_step", 1, after=True),  # before the first checkpoint
        Kill("train_accelerate", "generator_step", 3),
        Kill("srgan_hub.training.checkpoint", "save_file", 1, after=True),  # leaves a temporary file
        Kill("srgan_hub.fileio", "_fsync", 1),
        Kill("train_accelerate", "train_step", 2, after=True),
        Kill("srgan_hub.training.checkpoint", "prune", 2),  # after that at the start
        Kill("srgan_hub.fileio", "_fsync", 4),  # leaves a temporary directory of the model
    ):
        assert run_forked((interrupted_runs.train, resume, kill)) == [-signal.SIGKILL], kill
    assert run_forked((interrupted_runs.train, [*argv, str(full)]), (interrupted_runs.train, resume)) == [0, 0]
    assert read_weights(full / "final") == read_weights(killed / "final")
    a, b = checkpoint.load(full / "step-6.safetensors"), checkpoint.load(killed / "step-6.safetensors")
    assert a[0].keys() == {"generator", "discriminator", "ema", "generator_optimizer", "discriminator_optimizer"}
    for part, tensors in a[0].items():
        assert tensors.keys() == b[0][part].keys()
        assert all(torch.equal(value, b[0][part][name]) for name, value in tensors.items()), part
    assert {path.name for path in killed.iterdir()} == {path.name for path in full.iterdir()}
    losses = [[(line["step"], line["g_loss"], line["d_loss"]) for line in read_log(path)] for path in (full, killed)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


def test_sigterm_saves_a_checkpoint_that_resumes_bit_identical(run, monkeypatch, tmp_path, capsys):
    assert run("--max-train-steps", 5, output="full") == 0
    train_step = train_accelerate.train_step

    def interrupt(run, state, batches, signals):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(run, state, batches, signals)

    monkeypatch.setattr(train_accelerate, "train_step", interrupt)
    handler = signal.getsignal(signal.SIGTERM)
    assert run("--max-train-steps", 5, output="cut") == 0
    assert signal.getsignal(signal.SIGTERM) is handler
    assert "step 3 is saved" in capsys.readouterr().out
    assert [path.stem for path in checkpoint.find(tmp_path / "cut")] == ["step-3"]
    assert not (tmp_path / "cut" / "final").exists()
    monkeypatch.undo()
    assert run("--max-train-steps", 5, "--resume-from-checkpoint", output="cut") == 0
    assert read_weights(tmp_path / "cut" / "final") == read_weights(tmp_path / "full" / "final")


def test_resume_restores_the_training_state(run, valid, monkeypatch, tmp_path):
    monkeypatch.setattr(train_accelerate, "COLLAPSE_LOSS", 100)
    argv = [*GAN, "--val-data", valid, "--validation-steps", 2, "--checkpointing-steps", 3]
    runs = record_builds(monkeypatch)
    assert run(*argv, "--max-train-steps", 4) == 0
    path = tmp_path / "out" / "step-3.safetensors"
    _, header = checkpoint.load(path)
    (scores,) = (line for line in read_log(tmp_path / "out") if line["step"] == 2)
    assert header["best"] == header["scores"]["SR"]["content"] == scores["val_content"] > 0
    (tmp_path / "out" / "step-4.safetensors").unlink()
    monkeypatch.setattr(train_accelerate, "train", lambda *args: True)
    assert run(*argv, "--max-train-steps", 4, "--resume-from-checkpoint") == 0
    state = runs[1][1]
    assert (state.step, state.collapsed_steps) == (3, 3)
    assert (state.best, state.scores) == (header["best"], header["scores"])


def test_resume_with_more_steps(run, tmp_path):
    assert run("--max-train-steps", 4, output="full") == 0
    assert run("--max-train-steps", 2, output="two") == 0
    step_2 = tmp_path / "two" / "step-2.safetensors"
    assert run("--max-train-steps", 4, "--resume-from-checkpoint", step_2, output="branch") == 0
    assert run("--max-train-steps", 4, "--resume-from-checkpoint", output="two") == 0
    assert read_weights(tmp_path / "branch" / "final") == read_weights(tmp_path / "full" / "final")
    assert read_weights(tmp_path / "two" / "final") == read_weights(tmp_path / "full" / "final")


def test_resume_refuses_changed_flags_and_data(run, tmp_path, capsys, caplog):
    assert run("--max-train-steps", 2) == 0
    for change, message in (
        (["--seed", 3], "--seed differs (checkpoint 0, now 3)"),
        (["--batch-size", 4, "--ema", 0.5], "--batch-size differs (checkpoint 2, now 4); --ema differs"),
        (["--max-train-steps", 1], "beyond --max-train-steps 1"),
        (["--data-dir", "x"], None),
    ):
        resume = ["--resume-from-checkpoint"] if message else []
        assert run("--max-train-steps", 3, *change, *resume) == 2
        assert (message or "already holds step-2") in capsys.readouterr().err
    other = build_shards(draw_images(tmp_path / "others", 2, 90), tmp_path / "other-shards", min_size=32)
    assert run("--max-train-steps", 3, "--resume-from-checkpoint", data=other) == 2
    assert "--train-data has other content" in capsys.readouterr().err
    assert run("--max-train-steps", 3, "--threads", 2, "--resume-from-checkpoint") == 0
    assert "--max-train-steps, --threads" in capsys.readouterr().out
    assert "threads=1, now 2" in caplog.text
    assert run("--max-train-steps", 2, "--lr-scheduler", "cosine", output="cosine") == 0
    assert run("--max-train-steps", 3, "--lr-scheduler", "cosine", "--resume-from-checkpoint", output="cosine") == 2
    assert "--max-train-steps differs" in capsys.readouterr().err
    assert run("--max-train-steps", 5, "--resume-from-checkpoint", tmp_path / "cosine" / "step-2.safetensors") == 2
    assert "use another --output-dir" in capsys.readouterr().err


def test_resume_divides_the_same_effective_batch_otherwise(run, monkeypatch, tmp_path, caplog):
    seen, read = [], RandomCropDataset.__getitem__
    monkeypatch.setattr(RandomCropDataset, "__getitem__", lambda crops, i: seen.append(i) or read(crops, i))
    assert run("--batch-size", 4, "--max-train-steps", 2) == 0
    argv = ["--batch-size", 2, "--gradient-accumulation-steps", 2, "--max-train-steps", 3]
    assert run(*argv, "--resume-from-checkpoint") == 0
    assert seen == list(range(12))
    argv[1] = 1
    assert run(*argv, "--resume-from-checkpoint") == 2


def test_old_checkpoints_are_removed(run, tmp_path, caplog):
    argv = ["--max-train-steps", 7, "--checkpointing-steps", 2, "--checkpoints-total-limit", 2]
    assert run(*argv, "--resume-from-checkpoint") == 0
    assert "no complete checkpoint" in caplog.text
    assert sorted(path.stem for path in (tmp_path / "out").glob("step-*")) == ["step-6", "step-7"]
    assert read_weights(tmp_path / "out" / "last") == read_weights(tmp_path / "out" / "final")


def test_nan_loss_stops_and_overwrites_nothing(run, monkeypatch, tmp_path, capsys):
    loss, calls = train_accelerate.losses.lr_consistency_loss, []

    def broken(*arguments):
        calls.append(1)
        return loss(*arguments) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(train_accelerate.losses, "lr_consistency_loss", broken)
    assert run("--max-train-steps", 6, "--checkpointing-steps", 2, "--lr-consistency", 1) == 1
    error = capsys.readouterr().err
    assert "g_lr_consistency is nan at step 4" in error and "step-2" in error
    assert [path.stem for path in checkpoint.find(tmp_path / "out")] == ["step-2"]
    assert not (tmp_path / "out" / "final").exists()


def test_discriminator_collapse_warns_once(run, monkeypatch, caplog):
    monkeypatch.setattr(train_accelerate, "COLLAPSE_LOSS", 100)
    monkeypatch.setattr(train_accelerate, "COLLAPSE_STEPS", 3)
    assert run(*GAN, "--max-train-steps", 5) == 0
    assert caplog.text.count("discriminator loss < 100") == 1 and "step 3" in caplog.text


def test_log_has_losses_norms_and_throughput(run, tmp_path):
    assert run(*GAN, "--max-train-steps", 2, "--logging-steps", 1) == 0
    line = read_log(tmp_path / "out")[-1]
    assert {"d_real", "d_fake", "d_loss", "d_norm", "g_loss", "g_norm", "g_l1", "g_adversarial"} <= line.keys()
    assert line["samples_per_second"] > 0 and 0 <= line["data_wait"] < 1 and line["learning_rate"] == 1e-3
    assert math.isclose(line["g_loss"], line["g_l1"] + 1e-3 * line["g_adversarial"], rel_tol=1e-5)
    assert 0 < line["d_real"] < 1 and 0 < line["d_fake"] < 1


def test_full_disk_keeps_the_old_checkpoint(run, monkeypatch, tmp_path, capsys):
    disk_usage, usage = shutil.disk_usage, namedtuple("usage", "free")
    step_2 = tmp_path / "out" / "step-2.safetensors"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10) if step_2.exists() else disk_usage(path))
    assert run("--max-train-steps", 4, "--checkpointing-steps", 2) == 2
    assert str(step_2) in capsys.readouterr().err
    assert [path.stem for path in checkpoint.find(tmp_path / "out")] == ["step-2"]


def test_failed_push_does_not_stop_training(run, monkeypatch, tmp_path, caplog):
    created, pushes, failures = [], [], [True, False]

    def push(directory, repo_id, *, private, overwrite_card):
        pushes.append((directory.name, repo_id, private, (directory / "README.md").is_file()))
        if failures.pop(0):
            raise PushError("the Hub is down")
        return "https://hub/commit"

    monkeypatch.setattr(checkpointing, "push_folder", push)
    monkeypatch.setattr(train_accelerate, "create_repo", lambda repo_id, *, private: created.append((repo_id, private)))
    argv = ["--max-train-steps", 4, "--push-to-hub", "org/name", "--push-steps", 2, "--private"]
    assert run(*argv) == 0
    assert created == [("org/name", True)]
    assert pushes == [("last", "org/name", True, True), ("final", "org/name", True, True)]
    assert "step 2: the Hub is down" in caplog.text
    failures += [False, True]
    assert run(*argv, output="again") == 1
    assert f"srgan-hub push {tmp_path / 'again' / 'final'} org/name --overwrite-card" in caplog.text
    assert read_weights(tmp_path / "again" / "final") == read_weights(tmp_path / "out" / "final")


# --- Accelerate


def test_ema_computes_with_its_own_weights_in_mixed_precision(run, monkeypatch):
    """A copy made after prepare() would run the forward that is bound to the original."""
    runs = record_builds(monkeypatch)
    assert run("--max-train-steps", 8, "--mixed-precision", "bf16", "--learning-rate", 0.01) == 0
    ((context, state),) = runs
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        averaged, expected = state.ema.network(lr), ema_model(context, state)(lr)
    assert torch.allclose(averaged, expected, atol=1e-6)
    assert not torch.allclose(averaged, state.generator.eval()(lr), atol=1e-3)


def test_bf16_keeps_weights_and_the_last_layer_in_float32(run, monkeypatch):
    seen, step, runs = [], train_accelerate.discriminator_step, record_builds(monkeypatch)
    monkeypatch.setattr(train_accelerate, "discriminator_step", lambda *args: seen.append(args[2]) or step(*args))
    assert run(*GAN, "--max-train-steps", 1, "--mixed-precision", "bf16") == 0
    assert seen[0].dtype == torch.float32 and not torch.equal(seen[0], seen[0].bfloat16().float())
    ((context, state),) = runs
    assert {p.dtype for p in state.generator.parameters()} == {torch.float32}
    prepared = context.accelerator._models
    assert len(prepared) == 2 and context.content not in prepared and state.ema.network not in prepared


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_ranks_share_samples_weights_and_scores(run, images, pretrained, valid, monkeypatch, tmp_path, caplog):
    argv = [*SMALL, "--threads", 1, "--logging-steps", 1, "--checkpointing-steps", 2, "--stage", "gan"]
    argv += ["--pretrained-model-name-or-path", pretrained, "--train-data", images, "--val-data", valid]
    argv = [str(word) for word in (*argv, "--content-loss", "l1", "--gradient-accumulation-steps", 2)]
    two = tmp_path / "two"
    two.mkdir()
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*argv, "--max-train-steps", "2"]
    assert run_forked(*[(distributed_worker.train, two, rank, 2, port, words) for rank in (0, 1)]) == [0, 0]

    records = [json.loads((two / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    tensors = [load_file(two / f"rank-{rank}.safetensors") for rank in (0, 1)]
    assert all(each["wrapped"] == "DistributedDataParallel" and not each["broadcast_buffers"] for each in records)
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    assert len([name for name in tensors[0] if name.endswith("running_mean")]) == 3 + 7 + 3
    before = load_file(pretrained / "model.safetensors")
    assert not torch.equal(before["generator.trunk.bn.running_mean"], tensors[0]["generator.trunk.bn.running_mean"])
    assert (two / "data" / "index.json").is_file()

    # Each sample is used once, and logged losses are means over ranks and passes.
    samples = [set(each["samples"]) for each in records]
    assert not samples[0] & samples[1] and samples[0] | samples[1] == set(range(2 * 2 * 2 * 2))
    steps = [line for line in read_log(two) if "g_l1" in line]
    means = np.array([each["g_l1"] for each in records]).reshape(2, 2, 2).mean(axis=(0, 2))
    assert np.allclose([line["g_l1"] for line in steps], means, rtol=1e-5)
    assert [line["learning_rate"] for line in steps] == [1e-4] * 2

    # Validation scores equal those of one rank.
    assert run("--max-train-steps", 1, *argv, flags=[], output="one", data=None) == 0
    one = read_log(tmp_path / "one")[0]
    for name, value in read_log(two)[0].items():
        assert math.isclose(value, one[name], rel_tol=1e-5, abs_tol=1e-6), name

    # One rank continues behind the last sample of both.
    later, read = [], RandomCropDataset.__getitem__
    monkeypatch.setattr(RandomCropDataset, "__getitem__", lambda crops, i: later.append(i) or read(crops, i))
    argv += ["--max-train-steps", 3, "--no-freeze-bn", "--resume-from-checkpoint"]
    assert run(*argv, flags=[], output="two", data=None) == 0
    assert later == list(range(16, 20))
    assert "processes=2, now 1" in caplog.text and "effective_batch=8, now 4" in caplog.text
    _, header = checkpoint.load(two / "step-3.safetensors")
    assert header["samples"] == 20


# --- Invalid input


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--hr-crop", 33], "--hr-crop must be divisible by the scale, 4, got 33"),
        (["--stage", "gan", "--content-loss", "l1", "--hr-crop", 40], "--discriminator patch"),
        (["--hr-crop", 128], "128x128 crops"),
        (["--content-loss", "vgg99"], "vgg99"),
        (["--mixed-precision", "fp16"], "fp16 requires a GPU"),
        (["--sigma", 1, 2], "--sigma requires --degradation"),
        (["--degradation", "gaussian", "--sigma", 2, 1], "`sigma`"),
        (["--scale", 5], "scale"),
        (["--pretrained-model-name-or-path", "no/such folder"], "no/such folder"),
        (["--pretrained-model-name-or-path", "srresnet-x4", "--channels", 32], "--channels 32"),
        (["--report-to", "trackio"], "pip install trackio"),
        (["--content-loss", "lite"], "srgan-hub[lite]"),
        (["--content-loss", "vgg54"], "--vgg-weights"),
        (["--content-loss", "vgg54", "--vgg-weights", "none.pth"], "'none.pth': cannot read"),
        (["--val-data", "nowhere"], "--val-data 'nowhere'"),
        (["--seed", -1], "--seed"),
        (["--push-to-hub", "name"], "such as org/name"),
        (["--push-steps", 2], "requires --push-to-hub"),
    ],
)
def test_invalid_input_is_reported_in_one_line(run, monkeypatch, capsys, argv, message):
    def fail(self, **_):
        raise OSError("no network")

    monkeypatch.setattr(VGG19_Weights, "get_state_dict", fail)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setattr(training_logging.importlib.util, "find_spec", lambda name: None)
    flags = ["--batch-size", "2", "--max-train-steps", "1", *([] if "--report-to" in argv else ["--report-to", "none"])]
    flags += [] if "--hr-crop" in argv else ["--hr-crop", "32"]
    flags += [] if "--pretrained-model-name-or-path" in argv else ["--channels", "4", "--num-blocks", "1"]
    assert run(*argv, flags=flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("train_accelerate.py: ") and "Traceback" not in error


def test_images_for_training_and_validation_are_refused(run, images, tmp_path, capsys):
    assert run("--max-train-steps", 1, "--val-data", images, data=images) == 2
    assert "'0.png', '1.png', '2.png' and 3 others" in capsys.readouterr().err


def test_broken_validation_image_does_not_stop_the_run(run, valid, tmp_path, caplog):
    shutil.copytree(valid, tmp_path / "valid")
    (tmp_path / "valid" / "cut.png").write_bytes((valid / "0.png").read_bytes()[:-1000])
    assert run("--max-train-steps", 1, "--val-data", tmp_path / "valid") == 0
    assert "cut.png" in caplog.text
    assert run("--max-train-steps", 1, "--val-data", valid, output="other") == 0
    scores = [
        {key: value for key, value in read_log(tmp_path / name)[-1].items() if key.startswith("val_")}
        for name in ("out", "other")
    ]
    assert scores[0] == scores[1] and scores[0]["val_psnr_y"] > 0


def test_card_names_the_degradation_of_the_scores(run, valid, tmp_path):
    argv = ["--max-train-steps", 1, "--val-data", valid, "--degradation", "real-world", "--clean-prob", 0.25]
    assert run(*argv) == 0
    card = (tmp_path / "out" / "final" / "README.md").read_text()
    assert "training's degradation real-world, seed 0 (25% of the images stay clean)" in " ".join(card.split())


def test_paired_data_of_two_directories_trains_and_resumes(run, images, tmp_path):
    sizes = {"a": 2, "b": 3}
    for seed, (name, count) in enumerate(sizes.items()):
        draw_images(tmp_path / f"hr-{name}", count, seed=seed)
        (tmp_path / f"lr-{name}").mkdir()
        for path in (tmp_path / f"hr-{name}").iterdir():
            with Image.open(path) as image:
                image.reduce(4).save(tmp_path / f"lr-{name}" / path.name)
    argv = ["--train-data", tmp_path / "hr-a", f"{tmp_path / 'hr-b'}=2"]
    lr = ["--train-lr-data", tmp_path / "lr-a", tmp_path / "lr-b"]
    assert run(*argv, *lr, "--max-train-steps", 2, data=None) == 0
    out = tmp_path / "out"
    assert {"data", "data-1", "data-lr", "data-lr-1"} <= {path.name for path in out.iterdir()}
    card = (out / "final" / "README.md").read_text()
    assert "5 images of hr-a, hr-b" in card and "LR images are given" in card and str(tmp_path) not in card
    assert "--train-data hr-a hr-b=2" in card
    assert run(*argv, "--max-train-steps", 3, "--resume-from-checkpoint", data=None) == 2  # bicubic LR images
    assert run(*argv, *lr, "--max-train-steps", 3, "--resume-from-checkpoint", data=None) == 0
    assert run(*argv, *lr, "--max-train-steps", 3, data=None, output="full") == 0
    assert run(*argv, *lr, "--max-train-steps", 3, "--no-shards", data=None, output="files") == 0
    assert read_weights(out / "final") == read_weights(tmp_path / "full" / "final")
    assert read_weights(out / "final") == read_weights(tmp_path / "files" / "final")


def test_unusable_training_images_are_reported(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run("--max-train-steps", 1, data=tmp_path / "empty") == 2
    assert "0 usable images" in capsys.readouterr().err
    assert run("--max-train-steps", 1, data=tmp_path / "none") == 2
    assert "not a directory" in capsys.readouterr().err
    assert run("--max-train-steps", 1, data=draw_images(tmp_path / "small", 2, 24)) == 2
    assert "32x32" in capsys.readouterr().err


# --- Trackers


def test_tensorboard_shows_scores_and_images(run, valid, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("--max-train-steps", 2, "--val-data", valid, "--report-to", "auto") == 0
    (events,) = (tmp_path / "out" / "srgan").glob("events.out.tfevents.*")
    shown = EventAccumulator(str(events)).Reload()
    scalar = shown.Scalars("val_psnr_y")[-1]
    assert scalar.step == 2 and math.isclose(scalar.value, read_log(tmp_path / "out")[-1]["val_psnr_y"], rel_tol=1e-5)
    image = Image.open(io.BytesIO(shown.Images("validation")[-1].encoded_image_string))
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(tmp_path / "out" / "images" / "step-2.png")))


@pytest.mark.slow
def test_trackio_shows_scores_and_images(images, valid, tmp_path):
    words = [*TINY, "--train-data", images, "--val-data", valid, "--output-dir", tmp_path / "out"]
    command = [sys.executable, ROOT / "train_accelerate.py", *words, "--max-train-steps", 2, "--report-to", "trackio"]
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([str(word) for word in command], check=True, env=environment, timeout=120)
    (shown,) = (tmp_path / "trackio" / "media").rglob("*.png")
    with Image.open(shown) as image, Image.open(tmp_path / "out" / "images" / "step-2.png") as saved:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(saved))
    with contextlib.closing(sqlite3.connect(tmp_path / "trackio" / "srgan.db")) as database:
        logged = [json.loads(row[0]) for row in database.execute("select metrics from metrics")]
    scores = [values["val_psnr_y"] for values in logged if "val_psnr_y" in values]
    assert math.isclose(scores[-1], read_log(tmp_path / "out")[-1]["val_psnr_y"], rel_tol=1e-5)


def test_default_tracker_works_without_tensorboard(run, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(training_logging.importlib.util, "find_spec", lambda name: None)
    assert run("--max-train-steps", 1, "--report-to", "auto") == 0
    assert "srgan-hub[tracker]" in caplog.text and read_log(tmp_path / "out")
