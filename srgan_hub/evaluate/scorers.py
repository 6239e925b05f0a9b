"""The scores by name: how each is shown, and the function that computes it for one image."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import metrics
from ..perceptual import EfficientNetLiteLoss

# A score of (sr, hr, lr), each (1, 3, H, W) float64 in [0, 1]; None where the image is too small for it.
Score = Callable[[Tensor, Tensor, Tensor], float | None]


@dataclass(frozen=True)
class MetricSpec:
    """How a score is shown: its name with unit, decimal places, and which direction is better."""

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
    "lr_consistency": MetricSpec("LR-consistency, levels", 2, LOWER),
    "high_freq_ratio": MetricSpec("high-frequency energy, of HR's", 2),
    "checkerboard_db": MetricSpec("checkerboard peak, dB", 2, LOWER),
    "lite0_distance": MetricSpec("EfficientNet-Lite0 distance", 3, LOWER),
    "lpips": MetricSpec("LPIPS (AlexNet)", 4, LOWER),
    "dists": MetricSpec("DISTS", 4, LOWER),
}
# These compare an image with nothing or with its LR, so that the ground truth has them too.
NO_REFERENCE = ("lr_consistency", "high_freq_ratio", "checkerboard_db")
# Feature networks stride over the image: along each axis the four crops begin at each phase of four pixels once.
SHIFTS = ((0, 0), (1, 2), (2, 1), (3, 3))
# The files that a download puts into PyTorch's cache.
CACHED = {"lpips": ("alexnet-owt-7be5be79.pth",), "dists": ("dists_weights.pt", "vgg16-397923af.pth")}


def make_scorers(
    names: Sequence[str] | None, *, crop_border: int, scale: int, device: torch.device
) -> tuple[dict[str, Score], list[str]]:
    """Return the scores by name, and a sentence on each that is not available.

    Args:
        names: out of `TITLES`; None is all that are available without a download.
        crop_border: border left out of PSNR and SSIM.
        scale: the period of the checkerboard.
        device: where feature networks run.

    Raises:
        ValueError: there is no such score, or one that was named is not available.
    """
    for name in names or ():
        if name not in METRICS:
            raise ValueError(f"Expected scores out of {', '.join(METRICS)}, got {name!r}.")
    scorers: dict[str, Score] = {}
    notes: list[str] = []
    for name in METRICS if names is None else names:
        try:
            scorers[name] = _make_scorer(name, crop_border, scale, device, download=names is not None)
        except ValueError as error:
            if names is not None:
                raise
            notes.append(str(error))
    return scorers, notes


def _make_scorer(name: str, crop_border: int, scale: int, device: torch.device, *, download: bool) -> Score:
    if name in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
        measure = metrics.psnr if name.startswith("psnr") else metrics.ssim
        channel = name.split("_")[1]
        return lambda sr, hr, lr: _finite(measure(sr, hr, crop_border=crop_border, channel=channel))
    if name == "lr_consistency":
        return lambda sr, hr, lr: _finite(metrics.lr_consistency(sr, lr))
    if name == "high_freq_ratio":
        return lambda sr, hr, lr: _finite(metrics.high_freq_ratio(sr, hr))
    if name == "checkerboard_db":
        return lambda sr, hr, lr: (
            _finite(metrics.checkerboard_db(sr, scale)) if min(sr.shape[2:]) >= 16 * scale else None
        )
    if name == "lite0_distance":
        try:
            return _averaged_over_shifts(EfficientNetLiteLoss(), device)
        except ValueError as error:
            raise ValueError(f"The EfficientNet-Lite0 distance is left out: {error}") from error
    network = _load(name, download).to(device).eval()

    def score(sr: Tensor, hr: Tensor, lr: Tensor) -> float | None:
        # LPIPS expects [-1, 1], DISTS [0, 1].
        pair = [image.float().to(device) for image in (sr, hr)]
        pair = [2 * image - 1 for image in pair] if name == "lpips" else pair
        with torch.inference_mode():
            return _finite(network(*pair))

    return score


def _averaged_over_shifts(network: nn.Module, device: torch.device) -> Score:
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
    """Load the network of lpips or dists. ValueError if its package or weights are not available."""
    title = name.upper()
    try:
        if name == "lpips":
            import lpips as package
        else:
            import piq as package
    except ImportError as error:
        raise ValueError(
            f"{title} is left out: it needs {error.name}, which is not installed: pip install 'srgan-hub[metrics]'."
        ) from error
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    absent = [file for file in CACHED[name] if not (cache / file).is_file()]
    if absent and not download:
        raise ValueError(
            f"{title} is left out: its weights ({', '.join(absent)}) are not in PyTorch's download cache; "
            f"name the score {name} to download them."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they call torchvision by its old arguments
            return package.LPIPS(net="alex", verbose=False) if name == "lpips" else package.DISTS()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{title} is not available: its weights could not be loaded ({error}).") from error
