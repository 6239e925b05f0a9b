"""Helpers for multi-process training."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, gather_object
from torch import nn

from .arguments import TrainConfig

T = TypeVar("T")


class RankError(Exception):
    """An error of another rank, with its message."""


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


@contextmanager
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


@contextmanager
def shared_errors(accelerator: Accelerator) -> Iterator[None]:
    """Raise an error of one rank on all of them, as RankError with the same message on the others.

    All ranks must run the block, which must not communicate, and wait for each other at its end.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    found = gather_object([error and (str(error) or type(error).__name__)])
    if error:
        raise error
    if messages := [message for message in found if message is not None]:
        raise RankError(messages[0])


def main_process_first(accelerator: Accelerator, function: Callable[[], T], *, per_machine: bool = False) -> T:
    """Call a function on the main process (of each machine), then on the others; share errors."""
    main = accelerator.is_local_main_process if per_machine else accelerator.is_main_process
    with shared_errors(accelerator):
        if main:
            result = function()
    with shared_errors(accelerator):
        if not main:
            result = function()
    return result


def any_rank(accelerator: Accelerator, value: bool) -> bool:
    """Return whether the value is true on any rank."""
    return any(gather_object([value]))
