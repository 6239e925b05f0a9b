"""Command-line arguments and their validation."""

import argparse
import dataclasses
import functools
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import HF_HOME

from ..hub import is_hub_id
from ..model import SRGAN
from ..network.generator import OUTPUT_ACTIVATIONS, TRUNK_ENDS, UPSAMPLERS
from . import losses


def number(expected: str, accepts: Callable[[float], bool], kind: Callable[[str], float] = float) -> Any:
    """Return an argparse type for a number that fulfills a condition."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return read


positive_int = number("a positive integer", lambda value: value >= 1, int)
natural = number("an integer of at least 0", lambda value: value >= 0, int)
non_negative = number("a finite number of at least 0", lambda value: 0 <= value < math.inf)
positive = number("a positive number", lambda value: 0 < value < math.inf)
unit_interval = number("a number from 0 to 1", lambda value: 0 <= value <= 1)
decay = number("a number of at least 0 and below 1", lambda value: 0 <= value < 1)
boolean = argparse.BooleanOptionalAction
PRECISIONS = ("no", "bf16", "fp16")
# Flags that are options of the degradation, None by default.
RANGES = ("sigma", "noise", "jpeg_quality")
DEGRADATION_FLAGS = (*RANGES, "clean_prob", "second_order_prob")
LISTS = ("train_data", "train_lr_data")
TRACKERS = ("auto", "tensorboard", "trackio", "wandb", "none")


def flag(default: Any, help: str, *, runtime: bool = False, **options: Any) -> Any:
    """Return a field of `TrainConfig` that is set by the flag of the same name, with options of `add_argument`.

    The default is MISSING for a required flag, None for a value that `resolve_args` derives from other flags. A resumed
    run may change a `runtime` flag, because the weights do not depend on it.
    """
    return dataclasses.field(default=default, metadata={"help": help, "runtime": runtime, **options})


def range_flag(help: str, type: Callable[[str], float] = float) -> Any:
    """Return a field of a range of the degradation, None by default."""
    return flag(None, help, type=type, nargs=2, metavar=("LOW", "HIGH"))


runtime_flag = functools.partial(flag, runtime=True)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run. The defaults follow Ledig et al. (2016); docs/training.md lists the deviations."""

    stage: str = flag("pretrain", "pretrain trains SRResNet, gan trains SRGAN", choices=("pretrain", "gan"))
    pretrained_model_name_or_path: str | None = flag(None, "model to fine-tune: its weights and architecture")
    output_dir: Path = runtime_flag(MISSING, "directory for checkpoints, metrics and models", type=Path)  # noqa: RUF009
    resume_from_checkpoint: str | None = runtime_flag(
        None, "resume from PATH, or from the latest checkpoint", nargs="?", const="latest", metavar="PATH"
    )
    allow_changes: bool = runtime_flag(False, "resume with other learning rates or loss weights", action=boolean)
    dry_run: bool = runtime_flag(
        False, "print parameters, memory, data, disk space and time; do not train", action=boolean
    )

    # Data.
    train_data: Sequence[str] | None = runtime_flag(
        None,
        "directories of images or prepared shards; div2k downloads DIV2K; =2 doubles an image's probability",
        nargs="+",
        metavar="PATH[=WEIGHT]",
    )
    train_lr_data: Sequence[str] | None = runtime_flag(
        None, "directories of LR images of the same names, instead of a degradation", nargs="+", metavar="PATH"
    )
    dataset_name: str | None = runtime_flag(None, "data set of the Hub, or a directory that `datasets` reads")
    image_column: str = runtime_flag("image", "column of --dataset-name")
    shards: bool = runtime_flag(
        True, "store decoded images in OUTPUT_DIR, else decode a file for each crop", action=boolean
    )
    val_data: str | None = runtime_flag(None, "directory of validation images, or div2k")
    val_lr_data: str | None = runtime_flag(None, "directory of LR validation images, instead of a degradation")
    data_dir: Path = runtime_flag(None, "cache of DIV2K (default: HF_HOME/srgan-hub)", type=Path)  # noqa: RUF009
    div2k_url: str | None = runtime_flag(None, "address of a mirror of DIV2K's archives", metavar="URL")
    batch_size: int = flag(16, "crops per process and backward pass", type=positive_int)
    hr_crop: int = flag(96, "side of the HR crops in pixels", type=positive_int)
    downscale_prob: float = flag(0.0, "probability of a crop being downscaled by up to 2", type=unit_interval)
    degradation: str = flag("bicubic", "how LR crops are synthesized", choices=("bicubic", "gaussian", "real-world"))
    sigma: tuple[float, float] | None = range_flag("blur of gaussian and real-world in HR pixels")
    noise: tuple[float, float] | None = range_flag("noise of real-world in 8-bit values (default: 0 6)")
    jpeg_quality: tuple[int, int] | None = range_flag("JPEG quality of real-world (default: 30 95)", type=int)
    clean_prob: float | None = flag(None, "share of clean crops in real-world (default: 0.4)", type=unit_interval)
    second_order_prob: float | None = flag(
        None, "share of real-world crops that are resized and compressed again (default: 0)", type=unit_interval
    )
    dataloader_num_workers: int | None = runtime_flag(None, "data loading processes (CPU: 0, GPU: 4)", type=int)

    # Networks.
    scale: int = flag(None, "2, 3 or 4 (default: 4, or the pretrained model's)", type=positive_int)
    channels: int = flag(None, "channels of the generator (default: 64, or the pretrained model's)", type=positive_int)
    num_blocks: int = flag(None, "residual blocks (default: 16, or the pretrained model's)", type=positive_int)
    upsampler: str = flag(None, "nearest repeats pixels, as in the thesis (default: pixelshuffle)", choices=UPSAMPLERS)
    trunk_end: str = flag(None, "layer after the trunk's last convolution (default: batchnorm)", choices=TRUNK_ENDS)
    output_activation: str = flag(
        None, "clamp has no gradient outside [0, 1] (default: sigmoid)", choices=OUTPUT_ACTIVATIONS
    )
    freeze_bn: bool = flag(False, "freeze the generator's batch norms", action=boolean)
    discriminator: str = flag("paper", "architecture; patch is more stable in short runs", choices=("paper", "patch"))
    init_discriminator: str | None = flag(None, "checkpoint of a gan run, or its directory, to start the discriminator")
    sync_batch_norm: bool = flag(False, "share batch norm statistics among GPUs in each pass", action=boolean)
    ema: float = flag(0.999, "decay of the exponential moving average of the weights, which is exported", type=decay)

    # Losses.
    content_loss: str = flag(None, "mse, l1, vgg22, vgg54, lite: 'vgg54=1 mse=0.1' (default: mse; gan: vgg54)")
    vgg_weights: str | None = runtime_flag(None, "VGG19 weights, a .safetensors or .pth file (default: download)")
    lr_consistency: float = flag(0.0, "weight of the L1 distance to HR, both downscaled", type=non_negative)
    artifact_weight: float = flag(0.0, "weight of the artifact loss (LDL)", type=non_negative)
    checkerboard_weight: float = flag(0.0, "weight of the loss on checkerboard artifacts", type=non_negative)
    adversarial_weight: float = flag(1e-3, "weight of -log D(G(lr)), for gan", type=non_negative)
    adversarial_warmup_steps: int = flag(0, "steps in which that weight rises from 0", type=natural)

    # Optimization.
    max_train_steps: int = runtime_flag(None, "optimizer steps (default: 1000000; gan: 200000)", type=positive_int)
    gradient_accumulation_steps: int = flag(1, "backward passes per step", type=positive_int)
    learning_rate: float = flag(1e-4, "learning rate of Adam", type=non_negative)
    discriminator_learning_rate: float = flag(None, "the discriminator's (default: the same)", type=non_negative)
    beta2: float = flag(0.999, "of Adam; beta1 is 0.9", type=decay)
    lr_scheduler: str = flag("paper", "paper: 0.1x after 100,000 gan steps", choices=("constant", "cosine", "paper"))
    max_grad_norm: float = flag(0.0, "maximum gradient norm; 0 disables clipping", type=non_negative)
    mixed_precision: str = flag(
        None, "fp16 requires a GPU (default: as `accelerate config` says, or no)", choices=PRECISIONS
    )
    torch_compile: bool = runtime_flag(False, "compile the networks, which affects rounding", action=boolean)
    seed: int = flag(0, "seed of weights, crops and degradations", type=int)
    threads: int | None = runtime_flag(None, "CPU threads per process, which affect rounding", type=positive_int)

    # Logging, checkpoints and publishing.
    report_to: str = runtime_flag("auto", "experiment tracker; auto is tensorboard if installed", choices=TRACKERS)
    logging_steps: int = runtime_flag(50, "steps between two log lines", type=positive_int)
    validation_steps: int = runtime_flag(5000, "steps between two validations", type=positive_int)
    num_validation_images: int = runtime_flag(16, "number of validation images, evenly spaced", type=positive_int)
    checkpointing_steps: int = runtime_flag(1000, "steps between two checkpoints", type=positive_int)
    checkpoints_total_limit: int = runtime_flag(2, "number of checkpoints to keep", type=positive_int)
    push_to_hub: str | None = runtime_flag(None, "Hub id to push the final model to", metavar="ORG/NAME")
    push_steps: int | None = runtime_flag(None, "steps between two pushes of last/", type=positive_int)
    private: bool = runtime_flag(False, "create the Hub repository as private", action=boolean)
    license: str | None = runtime_flag(None, "of the weights (default: apache-2.0, or the pretrained model's)")
    data_license: str | None = runtime_flag(None, "license of the training images, for the model card")

    # Not flags.
    model_kwargs: Mapping[str, Any]  # of `SRGAN`
    command: str = ""  # as typed, for the model card


