"""Train SRResNet and SRGAN: from DIV2K to published weights, or overnight on a laptop.

    accelerate launch train_accelerate.py --stage pretrain --train-data div2k --val-data div2k --output-dir srresnet
    accelerate launch train_accelerate.py --stage gan --pretrained-model-name-or-path srresnet/final --train-data div2k
    --output-dir srgan

The same command runs on one CPU, one GPU, several GPUs and several machines. Everything random is a function of
(seed, sample index), and the sample index follows from the step: a run that was killed goes on with
--resume-from-checkpoint as if nothing had happened, on a CPU to the last bit.
"""

import argparse
import logging
import math
import shlex
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator, PartialState
from huggingface_hub.constants import HF_HOME
from torch import Tensor, nn
from tqdm import tqdm

from srgan_hub import SRGAN
from srgan_hub.degradations import make_degradation
from srgan_hub.devices import resolve_num_threads
from srgan_hub.evaluate.datasets import PairedDataset
from srgan_hub.images.errors import ImageError
from srgan_hub.network.discriminator import build_discriminator
from srgan_hub.network.fusion import PolyphaseGenerator
from srgan_hub.training import checkpoint, checkpointing, losses
from srgan_hub.training.arguments import Parser, ema_decay, non_negative, positive_int, resolve_args, unit_interval
from srgan_hub.training.dataloader import make_batches, prepare_data
from srgan_hub.training.dataset import RandomCropDataset
from srgan_hub.training.distributed import average_batch_norm, make_accelerator
from srgan_hub.training.dry_run import estimate_run
from srgan_hub.training.ema import EMA
from srgan_hub.training.interrupt import catch_signals
from srgan_hub.training.logging import choose_tracker, log
from srgan_hub.training.state import TrainContext, TrainState
from srgan_hub.training.validation import SR, flatten, validate

logger = logging.getLogger("train_accelerate")

ADVERSARIAL_STEPS_AT_FULL_RATE = 100_000  # the paper's schedule: then a tenth
COLLAPSE_LOSS, COLLAPSE_STEPS = 0.01, 50  # when the discriminator has won


class NonFiniteError(ArithmeticError):
    """A loss is infinite or not a number."""


