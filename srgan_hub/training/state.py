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
    """Variables of a run, all of them part of a checkpoint. The networks are as Accelerate wraps them."""

    generator: nn.Module
    discriminator: nn.Module | None
    optimizers: dict[str, Any]
    ema: EMA
    step: int = 0
    collapsed_steps: int = 0  # consecutive steps with a discriminator loss near 0
    best: float | None = None  # lowest content loss on the validation images
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # last validation: image -> metric -> mean

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The trained networks by name."""
        return {"generator": self.generator} | ({"discriminator": self.discriminator} if self.discriminator else {})


def ema_model(run: TrainContext, state: TrainState) -> SRGAN:
    """Return the model with the averaged weights on the CPU, in evaluation mode, as it is exported."""
    model = SRGAN(**run.config.model_kwargs)
    model.generator.load_state_dict(state.ema.network.state_dict())
    return model.eval()
