"""What a run would do and take, without doing it."""

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from ..model import SRGAN
from ..network.discriminator import build_discriminator


def estimate_run(args: argparse.Namespace, config: dict[str, Any], *, processes: int, last_rate: float) -> str:
    """Return what --dry-run prints. Nothing is computed: the networks live on the meta device.

    Args:
        args: the completed arguments.
        config: of the model.
        processes: how many train together.
        last_rate: the generator's learning rate at the last step.
    """
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if isinstance(tensor, nn.Parameter) else tensor.numel() * tensor.element_size()
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        generator = SRGAN(**config)
        discriminator = build_discriminator(args.discriminator, hr_size=args.hr_crop) if args.stage == "gan" else None
        lr_size = args.hr_crop // args.scale
        generator(torch.zeros(args.batch_size, 3, lr_size, lr_size)).mean()
        if discriminator is not None:
            for _ in range(3):  # truth, output, and the generator's turn
                discriminator(torch.zeros(args.batch_size, 3, args.hr_crop, args.hr_crop)).mean()
    count_g = sum(p.numel() for p in generator.parameters())
    count_d = sum(p.numel() for p in discriminator.parameters()) if discriminator is not None else 0
    activations = saved / (2 if args.mixed_precision != "no" else 1)
    # Weights, gradients and Adam's two moments; the generator's average beside.
    memory = 4 * (5 * count_g + 4 * count_d) + activations
    crops = args.batch_size * args.gradient_accumulation_steps * processes
    return "\n".join(
        [
            f"stage:          {args.stage}, {args.max_train_steps:,} steps, {processes} process(es)",
            f"generator:      {count_g:,} parameters",
            f"discriminator:  {count_d:,} parameters" + (f" ({args.discriminator})" if count_d else ""),
            f"samples:        {args.max_train_steps * crops:,} crops of {args.hr_crop} px, {crops} a step",
            f"content loss:   {args.content_loss}",
            f"learning rate:  {args.learning_rate:g} at first, {last_rate:g} at the end ({args.lr_scheduler})",
            f"memory:         about {memory / 1e9:.2f} GB a process, without the content loss's network",
            f"checkpoint:     about {4 * (4 * count_g + 3 * count_d) / 1e6:.0f} MB, "
            f"{args.checkpoints_total_limit} kept",
        ]
    )
