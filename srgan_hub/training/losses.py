"""Content, adversarial and auxiliary losses: scalars, of NCHW RGB images in [0, 1]."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..perceptual import EfficientNetLiteLoss, VGGLoss
from ..resize import downscale

CONTENT_TERMS = ("mse", "l1", "vgg22", "vgg54", "lite")

ARTIFACT_WINDOW = 7  # Liang et al. 2022, section 3.2
HIGH_PASS, CHECKERBOARD_WINDOW = 5, 6  # sides of windows in the image and the unshuffled image
EPSILON = (1 / 255) ** 2  # energy of one 8-bit value; crops with less high-pass energy show no checkerboard


def parse_content_loss(text: str) -> dict[str, float]:
    """Parse terms of `CONTENT_TERMS` and their weights, such as `"vgg54=1 mse=0.1"`. Raise ValueError for others."""
    weights: dict[str, float] = {}
    for part in text.split():
        name, _, number = part.partition("=")
        try:
            weight = float(number or 1)
        except ValueError:
            weight = math.nan
        if name not in CONTENT_TERMS or name in weights or not 0 < weight < math.inf:
            expected = f"distinct terms of {', '.join(CONTENT_TERMS)} with positive weights, such as 'vgg54=1 mse=0.1'"
            raise ValueError(f"The content loss '{text}' has an invalid part '{part}', expected {expected}.")
        weights[name] = weight
    if not weights:
        raise ValueError(f"The content loss must have at least one term of {', '.join(CONTENT_TERMS)}.")
    return weights


class ContentLoss(torch.nn.Module):
    """Weighted sum of pixel and feature losses, with weights from `parse_content_loss`.

    Raise ValueError if VGG weights (see `VGGLoss`) or an optional package are unavailable.
    """

    def __init__(self, weights: dict[str, float], *, vgg_weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.features = torch.nn.ModuleDict()
        for name in weights:
            if name.startswith("vgg"):
                self.features[name] = VGGLoss(f"{name[3]}_{name[4]}", weights=vgg_weights)
            elif name == "lite":
                self.features[name] = EfficientNetLiteLoss()

    def forward(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Return the unweighted terms by name."""
        pixel = {"mse": F.mse_loss, "l1": F.l1_loss}
        terms = {name: pixel[name](sr.float(), hr.float()) for name in self.weights if name in pixel}
        return terms | {name: loss(sr, hr) for name, loss in self.features.items()}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the terms of `forward`."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


def adversarial_loss(logits: Tensor) -> Tensor:
    """Return the mean of `-log D`: of generated images, the loss of the generator (Ledig et al. 2016, equation 6)."""
    return F.binary_cross_entropy_with_logits(logits.float(), torch.ones_like(logits, dtype=torch.float))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the sum of the means of `-log D(hr)` and `-log(1 - D(G(lr)))`; 2 log 2 = 1.39 at chance level."""
    fake = F.binary_cross_entropy_with_logits(fake_logits.float(), torch.zeros_like(fake_logits, dtype=torch.float))
    return adversarial_loss(real_logits) + fake


def lr_consistency_loss(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """Return the L1 distance of `sr` and `hr`, both downscaled bicubically.

    Not to the LR input: that has noise and JPEG artifacts, which the generator must not reproduce.
    """
    return F.l1_loss(downscale(sr.float(), scale), downscale(hr.float(), scale))


def artifact_loss(sr: Tensor, hr: Tensor, ema_sr: Tensor) -> Tensor:
    """Return an L1 loss weighted by artifacts (LDL, Liang et al. 2022, https://arxiv.org/abs/2203.09195).

    The weight of a pixel is the variance of the residual around it, times the fifth root of the residual's variance
    over the image. It is 0 where `ema_sr` has the larger residual: there, training improves already. The weight is
    constant in the backward pass. `ema_sr` is the output of the generator with averaged weights.
    """
    sr, hr = sr.float(), hr.float()
    with torch.no_grad():
        residual = (hr - sr).abs().sum(dim=1, keepdim=True)
        ema_residual = (hr - ema_sr.float()).abs().sum(dim=1, keepdim=True)
        padded = F.pad(residual, [ARTIFACT_WINDOW // 2] * 4, mode="reflect")
        windows = padded.unfold(2, ARTIFACT_WINDOW, 1).unfold(3, ARTIFACT_WINDOW, 1)
        weight = windows.var(dim=(-1, -2)) * residual.var(dim=(1, 2, 3), keepdim=True) ** 0.2
        weight = torch.where(residual < ema_residual, 0, weight)
    return (weight * (sr - hr).abs()).mean()


def checkerboard_loss(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """Return the mean excess, over the ground truth, of detail that repeats with a period of `scale` pixels.

    Pixel shuffles produce such artifacts, and a consistency loss cannot see them. Detail is the image minus its 5x5
    mean. Unshuffled by the scale and averaged over windows, only its periodic part remains; the loss compares the
    share of this part in the energy.
    """
    return F.relu(_periodic_share(sr, scale) - _periodic_share(hr, scale)).mean()


def _periodic_share(image: Tensor, scale: int) -> Tensor:
    image, border = image.float(), HIGH_PASS // 2
    detail = image[:, :, border:-border, border:-border] - F.avg_pool2d(image, HIGH_PASS, 1)
    height, width = (side // scale * scale for side in detail.shape[2:])
    detail = detail[:, :, :height, :width]
    phases = F.pixel_unshuffle(detail, scale)
    periodic = F.avg_pool2d(phases, min(CHECKERBOARD_WINDOW, *phases.shape[2:]), 2)
    energy = detail.square().mean(dim=(1, 2, 3))
    return periodic.square().mean(dim=(1, 2, 3)) / (energy + EPSILON)
