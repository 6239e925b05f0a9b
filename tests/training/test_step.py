"""One training step: gradients, scaling, accumulation, averages, launches; and what runs may start from or change."""

import contextlib
import json
import math
import os
import signal
import socket
from pathlib import Path

import distributed_worker
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from benchmarks.training import Launches, use_fused_adam
from interrupted_runs import run_forked
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import train_accelerate
from srgan_hub.training import checkpoint, losses
from srgan_hub.training.arguments import parse_args, resolve_args
from srgan_hub.training.dataset import build_shards
from srgan_hub.training.distributed import make_accelerator
from srgan_hub.training.ema import EMA
from srgan_hub.training.readback import Readback, StepValues

FLAGS = ["--hr-crop", "32", "--batch-size", "2", "--report-to", "none", "--threads", "1"]
FLAGS += ["--channels", "4", "--num-blocks", "1", "--learning-rate", "1e-3"]
GAN = ["--stage", "gan", "--content-loss", "l1", "--discriminator", "patch"]


def reset_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Reset Accelerate's process-wide state."""
    threads = torch.get_num_threads()
    reset_accelerate()
    yield
    reset_accelerate()
    torch.set_num_threads(threads)


def draw(directory: Path, low: int = 0) -> Path:
    """Blobs with 8-bit values from `low` to 255."""
    directory.mkdir()
    for i in range(4):
        coarse = np.random.default_rng(i).integers(low, 256, (10, 10, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 84), Image.Resampling.BICUBIC).save(directory / f"{i}.png")
    return directory


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    return build_shards(draw(directory / "images"), directory / "shards", min_size=32)


@pytest.fixture
def run(shards, tmp_path):
    """Run the script in this process, with output in tmp_path/out: run("--max-train-steps", 3) -> exit code."""

    def call(*argv: object, output: str = "out", data: Path = shards) -> int:
        reset_accelerate()
        words = ["--output-dir", tmp_path / output, "--train-data", data, *FLAGS, *argv]
        return train_accelerate.main([str(word) for word in words])

    return call


@pytest.fixture
def build(shards, tmp_path):
    """Build a run and its state without training: build("--seed", 1)."""

    def call(*argv: object):
        reset_accelerate()
        words = ["--output-dir", tmp_path / "built", "--train-data", shards, *FLAGS, *argv]
        return train_accelerate.build(resolve_args(parse_args([str(word) for word in words])), None)

    return call


def random_batches(count: int, size: int = 2):
    """Yield batches of `size` crops, the same crops for every size."""
    generator = torch.Generator().manual_seed(0)
    lr, hr = (torch.rand(count * size, 3, side, side, generator=generator) for side in (8, 32))
    return zip(lr.split(size), hr.split(size), strict=True)


def step(run, state, batches) -> dict[str, float]:
    names, values = train_accelerate.train_step(run, state, batches)
    return dict(zip(names, values.tolist(), strict=True))


def copy_weights(state) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value.clone()
        for part, network in (state.networks | {"ema": state.ema.network}).items()
        for name, value in network.state_dict().items()
    }


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.allclose(value, b[name], **tolerance), (name, (value - b[name]).abs().max())


