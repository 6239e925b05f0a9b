"""What the generator and the discriminator are trained for. Images are NCHW RGB in [0, 1]; every loss is a scalar."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..perceptual import EfficientNetLiteLoss, VGGLoss
from ..resize import downscale

# The terms that --content-loss adds up. "vggIJ" is the paper's VGG/I.J.
CONTENT_TERMS = ("mse", "l1", "vgg22", "vgg54", "lite")

# The artifact weighting looks at windows of this size (Liang et al. 2022, section 3.2).
ARTIFACT_WINDOW = 7
# The checkerboard loss: high-pass, then means over windows of the unshuffled image.
HIGH_PASS = 5
CHECKERBOARD_WINDOW = 6
# Energy of one 8-bit level. Crops with less high-pass energy than about this have no visible checkerboard.
LEVEL = (1 / 255) ** 2


def parse_content_loss(text: str) -> dict[str, float]:
    """Read `"vgg54=1 mse=0.1"`: the terms of `CONTENT_TERMS` and their weights, or raise ValueError."""
    weights: dict[str, float] = {}
    for part in text.split():
        name, _, number = part.partition("=")
        try:
            weight = float(number or 1)
        except ValueError:
            weight = math.nan
        if name not in CONTENT_TERMS or name in weights or not 0 < weight < math.inf:
            raise ValueError(
                f"Expected a content loss of 'vgg54=1 mse=0.1' or so, each once, out of {', '.join(CONTENT_TERMS)}, "
                f"with positive weights, got {part!r} in {text!r}."
            )
        weights[name] = weight
    if not weights:
        raise ValueError(f"Expected a content loss of at least one term out of {', '.join(CONTENT_TERMS)}, got none.")
    return weights


class ContentLoss(torch.nn.Module):
    """A weighted sum of the terms of `parse_content_loss`.

    Args:
        weights: from `parse_content_loss`.
        vgg_weights: a file for the VGG terms, see `VGGLoss`.

    Raises:
        ValueError: weights cannot be had, or an extra is not installed.
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
        """Return the terms by name, not weighted: those of whole pixels and those of features."""
        pixel = {"mse": F.mse_loss, "l1": F.l1_loss}
        terms = {name: pixel[name](sr.float(), hr.float()) for name in self.weights if name in pixel}
        return terms | {name: loss(sr, hr) for name, loss in self.features.items()}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Add up the terms of `forward` with their weights."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


def adversarial_loss(fake_logits: Tensor) -> Tensor:
    """The paper's `-log D(G(lr))` (Ledig et al. 2016, equation 6), as a mean, whatever the batch."""
    return F.binary_cross_entropy_with_logits(fake_logits.float(), torch.ones_like(fake_logits, dtype=torch.float))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """`-log D(hr) - log(1 - D(G(lr)))`, each as a mean; 2 log 2 = 1.39 for one that knows nothing."""
    real = F.binary_cross_entropy_with_logits(real_logits.float(), torch.ones_like(real_logits, dtype=torch.float))
    fake = F.binary_cross_entropy_with_logits(fake_logits.float(), torch.zeros_like(fake_logits, dtype=torch.float))
    return real + fake


def lr_consistency_loss(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """L1 between output and truth, both downscaled with our bicubic.

    Not the input: a degraded one holds noise and JPEG blocks, which the network must not reproduce.
    """
    return F.l1_loss(downscale(sr.float(), scale), downscale(hr.float(), scale))


def artifact_loss(sr: Tensor, hr: Tensor, ema_sr: Tensor) -> Tensor:
    """L1 where the output has artifacts ("Details or artifacts", Liang et al. 2022, https://arxiv.org/abs/2203.09195).

    A pixel's weight is the variance of the residual around it, times the fifth root of the residual's variance over
    the image; it is 0 where the average generator does worse, since training is on its way there. No gradient goes
    through the weight.

    Args:
        sr, hr: output and truth.
        ema_sr: the output of the generator with averaged weights.
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
    """Return how much more of the output's detail than of the truth's repeats with a period of `scale` pixels.

    A generator can draw such a checkerboard cheaply, by its pixel shuffles, and a consistency loss cannot see it. The
    detail is the image minus its 5x5 mean. Unshuffled by the scale and averaged over windows, only what repeats
    remains; its energy is divided by the detail's. The loss is the mean over the batch of what the output has above the
    truth.
    """
    return F.relu(_checkerboard_share(sr, scale) - _checkerboard_share(hr, scale)).mean()


def _checkerboard_share(image: Tensor, scale: int) -> Tensor:
    image = image.float()
    border = HIGH_PASS // 2
    detail = image[:, :, border:-border, border:-border] - F.avg_pool2d(image, HIGH_PASS, 1)
    height, width = (side // scale * scale for side in detail.shape[2:])
    detail = detail[:, :, :height, :width]
    phases = F.pixel_unshuffle(detail, scale)
    repeated = F.avg_pool2d(phases, min(CHECKERBOARD_WINDOW, *phases.shape[2:]), 2)
    energy = detail.square().mean(dim=(1, 2, 3))
    return repeated.square().mean(dim=(1, 2, 3)) / (energy + LEVEL)
