"""The scores by name: how each is shown, and the function that computes it for one picture."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import metrics
from ..features import LiteLoss

# A score of (sr, hr, lr), each (1, 3, H, W) float64 in [0, 1]; None where the picture is too small for it.
Score = Callable[[Tensor, Tensor, Tensor], float | None]


@dataclass(frozen=True)
class Title:
    """How a score is shown: its name with unit, decimal places, and which direction is better."""

    text: str
    digits: int
    better: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.better}".strip()


HIGHER, LOWER = "↑", "↓"
TITLES = {
    "psnr_y": Title("PSNR Y, dB", 2, HIGHER),
    "ssim_y": Title("SSIM Y", 4, HIGHER),
    "psnr_rgb": Title("PSNR RGB, dB", 2, HIGHER),
    "ssim_rgb": Title("SSIM RGB", 4, HIGHER),
    "lr_consistency": Title("LR-consistency, levels", 2, LOWER),
    "top_octave": Title("top octave, of HR's", 2),
    "lattice_db": Title("lattice peak, dB", 2, LOWER),
    "lite0_distance": Title("EfficientNet-Lite0 distance", 3, LOWER),
    "lpips": Title("LPIPS (AlexNet)", 4, LOWER),
    "dists": Title("DISTS", 4, LOWER),
}
# These compare a picture with nothing or with its LR, so that the ground truth has them too.
OF_HR = ("lr_consistency", "top_octave", "lattice_db")
# Feature networks stride over the picture: along each axis the four crops begin at each phase of four pixels once.
SHIFTS = ((0, 0), (1, 2), (2, 1), (3, 3))
# The files that a download puts into PyTorch's cache.
CACHED = {"lpips": ("alexnet-owt-7be5be79.pth",), "dists": ("dists_weights.pt", "vgg16-397923af.pth")}


def make_judges(
    names: Sequence[str] | None, *, shave: int, scale: int, device: torch.device
) -> tuple[dict[str, Score], list[str]]:
    """Return the scores by name, and a sentence on each that is not available.

    Args:
        names: out of `TITLES`; None is all that are available without a download.
        shave: border left out of PSNR and SSIM.
        scale: the period of the lattice.
        device: where feature networks run.

    Raises:
        ValueError: there is no such score, or one that was named is not available.
    """
    for name in names or ():
        if name not in TITLES:
            raise ValueError(f"Expected scores out of {', '.join(TITLES)}, got {name!r}.")
    judges: dict[str, Score] = {}
    notes: list[str] = []
    for name in TITLES if names is None else names:
        try:
            judges[name] = _make_judge(name, shave, scale, device, download=names is not None)
        except ValueError as error:
            if names is not None:
                raise
            notes.append(str(error))
    return judges, notes


def _make_judge(name: str, shave: int, scale: int, device: torch.device, *, download: bool) -> Score:
    if name in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
        measure = metrics.psnr if name.startswith("psnr") else metrics.ssim
        channel = name.split("_")[1]
        return lambda sr, hr, lr: _finite(measure(sr, hr, shave=shave, channel=channel))
    if name == "lr_consistency":
        return lambda sr, hr, lr: _finite(metrics.lr_consistency(sr, lr))
    if name == "top_octave":
        return lambda sr, hr, lr: _finite(metrics.top_octave_ratio(sr, hr))
    if name == "lattice_db":
        return lambda sr, hr, lr: (
            _finite(metrics.lattice_peak_db(sr, scale)) if min(sr.shape[2:]) >= 16 * scale else None
        )
    if name == "lite0_distance":
        try:
            return _averaged_over_shifts(LiteLoss(), device)
        except ValueError as error:
            raise ValueError(f"The EfficientNet-Lite0 distance is left out: {error}") from error
    network = _load(name, download).to(device).eval()

    def score(sr: Tensor, hr: Tensor, lr: Tensor) -> float | None:
        # LPIPS expects [-1, 1], DISTS [0, 1].
        pair = [picture.float().to(device) for picture in (sr, hr)]
        pair = [2 * picture - 1 for picture in pair] if name == "lpips" else pair
        with torch.inference_mode():
            return _finite(network(*pair))

    return score


def _averaged_over_shifts(network: nn.Module, device: torch.device) -> Score:
    network.to(device)

    def score(sr: Tensor, hr: Tensor, lr: Tensor) -> float | None:
        height, width = (side - max(max(SHIFTS)) for side in sr.shape[2:])
        if min(height, width) < 32:
            return None
        pair = [picture.float().to(device) for picture in (sr, hr)]
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