def make_parser() -> Parser:
    """Define the flags; the defaults are the paper's. A resumed run may change those that are free."""
    parser = Parser("Train SRResNet (--stage pretrain) or SRGAN (--stage gan). The defaults are those of Ledig et al.")
    fixed, free, flag = parser.add_reproducible, parser.add_runtime, argparse.BooleanOptionalAction
    fixed("--stage", choices=("pretrain", "gan"), default="pretrain", help="SRResNet alone, or against a discriminator")
    fixed(
        "--pretrained-model-name-or-path",
        metavar="FOLDER_OR_NAME_OR_HUB_ID",
        help="start from this model's weights and architecture",
    )
    free("--train-data", required=True, metavar="FOLDER", help="images, a prepared folder, or div2k to download it")
    free("--val-data", metavar="FOLDER", help="images to validate on, or div2k; without it nothing is validated")
    free("--output-dir", required=True, type=Path, metavar="FOLDER", help="gets checkpoints, metrics and models")
    free("--data-dir", type=Path, default=Path(HF_HOME) / "srgan-hub", metavar="FOLDER", help="keeps div2k for all")
    free(
        "--max-train-steps", type=positive_int, help="updates of each network (1,000,000 for pretrain, 200,000 for gan)"
    )
    fixed("--batch-size", type=positive_int, default=16, help="crops per process and backward pass")
    fixed("--gradient-accumulation-steps", type=positive_int, default=1, help="backward passes per step")
    fixed("--hr-crop", type=positive_int, default=96, help="side of the HR crops: 96 in the paper, 384 in the thesis")
    fixed(
        "--downscale-prob",
        type=unit_interval,
        default=0.0,
        help="share of the crops that are shrunk from up to twice the size",
    )
    fixed("--scale", type=int, help="2, 3 or 4 (4, or that of --pretrained-model-name-or-path)")
    fixed(
        "--channels",
        type=positive_int,
        help="feature maps of the generator (64, or those of --pretrained-model-name-or-path)",
    )
    fixed(
        "--num-blocks",
        type=positive_int,
        help="residual blocks of the generator (16, or those of --pretrained-model-name-or-path)",
    )
    fixed(
        "--degradation", choices=("bicubic", "gaussian", "real-world"), default="bicubic", help="how LR is made from HR"
    )
    fixed("--sigma", type=float, nargs=2, metavar=("LOW", "HIGH"), help="blur of gaussian and real-world, in HR pixels")
    fixed(
        "--content-loss",
        metavar="TERMS",
        help="mse, l1, vgg22, vgg54, lite with weights: 'vgg54=1 mse=0.1' (mse for pretrain, vgg54 for gan)",
    )
    free("--vgg-weights", metavar="FILE", help="VGG19 as .safetensors or .pth, instead of torchvision's download")
    fixed(
        "--lr-consistency", type=non_negative, default=0.0, metavar="W", help="L1 of output to truth, both downscaled"
    )
    fixed(
        "--artifact-weight", type=non_negative, default=0.0, metavar="W", help="L1 where the output has artifacts (LDL)"
    )
    fixed(
        "--checkerboard-weight",
        type=non_negative,
        default=0.0,
        metavar="W",
        help="against patterns of the scale's period",
    )
    fixed("--adversarial-weight", type=non_negative, default=1e-3, metavar="W", help="of -log D(G(lr)), for gan")
    fixed("--discriminator", choices=("paper", "patch"), default="paper", help="patch trains steadily in short runs")
    fixed("--freeze-bn", action=flag, default=False, help="leave the generator's batch norms as they are")
    fixed("--learning-rate", type=non_negative, default=1e-4, help="of Adam, for the generator")
    fixed("--discriminator-learning-rate", type=non_negative, help="of Adam, for the discriminator (the generator's)")
    fixed("--beta2", type=ema_decay, default=0.999, help="of Adam, for both; beta1 is 0.9")
    fixed(
        "--lr-scheduler",
        choices=("constant", "cosine", "paper"),
        default="paper",
        help="paper: constant, for gan a tenth after 100,000 steps",
    )
    fixed(
        "--max-grad-norm",
        type=non_negative,
        default=0.0,
        metavar="NORM",
        help="largest norm of a gradient; 0 leaves it alone",
    )
    fixed("--ema", type=ema_decay, default=0.999, help="decay of the weights' average, which is what is exported")
    free("--dataloader-num-workers", type=int, help="processes that read crops (0 on a CPU, 2 on a GPU)")
    free("--threads", type=positive_int, help="threads of the CPU per process (all cores); results depend on them")
    fixed("--mixed-precision", choices=("no", "bf16", "fp16"), default="no", help="fp16 for GPUs without bf16 only")
    fixed("--seed", type=int, default=0, help="of weights and samples")
    free(
        "--report-to",
        choices=("auto", "tensorboard", "trackio", "wandb", "none"),
        default="auto",
        help="beside metrics.jsonl and images/; auto is tensorboard if it is installed",
    )
    free("--log-every", type=positive_int, default=50, metavar="N", help="steps between two lines of metrics")
    free("--checkpointing-steps", type=positive_int, default=1000, metavar="N", help="steps between two checkpoints")
    free("--validate-every", type=positive_int, default=5000, metavar="N", help="steps between two validations")
    free("--checkpoints-total-limit", type=positive_int, default=2, metavar="N", help="newest checkpoints to keep")
    free(
        "--resume-from-checkpoint",
        nargs="?",
        const="latest",
        metavar="PATH",
        help="go on from the latest checkpoint, or from PATH",
    )
    free("--push-to-hub", metavar="ORG/NAME", help="publish final/ as this model at the end")
    free("--push-every", type=positive_int, metavar="N", help="publish last/ every N steps too")
    free("--private", action=flag, default=False, help="create the model on the Hub as a private one")
    free(
        "--license", help="of the weights, for the model card (that of --pretrained-model-name-or-path, or apache-2.0)"
    )
    free("--data-license", metavar="TEXT", help="license of the training images, for the model card")
    free("--dry-run", action=flag, default=False, help="print the plan, train nothing")
    return parser


PARSER = make_parser()


# ---------------------------------------------------------------------------------------------------------------------
# The networks, and what belongs to them.


