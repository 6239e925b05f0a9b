r"""Train SRResNet and SRGAN: from DIV2K to published weights, or overnight on a laptop.

    accelerate launch train_accelerate.py --stage pretrain --train-data div2k --val-data div2k --output-dir srresnet
    accelerate launch train_accelerate.py --stage gan --pretrained-model-name-or-path srresnet/final \
        --train-data div2k --output-dir srgan

The same command runs on a CPU, on one or several GPUs and on several machines. All randomness is a function of (seed,
sample index), and the sample index is a function of the step: an interrupted run continues with
--resume-from-checkpoint, bit-identical on a CPU.
"""

import contextlib
import logging
import math
import shlex
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn
from tqdm import tqdm

from srgan_hub import SRGAN
from srgan_hub.devices import resolve_num_threads
from srgan_hub.images.errors import ImageError
from srgan_hub.network.discriminator import build_discriminator
from srgan_hub.network.fusion import PolyphaseGenerator
from srgan_hub.publish import create_repo
from srgan_hub.training import checkpoint, checkpointing, losses
from srgan_hub.training.arguments import TrainConfig, parse_args, resolve_args
from srgan_hub.training.dataloader import (
    check_overlap,
    make_batches,
    make_train_degradation,
    make_validation,
    prepare_data,
)
from srgan_hub.training.dataset import RandomCropDataset
from srgan_hub.training.distributed import (
    RankError,
    any_rank,
    average_batch_norm,
    keep_batch_norm_statistics,
    main_process_first,
    make_accelerator,
    shared_errors,
)
from srgan_hub.training.dry_run import estimate_run
from srgan_hub.training.ema import EMA
from srgan_hub.training.interrupt import catch_signals
from srgan_hub.training.logging import choose_tracker, log, start_tracker
from srgan_hub.training.readback import Readback, StepValues
from srgan_hub.training.state import TrainContext, TrainState, effective_batch
from srgan_hub.training.validation import SR, ValidationImages, flatten, validate, validation_due

logger = logging.getLogger("train_accelerate")

FULL_RATE_STEPS = 100_000  # of the paper's schedule for SRGAN; then a tenth of the learning rate
COLLAPSE_LOSS, COLLAPSE_STEPS = 0.01, 50  # discriminator collapse: loss below, for so many steps


class NonFiniteError(ArithmeticError):
    """A loss or a gradient norm is NaN or infinite."""


# Setup: data, networks, optimizers, losses.


def build(config: TrainConfig, model: SRGAN | None) -> tuple[TrainContext, TrainState]:
    """Build everything that a run needs, and load the checkpoint that it resumes from.

    Raise ValueError or OSError if the data, the settings or a checkpoint are invalid, or a download failed.
    """
    # Devices and threads.
    tracker = choose_tracker(config.report_to)
    accelerator = make_accelerator(config, tracker)
    torch.set_num_threads(resolve_num_threads(config.threads, accelerator.device))
    torch.backends.cudnn.benchmark = accelerator.device.type == "cuda"
    config.output_dir.mkdir(parents=True, exist_ok=True)

    # Data: random HR crops, their degradation to LR, full images for validation.
    degrade = make_train_degradation(config)
    sources, val_images = main_process_first(accelerator, lambda: prepare_data(config, accelerator))
    crops = RandomCropDataset(
        sources, size=config.hr_crop, seed=config.seed, scale=config.scale, downscale_prob=config.downscale_prob
    )
    check_overlap(crops, val_images)
    validation = None
    if val_images:
        validation = ValidationImages(make_validation(config, val_images, degrade), config.num_validation_images)

    # Networks, optimizers and losses. The content loss is frozen and needs no `accelerator.prepare`.
    if config.stage == "gan" and not model:
        logger.warning("no --pretrained-model-name-or-path: --stage gan starts from random weights, not from SRResNet")
    state = build_state(config, model, accelerator)
    weights = losses.parse_content_loss(config.content_loss)
    content = main_process_first(  # one process per machine downloads the VGG weights
        accelerator, lambda: losses.ContentLoss(weights, vgg_weights=config.vgg_weights), per_machine=True
    )
    run = TrainContext(config, accelerator, crops, degrade, content.to(accelerator.device), validation)

    # Checkpoint, tracker and repository.
    with shared_errors(accelerator):
        checkpointing.resume(run, state)
    if config.push_to_hub:
        with shared_errors(accelerator):
            if accelerator.is_main_process:
                create_repo(config.push_to_hub, private=config.private)
    if tracker:
        start_tracker(run, state.step)
    return run, state