def flag_name(field: str) -> str:
    """Return the flag of a field: "batch_size" -> "--batch-size"."""
    return f"--{field.replace('_', '-')}"


FLAGS = {field.name: field for field in dataclasses.fields(TrainConfig) if field.metadata}
# The first flag of each group of `--help`; the others follow in the order of the fields.
GROUPS = {
    "stage": "run",
    "train_data": "data",
    "scale": "networks",
    "content_loss": "losses",
    "max_train_steps": "optimization",
    "report_to": "logging, checkpoints and publishing",
}
ARCHITECTURE = {name: option.default for name, option in inspect.signature(SRGAN).parameters.items()}


# What --allow-changes lets a resumed run change.
CHANGEABLE = (
    *("learning_rate", "discriminator_learning_rate", "lr_scheduler", "max_train_steps"),
    *("content_loss", "lr_consistency", "artifact_weight", "checkerboard_weight"),
    *("adversarial_weight", "adversarial_warmup_steps"),
)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser from the fields of `TrainConfig`, in groups."""
    description = "Train SRResNet or SRGAN. The defaults follow Ledig et al. (2016); docs/training.md lists deviations."
    usage = "%(prog)s --train-data DATA --output-dir DIR [options]"
    parser = argparse.ArgumentParser(usage=usage, description=description, allow_abbrev=False)
    group: Any = parser
    for name, field in FLAGS.items():
        if name in GROUPS:
            group = parser.add_argument_group(GROUPS[name])
        options = {key: value for key, value in field.metadata.items() if key != "runtime"}
        required = field.default is MISSING
        if not required and field.default is not None and "action" not in options:
            options["help"] += f" (default: {field.default})"
        group.add_argument(flag_name(name), required=required, default=None if required else field.default, **options)
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; flags may be spelled with `-` or `_`."""
    words = sys.argv[1:] if argv is None else argv
    return make_parser().parse_args([re.sub("^--[^=]+", lambda m: m[0].replace("_", "-"), word) for word in words])


