"""Helpers for multi-process training."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from .arguments import TrainConfig


def make_accelerator(config: TrainConfig, tracker: str | None) -> Accelerator:
    """Set up Accelerate for this process."""
    # The discriminator runs twice before its backward pass; broadcasting buffers in between breaks it.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # The other ranks wait while the main process downloads DIV2K or pushes to the Hub.
    group = InitProcessGroupKwargs(timeout=timedelta(days=1))
    # `accelerate config` may choose a backend of torch.compile; without it, the flag takes PyTorch's default.
    configured = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no"
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        dynamo_backend="inductor" if config.torch_compile and not configured else None,
        log_with=tracker,
        project_dir=config.output_dir,
        kwargs_handlers=[ddp, group],
    )
    # Set afterwards: an environment variable takes precedence over the constructor's argument.
    accelerator.gradient_accumulation_steps = config.gradient_accumulation_steps
    return accelerator


def average_batch_norm(accelerator: Accelerator, networks: Iterable[nn.Module]) -> None:
    """Set batch norm statistics to their mean over all ranks, in place of the broadcast that is turned off.

    Synchronized batch norms have equal statistics already.
    """
    if accelerator.num_processes == 1:
        return
    norms = [m for network in networks for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    if buffers:
        mean = accelerator.reduce(torch.cat([buffer.flatten() for buffer in buffers]), "mean")
        torch._foreach_copy_(buffers, mean.split([buffer.numel() for buffer in buffers]))


@contextlib.contextmanager
def keep_batch_norm_statistics(network: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms in training mode as they are."""
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