def build_state(config: TrainConfig, model: SRGAN | None, accelerator: Accelerator) -> TrainState:
    """Build the networks and optimizers at step 0."""
    torch.manual_seed(config.seed)
    generator = (model or SRGAN(**config.model_kwargs)).generator
    # The last layer runs in float32: near 1, bfloat16 cannot tell neighboring 8-bit values apart.
    generator[-1].register_forward_pre_hook(lambda layer, inputs: (inputs[0].float(),))
    generator.to(accelerator.device).to(memory_format=torch.channels_last)
    ema = EMA(generator, config.ema)
    generator.train()
    if config.freeze_bn:
        for module in generator.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
    networks: dict[str, nn.Module] = {"generator": PolyphaseGenerator(OrderedDict(generator.named_children()))}
    if config.stage == "gan":
        discriminator = build_discriminator(config.discriminator, hr_size=config.hr_crop).train()
        if config.init_discriminator:
            checkpointing.load_discriminator(Path(config.init_discriminator), discriminator)
        networks["discriminator"] = discriminator.to(accelerator.device).to(memory_format=torch.channels_last)
    if config.sync_batch_norm:
        if accelerator.num_processes > 1 and accelerator.device.type == "cpu":
            raise ValueError("--sync-batch-norm requires GPUs.")
        networks = {name: nn.SyncBatchNorm.convert_sync_batchnorm(network) for name, network in networks.items()}
    # Accelerate would wrap the optimizers to update the gradient scaler after each of them.
    options = {"betas": (0.9, config.beta2), "fused": accelerator.device.type == "cuda"}
    optimizers = {
        name: torch.optim.Adam([p for p in network.parameters() if p.requires_grad], **options)
        for name, network in networks.items()
    }
    wrapped = {name: accelerator.prepare(network) for name, network in networks.items()}
    return TrainState(wrapped["generator"], wrapped.get("discriminator"), networks, optimizers, ema)


# One step: discriminator, generator, moving average.


