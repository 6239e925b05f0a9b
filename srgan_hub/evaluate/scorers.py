"""Registry of named metrics."""

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import metrics
from ..perceptual import EfficientNetLiteLoss

# (sr, hr, lr), each (1, 3, H, W) float64 in [0, 1] -> score, or None for an image that is too small.
Scorer = Callable[[Tensor, Tensor, Tensor], float | None]


class MetricSpec(NamedTuple):
    """Display of a metric: title with unit, decimal places, and the arrow of the better direction."""

    text: str
    digits: int
    better: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.better}".strip()


HIGHER, LOWER = "↑", "↓"
METRICS = {
    "psnr_y": MetricSpec("PSNR Y, dB", 2, HIGHER),
    "ssim_y": MetricSpec("SSIM Y", 4, HIGHER),
    "psnr_rgb": MetricSpec("PSNR RGB, dB", 2, HIGHER),
    "ssim_rgb": MetricSpec("SSIM RGB", 4, HIGHER),
    "lr_consistency": MetricSpec("LR consistency, 8-bit values", 2, LOWER),
    "high_freq_ratio": MetricSpec("high-frequency ratio to HR", 2),
    "checkerboard_db": MetricSpec("checkerboard, dB", 2, LOWER),
    "lite0_distance": MetricSpec("EfficientNet-Lite0 distance", 3, LOWER),
    "lpips": MetricSpec("LPIPS (AlexNet)", 4, LOWER),
    "dists": MetricSpec("DISTS", 4, LOWER),
}
NO_REFERENCE = ("lr_consistency", "high_freq_ratio", "checkerboard_db")  # also scored for the ground truth
# Offsets of four crops that are averaged: each phase of a stride of 4 pixels once, in both axes.
SHIFTS = ((0, 0), (1, 2), (2, 1), (3, 3))
# Packages, and files in PyTorch's download cache.
PACKAGES = {"lpips": "lpips", "dists": "piq"}
CACHED = {"lpips": ("alexnet-owt-7be5be79.pth",), "dists": ("dists_weights.pt", "vgg16-397923af.pth")}


def make_scorers(
    names: Sequence[str] | None, *, crop_border: int, scale: int, device: torch.device
) -> tuple[dict[str, Scorer], list[str]]:
    """Return scorers by metric, and a message for each metric that is unavailable.

    Args:
        names: Keys of `METRICS`; None for all that are available without a download.
        crop_border: Pixels cropped from each side for PSNR and SSIM.
        scale: Period of the checkerboard artifacts.
        device: Device of the feature networks.

    Raises:
        ValueError: A name is unknown, or its metric is unavailable.
    """
    for name in names or ():
        if name not in METRICS:
            raise ValueError(f"`metrics` must be of {', '.join(METRICS)}, got '{name}'.")
    scorers, notes = {}, []
    for name in METRICS if names is None else names:
        try:
            scorers[name] = _make_scorer(name, crop_border, scale, device, download=names is not None)
        except ValueError as error:
            if names is not None:
                raise
            notes.append(str(error))
    return scorers, notes


def _make_scorer(name: str, crop_border: int, scale: int, device: torch.device, *, download: bool) -> Scorer:
    kind, _, channel = name.partition("_")
    if kind in ("psnr", "ssim"):
        measure = metrics.psnr if kind == "psnr" else metrics.ssim
        return lambda sr, hr, lr: _finite(measure(sr, hr, crop_border=crop_border, channel=channel))
    if name == "lr_consistency":
        return lambda sr, hr, lr: _finite(metrics.lr_consistency(sr, lr))
    if name == "high_freq_ratio":
        return lambda sr, hr, lr: _finite(metrics.high_freq_ratio(sr, hr))
    if name == "checkerboard_db":
        side = 16 * scale
        return lambda sr, hr, lr: _finite(metrics.checkerboard_db(sr, scale)) if min(sr.shape[2:]) >= side else None
    if name == "lite0_distance":
        return _averaged_over_shifts(EfficientNetLiteLoss(), device)
    network = _load(name, download).to(device).eval()

    def score(sr: Tensor, hr: Tensor, lr: Tensor) -> float | None:
        pair = [image.float().to(device) for image in (sr, hr)]
        pair = [2 * image - 1 for image in pair] if name == "lpips" else pair  # LPIPS expects [-1, 1], DISTS [0, 1]
        with torch.inference_mode():
            return _finite(network(*pair))

    return score


def _averaged_over_shifts(network: nn.Module, device: torch.device) -> Scorer:
    network.to(device)

    def score(sr: Tensor, hr: Tensor, lr: Tensor) -> float | None:
        height, width = (side - max(max(SHIFTS)) for side in sr.shape[2:])
        if min(height, width) < 32:
            return None
        pair = [image.float().to(device) for image in (sr, hr)]
        with torch.inference_mode():
            distances = [network(*(p[..., y : y + height, x : x + width] for p in pair)) for y, x in SHIFTS]
        return _finite(torch.stack(distances).mean())

    return score


def _finite(value: Tensor) -> float | None:
    number = float(value.item())
    return number if math.isfinite(number) else None


def _load(name: str, download: bool) -> nn.Module:
    """Load the network of lpips or dists. Raise ValueError if its package or weights are unavailable."""
    title = name.upper()
    try:
        package = importlib.import_module(PACKAGES[name])
    except ImportError as error:
        raise ValueError(f"{title} requires the package {error.name}: pip install 'srgan-hub[metrics]'.") from error
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    missing = [file for file in CACHED[name] if not (cache / file).is_file()]
    if missing and not download:
        files = ", ".join(missing)
        raise ValueError(f"{title} is omitted: PyTorch's cache has no {files}; request {name} to download it.")
    try:
        return package.LPIPS(net="alex", verbose=False) if name == "lpips" else package.DISTS()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{title} is unavailable: cannot load its weights ({error}).") from error