def build(
    args: argparse.Namespace, config: dict[str, Any], model: SRGAN | None, command: str = ""
) -> tuple[TrainContext, TrainState]:
    """Build data, networks, optimizers and losses.

    Args:
        args: completed arguments.
        config: of the model.
        model: the one to start from.
        command: for the card.

    Raises:
        ValueError, OSError: something does not fit or cannot be had; the message says what to do.
    """
    tracker = choose_tracker(args.report_to)
    accelerator = make_accelerator(args, tracker)
    torch.set_num_threads(resolve_num_threads(args.threads, accelerator.device))
    torch.backends.cudnn.benchmark = accelerator.device.type == "cuda"
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.stage == "gan" and not args.pretrained_model_name_or_path:
        logger.warning(
            "--stage gan without --pretrained-model-name-or-path starts from noise; the paper starts from its SRResNet"
        )
    prepared, images = prepare_data(args, accelerator)
    sigma = {"sigma": tuple(args.sigma)} if args.sigma else {}
    degrade = make_degradation(args.degradation, scale=args.scale, **sigma)
    crops = RandomCropDataset(prepared, size=args.hr_crop, seed=args.seed, downscale_prob=args.downscale_prob)
    validation = PairedDataset(images, scale=args.scale, degradation=degrade, seed=args.seed) if images else None
    state = build_state(args, config, model, accelerator)
    with accelerator.local_main_process_first():  # one downloads weights for all of its machine
        content = losses.ContentLoss(losses.parse_content_loss(args.content_loss), vgg_weights=args.vgg_weights)
    # It is frozen, so it is not prepared.
    run = TrainContext(args, command, accelerator, config, crops, degrade, content.to(accelerator.device), validation)
    checkpointing.resume(run, state, PARSER.runtime_names)
    if tracker:
        settings = {name: value for name, value in vars(args).items() if isinstance(value, (int, float, str))}
        accelerator.init_trackers("srgan", config=settings)
    return run, state


def build_state(
    args: argparse.Namespace, config: dict[str, Any], model: SRGAN | None, accelerator: Accelerator
) -> TrainState:
    """Build what is trained, at step 0."""
    torch.manual_seed(args.seed)
    generator = (model or SRGAN(**config)).generator
    # bfloat16 has steps of a whole level near 1: the last layer runs in float32.
    generator[-1].register_forward_pre_hook(lambda layer, inputs: (inputs[0].float(),))
    generator.to(accelerator.device).to(memory_format=torch.channels_last)
    ema = EMA(generator, args.ema)
    generator.train()
    if args.freeze_bn:  # as if folded into the convolutions
        for module in generator.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
    networks: dict[str, nn.Module] = {"generator": PolyphaseGenerator(OrderedDict(generator.named_children()))}
    if args.stage == "gan":
        discriminator = build_discriminator(args.discriminator, hr_size=args.hr_crop).train()
        networks["discriminator"] = discriminator.to(accelerator.device).to(memory_format=torch.channels_last)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        networks = {name: nn.SyncBatchNorm.convert_sync_batchnorm(network) for name, network in networks.items()}
    optimizers = {}
    for name, network in networks.items():
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizers[name] = torch.optim.Adam(parameters, lr=learning_rate_at(args, name, 0), betas=(0.9, args.beta2))
    prepared = accelerator.prepare(*networks.values(), *optimizers.values())
    wrapped = dict(zip(networks, prepared, strict=False))
    stepped = dict(zip(networks, prepared[len(networks) :], strict=True))
    return TrainState(wrapped["generator"], wrapped.get("discriminator"), stepped, ema)


# ---------------------------------------------------------------------------------------------------------------------
# One step.


class Step(NamedTuple):
    """What a step found, the same on all ranks: losses and gradient norms, seconds of waiting, whether to stop."""

    losses: dict[str, float]
    waited: float
    stop: bool


def train_step(
    run: TrainContext, state: TrainState, batches: Iterator[tuple[Tensor, Tensor]], signals: Sequence[str] = ()
) -> Step:
    """Update each network once. Losses are means of all ranks and passes; a signal to one rank stops all."""
    for name, optimizer in state.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(run.args, name, state.step)
    passes, waited = [], 0.0
    for _ in range(run.args.gradient_accumulation_steps):
        begin = time.perf_counter()
        lr, hr = next(batches)
        waited += time.perf_counter() - begin
        with run.accelerator.accumulate(*state.networks.values()):
            sr = state.generator(lr)
            values = discriminator_step(run, state, sr.detach(), hr) if state.discriminator else {}
            passes.append(values | generator_step(run, state, lr, hr, sr))
    average_batch_norm(run.accelerator, state.networks.values())
    state.ema.update(run.accelerator.unwrap_model(state.generator), state.step)
    state.step += 1
    # The norms are of the last pass alone, which has all gradients.
    seen = {name: [each[name].detach().float() for each in passes if name in each] for name in passes[-1]}
    means = [torch.stack(each).mean() for each in seen.values()]
    beside = torch.tensor([waited, float(bool(signals))], device=run.accelerator.device)
    # One exchange for all.
    *values, waited, stopped = run.accelerator.reduce(torch.cat([torch.stack(means), beside]), "mean").tolist()
    return Step(dict(zip(seen, values, strict=True)), waited, stopped > 0)


