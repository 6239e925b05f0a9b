"""Helpers for multi-process training."""

from collections.abc import Iterable
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from .arguments import TrainConfig


def make_accelerator(config: TrainConfig, tracker: str | None) -> Accelerator:
    """Set up Accelerate for this process."""
    # The discriminator runs twice before its backward pass; broadcasting buffers in between breaks it.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    # The other ranks wait while the main process downloads DIV2K or pushes to the Hub.
    group = InitProcessGroupKwargs(timeout=timedelta(days=1))
    return Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        mixed_precision=config.mixed_precision,
        log_with=tracker,
        project_dir=config.output_dir,
        kwargs_handlers=[ddp, group],
    )


def average_batch_norm(accelerator: Accelerator, networks: Iterable[nn.Module]) -> None:
    """Set batch norm statistics to their mean over all ranks, in place of the broadcast that is turned off."""
    if accelerator.num_processes == 1:
        return
    # All floating-point buffers are running means and variances.
    buffers = [buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()]
    if buffers:
        mean = accelerator.reduce(torch.cat([buffer.flatten() for buffer in buffers]), "mean")
        for buffer, values in zip(buffers, mean.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values)
