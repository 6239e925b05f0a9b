"""VGG-style and PatchGAN discriminators."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """The paper's discriminator (Ledig et al. 2016, figure 4): one logit for a square crop of one fixed size.

    `hr_size`, the crop's height and width, must be a positive multiple of 16: 96 in the paper, 384 in the thesis.
    """

    def __init__(self, *, hr_size: int = 96) -> None:
        super().__init__()
        if hr_size < 16 or hr_size % 16:
            raise ValueError(f"`hr_size` must be a positive multiple of 16, got {hr_size}.")
        self.hr_size = hr_size
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.LeakyReLU(0.2)]
        plan = ((64, 64, 2), (64, 128, 1), (128, 128, 2), (128, 256, 1), (256, 256, 2), (256, 512, 1), (512, 512, 2))
        for before, after, stride in plan:
            layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(512 * (hr_size // 16) ** 2, 1024), nn.LeakyReLU(0.2), nn.Linear(1024, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, 1), positive for real images, of images (N, 3, hr_size, hr_size) in [0, 1]."""
        if tuple(image.shape[1:]) != (3, self.hr_size, self.hr_size):
            expected = f"(N, 3, {self.hr_size}, {self.hr_size})"
            raise ValueError(f"`image` must be {expected}, got {tuple(image.shape)}; set `hr_size` to the crop size.")
        return self.classifier(self.features(image))


def build_discriminator(name: str, *, hr_size: int) -> nn.Module:
    """Build the discriminator "paper", for crops of `hr_size` only, or "patch", for any size. ValueError for others."""
    builders = {"paper": lambda: Discriminator(hr_size=hr_size), "patch": build_patch_discriminator}
    if name not in builders:
        raise ValueError(f"`name` must be one of {', '.join(map(repr, builders))}, got {name!r}.")
    return builders[name]()


def build_patch_discriminator() -> nn.Sequential:
    """Build a PatchGAN discriminator: (N, 3, H, W) in [0, 1] -> a map of logits, each of a patch of about 60 pixels.

    All convolutions are spectrally normalized, which keeps it from overpowering a pretrained generator.
    """
    layers: list[nn.Module] = []
    plan = ((3, 48, 3, 1), (48, 48, 4, 2), (48, 96, 4, 2), (96, 192, 4, 2), (192, 192, 3, 1))
    for before, after, size, stride in plan:
        layers += [spectral_norm(nn.Conv2d(before, after, size, stride, padding=1)), nn.LeakyReLU(0.2)]
    layers.append(spectral_norm(nn.Conv2d(192, 1, 3, padding=1)))
    return nn.Sequential(*layers)
