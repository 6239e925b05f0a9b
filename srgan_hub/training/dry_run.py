"""Estimate parameters, memory and checkpoint size without training."""

import torch
from torch import Tensor, nn

from ..model import SRGAN
from ..network.discriminator import build_discriminator
from .arguments import TrainConfig


def estimate_run(config: TrainConfig, *, processes: int, last_rate: float) -> str:
    """Return what `--dry-run` prints. The networks are on the meta device: nothing is computed."""
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if isinstance(tensor, nn.Parameter) else tensor.numel() * tensor.element_size()
        return tensor

    gan, batch, hr_size = config.stage == "gan", config.batch_size, config.hr_crop
    lr_size = hr_size // config.scale
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        generator = SRGAN(**config.model_kwargs)
        discriminator = build_discriminator(config.discriminator, hr_size=hr_size) if gan else nn.Identity()
        generator(torch.zeros(batch, 3, lr_size, lr_size)).mean()
        for _ in range(3 if gan else 0):  # HR and SR in the discriminator's step, SR in the generator's
            discriminator(torch.zeros(batch, 3, hr_size, hr_size)).mean()
    count_g, count_d = (sum(p.numel() for p in network.parameters()) for network in (generator, discriminator))
    activations = saved / (2 if config.mixed_precision != "no" else 1)
    # Weights, gradients and Adam's two moments, and the generator's moving average, in float32.
    memory = 4 * (5 * count_g + 4 * count_d) + activations
    crops = batch * config.gradient_accumulation_steps * processes
    return "\n".join(
        (
            f"stage:          {config.stage}, {config.max_train_steps:,} steps, {processes} process(es)",
            f"generator:      {count_g:,} parameters",
            f"discriminator:  {count_d:,} parameters" + (f" ({config.discriminator})" if gan else ""),
            f"samples:        {config.max_train_steps * crops:,} crops of {hr_size} px, {crops} per step",
            f"content loss:   {config.content_loss}",
            f"learning rate:  {config.learning_rate:g} to {last_rate:g} ({config.lr_scheduler})",
            f"memory:         about {memory / 1e9:.2f} GB per process, without the content loss's network",
            f"checkpoints:    {config.checkpoints_total_limit} of about {4 * (4 * count_g + 3 * count_d) / 1e6:.0f} MB",
        )
    )
