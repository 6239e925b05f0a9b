"""The training script's arguments: their types, which of them a resumed run may change, and what fits together."""

import argparse
import math
from typing import Any

import torch

from ..hub import is_hub_id
from . import losses

# What builds a model beside its sizes, and what config.json holds: the paper's choices.
CHOICES = {"upsampler": "pixelshuffle", "trunk_end": "batchnorm", "output_activation": "sigmoid"}
SIZES = {"scale": 4, "channels": 64, "num_blocks": 16}


class Parser(argparse.ArgumentParser):
    """A parser that knows which arguments a resumed run may change, since the weights do not depend on them."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        self.runtime_names: set[str] = set()

    def add_reproducible(self, flag: str, **options: Any) -> None:
        """Add an argument that a resumed run must repeat."""
        self.add_argument(flag, **options)

    def add_runtime(self, flag: str, **options: Any) -> None:
        """Add an argument that a resumed run may change."""
        self.runtime_names.add(self.add_argument(flag, **options).dest)


def positive_int(text: str) -> int:
    """Read a positive integer."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"Expected a positive integer, got {text}.")
    return value


def non_negative(text: str) -> float:
    """Read a number of at least 0."""
    return _number(text, math.inf, "of at least 0")


def ema_decay(text: str) -> float:
    """Read a number from 0 to below 1."""
    return _number(text, 1, "from 0 to below 1")


def unit_interval(text: str) -> float:
    """Read a number from 0 to 1."""
    return _number(text, math.nextafter(1, 2), "from 0 to 1")


def _number(text: str, end: float, expected: str) -> float:
    value = float(text)
    if not 0 <= value < end:
        raise argparse.ArgumentTypeError(f"Expected a number {expected}, got {text}.")
    return value


def resolve_args(args: argparse.Namespace, config: dict[str, Any] | None) -> dict[str, Any]:
    """Fill in the defaults that depend on other arguments, and return the model's configuration.

    Args:
        args: what the parser read; what was left out is filled in.
        config: of the model to start from.

    Raises:
        ValueError: arguments do not fit together or to the model.
    """
    gan = args.stage == "gan"
    for name, default in SIZES.items():
        given = getattr(args, name)
        if config and given is not None and given != config[name]:
            option = f"--{name.replace('_', '-')} {given}"
            raise ValueError(f"{option}, but {args.pretrained_model_name_or_path} has {config[name]}; leave it out.")
        setattr(args, name, config[name] if config else given or default)
    args.max_train_steps = args.max_train_steps or (200_000 if gan else 1_000_000)
    args.content_loss = args.content_loss or ("vgg54" if gan else "mse")
    if args.discriminator_learning_rate is None:
        args.discriminator_learning_rate = args.learning_rate
    losses.parse_content_loss(args.content_loss)
    if args.hr_crop % args.scale:
        raise ValueError(f"Expected --hr-crop divisible by the scale, {args.scale}, got {args.hr_crop}.")
    if gan and args.discriminator == "paper" and args.hr_crop % 16:
        raise ValueError(f"Expected --hr-crop as a multiple of 16 or --discriminator patch, got {args.hr_crop}.")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"Expected --seed from 0 to 2**63 - 1, got {args.seed}.")
    if args.push_to_hub and not is_hub_id(args.push_to_hub):
        raise ValueError(f"Expected --push-to-hub as a Hub id such as org/name, got {args.push_to_hub!r}.")
    if args.push_every and not args.push_to_hub:
        raise ValueError("Expected --push-to-hub beside --push-every, got none.")
    if args.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("Expected a GPU for --mixed-precision fp16, got none; use bf16 or no.")
    if args.sigma and args.degradation == "bicubic":
        raise ValueError(
            "Expected --degradation gaussian or real-world beside --sigma, got bicubic, which does not blur."
        )
    return config or {name: getattr(args, name) for name in SIZES} | CHOICES
