"""What a training run consists of: what stays as it is, and what changes from step to step."""

import argparse
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from torch import nn

from ..degradations import Degradation
from ..evaluate.datasets import PairedDataset
from ..model import SRGAN
from .dataset import RandomCropDataset
from .ema import EMA
from .losses import ContentLoss


@dataclass(frozen=True)
class TrainContext:
    """What does not change while a run goes on, on one rank."""

    args: argparse.Namespace
    command: str  # as it was typed
    accelerator: Accelerator
    config: dict[str, Any]  # of the model
    crops: RandomCropDataset
    degrade: Degradation
    content: ContentLoss
    validation: PairedDataset | None


@dataclass
class TrainState:
    """What changes, and what a checkpoint holds. The networks are as Accelerate wraps them."""

    generator: nn.Module
    discriminator: nn.Module | None
    optimizers: dict[str, Any]
    ema: EMA
    step: int = 0
    collapsed_steps: int = 0  # steps in a row at which the discriminator's loss was near 0
    best: float | None = None  # the lowest content loss on the validation images
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # the last validation's means, by output and name

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that are being trained, by name."""
        return {"generator": self.generator} | ({"discriminator": self.discriminator} if self.discriminator else {})


def ema_model(run: TrainContext, state: TrainState) -> SRGAN:
    """Return the model as it is exported: the averaged weights, on the CPU, in evaluation mode."""
    model = SRGAN(**run.config)
    model.generator.load_state_dict(state.ema.network.state_dict())
    return model.eval()
