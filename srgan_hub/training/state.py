"""Immutable run context and mutable training state."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from torch import nn

from ..degradations import Degradation
from ..model import SRGAN
from .arguments import TrainConfig
from .dataset import RandomCropDataset
from .ema import EMA
from .losses import ContentLoss

if TYPE_CHECKING:
    from .validation import ValidationImages


@dataclass(frozen=True)
class TrainContext:
    """Constants of a run on one rank."""

    config: TrainConfig
    accelerator: Accelerator
    crops: RandomCropDataset
    degrade: Degradation
    content: ContentLoss
    validation: "ValidationImages | None"


@dataclass
class TrainState:
    """Variables of a run, all of them part of a checkpoint.

    `generator` and `discriminator` are wrapped by Accelerate, for training; `networks` holds them as they were built,
    for their weights.
    """

    generator: nn.Module
    discriminator: nn.Module | None
    networks: dict[str, nn.Module]
    optimizers: dict[str, Any]
    ema: EMA
    step: int = 0
    samples: int = 0  # HR crops seen by all processes
    collapsed_steps: int = 0  # consecutive steps with a discriminator loss near 0
    best: float | None = None  # lowest content loss on the validation images
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # last validation: image -> metric -> mean
    changes: list[str] = field(default_factory=list)  # of flags by --allow-changes


def effective_batch(run: TrainContext) -> int:
    """Return the number of samples per step of all processes."""
    return run.config.batch_size * run.config.gradient_accumulation_steps * run.accelerator.num_processes


def ema_model(run: TrainContext, state: TrainState) -> SRGAN:
    """Return the model with the averaged weights on the CPU, in evaluation mode, as it is exported."""
    model = SRGAN(**run.config.model_kwargs)
    model.generator.load_state_dict(state.ema.network.state_dict())
    return model.eval()