def discriminator_step(run: TrainContext, state: TrainState, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
    """Teach the discriminator to tell truth from output; no gradient reaches the generator."""
    assert state.discriminator is not None
    real_logits, fake_logits = state.discriminator(hr), state.discriminator(sr)
    loss = losses.discriminator_loss(real_logits, fake_logits)
    run.accelerator.backward(loss)
    real, fake = real_logits.float().sigmoid().mean(), fake_logits.float().sigmoid().mean()
    return {"d_loss": loss, "d_real": real, "d_fake": fake} | optimizer_step(run, state, "discriminator")


def generator_step(run: TrainContext, state: TrainState, lr: Tensor, hr: Tensor, sr: Tensor) -> dict[str, Tensor]:
    """Bring the output closer to the truth, and past the discriminator."""
    args = run.args
    with run.accelerator.autocast():
        terms = run.content(sr, hr)
    values = {f"g_{name}": term for name, term in terms.items()}
    loss = run.content.total(terms)
    if state.discriminator:
        # Through the bare network: the wrapper would wait for gradients that it does not get here.
        discriminator = run.accelerator.unwrap_model(state.discriminator).requires_grad_(False)
        values["g_adversarial"] = losses.adversarial_loss(discriminator(sr))
        discriminator.requires_grad_(True)
        loss = loss + args.adversarial_weight * values["g_adversarial"]
    if args.lr_consistency:
        values["g_lr_consistency"] = losses.lr_consistency_loss(sr, hr, args.scale)
        loss = loss + args.lr_consistency * values["g_lr_consistency"]
    if args.artifact_weight:
        with torch.no_grad(), run.accelerator.autocast():
            ema_sr = state.ema.network(lr)
        values["g_artifact"] = losses.artifact_loss(sr, hr, ema_sr)
        loss = loss + args.artifact_weight * values["g_artifact"]
    if args.checkerboard_weight:
        values["g_checkerboard"] = losses.checkerboard_loss(sr, hr, args.scale)
        loss = loss + args.checkerboard_weight * values["g_checkerboard"]
    run.accelerator.backward(loss)
    return values | {"g_loss": loss} | optimizer_step(run, state, "generator")


def optimizer_step(run: TrainContext, state: TrainState, name: str) -> dict[str, Tensor]:
    """Step the optimizer after the last backward pass of a step; return the norm of the gradient then, else nothing."""
    norm, optimizer = {}, state.optimizers[name]
    if run.accelerator.sync_gradients:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm[f"{name[0]}_norm"] = run.accelerator.clip_grad_norm_(parameters, run.args.max_grad_norm or math.inf)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def learning_rate_at(args: argparse.Namespace, network: str, step: int) -> float:
    """Return the learning rate of a step, counted from 0: a function of the step alone, and under cosine of
    --max-train-steps."""
    base = args.learning_rate if network == "generator" else args.discriminator_learning_rate
    if args.lr_scheduler == "cosine":
        return base * (1 + math.cos(math.pi * step / args.max_train_steps)) / 2
    if args.lr_scheduler == "paper" and args.stage == "gan" and step >= ADVERSARIAL_STEPS_AT_FULL_RATE:
        return base / 10
    return base


def check_finite_and_balance(run: TrainContext, state: TrainState, values: dict[str, float]) -> None:
    """Stop at a loss that is not finite, and warn when the discriminator has won."""
    for name, value in values.items():
        if not name.endswith("_norm") and not math.isfinite(value):
            found = checkpoint.find(run.args.output_dir)
            good = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
            raise NonFiniteError(f"{name} is {value} at step {state.step}: stopped, nothing was overwritten; {good}")
    state.collapsed_steps = state.collapsed_steps + 1 if values.get("d_loss", math.inf) < COLLAPSE_LOSS else 0
    if state.collapsed_steps == COLLAPSE_STEPS:
        logger.warning(
            "step %d: the discriminator has won: its loss was below %s for %d steps, so the generator learns nothing "
            "from it; try --discriminator patch or a lower --discriminator-learning-rate",
            state.step,
            COLLAPSE_LOSS,
            COLLAPSE_STEPS,
        )


# ---------------------------------------------------------------------------------------------------------------------
# The run.


def train(run: TrainContext, state: TrainState, signals: list[str]) -> bool:
    """Step, look, log, validate and save until the last step or a signal; return whether the last push worked."""
    args, accelerator, pushed = run.args, run.accelerator, True
    if state.step == 0 and args.pretrained_model_name_or_path:
        validate_and_save_best(run, state)  # what training starts from
    batches = make_batches(run, state.step)
    bar = tqdm(
        initial=state.step,
        total=args.max_train_steps,
        unit="step",
        disable=not accelerator.is_main_process,
        smoothing=0.05,
    )
    stop, steps, waited, elapsed = False, 0, 0.0, 0.0
    while state.step < args.max_train_steps and not stop:
        begin = time.perf_counter()
        values, wait, stop = train_step(run, state, batches, signals)
        check_finite_and_balance(run, state, values)
        last = state.step == args.max_train_steps
        steps, waited, elapsed = steps + 1, waited + wait, elapsed + time.perf_counter() - begin
        bar.update()
        if state.step % args.log_every == 0 or last or stop:
            crops = steps * args.batch_size * args.gradient_accumulation_steps * accelerator.num_processes
            values |= {"samples_per_second": crops / elapsed, "data_wait": waited / elapsed}
            values["learning_rate"] = learning_rate_at(args, "generator", state.step - 1)
            log(run, state.step, values)
            bar.set_postfix({name: f"{values[name]:.4g}" for name in ("g_loss", "d_loss") if name in values})
            steps, waited, elapsed = 0, 0.0, 0.0
        if last or (state.step % args.validate_every == 0 and not stop):
            validate_and_save_best(run, state)
        if state.step % args.checkpointing_steps == 0 or last or stop:
            checkpointing.save(run, state)
        if args.push_every and state.step % args.push_every == 0 and not last:
            checkpointing.export(run, state, "last")
            pushed = checkpointing.publish(run, state.step, "last")
    bar.close()
    if state.step < args.max_train_steps:
        accelerator.print(f"stopped by a signal at step {state.step}, which is saved; --resume-from-checkpoint goes on")
        return pushed
    checkpointing.export(run, state, "final")
    if args.push_to_hub:
        pushed = checkpointing.publish(run, state.step, "final")
    scores = ", ".join(f"{name} {value:.4g}" for name, value in state.scores.get(SR, {}).items())
    accelerator.print(f"{args.output_dir / 'final'} holds the model; {scores or 'it was not validated'}")
    return pushed


def validate_and_save_best(run: TrainContext, state: TrainState) -> None:
    """Validate; keep the model in best/ if its content loss on the validation images is the lowest so far."""
    if run.validation is None:
        return
    state.scores = validate(run, state)
    log(run, state.step, flatten(state.scores))
    if state.best is None or state.scores[SR]["content"] < state.best:
        state.best = state.scores[SR]["content"]
        checkpointing.export(run, state, "best")


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when all is done, or saved after a signal; 1 for a loss that is not finite or a push that failed; 2 for bad
        input or a full disk.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    # Newer versions of torch want another name, which older ones do not know.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    args = PARSER.parse_args(argv)
    command = shlex.join(["accelerate", "launch", "train_accelerate.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        model = (
            SRGAN.from_pretrained(args.pretrained_model_name_or_path) if args.pretrained_model_name_or_path else None
        )
        config = resolve_args(args, model.config if model else None)
        if args.dry_run:
            processes, rate = PartialState(), learning_rate_at(args, "generator", args.max_train_steps - 1)
            processes.print(estimate_run(args, config, processes=processes.num_processes, last_rate=rate))
            return 0
        run, state = build(args, config, model, command)
    except (ValueError, OSError) as error:
        print(f"train_accelerate.py: {error}", file=sys.stderr)
        return 2
    try:
        with catch_signals() as signals:
            return 0 if train(run, state, signals) else 1
    except (NonFiniteError, checkpoint.CheckpointError, ImageError) as error:
        print(f"train_accelerate.py: {error}", file=sys.stderr)
        return 1 if isinstance(error, NonFiniteError) else 2
    finally:
        run.accelerator.end_training()


if __name__ == "__main__":
    sys.exit(main())
