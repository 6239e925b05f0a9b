r"""Train SRResNet and SRGAN: from DIV2K to published weights, or overnight on a laptop.

    accelerate launch train_accelerate.py --stage pretrain --train-data div2k --val-data div2k --output-dir srresnet
    accelerate launch train_accelerate.py --stage gan --pretrained-model-name-or-path srresnet/final \
        --train-data div2k --output-dir srgan

The same command runs on a CPU, on one or several GPUs and on several machines. All randomness is a function of (seed,
sample index), and the sample index is a function of the step: an interrupted run continues with
--resume-from-checkpoint, bit-identical on a CPU.
"""

import logging
import math
import shlex
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn
from tqdm import tqdm

from srgan_hub import SRGAN
from srgan_hub.degradations import make_degradation
from srgan_hub.devices import resolve_num_threads
from srgan_hub.evaluate.datasets import PairedDataset
from srgan_hub.images.errors import ImageError
from srgan_hub.network.discriminator import build_discriminator
from srgan_hub.network.fusion import PolyphaseGenerator
from srgan_hub.publish import create_repo
from srgan_hub.training import checkpoint, checkpointing, losses
from srgan_hub.training.arguments import TrainConfig, parse_args, resolve_args
from srgan_hub.training.dataloader import make_batches, prepare_data
from srgan_hub.training.dataset import RandomCropDataset
from srgan_hub.training.distributed import (
    RankError,
    any_rank,
    average_batch_norm,
    main_process_first,
    make_accelerator,
    shared_errors,
)
from srgan_hub.training.dry_run import estimate_run
from srgan_hub.training.ema import EMA
from srgan_hub.training.interrupt import catch_signals
from srgan_hub.training.logging import choose_tracker, log, start_tracker
from srgan_hub.training.state import TrainContext, TrainState
from srgan_hub.training.validation import SR, ValidationImages, flatten, validate, validation_due

logger = logging.getLogger("train_accelerate")

FULL_RATE_STEPS = 100_000  # of the paper's schedule for SRGAN; then a tenth of the learning rate
COLLAPSE_LOSS, COLLAPSE_STEPS = 0.01, 50  # discriminator collapse: loss below, for so many steps


class NonFiniteError(ArithmeticError):
    """A loss is NaN or infinite."""


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
    shards, val_images = main_process_first(accelerator, lambda: prepare_data(config, accelerator))
    crops = RandomCropDataset(shards, size=config.hr_crop, seed=config.seed, downscale_prob=config.downscale_prob)
    sigma = {"sigma": config.sigma} if config.sigma else {}
    degrade = make_degradation(config.degradation, scale=config.scale, **sigma)
    validation = None
    if val_images:
        pairs = PairedDataset(val_images, scale=config.scale, degradation=degrade, seed=config.seed)
        validation = ValidationImages(pairs, config.num_validation_images)

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
        networks["discriminator"] = discriminator.to(accelerator.device).to(memory_format=torch.channels_last)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        networks = {name: nn.SyncBatchNorm.convert_sync_batchnorm(network) for name, network in networks.items()}
    trained = ([p for p in network.parameters() if p.requires_grad] for network in networks.values())
    optimizers = [torch.optim.Adam(parameters, betas=(0.9, config.beta2)) for parameters in trained]
    prepared = accelerator.prepare(*networks.values(), *optimizers)
    wrapped = dict(zip(networks, prepared, strict=False))
    stepped = dict(zip(networks, prepared[len(networks) :], strict=True))
    return TrainState(wrapped["generator"], wrapped.get("discriminator"), stepped, ema)


# One step: discriminator, generator, moving average.


def train_step(
    run: TrainContext, state: TrainState, batches: Iterator[tuple[Tensor, Tensor]], signals: Sequence[str] = ()
) -> tuple[dict[str, float], float, bool]:
    """Update each network once; return losses and gradient norms, seconds waited for data, and whether to stop.

    All are identical on all ranks: losses are means over ranks and passes, and a signal on one rank stops all of them.
    """
    accelerator, config, passes, waited = run.accelerator, run.config, [], 0.0
    for name, optimizer in state.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(config, name, state.step)
    for _ in range(config.gradient_accumulation_steps):
        start = time.perf_counter()
        lr, hr = next(batches)
        waited += time.perf_counter() - start
        with accelerator.accumulate(*state.networks.values()):
            sr = state.generator(lr)
            values = discriminator_step(run, state, sr.detach(), hr) if state.discriminator else {}
            passes.append(values | generator_step(run, state, lr, hr, sr))
    average_batch_norm(accelerator, state.networks.values())
    state.ema.update(accelerator.unwrap_model(state.generator), state.step)
    state.step += 1
    # Only the last pass, which has the accumulated gradients, reports norms.
    collected = {name: [each[name].detach().float() for each in passes if name in each] for name in passes[-1]}
    means = [torch.stack(each).mean() for each in collected.values()]
    others = torch.tensor([waited, float(bool(signals))], device=accelerator.device)
    *reduced, waited, stop = accelerator.reduce(torch.cat([torch.stack(means), others]), "mean").tolist()
    return dict(zip(collected, reduced, strict=True)), waited, stop > 0


