"""Images that tests of scoring share."""

import numpy as np
import torch
from PIL import Image

from srgan_hub.evaluate.datasets import to_uint8
from srgan_hub.resize import resize

FAST = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "lr_consistency", "high_freq_ratio", "checkerboard_db")


def image(height, width, seed=0):
    """Smooth shapes with some fine grain."""
    random = torch.Generator().manual_seed(seed)
    coarse = resize(torch.rand(1, 3, 9, 9, generator=random, dtype=torch.float64), (height, width))
    return to_uint8((coarse + 0.1 * torch.rand(coarse.shape, generator=random)).clamp(0, 1))


def truth(data, name):
    with Image.open(data / f"{name}.png") as image:
        array = np.asarray(image.convert("RGB"))
    return array[: array.shape[0] // 4 * 4, : array.shape[1] // 4 * 4]