def resolve_args(
    args: argparse.Namespace, pretrained: Mapping[str, Any] | None = None, command: str = ""
) -> TrainConfig:
    """Validate arguments and fill in the defaults that depend on others, or on the pretrained model's config.

    Raise ValueError if arguments contradict each other or the pretrained model.
    """
    gan, architecture = args.stage == "gan", {}
    for name, default in ARCHITECTURE.items():
        given, actual = getattr(args, name), (pretrained or {}).get(name)
        if actual and given not in (None, actual):
            model = args.pretrained_model_name_or_path
            raise ValueError(f"{flag_name(name)} {given} contradicts '{model}', which has {actual}; omit the flag.")
        architecture[name] = actual or given or default
    rate = args.discriminator_learning_rate
    derived = {
        "max_train_steps": args.max_train_steps or (200_000 if gan else 1_000_000),
        "content_loss": args.content_loss or ("vgg54" if gan else "mse"),
        "discriminator_learning_rate": args.learning_rate if rate is None else rate,
        "data_dir": args.data_dir or Path(HF_HOME) / "srgan-hub",
        "mixed_precision": args.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower(),
        **{name: tuple(values) for name in (*RANGES, *LISTS) if (values := getattr(args, name))},
    }
    config = TrainConfig(
        **vars(args) | architecture | derived, model_kwargs=pretrained or architecture, command=command
    )

    losses.parse_content_loss(config.content_loss)
    if config.hr_crop % config.scale:
        raise ValueError(f"--hr-crop must be divisible by the scale, {config.scale}, got {config.hr_crop}.")
    if gan and config.discriminator == "paper" and config.hr_crop % 16:
        raise ValueError(f"--hr-crop must be a multiple of 16, got {config.hr_crop}; or use --discriminator patch.")
    if not 0 <= config.seed < 2**63:
        raise ValueError(f"--seed must be from 0 to 2**63 - 1, got {config.seed}.")
    if config.push_to_hub and not is_hub_id(config.push_to_hub):
        raise ValueError(f"--push-to-hub must be a Hub id such as org/name, got '{config.push_to_hub}'.")
    if config.push_steps and not config.push_to_hub:
        raise ValueError("--push-steps requires --push-to-hub.")
    if config.init_discriminator and not gan:
        raise ValueError("--init-discriminator requires --stage gan.")
    if config.mixed_precision not in PRECISIONS:
        choices = ", ".join(PRECISIONS)
        raise ValueError(f"ACCELERATE_MIXED_PRECISION must be one of {choices}, got '{config.mixed_precision}'.")
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("--mixed-precision fp16 requires a GPU; use bf16 or no.")
    _check_data(config)
    return config