def read_log(directory: Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def break_gradients(monkeypatch, *, call: int = 1) -> None:
    """Make the gradients of the LR consistency loss NaN in one call; its value stays finite."""
    loss, calls = losses.lr_consistency_loss, []

    def broken(sr, hr, scale):
        calls.append(scale)
        return loss(sr, hr, scale) + (torch.sqrt(0 * sr).mean() if len(calls) == call else 0)

    monkeypatch.setattr(losses, "lr_consistency_loss", broken)


# --- Gradients


def test_scaled_gradients_of_several_passes_equal_float32(build):
    """fp16 scales losses; each optimizer's gradients are unscaled once, right before it steps."""
    found, unscaled, updates = [], [], []
    for scaled in (False, True):
        context, state = build(*GAN, "--gradient-accumulation-steps", 2, "--freeze-bn", "--max-grad-norm", 0.004)
        if scaled:
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
            unscale, update = scaler.unscale_, scaler.update
            scaler.unscale_ = lambda optimizer: unscaled.append(optimizer) or unscale(optimizer)  # noqa: B023
            scaler.update = lambda: updates.append(len(unscaled)) or update()  # noqa: B023
            context.accelerator.scaler = scaler
        batches = random_batches(4)
        found.append(([step(context, state, batches) for _ in range(2)], copy_weights(state)))
    for plain, scaled in zip(found[0][0], found[1][0], strict=True):
        assert plain["g_norm"] > 0.004 and plain["d_norm"] > 0.004
        for name in plain.keys() - {"wait"}:
            assert math.isclose(plain[name], scaled[name], rel_tol=1e-4), name
    assert_close(found[0][1], found[1][1], atol=1e-6)
    assert unscaled == [state.optimizers["discriminator"], state.optimizers["generator"]] * 2
    assert updates == [2, 4]  # once a step, after both


def test_gan_step_is_the_same_for_one_large_batch_and_several_passes(build):
    found = []
    for size, passes in ((4, 1), (2, 2), (1, 4)):
        flags = ["--stage", "gan", "--content-loss", "l1", "--freeze-bn", "--learning-rate", 2e-5]
        flags += ["--adversarial-weight", 0.1, "--batch-size", size, "--gradient-accumulation-steps", passes]
        context, state = build(*flags)
        for module in state.networks["discriminator"].modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        batches = random_batches(2 * passes, size)
        found.append(([step(context, state, batches) for _ in range(2)], copy_weights(state)))
    for values, weights in found[1:]:
        for one, several in zip(found[0][0], values, strict=True):
            for name in one.keys() - {"wait"}:
                assert math.isclose(one[name], several[name], rel_tol=2e-5), name
        assert_close(found[0][1], weights, atol=1e-6)


def test_each_pass_updates_the_generators_batch_norms_once(build):
    found = {}
    for stage in (["--stage", "pretrain", "--content-loss", "l1"], [*GAN, "--adversarial-weight", 0]):
        context, state = build(*stage, "--gradient-accumulation-steps", 2)
        step(context, state, random_batches(2))
        found[stage[1]] = {name: t for name, t in copy_weights(state).items() if name.startswith("generator")}
    counts = [value.item() for name, value in found["gan"].items() if "num_batches" in name]
    assert counts == [2] * 3
    assert_close(found["gan"], found["pretrain"], atol=1e-6)


def test_discriminator_is_frozen_in_the_generators_step_only(build, monkeypatch):
    context, state = build(*GAN)
    parameters, seen = [*state.networks["discriminator"].parameters()], []
    backward = context.accelerator.backward

    def record(loss):
        backward(loss)
        seen.append([p.grad is not None for p in parameters])

    monkeypatch.setattr(context.accelerator, "backward", record)
    step(context, state, random_batches(1))
    assert [any(each) for each in seen] == [True, False] and all(seen[0])
    assert all(p.requires_grad and p.grad is None for p in parameters)
    assert all(p.grad is None for p in state.networks["generator"].parameters())


def test_step_numbers_of_the_optimizers_count_steps(build):
    context, state = build(*GAN, "--gradient-accumulation-steps", 2)
    batches = random_batches(6)
    for _ in range(3):
        step(context, state, batches)
    for optimizer in state.optimizers.values():
        assert {int(each["step"]) for each in optimizer.state.values()} == {3}


def test_white_images_are_ones(run, monkeypatch, tmp_path):
    shards, seen = build_shards(draw(tmp_path / "white", 255), tmp_path / "white-shards", min_size=32), []
    generator_step = train_accelerate.generator_step

    def record(context, state, lr, hr, sr):
        seen.append((lr, hr))
        return generator_step(context, state, lr, hr, sr)

    monkeypatch.setattr(train_accelerate, "generator_step", record)
    assert run("--max-train-steps", 1, data=shards) == 0
    assert all(torch.equal(each, torch.ones_like(each)) for each in seen[0])


def test_norm_of_clipped_gradients():
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([1.0, 2, 2]), torch.full((2, 2), 2.0)
    assert train_accelerate.gradient_norm(parameters) == 5


# --- Non-finite gradients


def test_non_finite_gradients_end_the_run_before_the_update(run, monkeypatch, tmp_path, capsys):
    break_gradients(monkeypatch, call=3)
    seen, steps = [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *args: seen.append(args) or steps(*args))
    argv = ["--max-train-steps", 6, "--lr-consistency", 1, "--checkpointing-steps", 2, "--logging-steps", 1]
    assert run(*argv) == 1
    error = capsys.readouterr().err
    assert "g_norm is nan at step 3" in error and "step-2.safetensors'" in error
    assert len(seen) == 2
    assert [path.stem for path in checkpoint.find(tmp_path / "out")] == ["step-2"]
    parts, _ = checkpoint.load(tmp_path / "out" / "step-2.safetensors")
    assert all(tensor.isfinite().all() for tensors in parts.values() for tensor in tensors.values())
    assert [line["step"] for line in read_log(tmp_path / "out")] == [1, 2]


def test_scaler_skips_non_finite_gradients(run, monkeypatch, tmp_path):
    """The log has null for the norm, since JSON has no NaN."""
    break_gradients(monkeypatch, call=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def accelerator(*args):
        made = make_accelerator(*args)
        made.scaler = scaler
        return made

    monkeypatch.setattr(train_accelerate, "make_accelerator", accelerator)
    argv = [*GAN, "--max-train-steps", 3, "--lr-consistency", 1, "--logging-steps", 1, "--checkpointing-steps", 1]
    assert run(*argv, "--checkpoints-total-limit", 3) == 0
    parts = [checkpoint.load(path)[0] for path in checkpoint.find(tmp_path / "out")]
    names = [name for name in parts[0]["generator"] if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(parts[0]["generator"][name], parts[1]["generator"][name]) for name in names)
    assert not any(torch.equal(parts[1]["generator"][name], parts[2]["generator"][name]) for name in names)
    assert not torch.equal(*(each["discriminator"]["0.bias"] for each in parts[:2]))
    assert scaler.get_scale() == 4
    lines = read_log(tmp_path / "out")
    assert [line["g_norm"] is None for line in lines] == [False, True, False]


def test_fused_optimizer_skips_non_finite_gradients_and_the_run_ends_when_the_norm_is_read(build, monkeypatch):
    """As on a GPU, where values are read two steps later."""
    context, state = build(*GAN, "--lr-consistency", 1)
    use_fused_adam(state)
    monkeypatch.setattr("srgan_hub.training.readback.CUDA_LAG", 2)
    readback = Readback(torch.device("cuda"))
    batches = random_batches(4)
    readback.send(1, train_accelerate.train_step(context, state, batches))
    before = copy_weights(state)
    break_gradients(monkeypatch)
    readback.send(2, train_accelerate.train_step(context, state, batches))
    after = copy_weights(state)
    parameters = [f"generator.{name}" for name, _ in state.networks["generator"].named_parameters()]
    assert all(torch.equal(before[name], after[name]) for name in parameters)
    assert not torch.equal(before["discriminator.0.bias"], after["discriminator.0.bias"])
    assert {int(each["step"]) for each in state.optimizers["generator"].state.values()} == {1}
    assert train_accelerate.read_steps(context, state, readback, wait=False) == ({}, 0.0, False)
    readback.send(3, train_accelerate.train_step(context, state, batches))
    values, _, _ = train_accelerate.read_steps(context, state, readback, wait=False)
    assert math.isfinite(values["g_norm"]) and len(readback) == 2
    with pytest.raises(train_accelerate.NonFiniteError, match="g_norm is nan at step 2"):
        train_accelerate.read_steps(context, state, readback, wait=True)


# --- Averages


def test_ema_follows_the_weights_of_the_same_step(build):
    context, state = build(*GAN)
    before = copy_weights(state)
    step(context, state, random_batches(1))
    after = copy_weights(state)
    for name in state.ema.network.state_dict():
        expected = after[f"generator.{name}"]
        if expected.is_floating_point():
            expected = before[f"generator.{name}"].lerp(expected, 1 - 1 / 10)
            assert not torch.equal(before[f"ema.{name}"], after[f"ema.{name}"])
        assert torch.equal(after[f"ema.{name}"], expected), name


def test_artifact_loss_compares_with_the_moving_average(build):
    context, state = build("--artifact-weight", 1, "--learning-rate", 0.01)
    batches = random_batches(6)
    for _ in range(4):
        step(context, state, batches)
    lr, hr = next(batches)
    sr = state.generator(lr)
    values = train_accelerate.generator_step(context, state, lr, hr, sr)
    expected = losses.artifact_loss(sr, hr, state.ema.network(lr))
    assert expected > 0 and torch.equal(values["g_artifact"], expected)
    assert not torch.equal(expected, losses.artifact_loss(sr, hr, sr))


# --- Launches


@pytest.mark.parametrize("stage", [["--content-loss", "mse"], GAN], ids=["pretrain", "gan"])
def test_step_reads_nothing_back_and_updates_in_one_launch_each(build, stage):
    context, state = build(*stage)
    use_fused_adam(state)
    batches = random_batches(2)
    step(context, state, batches)
    with Launches() as launches:
        train_accelerate.train_step(context, state, batches)
    counts = launches.counts
    assert counts["aten._local_scalar_dense"] == 0  # Tensor.item and tolist
    assert counts["aten._foreach_lerp_"] == counts["aten._foreach_copy_"] == 1
    assert counts["aten._fused_adam_"] == counts["aten._foreach_norm"] == len(state.networks)


def test_ema_shares_no_memory_with_the_network():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    ema = EMA(network, 0.0)
    with torch.no_grad():
        network[0].weight += 1
        network[1].num_batches_tracked += 5
    assert not torch.equal(ema.network[0].weight, network[0].weight)
    ema.update(network, 0)
    assert torch.equal(ema.network[0].weight, network[0].weight) and ema.network[1].num_batches_tracked == 5


def test_values_are_read_after_a_fixed_number_of_steps(run, monkeypatch, tmp_path):
    """A signal stops the run that many steps later; the log and the checkpoint are the same as without delay."""

    class Delayed(Readback):
        def __init__(self, device: torch.device) -> None:
            super().__init__(device)
            self.lag = 2

    argv = [*GAN, "--max-train-steps", 8, "--logging-steps", 4]
    assert run(*argv, output="full") == 0
    monkeypatch.setattr(train_accelerate, "Readback", Delayed)
    train_step = train_accelerate.train_step

    def interrupt(run, state, batches, signals):
        if state.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(run, state, batches, signals)

    monkeypatch.setattr(train_accelerate, "train_step", interrupt)
    assert run(*argv, output="cut") == 0
    assert [path.stem for path in checkpoint.find(tmp_path / "cut")] == ["step-7"]  # 5 and 2 more
    monkeypatch.setattr(train_accelerate, "train_step", train_step)
    assert run(*argv, "--resume-from-checkpoint", output="cut") == 0
    weights = [(tmp_path / name / "final" / "model.safetensors").read_bytes() for name in ("full", "cut")]
    assert weights[0] == weights[1]
    lines = [{line["step"]: line["g_loss"] for line in read_log(tmp_path / name)} for name in ("full", "cut")]
    assert lines[0].keys() == {4, 8} and lines[1].keys() == {4, 7, 8}
    assert all(lines[1][number] == loss for number, loss in lines[0].items())


def test_collapse_is_counted_for_every_step_that_is_read_late(build, monkeypatch, caplog):
    monkeypatch.setattr(train_accelerate, "COLLAPSE_STEPS", 3)
    context, state = build(*GAN)
    readback = Readback(torch.device("cpu"))
    readback.lag = 10
    for number, loss in enumerate([0.001, 0.5, 0.001, 0.002, 0.003, 0.001], 1):
        readback.send(number, StepValues(("d_loss", "wait", "stop"), torch.tensor([loss, 0.5, 0.0])))
    assert train_accelerate.read_steps(context, state, readback, wait=False) == ({}, 0.0, False)
    values, waited, stop = train_accelerate.read_steps(context, state, readback, wait=True)
    assert math.isclose(values["d_loss"], 0.001, rel_tol=1e-5) and (waited, stop) == (3.0, False)
    assert state.collapsed_steps == 4 and caplog.text.count("discriminator loss <") == 1 and "step 5" in caplog.text


# --- Accelerate's settings


def test_mixed_precision_is_accelerates_unless_given(build, monkeypatch, run, capsys):
    assert build()[0].config.mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    context, state = build()
    assert context.config.mixed_precision == context.accelerator.mixed_precision == "bf16"
    lr = torch.rand(1, 3, 8, 8)
    seen = []
    state.networks["generator"].head_conv.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    state.generator(lr)
    assert seen == [torch.bfloat16]
    assert build("--mixed-precision", "no")[0].accelerator.mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    assert run("--max-train-steps", 1) == 2
    assert "ACCELERATE_MIXED_PRECISION" in capsys.readouterr().err


def test_accumulation_steps_are_the_flags(build, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert build("--gradient-accumulation-steps", 2)[0].accelerator.gradient_accumulation_steps == 2


def test_compiled_networks_train_as_uncompiled_ones(run, monkeypatch, tmp_path):
    argv = [*GAN, "--freeze-bn", "--artifact-weight", 1, "--logging-steps", 1, "--max-train-steps"]
    assert run(*argv, 3, output="plain") == 0
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    compiled, prepare = [], train_accelerate.build

    def record(*args):
        context, state = prepare(*args)
        compiled.extend(hasattr(each, "_orig_mod") for each in (state.generator, state.discriminator))
        return context, state

    monkeypatch.setattr(train_accelerate, "build", record)
    assert run(*argv, 2) == 0
    assert run(*argv, 3, "--resume-from-checkpoint") == 0
    assert compiled == [True] * 4
    a, b = (checkpoint.load(tmp_path / name / "step-3.safetensors")[0] for name in ("plain", "out"))
    assert a.keys() == b.keys()
    for part in a:
        assert_close(a[part], b[part], atol=1e-6)
    a, b = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("plain", "out"))
    assert_close(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("flag", "environment", "backend"),
    [
        ([], None, "NO"),
        (["--torch-compile"], None, "INDUCTOR"),
        (["--torch-compile"], "NO", "INDUCTOR"),
        (["--torch-compile"], "AOT_EAGER", "AOT_EAGER"),
        ([], "EAGER", "EAGER"),
    ],
)
def test_torch_compile_takes_accelerates_backend(monkeypatch, tmp_path, flag, environment, backend):
    if environment:
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", environment)
    words = ["--train-data", "a", "--output-dir", str(tmp_path), *flag]
    accelerator = make_accelerator(resolve_args(parse_args(words)), None)
    assert accelerator.state.dynamo_plugin.backend.value == backend


def test_batch_norms_are_synchronized_on_request_only(build):
    def kinds(state) -> set[str]:
        modules = (module for network in state.networks.values() for module in network.modules())
        return {type(module).__name__ for module in modules if isinstance(module, nn.modules.batchnorm._NormBase)}

    flags = ["--stage", "gan", "--content-loss", "l1"]
    assert kinds(build(*flags)[1]) == {"BatchNorm2d"}
    context, state = build(*flags, "--sync-batch-norm")
    assert kinds(state) == {"SyncBatchNorm"}
    before = copy_weights(state)
    step(context, state, random_batches(1))
    name = "trunk.bn.running_mean"
    expected = before[f"generator.{name}"].lerp(copy_weights(state)[f"generator.{name}"], 1 - 1 / 10)
    assert expected.abs().sum() > 0 and torch.equal(state.ema.network.state_dict()[name], expected)


# --- What a run starts from and may change


def test_discriminator_of_another_run(run, build, tmp_path, capsys):
    assert run(*GAN, "--max-train-steps", 2, output="first") == 0
    parts, _ = checkpoint.load(tmp_path / "first" / "step-2.safetensors")
    for path in (tmp_path / "first", tmp_path / "first" / "step-2.safetensors"):
        _, state = build(*GAN, "--init-discriminator", path, "--seed", 1)
        assert_close(state.networks["discriminator"].state_dict(), parts["discriminator"], rtol=0, atol=0)
        assert not torch.equal(state.networks["generator"].tail_conv.weight, parts["generator"]["tail_conv.weight"])
    paper = ["--stage", "gan", "--content-loss", "l1", "--max-train-steps", 1, "--init-discriminator"]
    assert run(*paper, tmp_path / "first") == 2
    assert "--discriminator" in capsys.readouterr().err
    assert run(*GAN, "--max-train-steps", 1, "--init-discriminator", tmp_path / "none") == 2
    assert "none'" in capsys.readouterr().err
    assert run("--max-train-steps", 1, "--init-discriminator", tmp_path / "first") == 2
    assert "requires --stage gan" in capsys.readouterr().err
    assert run(*GAN, "--max-train-steps", 1, "--init-discriminator", tmp_path / "first") == 0
    assert str(tmp_path) not in (tmp_path / "out" / "final" / "README.md").read_text()


def test_adversarial_weight_rises_over_the_warm_up(build):
    context, state = build(*GAN, "--adversarial-weight", 0.5, "--adversarial-warmup-steps", 4)
    batches, weights = random_batches(6), []
    for _ in range(6):
        values = step(context, state, batches)
        weights.append((values["g_loss"] - values["g_l1"]) / values["g_adversarial"])
        assert values["d_norm"] > 0
    assert np.allclose(weights, [0, 0.125, 0.25, 0.375, 0.5, 0.5], atol=1e-5)


def test_learning_rates_and_loss_weights_may_change_on_resume(run, tmp_path, capsys, caplog):
    flags = ["--adversarial-weight", 0.1, "--learning-rate", 2e-4, "--content-loss", "mse"]
    assert run(*GAN, "--max-train-steps", 2) == 0
    resume = [*GAN, *flags, "--max-train-steps", 3, "--resume-from-checkpoint", "--logging-steps", 1]
    assert run(*resume) == 2
    assert "--learning-rate differs" in capsys.readouterr().err
    assert run(*resume, "--allow-changes", "--seed", 1) == 2
    error = capsys.readouterr().err
    assert "--seed differs" in error and "--learning-rate" not in error
    assert run(*resume, "--allow-changes") == 0
    assert "--learning-rate was 0.001 until step 2, now 0.0002" in caplog.text
    line = read_log(tmp_path / "out")[-1]
    assert line["learning_rate"] == 2e-4 and "g_mse" in line and "g_l1" not in line
    card = (tmp_path / "out" / "final" / "README.md").read_text()
    assert "step 2: --learning-rate 0.001 -> 0.0002" in card and "--content-loss l1 -> mse" in card
    assert run(*resume, "--max-train-steps", 4, "--adversarial-weight", 0.2, "--allow-changes") == 0
    card = (tmp_path / "out" / "final" / "README.md").read_text()
    assert "step 2: --learning-rate 0.001 -> 0.0002" in card and "step 3: --adversarial-weight 0.1 -> 0.2" in card


# --- Several processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_ranks_equal_one_with_the_same_effective_batch(run, shards, tmp_path):
    """In float32; batch norms are frozen, since their statistics are a rank's own."""
    argv = [*GAN, "--freeze-bn", "--gradient-accumulation-steps", 2, "--max-train-steps", 3, "--logging-steps", 1]
    argv += ["--learning-rate", "2e-5", "--adversarial-weight", 0.1, "--max-grad-norm", 0.05]
    two = tmp_path / "two"
    two.mkdir()
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(word) for word in (*FLAGS, *argv, "--train-data", shards, "--batch-size", 1)]
    assert run_forked(*[(distributed_worker.train, two, rank, 2, port, words) for rank in (0, 1)]) == [0, 0]
    assert run(*argv, "--batch-size", 2, output="one") == 0
    a, b = (checkpoint.load(tmp_path / name / "step-3.safetensors")[0] for name in ("one", "two"))
    for part in ("generator", "discriminator", "ema"):
        assert_close(a[part], b[part], atol=1e-6)
    for part in ("generator_optimizer", "discriminator_optimizer"):
        for name, value in a[part].items():  # means of gradients
            assert (value - b[part][name]).norm() <= 1e-4 * value.norm(), (part, name)
    for one, several in zip(*(read_log(tmp_path / name) for name in ("one", "two")), strict=True):
        for name in one.keys() - {"samples_per_second", "data_wait"}:
            assert math.isclose(one[name], several[name], rel_tol=1e-4), name
