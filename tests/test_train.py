import argparse
import contextlib
import io
import json
import math
import os
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

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import VGG19_Weights

import train_accelerate
from srgan_hub import SRGAN
from srgan_hub.publish import PushError
from srgan_hub.training import arguments, checkpoint, checkpointing, dataloader, div2k
from srgan_hub.training import logging as metrics_log
from srgan_hub.training.dataset import build_shards
from srgan_hub.training.state import ema_model
from srgan_hub.training.validation import COLUMNS

ROOT = Path(__file__).parent.parent
TINY = [
    *("--channels", "4", "--num-blocks", "1", "--hr-crop", "32", "--batch-size", "2"),
    *("--report-to", "none", "--threads", "1", "--learning-rate", "1e-3"),
]
GAN = ["--stage", "gan", "--content-loss", "l1", "--discriminator", "patch"]


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps its state for the process; each run here is to be the first."""
    threads = torch.get_num_threads()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.set_num_threads(threads)


def draw_images(folder: Path, count: int, size: int = 80) -> Path:
    """Smooth blobs with edges, so that there is something to learn."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (10, 10, 3), dtype=np.uint8))
        coarse.resize((size, size + 4), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images") / "train", 6)


@pytest.fixture(scope="session")
def valid(tmp_path_factory) -> Path:
    return draw_images(tmp_path_factory.mktemp("images") / "valid", 3)


@pytest.fixture(scope="session")
def shards(images, tmp_path_factory) -> Path:
    return build_shards(images, tmp_path_factory.mktemp("shards") / "shards", minimum_size=32)


@pytest.fixture(scope="session")
def start_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "start"
    torch.manual_seed(5)
    SRGAN(scale=4, channels=4, num_blocks=1).save_pretrained(folder)
    with (folder / "README.md").open("a") as card:
        card.write("\n## Origin\n\nMade of thin air by a test.\n\n## More\n\nNothing.\n")
    return folder


@pytest.fixture
def run(shards, tmp_path):
    """Run the script in this process: run("--max-train-steps", 3) gives the exit code; what it writes lies in
    tmp_path/out."""
    return run_in(tmp_path, shards)


def run_in(folder: Path, shards: Path) -> Callable[..., int]:
    def call(*argv: object, output: str = "out", data: Path | None = shards, tiny: bool = True) -> int:
        words = ["--output-dir", folder / output, *(["--train-data", data] if data else []), *(TINY if tiny else [])]
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        return train_accelerate.main([str(word) for word in (*words, *argv)])

    return call


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def read_weights(run_folder: Path) -> bytes:
    return (checkpointing / "final" / "model.safetensors").read_bytes()


def same(a: Path, b: Path) -> bool:
    return (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


# --- The command line


def test_every_flag_of_the_contract_is_there_with_help(capsys):
    with pytest.raises(SystemExit):
        train_accelerate.PARSER.parse_args(["--help"])
    text = capsys.readouterr().out
    names = (
        "stage pretrained-model-name-or-path train-data val-data output-dir data-dir max-train-steps "
        "batch-size gradient-accumulation-steps hr-crop scale channels num-blocks degradation content-loss "
        "lr-consistency artifact-weight checkerboard-weight adversarial-weight discriminator freeze-bn "
        "vgg-weights learning-rate discriminator-learning-rate lr-scheduler max-grad-norm ema "
        "dataloader-num-workers report-to push-to-hub push-every private checkpointing-steps validate-every "
        "checkpoints-total-limit resume-from-checkpoint seed mixed-precision threads dry-run "
    )
    for name in names.split():
        assert f"--{name} " in text or f"--{name}," in text, name
    parser_actions: list[argparse.Action] = []
    original = argparse.ArgumentParser.parse_args

    def look(self, argv):
        parser_actions.extend(self._actions)
        return original(self, argv)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", look)
        train_accelerate.PARSER.parse_args(["--train-data", "a", "--output-dir", "b"])
    assert all(action.help for action in parser_actions)


def test_div2k_is_kept_in_one_place_for_all_runs(run, images, valid, tmp_path, monkeypatch):
    """The second run fetches nothing; what is fetched is stood in for by small images of the same layout."""
    fetched = []

    def fetch(output: Path, *, archives: tuple, progress: object, **_: object) -> Path:
        for archive in archives:
            if not (output / archive.name).is_dir():
                shutil.copytree(
                    {"DIV2K_train_HR": images, "DIV2K_valid_HR": valid}[archive.name], output / archive.name
                )
                fetched.append((output.parent, archive.name))
        return output

    monkeypatch.setattr(dataloader, "download", fetch)
    monkeypatch.setattr(div2k, "download", fetch)
    monkeypatch.setattr(div2k, "build_shards", lambda *args, **options: build_shards(*args, minimum_size=32))
    place = tmp_path / "shared"
    flags = [
        "--max-train-steps",
        1,
        "--data-dir",
        place,
        "--train-data",
        "div2k",
        "--val-data",
        "div2k",
        "--validate-every",
        1,
    ]
    assert run(*flags, data=None, output="a") == 0
    assert run(*flags, data=None, output="b") == 0
    assert fetched == [(place, "DIV2K_train_HR"), (place, "DIV2K_valid_HR")]
    assert same(tmp_path / "a" / "final", tmp_path / "b" / "final")
    assert not (tmp_path / "a" / "data").exists() and not (tmp_path / "a" / "data-images").exists()


def test_defaults_are_the_papers():
    args = train_accelerate.PARSER.parse_args(["--train-data", "a", "--output-dir", "b"])
    arguments.resolve_args(args, None)
    assert (args.max_train_steps, args.batch_size, args.hr_crop) == (1_000_000, 16, 96)
    assert (args.scale, args.channels, args.num_blocks) == (4, 64, 16)
    assert (args.content_loss, args.learning_rate, args.degradation) == ("mse", 1e-4, "bicubic")
    args = train_accelerate.PARSER.parse_args(["--train-data", "a", "--output-dir", "b", "--stage", "gan"])
    arguments.resolve_args(args, None)
    assert (args.max_train_steps, args.content_loss) == (200_000, "vgg54")
    assert (args.adversarial_weight, args.discriminator) == (1e-3, "paper")
    assert train_accelerate.learning_rate_at(args, "generator", 99_999) == 1e-4
    assert math.isclose(train_accelerate.learning_rate_at(args, "discriminator", 100_000), 1e-5)


def test_cosine_falls_from_the_full_rate_to_nothing():
    args = argparse.Namespace(lr_scheduler="cosine", learning_rate=2.0, max_train_steps=100, stage="pretrain")
    rates = [train_accelerate.learning_rate_at(args, "generator", step) for step in (0, 50, 100)]
    assert np.allclose(rates, [2, 1, 0])


def test_dry_run_prints_the_plan_and_writes_nothing(run, capsys, tmp_path):
    assert run("--stage", "gan", "--dry-run", data=Path("nowhere"), tiny=False) == 0
    text = capsys.readouterr().out
    count = sum(p.numel() for p in SRGAN().parameters())
    assert f"{count:,} parameters" in text and "200,000 steps" in text and "3,200,000 crops" in text
    assert "checkpoint" in text and "GB a process" in text and "1e-05 at the end" in text
    assert not (tmp_path / "out").exists()


# --- What a run does


def test_pretraining_learns_and_the_averaged_weights_are_exported(run, valid, tmp_path):
    argv = ["--val-data", valid, "--validate-every", 50, "--log-every", 1, "--learning-rate", 1e-2, "--ema", 0.9]
    assert run("--max-train-steps", 100, *argv) == 0
    out = tmp_path / "out"
    losses = [line["g_mse"] for line in lines(out) if "g_mse" in line]
    assert len(losses) == 100 and np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    model = SRGAN.from_pretrained(out / "final")
    parts, state = checkpoint.load(out / "step-100.safetensors")
    assert all(torch.equal(model.generator.state_dict()[name], value) for name, value in parts["ema"].items())
    assert not torch.equal(parts["ema"]["tail_conv.weight"], parts["generator"]["tail_conv.weight"])
    assert state["machine"] == {"threads": 1, "processes": 1, "torch": torch.__version__}
    scores = [line for line in lines(out) if "val_psnr_y" in line]
    assert [line["step"] for line in scores] == [50, 100]
    assert len(scores[0]) == 1 + len(COLUMNS) and {
        "val_content",
        "val_bicubic_psnr_y",
        "val_hr_checkerboard_db",
    } <= set(scores[0])
    assert scores[1]["val_psnr_y"] > scores[0]["val_psnr_y"] and same(out / "best", out / "final")
    assert Image.open(out / "images" / "step-100.png").width > 4 * 80


def test_validation_scores_what_the_exported_model_does(run, valid, tmp_path):
    from srgan_hub import metrics
    from srgan_hub.resize import downscale

    assert run("--max-train-steps", 2, "--val-data", valid) == 0
    model, psnr, consistency = SRGAN.from_pretrained(tmp_path / "out" / "final"), [], []
    for path in sorted(valid.iterdir()):
        hr = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
        lr = downscale(hr, 4, round_to_uint8=True)
        sr = model.upscale(lr, dtype="fp32", device="cpu").mul(255).round() / 255
        psnr.append(metrics.psnr(sr, hr, crop_border=4).item())
        consistency.append(metrics.lr_consistency(sr, lr).item())
    last = lines(tmp_path / "out")[-1]
    assert math.isclose(last["val_psnr_y"], np.mean(psnr), rel_tol=1e-4)
    assert math.isclose(last["val_lr_consistency"], np.mean(consistency), rel_tol=1e-3)


def test_fine_tuning_starts_from_the_model_and_its_card_says_so(run, start_model, valid, tmp_path):
    argv = [
        "--pretrained-model-name-or-path",
        start_model,
        "--max-train-steps",
        1,
        "--learning-rate",
        0,
        "--val-data",
        valid,
    ]
    tiny = ["--hr-crop", "32", "--batch-size", "2", "--report-to", "none", "--freeze-bn", "--data-license", "CC0"]
    assert run(*tiny, *GAN, *argv, tiny=False) == 0
    assert same(tmp_path / "out" / "final", start_model)
    card = (tmp_path / "out" / "final" / "README.md").read_text()
    assert (
        "fine-tuned from" in card.lower()
        and "start" in card
        and "Made of thin air by a test." in card
        and "Nothing." not in card
    )
    assert "base_model: start" in card and "(CC0)" in card and "model-index" in card
    assert "accelerate launch train_accelerate.py" in card and "--learning-rate 0" in card
    steps = [line["step"] for line in lines(tmp_path / "out") if "val_psnr_y" in line]
    assert steps == [0, 1]


def test_cards_tell_no_paths(run, shards, valid, start_model, tmp_path):
    assert (
        run(
            "--pretrained-model-name-or-path",
            start_model,
            "--max-train-steps",
            1,
            "--resume-from-checkpoint",
            output="first",
        )
        == 0
    )
    start = tmp_path / "first" / "final"
    assert (
        run(
            f"--pretrained-model-name-or-path={start}",
            "--max-train-steps",
            1,
            "--val-data",
            f"{valid}/",
            "--validate-every",
            1,
        )
        == 0
    )
    card = (tmp_path / "out" / "final" / "README.md").read_text()
    assert str(tmp_path) not in card and str(shards.parent) not in card and str(valid.parent) not in card
    command = next(line for line in card.splitlines() if line.startswith("accelerate launch"))
    words = shlex.split(command)
    assert words[3:7] == ["--output-dir", "out", "--train-data", "shards"]
    assert "--pretrained-model-name-or-path=first/final" in words and words[words.index("--val-data") + 1] == "valid"
    assert "base_model: first/final" in card and "was fine-tuned from `first/final`" in card


BASE = ["--max-train-steps", 2, *GAN, "--adversarial-weight", 0.1]
CHANGES = {
    "seed": ["--seed", 1],
    "batch-size": ["--batch-size", 1],
    "gradient-accumulation-steps": ["--gradient-accumulation-steps", 2],
    "hr-crop": ["--hr-crop", 40],
    "downscale-prob": ["--downscale-prob", 1],
    "degradation": ["--degradation", "gaussian"],
    "sigma": ["--degradation", "gaussian", "--sigma", 3, 4],
    "content-loss": ["--content-loss", "mse"],
    "lr-consistency": ["--lr-consistency", 1],
    "artifact-weight": ["--artifact-weight", 100],
    "checkerboard-weight": ["--checkerboard-weight", 10],
    "adversarial-weight": ["--adversarial-weight", 0],
    "discriminator": ["--discriminator", "paper"],
    "freeze-bn": ["--freeze-bn"],
    "learning-rate": ["--learning-rate", 2e-3],
    "discriminator-learning-rate": ["--discriminator-learning-rate", 0.1],
    "beta2": ["--beta2", 0.5],
    "lr-scheduler": ["--lr-scheduler", "cosine"],
    "max-grad-norm": ["--max-grad-norm", 1e-9],
    "ema": ["--ema", 0],
    "max-train-steps": ["--max-train-steps", 3],
    "mixed-precision": ["--mixed-precision", "bf16"],
}


@pytest.fixture(scope="module")
def weights_of(shards, tmp_path_factory) -> dict[bytes, str]:
    """The weights that runs ended with, and what was changed in each; at first those of BASE alone."""
    folder = tmp_path_factory.mktemp("base")
    assert run_in(folder, shards)(*BASE) == 0
    return {read_weights(folder / "out"): "nothing"}


def test_flags_that_change_no_result_do_not(run, weights_of, tmp_path):
    assert (
        run(*BASE, "--dataloader-num-workers", 1, "--no-freeze-bn", "--log-every", 1, "--checkpoints-total-limit", 3)
        == 0
    )
    assert weights_of[read_weights(tmp_path / "out")] == "nothing"


@pytest.mark.parametrize("flag", CHANGES)
def test_each_flag_that_changes_the_result_does(run, weights_of, tmp_path, flag):
    assert run(*BASE, *CHANGES[flag]) == 0
    weights = read_weights(tmp_path / "out")
    assert weights not in weights_of, f"--{flag} gives the same as a change of {weights_of[weights]}"
    weights_of[weights] = flag


def test_accumulated_passes_are_one_larger_batch(run, tmp_path):
    # Without batch norm statistics in the way, two passes of one crop are one pass of two.
    argv = ["--max-train-steps", 2, "--freeze-bn", "--log-every", 1]
    assert run(*argv, output="one") == 0
    assert run(*argv, "--batch-size", 1, "--gradient-accumulation-steps", 2, output="two") == 0
    a, b = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    losses = [[line["g_mse"] for line in lines(tmp_path / name)] for name in ("one", "two")]
    assert np.allclose(*losses, rtol=1e-4)


def test_frozen_batch_norms_stay(run, start_model, tmp_path):
    tiny = ["--hr-crop", "32", "--batch-size", "2", "--report-to", "none", "--max-train-steps", "2", "--freeze-bn"]
    assert run(*tiny, "--pretrained-model-name-or-path", start_model, tiny=False) == 0
    before, after = (load_file(path / "model.safetensors") for path in (start_model, tmp_path / "out" / "final"))
    norms = [name for name in before if ".bn" in name]
    assert len(norms) == 3 * 5 and all(torch.equal(before[name], after[name]) for name in norms)
    assert not torch.equal(before["generator.tail_conv.weight"], after["generator.tail_conv.weight"])


def test_the_vgg_path_is_attached(run, tmp_path):
    """VGG's weights are random here, so this shows that the loop works, not that it makes better images."""
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}
    state = {f"features.{i}.weight": torch.randn(*shape, 3, 3, generator=generator) / 20 for i, shape in shapes.items()}
    state |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}
    save_file(state, tmp_path / "vgg.safetensors")
    argv = [*GAN, "--content-loss", "vgg22=1", "--adversarial-weight", 0, "--vgg-weights", tmp_path / "vgg.safetensors"]
    assert run(*argv, "--max-train-steps", 30, "--log-every", 1, "--learning-rate", 0.01) == 0
    values = lines(tmp_path / "out")
    assert all(line["g_norm"] > 0 for line in values)
    assert np.mean([line["g_vgg22"] for line in values[-10:]]) < 0.9 * np.mean(
        [line["g_vgg22"] for line in values[:10]]
    )