def discriminator_step(run: TrainContext, state: TrainState, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
    """Train the discriminator to tell HR from SR; `sr` is detached from the generator."""
    assert state.discriminator is not None
    real_logits, fake_logits = state.discriminator(hr), state.discriminator(sr)
    loss = losses.discriminator_loss(real_logits, fake_logits)
    run.accelerator.backward(loss)
    real, fake = real_logits.float().sigmoid().mean(), fake_logits.float().sigmoid().mean()
    return {"d_loss": loss, "d_real": real, "d_fake": fake} | optimizer_step(run, state, "discriminator")


def generator_step(run: TrainContext, state: TrainState, lr: Tensor, hr: Tensor, sr: Tensor) -> dict[str, Tensor]:
    """Train the generator on the content loss, the adversarial loss and the auxiliary losses."""
    config = run.config
    with run.accelerator.autocast():
        terms = run.content(sr, hr)
    values = {f"g_{name}": term for name, term in terms.items()}
    loss = run.content.total(terms)
    if state.discriminator:
        # Unwrapped: DDP would wait for gradients that the discriminator does not get here.
        discriminator = run.accelerator.unwrap_model(state.discriminator).requires_grad_(False)
        values["g_adversarial"] = losses.adversarial_loss(discriminator(sr))
        discriminator.requires_grad_(True)
        loss = loss + config.adversarial_weight * values["g_adversarial"]
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
    return values | {"g_loss": loss} | optimizer_step(run, state, "generator")


def optimizer_step(run: TrainContext, state: TrainState, name: str) -> dict[str, Tensor]:
    """Clip the gradients and step the optimizer, in the last pass only; return the gradient norm if it stepped."""
    norm, optimizer = {}, state.optimizers[name]
    if run.accelerator.sync_gradients:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm[f"{name[0]}_norm"] = run.accelerator.clip_grad_norm_(parameters, run.config.max_grad_norm or math.inf)
    optimizer.step()  # Accelerate's optimizers skip both while gradients accumulate
    optimizer.zero_grad()
    return norm


def learning_rate_at(config: TrainConfig, network: str, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    base = config.learning_rate if network == "generator" else config.discriminator_learning_rate
    if config.lr_scheduler == "cosine":
        return base * (1 + math.cos(math.pi * step / config.max_train_steps)) / 2
    if config.lr_scheduler == "paper" and config.stage == "gan" and step >= FULL_RATE_STEPS:
        return base / 10
    return base


def check_finite_and_balance(run: TrainContext, state: TrainState, values: dict[str, float]) -> None:
    """Raise NonFiniteError for a loss that is NaN or infinite; warn of a collapsed discriminator loss."""
    for name, value in values.items():
        if not name.endswith("_norm") and not math.isfinite(value):
            found = checkpoint.find(run.config.output_dir)
            latest = f"the latest checkpoint is '{found[-1]}'" if found else "there is no checkpoint yet"
            raise NonFiniteError(f"{name} is {value} at step {state.step}; {latest}.")
    state.collapsed_steps = state.collapsed_steps + 1 if values.get("d_loss", math.inf) < COLLAPSE_LOSS else 0
    if state.collapsed_steps == COLLAPSE_STEPS:
        cause = (
            f"discriminator loss < {COLLAPSE_LOSS} for {COLLAPSE_STEPS} steps; the generator gets almost no gradient"
        )
        advice = "Try --discriminator patch or a lower --discriminator-learning-rate."
        logger.warning("step %d: %s. %s", state.step, cause, advice)


# The loop: step, check, log, save, validate.


def train(run: TrainContext, state: TrainState, signals: list[str]) -> bool:
    """Train until the last step or a signal; return whether the last push to the Hub worked."""
    config, accelerator, pushed, saved = run.config, run.accelerator, True, state.step > 0
    # The baseline, or the validation after the checkpoint that the run resumes from: a signal may have interrupted it.
    stop = validation_due(config, state.step) and validate_and_save_best(run, state, signals)
    batches = make_batches(run, state.step)
    quiet = not accelerator.is_main_process
    bar = tqdm(initial=state.step, total=config.max_train_steps, unit="step", smoothing=0.05, disable=quiet)
    steps, waited, elapsed = 0, 0.0, 0.0
    while state.step < config.max_train_steps and not stop:
        start = time.perf_counter()
        values, wait, stop = train_step(run, state, batches, signals)
        check_finite_and_balance(run, state, values)
        last, saved = state.step == config.max_train_steps, False
        steps, waited, elapsed = steps + 1, waited + wait, elapsed + time.perf_counter() - start
        bar.update()
        if state.step % config.logging_steps == 0 or last or stop:
            crops = steps * config.batch_size * config.gradient_accumulation_steps * accelerator.num_processes
            values |= {"samples_per_second": crops / elapsed, "data_wait": waited / elapsed}
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