def split_weight(word: str) -> tuple[str, float]:
    """Split "PATH=2" into path and weight; the weight of a path without one is 1. ValueError if it is not positive."""
    path, _, weight = word.rpartition("=")
    if not path or Path(word).exists():
        return word, 1.0
    try:
        return path, positive(weight)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--train-data {word}: {error}.") from None


def _check_data(config: TrainConfig) -> None:
    """Raise ValueError if flags of the data contradict each other."""
    if not config.train_data and not config.dataset_name:
        raise ValueError("--train-data or --dataset-name is required.")
    for word in config.train_data or ():
        split_weight(word)
    given = [name for name in DEGRADATION_FLAGS if getattr(config, name) is not None]
    allowed = {"bicubic": (), "gaussian": ("sigma",), "real-world": DEGRADATION_FLAGS}[config.degradation]
    if refused := [name for name in given if name not in allowed]:
        kinds = "gaussian or real-world" if refused == ["sigma"] else "real-world"
        raise ValueError(f"{flag_name(refused[0])} requires --degradation {kinds}, got {config.degradation}.")
    if config.train_lr_data:
        if len(config.train_lr_data) != len(config.train_data or ()) or config.dataset_name:
            raise ValueError("--train-lr-data requires as many directories as --train-data, in the same order.")
        if config.degradation != "bicubic" or config.downscale_prob:
            raise ValueError("--train-lr-data excludes --degradation and --downscale-prob.")
    if config.val_lr_data and not config.val_data:
        raise ValueError("--val-lr-data requires --val-data.")