def test_images_are_prepared_on_first_use(run, images, tmp_path):
    assert run("--max-train-steps", 1, data=images) == 0
    assert (tmp_path / "out" / "data" / "index.json").is_file()


@pytest.mark.slow
def test_a_small_network_from_scratch_beats_bicubic(tmp_path, benchmark_data):
    """600 steps, about four minutes on one thread; scored on whole images that it has not seen."""
    photos = benchmark_data / "photos"
    words = ["--train-data", photos / "train", "--val-data", photos / "valid", "--output-dir", tmp_path / "out"]
    words += [
        "--channels",
        32,
        "--num-blocks",
        1,
        "--freeze-bn",
        "--max-train-steps",
        600,
        "--hr-crop",
        64,
        "--batch-size",
        32,
    ]
    words += [
        "--learning-rate",
        4e-3,
        "--beta2",
        0.95,
        "--max-grad-norm",
        0.02,
        "--lr-scheduler",
        "cosine",
        "--threads",
        1,
    ]
    words += ["--report-to", "none", "--validate-every", 600, "--checkpointing-steps", 600]
    assert train_accelerate.main([str(word) for word in words]) == 0
    last = lines(tmp_path / "out")[-1]
    assert last["step"] == 600 and last["val_psnr_y"] > last["val_bicubic_psnr_y"] > 29


