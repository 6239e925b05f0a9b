"""What the ranks of a run do together."""

import argparse
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn


def make_accelerator(args: argparse.Namespace, tracker: str | None) -> Accelerator:
    """Set up Accelerate for this process, as the launcher and the arguments say."""
    return Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=tracker,
        project_dir=args.output_dir,
        kwargs_handlers=[
            # The discriminator runs twice before its backward pass, which broadcasting buffers would break.
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(hours=2)),  # a validation may be long
        ],
    )


def run_on_main_process(accelerator: Accelerator, work: Callable[[], None]) -> None:
    """Do something on rank 0 while the others wait, however long.

    A barrier would time out under a download or an upload of hours. Here the ranks keep in touch meanwhile.
    """
    if accelerator.num_processes == 1:
        work()
        return
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work) if accelerator.is_main_process else None
        while True:
            running = torch.tensor(float(future is not None and not future.done()), device=accelerator.device)
            if not accelerator.reduce(running, "sum").item():
                break
            time.sleep(0.1)
        if future:
            future.result()


def average_batch_norm(accelerator: Accelerator, networks: Iterable[nn.Module]) -> None:
    """Make the ranks' batch norm statistics equal to their mean, since Accelerate is told not to broadcast them."""
    if accelerator.num_processes == 1:
        return
    buffers = [
        buffer
        for network in networks
        for name, buffer in network.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]
    if buffers:
        mean = accelerator.reduce(torch.cat([buffer.flatten() for buffer in buffers]), "mean")
        for buffer, values in zip(buffers, mean.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values)