def train_step(
    run: TrainContext, state: TrainState, batches: Iterator[tuple[Tensor, Tensor]], signals: Sequence[str] = ()
) -> StepValues:
    """Update each network once; return losses, gradient norms, seconds waited for data (`wait`) and whether to `stop`.

    They stay on the device, so that it need not wait for Python. All are identical on all ranks: losses are means over
    ranks and passes, and a signal on one rank stops all of them.
    """
    config, start = run.config, time.perf_counter()
    for name, optimizer in state.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(config, name, state.step)
    passes = [next(batches) for _ in range(config.gradient_accumulation_steps)]
    waited = time.perf_counter() - start
    # One pass: both networks learn from one output of the generator. Several: the generator runs again for its own
    # passes, because memory for all of their activations is what accumulation avoids.
    sr = state.generator(passes[0][0]) if len(passes) == 1 else None
    values: dict[str, Tensor] = {}
    if state.discriminator is not None:  # compiled modules have no truth value

        def train_discriminator(lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
            fake = generate(state, lr) if sr is None else sr.detach()
            return discriminator_step(run, state, fake, hr)

        values |= run_passes(run, state, "discriminator", passes, train_discriminator)

    def train_generator(lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        return generator_step(run, state, lr, hr, state.generator(lr) if sr is None else sr)

    values |= run_passes(run, state, "generator", passes, train_generator)
    if run.accelerator.scaler:
        run.accelerator.scaler.update()
    average_batch_norm(run.accelerator, state.networks.values())
    state.ema.update(state.networks["generator"], state.step)
    state.step += 1
    state.samples += effective_batch(run)
    others = torch.tensor([waited, float(bool(signals))]).to(run.accelerator.device, non_blocking=True)
    means = run.accelerator.reduce(torch.cat([torch.stack([*values.values()]), others]), "mean")
    return StepValues((*values, "wait", "stop"), means)


def run_passes(
    run: TrainContext,
    state: TrainState,
    name: str,
    passes: list[tuple[Tensor, Tensor]],
    step: Callable[[Tensor, Tensor], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Accumulate the gradients of a network over all passes and update it; return mean losses and the gradient norm."""
    network, found = getattr(state, name), []
    for number, batch in enumerate(passes, 1):
        # The ranks exchange gradients in the last pass only.
        with contextlib.nullcontext() if number == len(passes) else run.accelerator.no_sync(network):
            found.append({key: value.detach().float() for key, value in step(*batch).items()})
    values = found[0]
    if len(found) > 1:
        values = {key: torch.stack([each[key] for each in found]).mean() for key in values}
    return values | {f"{name[0]}_norm": optimizer_step(run, state, name, values)}


@torch.no_grad()
def generate(state: TrainState, lr: Tensor) -> Tensor:
    """Return the generator's output for the discriminator's passes, without effect on the generator."""
    with keep_batch_norm_statistics(state.networks["generator"]):
        return state.generator(lr)


def discriminator_step(run: TrainContext, state: TrainState, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
    """Compute the discriminator's gradients for telling HR from SR; `sr` is detached from the generator."""
    assert state.discriminator is not None
    real_logits, fake_logits = state.discriminator(hr), state.discriminator(sr)
    loss = losses.discriminator_loss(real_logits, fake_logits)
    run.accelerator.backward(loss)
    real, fake = (logits.detach().float().sigmoid().mean() for logits in (real_logits, fake_logits))
    return {"d_loss": loss, "d_real": real, "d_fake": fake}


def generator_step(run: TrainContext, state: TrainState, lr: Tensor, hr: Tensor, sr: Tensor) -> dict[str, Tensor]:
    """Compute the generator's gradients of the content loss, the adversarial loss and the auxiliary losses."""
    config = run.config
    with run.accelerator.autocast():
        terms = run.content(sr, hr)
    values = {f"g_{name}": term for name, term in terms.items()}
    loss = run.content.total(terms)
    if state.discriminator is not None:
        # Without no_sync, DDP would wait for gradients that the discriminator does not get here.
        state.networks["discriminator"].requires_grad_(False)
        with run.accelerator.no_sync(state.discriminator):
            values["g_adversarial"] = losses.adversarial_loss(state.discriminator(sr))
        state.networks["discriminator"].requires_grad_(True)
        loss = loss + adversarial_weight_at(config, state.step) * values["g_adversarial"]
    if config.lr_consistency:
        values["g_lr_consistency"] = losses.lr_consistency_loss(sr, hr, config.scale)
        loss = loss + config.lr_consistency * values["g_lr_consistency"]
    if config.artifact_weight:
        with torch.no_grad(), run.accelerator.autocast():
            ema_sr = state.ema.network(lr)
        values["g_artifact"] = losses.artifact_loss(sr, hr, ema_sr)
        loss = loss + config.artifact_weight * values["g_artifact"]
    if config.checkerboard_weight:
        values["g_checkerboard"] = losses.checkerboard_loss(sr, hr, config.scale)
        loss = loss + config.checkerboard_weight * values["g_checkerboard"]
    run.accelerator.backward(loss)
    return values | {"g_loss": loss}


def optimizer_step(run: TrainContext, state: TrainState, name: str, values: dict[str, Tensor]) -> Tensor:
    """Clip the gradients of a network, update it and return the gradient norm.

    NaN or infinite gradients never reach the weights. The scaler of fp16 expects some and skips the update. Otherwise
    they end the run: before the update, with NonFiniteError for one of the `values` or the norm; with a fused
    optimizer, which skips the update on the device, when the norm is read.
    """
    optimizer, scaler = state.optimizers[name], run.accelerator.scaler
    if scaler:
        scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = gradient_norm(parameters)
    if run.config.max_grad_norm:
        factor = (run.config.max_grad_norm / (norm + 1e-6)).clamp(max=1)
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
    if scaler:
        scaler.step(optimizer)
    elif optimizer.defaults["fused"]:
        optimizer.found_inf = (~norm.isfinite()).float()
        optimizer.step()
    else:
        if not norm.isfinite():
            found = {key: value.item() for key, value in (values | {f"{name[0]}_norm": norm}).items()}
            raise_if_not_finite(run, state.step + 1, found)
        optimizer.step()
    optimizer.zero_grad()
    return norm


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Return the Euclidean norm of all gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def learning_rate_at(config: TrainConfig, network: str, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    base = config.learning_rate if network == "generator" else config.discriminator_learning_rate
    if config.lr_scheduler == "cosine":
        return base * (1 + math.cos(math.pi * step / config.max_train_steps)) / 2
    if config.lr_scheduler == "paper" and config.stage == "gan" and step >= FULL_RATE_STEPS:
        return base / 10
    return base


def adversarial_weight_at(config: TrainConfig, step: int) -> float:
    """Return the weight of the adversarial loss of a step, counted from 0."""
    warmup = config.adversarial_warmup_steps
    return config.adversarial_weight * (step / warmup if step < warmup else 1.0)


def read_steps(
    run: TrainContext, state: TrainState, readback: Readback, *, wait: bool
) -> tuple[dict[str, float], float, bool]:
    """Read and check the values of past steps; return the last ones, seconds waited for data, and whether to stop.

    They are those that are old enough to be read without waiting for the device; if `wait`, or to stop, all of them.
    """
    values, waited, stop = dict[str, float](), 0.0, False
    while len(readback) > (0 if wait or stop else readback.lag):
        step, values = readback.receive()
        waited, stop = waited + values.pop("wait"), values.pop("stop") > 0 or stop
        check_finite_and_balance(run, state, step, values)
    return values, waited, stop


def raise_if_not_finite(run: TrainContext, step: int, values: dict[str, float]) -> None:
    """Raise NonFiniteError for a loss or gradient norm that is NaN or infinite. A scaler of fp16 handles such norms."""
    for name, value in values.items():
        if not math.isfinite(value) and not (run.accelerator.scaler and name.endswith("_norm")):
            found = checkpoint.find(run.config.output_dir)
            latest = f"the latest checkpoint is '{found[-1]}'" if found else "there is no checkpoint yet"
            raise NonFiniteError(f"{name} is {value} at step {step}; {latest}.")


def check_finite_and_balance(run: TrainContext, state: TrainState, step: int, values: dict[str, float]) -> None:
    """Raise NonFiniteError for values of a step that are NaN or infinite; warn of a collapsed discriminator loss."""
    raise_if_not_finite(run, step, values)
    state.collapsed_steps = state.collapsed_steps + 1 if values.get("d_loss", math.inf) < COLLAPSE_LOSS else 0
    if state.collapsed_steps == COLLAPSE_STEPS:
        cause = (
            f"discriminator loss < {COLLAPSE_LOSS} for {COLLAPSE_STEPS} steps; the generator gets almost no gradient"
        )
        advice = "Try --discriminator patch or a lower --discriminator-learning-rate."
        logger.warning("step %d: %s. %s", step, cause, advice)


# The loop: step, check, log, save, validate.


def train(run: TrainContext, state: TrainState, signals: list[str]) -> bool:
    """Train until the last step or a signal; return whether the last push to the Hub worked."""
    config, accelerator, pushed, saved = run.config, run.accelerator, True, state.step > 0
    # The baseline, or the validation after the checkpoint that the run resumes from: a signal may have interrupted it.
    stop = validation_due(config, state.step) and validate_and_save_best(run, state, signals)
    batches = make_batches(run, state.step, state.samples)
    quiet = not accelerator.is_main_process
    bar = tqdm(initial=state.step, total=config.max_train_steps, unit="step", smoothing=0.05, disable=quiet)
    readback, steps, waited, elapsed = Readback(accelerator.device), 0, 0.0, 0.0
    while state.step < config.max_train_steps and not stop:
        start = time.perf_counter()
        readback.send(state.step + 1, train_step(run, state, batches, signals))
        last, saved = state.step == config.max_train_steps, False
        intervals = (config.logging_steps, config.validation_steps, config.checkpointing_steps, config.push_steps)
        due = last or any(state.step % interval == 0 for interval in intervals if interval)
        values, wait, stop = read_steps(run, state, readback, wait=due)
        steps, waited, elapsed = steps + 1, waited + wait, elapsed + time.perf_counter() - start
        bar.update()
        if state.step % config.logging_steps == 0 or last or stop:
            values |= {"samples_per_second": steps * effective_batch(run) / elapsed, "data_wait": waited / elapsed}
            values["learning_rate"] = learning_rate_at(config, "generator", state.step - 1)
            log(run, state.step, values)
            bar.set_postfix({name: f"{values[name]:.4g}" for name in ("g_loss", "d_loss") if name in values})
            steps, waited, elapsed = 0, 0.0, 0.0
        if stop or validation_due(config, state.step) or state.step % config.checkpointing_steps == 0:
            checkpointing.save(run, state)
            saved, stop = True, stop or any_rank(accelerator, bool(signals))
        if not stop and validation_due(config, state.step):
            stop = validate_and_save_best(run, state, signals)
        if config.push_steps and state.step % config.push_steps == 0 and not (last or stop):
            checkpointing.export(run, state, "last")
            pushed = checkpointing.publish(run, state.step, "last")
    bar.close()
    if stop:
        if not saved:
            checkpointing.save(run, state)
        accelerator.print(f"interrupted; step {state.step} is saved, continue with --resume-from-checkpoint")
        return pushed
    checkpointing.export(run, state, "final")
    if config.push_to_hub:
        pushed = checkpointing.publish(run, state.step, "final")
    scores = ", ".join(f"{name} {value:.4g}" for name, value in state.scores.get(SR, {}).items())
    accelerator.print(f"saved the model to {config.output_dir / 'final'}; {scores or 'not validated'}")
    return pushed


def validate_and_save_best(run: TrainContext, state: TrainState, signals: Sequence[str]) -> bool:
    """Validate, and save the model to best/ if its content loss on the validation images is the lowest so far.

    Return whether a signal interrupted the validation.
    """
    if run.validation is None:
        return False
    scores = validate(run, state, signals)
    if scores is None:
        return True
    state.scores = scores
    log(run, state.step, flatten(scores))
    if state.best is None or state.scores[SR]["content"] < state.best:
        state.best = state.scores[SR]["content"]
        checkpointing.export(run, state, "best")
    return any_rank(run.accelerator, bool(signals))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code.

    It is 0 for a finished or interrupted run, 1 for a non-finite loss or a failed push, 2 for invalid input or a full
    disk.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    # The new name of this argument is unknown to older versions of torch.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    args = parse_args(argv)
    command = shlex.join(["accelerate", "launch", "train_accelerate.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        model = None
        if args.pretrained_model_name_or_path:
            model = SRGAN.from_pretrained(args.pretrained_model_name_or_path)
        config = resolve_args(args, model.config if model else None, command)
        if config.dry_run:
            processes, rate = PartialState(), learning_rate_at(config, "generator", config.max_train_steps - 1)
            processes.print(estimate_run(config, processes=processes.num_processes, last_rate=rate))
            return 0
        run, state = build(config, model)
    except (ValueError, OSError, RankError) as error:
        print(f"train_accelerate.py: {error}", file=sys.stderr)
        return 2
    try:
        with catch_signals() as signals:
            return 0 if train(run, state, signals) else 1
    except (NonFiniteError, checkpoint.CheckpointError, ImageError, OSError, RankError) as error:
        tqdm.write(f"train_accelerate.py: {error}", file=sys.stderr)  # not behind a progress bar
        return 1 if isinstance(error, NonFiniteError) else 2
    finally:
        run.accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main())