# --- Checkpoints, signals, health


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("dtype", ["no", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_run_killed_anywhere_ends_bit_identical(dtype, shards, tmp_path):
    arguments = [
        *TINY,
        *GAN,
        "--train-data",
        shards,
        "--max-train-steps",
        10,
        "--checkpointing-steps",
        2,
        "--log-every",
        1,
    ]
    command = [sys.executable, ROOT / "tests" / "interrupted_runs.py", tmp_path, dtype, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([str(word) for word in command], check=True, env=environment, timeout=300)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert same(whole / "final", killed / "final")
    a, b = checkpoint.load(whole / "step-10.safetensors"), checkpoint.load(killed / "step-10.safetensors")
    assert a[0].keys() == {"generator", "discriminator", "ema", "generator_optimizer", "discriminator_optimizer"}
    for part, tensors in a[0].items():
        assert tensors.keys() == b[0][part].keys()
        assert all(torch.equal(value, b[0][part][name]) for name, value in tensors.items()), part
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
    losses = [[(line["step"], line["g_loss"], line["d_loss"]) for line in lines(folder)] for folder in (whole, killed)]
    assert losses[0] == losses[1] and len(losses[0]) == 10


def test_sigterm_saves_and_the_rest_follows(run, monkeypatch, tmp_path, capsys):
    assert run("--max-train-steps", 5, output="whole") == 0
    real = train_accelerate.train_step

    def noted(run, state, batches, signals):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(run, state, dataloader, signals)

    monkeypatch.setattr(train_accelerate, "train_step", noted)
    before = signal.getsignal(signal.SIGTERM)
    assert run("--max-train-steps", 5, output="cut") == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopped by a signal at step 3" in capsys.readouterr().out
    assert [path.stem for path in checkpoint.find(tmp_path / "cut")] == ["step-3"]
    assert not (tmp_path / "cut" / "final").exists()
    monkeypatch.undo()
    assert run("--max-train-steps", 5, "--resume-from-checkpoint", output="cut") == 0
    assert same(tmp_path / "cut" / "final", tmp_path / "whole" / "final")


def test_steps_may_be_raised_on_resume(run, tmp_path):
    assert run("--max-train-steps", 4, output="whole") == 0
    assert run("--max-train-steps", 2, output="two") == 0
    assert run("--max-train-steps", 4, "--resume-from-checkpoint", output="two") == 0
    assert same(tmp_path / "two" / "final", tmp_path / "whole" / "final")
    assert (
        run(
            "--max-train-steps", 4, "--resume-from-checkpoint", tmp_path / "two" / "step-2.safetensors", output="branch"
        )
        == 0
    )
    assert same(tmp_path / "branch" / "final", tmp_path / "whole" / "final")


def test_resume_refuses_what_changes_the_result_and_says_what_else_differs(run, tmp_path, capsys, caplog, images):
    assert run("--max-train-steps", 2) == 0
    for change, sentence in (
        (["--seed", 3], "--seed was 0, is 3"),
        (["--batch-size", 4, "--ema", 0.5], "--batch-size was 2, is 4; --ema was 0.999, is 0.5"),
        (["--max-train-steps", 1], "beyond --max-train-steps 1"),
        ([], None),
    ):
        assert run("--max-train-steps", 3, *change, *(["--resume-from-checkpoint"] if sentence else [])) == 2
        error = capsys.readouterr().err
        assert (sentence or "holds step-2 already") in error, error
    other = build_shards(draw_images(tmp_path / "others", 2, 90), tmp_path / "other-shards", minimum_size=32)
    assert run("--max-train-steps", 3, "--resume-from-checkpoint", data=other) == 2
    assert "--train-data holds something else" in capsys.readouterr().err
    capsys.readouterr()
    assert run("--max-train-steps", 3, "--threads", 2, "--resume-from-checkpoint") == 0
    assert "without changing the result so far: --max-train-steps, --threads" in capsys.readouterr().out
    assert "made with threads 1, this run has 2" in caplog.text
    assert run("--max-train-steps", 2, "--lr-scheduler", "cosine", output="cosine") == 0
    assert run("--max-train-steps", 3, "--lr-scheduler", "cosine", "--resume-from-checkpoint", output="cosine") == 2
    assert "--max-train-steps was 2, is 3" in capsys.readouterr().err
    assert run("--max-train-steps", 5, "--resume-from-checkpoint", tmp_path / "cosine" / "step-2.safetensors") == 2
    assert "use another --output-dir" in capsys.readouterr().err


def test_old_checkpoints_go_and_a_missing_one_is_said(run, tmp_path, caplog):
    assert (
        run(
            "--max-train-steps",
            7,
            "--checkpointing-steps",
            2,
            "--checkpoints-total-limit",
            2,
            "--resume-from-checkpoint",
        )
        == 0
    )
    assert "no whole checkpoint" in caplog.text
    assert sorted(path.stem for path in (tmp_path / "out").glob("step-*")) == ["step-6", "step-7"]
    assert same(tmp_path / "out" / "last", tmp_path / "out" / "final")


def test_a_loss_that_is_not_finite_stops_and_overwrites_nothing(run, monkeypatch, tmp_path, capsys):
    real = train_accelerate.losses.lr_consistency_loss
    calls = []

    def broken(*arguments):
        calls.append(1)
        return real(*arguments) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(train_accelerate.losses, "lr_consistency_loss", broken)
    assert run("--max-train-steps", 6, "--checkpointing-steps", 2, "--lr-consistency", 1) == 1
    error = capsys.readouterr().err
    assert "g_lr_consistency is nan at step 4" in error and "step-2" in error
    assert [path.stem for path in checkpoint.find(tmp_path / "out")] == ["step-2"]
    assert not (tmp_path / "out" / "final").exists()


def test_a_discriminator_that_has_won_is_said(run, monkeypatch, caplog):
    monkeypatch.setattr(train_accelerate, "COLLAPSE_LOSS", 100)
    monkeypatch.setattr(train_accelerate, "COLLAPSE_STEPS", 3)
    assert run(*GAN, "--max-train-steps", 5) == 0
    assert caplog.text.count("the discriminator has won") == 1 and "step 3" in caplog.text


def test_health_is_logged(run, tmp_path):
    assert run(*GAN, "--max-train-steps", 2, "--log-every", 1) == 0
    line = lines(tmp_path / "out")[-1]
    assert {"d_real", "d_fake", "d_loss", "d_norm", "g_loss", "g_norm", "g_l1", "g_adversarial"} <= line.keys()
    assert line["samples_per_second"] > 0 and 0 <= line["data_wait"] < 1 and line["learning_rate"] == 1e-3
    assert math.isclose(line["g_loss"], line["g_l1"] + 1e-3 * line["g_adversarial"], rel_tol=1e-5)
    assert 0 < line["d_real"] < 1 and 0 < line["d_fake"] < 1


def test_a_full_disk_keeps_the_old_checkpoint(run, monkeypatch, tmp_path, capsys):
    real = shutil.disk_usage
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: usage(10) if (tmp_path / "out" / "step-2.safetensors").exists() else real(path),
    )
    assert run("--max-train-steps", 4, "--checkpointing-steps", 2) == 2
    assert "step-2 still stands" in capsys.readouterr().err
    assert [path.stem for path in checkpoint.find(tmp_path / "out")] == ["step-2"]


# --- The Hub (publish.push itself is tested in test_hub.py)


def test_a_hub_that_is_down_loses_no_step(run, monkeypatch, tmp_path, caplog):
    pushes = []

    def push(folder, repo_id, *, private, overwrite_card):
        pushes.append((folder.name, repo_id, private, (folder / "README.md").is_file()))
        if fails[len(pushes) - 1]:
            raise PushError("the Hub is down")
        return "https://hub/commit"

    monkeypatch.setattr(checkpointing, "push_folder", push)
    argv = ["--max-train-steps", 4, "--push-to-hub", "org/name", "--push-every", 2, "--private"]
    fails = [True, False]
    assert run(*argv) == 0
    assert pushes == [("last", "org/name", True, True), ("final", "org/name", True, True)]
    assert "step 2: the Hub is down" in caplog.text
    pushes.clear()
    fails = [False, True]
    assert run(*argv, output="again") == 1
    assert f"python -m srgan_hub push {tmp_path / 'again' / 'final'} org/name --overwrite-card" in caplog.text
    assert same(tmp_path / "again" / "final", tmp_path / "out" / "final")


# --- Accelerate


def test_the_average_computes_with_its_own_weights_under_mixed_precision(run, monkeypatch):
    """A copy made after prepare() would run the forward that is bound to the original."""
    runs, real = [], train_accelerate.build
    monkeypatch.setattr(train_accelerate, "build", lambda *args: runs.append(real(*args)) or runs[-1])
    assert run("--max-train-steps", 8, "--mixed-precision", "bf16", "--learning-rate", 0.01) == 0
    ((run_of, state),) = runs
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        averaged, expected = state.ema.network(lr), ema_model(run_of, state)(lr)
    assert torch.allclose(averaged, expected, atol=1e-6)
    assert not torch.allclose(averaged, state.generator.eval()(lr), atol=1e-3)


def test_bf16_keeps_weights_and_the_last_layer_in_float32(run, monkeypatch):
    seen, real = [], train_accelerate.discriminator_step
    monkeypatch.setattr(
        train_accelerate, "discriminator_step", lambda run, state, sr, hr: seen.append(sr) or real(run, state, sr, hr)
    )
    runs, build = [], train_accelerate.build
    monkeypatch.setattr(train_accelerate, "build", lambda *args: runs.append(build(*args)) or runs[-1])
    assert run(*GAN, "--max-train-steps", 1, "--mixed-precision", "bf16") == 0
    assert seen[0].dtype == torch.float32 and not torch.equal(seen[0], seen[0].bfloat16().float())
    ((run_of, state),) = runs
    assert {p.dtype for p in state.generator.parameters()} == {torch.float32}
    networks = [run_of.content, state.ema.network]
    assert not any(network in run_of.accelerator._models for network in networks)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_ranks_train_as_one(run, images, start_model, valid, tmp_path):
    arguments = [
        "--hr-crop",
        32,
        "--batch-size",
        2,
        "--report-to",
        "none",
        "--log-every",
        1,
        "--checkpointing-steps",
        2,
    ]
    arguments += [
        "--stage",
        "gan",
        "--content-loss",
        "l1",
        "--pretrained-model-name-or-path",
        start_model,
        "--train-data",
        images,
    ]
    arguments += ["--val-data", valid, "--gradient-accumulation-steps", 2, "--discriminator", "paper"]
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", port]
    command += [ROOT / "tests" / "distributed_worker.py", tmp_path / "two", "--max-train-steps", 3, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run([str(word) for word in command], check=True, env=environment, timeout=300, capture_output=True)

    two = tmp_path / "two"
    facts = [json.loads((two / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    tensors = [load_file(two / f"rank-{rank}.safetensors") for rank in (0, 1)]
    assert all(fact["wrapped"] == "DistributedDataParallel" and not fact["broadcast_buffers"] for fact in facts)
    different = [name for name, value in tensors[0].items() if not torch.equal(value, tensors[1][name])]
    assert not different
    statistics = [name for name in tensors[0] if name.endswith("running_mean")]
    assert len(statistics) == 3 + 7 + 3
    before = load_file(start_model / "model.safetensors")
    assert not torch.equal(before["generator.trunk.bn.running_mean"], tensors[0]["generator.trunk.bn.running_mean"])

    assert (two / "data" / "index.json").is_file()  # prepared by one rank while the other waited

    # Each sample once, and the logged losses are the means of both ranks and both passes.
    samples = [set(fact["samples"]) for fact in facts]
    assert not samples[0] & samples[1] and samples[0] | samples[1] == set(range(3 * 2 * 2 * 2))
    steps = [line for line in lines(two) if "g_l1" in line]
    means = np.array([fact["g_l1"] for fact in facts]).reshape(2, 3, 2).mean(axis=(0, 2))
    assert np.allclose([line["g_l1"] for line in steps], means, rtol=1e-5)
    assert [line["learning_rate"] for line in steps] == [1e-4] * 3

    # Scores are those of all images: the same as on one rank.
    assert run("--max-train-steps", 1, *arguments, tiny=False, output="one", data=None) == 0
    one = lines(tmp_path / "one")[0]
    for name, value in lines(two)[0].items():
        assert math.isclose(value, one[name], rel_tol=1e-5, abs_tol=1e-6), name


# --- Bad input: a sentence and exit code 2


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--hr-crop", 33], "--hr-crop divisible by the scale, 4, got"),
        (["--stage", "gan", "--content-loss", "l1", "--hr-crop", 40], "a multiple of 16 or --discriminator patch"),
        (["--hr-crop", 128], "at least 128 pixels"),
        (["--content-loss", "vgg99"], "content loss"),
        (["--mixed-precision", "fp16"], "Expected a GPU for --mixed-precision fp16"),
        (["--sigma", 1, 2], "Expected --degradation gaussian or real-world beside --sigma"),
        (["--degradation", "gaussian", "--sigma", 2, 1], "sigma"),
        (["--scale", 5], "scale"),
        (["--pretrained-model-name-or-path", "no/such folder"], "Model 'no/such folder' not found"),
        (["--pretrained-model-name-or-path", "srresnet-x4", "--channels", 32], "--channels 32, but srresnet-x4 has 64"),
        (["--report-to", "trackio"], "trackio is not installed"),
        (["--content-loss", "lite"], "srgan-hub[lite]"),
        (["--content-loss", "vgg54"], "pass a file as `weights`"),
        (["--content-loss", "vgg54", "--vgg-weights", "none.pth"], "none.pth cannot be read"),
        (["--val-data", "nowhere"], "Expected --val-data with images"),
        (["--seed", -1], "--seed"),
        (["--push-to-hub", "name"], "such as org/name"),
        (["--push-every", 2], "Expected --push-to-hub beside --push-every"),
    ],
)
def test_bad_input_is_a_sentence(run, monkeypatch, capsys, argv, sentence):
    def fail(self, **_):
        raise OSError("no network")

    monkeypatch.setattr(VGG19_Weights, "get_state_dict", fail)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setattr(metrics_log.importlib.util, "find_spec", lambda name: None)
    tiny = [
        *["--batch-size", "2", "--max-train-steps", "1"],
        *([] if "--report-to" in argv else ["--report-to", "none"]),
    ]
    tiny += [] if "--hr-crop" in argv else ["--hr-crop", 32]
    tiny += [] if "--pretrained-model-name-or-path" in argv else ["--channels", 4, "--num-blocks", 1]
    assert run(*tiny, *argv, tiny=False) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("train_accelerate.py: ") and "Traceback" not in error


def test_bad_training_images_are_a_sentence(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run("--max-train-steps", 1, data=tmp_path / "empty") == 2
    assert "usable images" in capsys.readouterr().err
    assert run("--max-train-steps", 1, data=tmp_path / "none") == 2
    assert "not a folder" in capsys.readouterr().err
    small = draw_images(tmp_path / "small", 2, 24)
    assert run("--max-train-steps", 1, data=small) == 2
    assert "32" in capsys.readouterr().err


def test_tensorboard_shows_scores_and_images(run, valid, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("--max-train-steps", 2, "--val-data", valid, "--report-to", "auto") == 0
    (events,) = (tmp_path / "out" / "srgan").glob("events.out.tfevents.*")
    shown = EventAccumulator(str(events)).Reload()
    scalar = shown.Scalars("val_psnr_y")[-1]
    assert scalar.step == 2 and math.isclose(scalar.value, lines(tmp_path / "out")[-1]["val_psnr_y"], rel_tol=1e-5)
    image = shown.Images("validation")[-1]
    saved = Image.open(tmp_path / "out" / "images" / "step-2.png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), np.asarray(saved))


@pytest.mark.slow
def test_trackio_shows_scores_and_images(images, valid, tmp_path):
    words = [
        *TINY,
        "--train-data",
        images,
        "--val-data",
        valid,
        "--output-dir",
        tmp_path / "out",
        "--max-train-steps",
        2,
    ]
    command = [sys.executable, ROOT / "train_accelerate.py", *words, "--report-to", "trackio"]
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([str(word) for word in command], check=True, env=environment, timeout=120)
    (shown,) = (tmp_path / "trackio" / "media").rglob("*.png")
    with Image.open(shown) as image, Image.open(tmp_path / "out" / "images" / "step-2.png") as saved:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(saved))
    with contextlib.closing(sqlite3.connect(tmp_path / "trackio" / "srgan.db")) as database:
        logged = [json.loads(row[0]) for row in database.execute("select metrics from metrics")]
    scores = [values["val_psnr_y"] for values in logged if "val_psnr_y" in values]
    assert math.isclose(scores[-1], lines(tmp_path / "out")[-1]["val_psnr_y"], rel_tol=1e-5)


def test_the_default_tracker_works_without_tensorboard(run, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(metrics_log.importlib.util, "find_spec", lambda name: None)
    assert run("--max-train-steps", 1, "--report-to", "auto") == 0
    assert "srgan-hub[tracker]" in caplog.text and lines(tmp_path / "out")
