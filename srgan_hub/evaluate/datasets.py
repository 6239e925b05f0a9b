"""LR/HR image pairs."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..degradations import Degradation, make_degradation
from ..images.decode import load_rgb
from ..images.formats import WRITE_SUFFIXES
from ..resize import downscale

DOWNSAMPLINGS = ("matlab", "pillow")
DEGRADATIONS = ("gaussian", "real-world")
SEED = 0  # of the degradations


@dataclass(frozen=True)
class ImagePair:
    """Name, LR (h, w, 3) and HR (h * scale, w * scale, 3) of an image, uint8; gray has three equal channels."""

    name: str
    lr: np.ndarray
    hr: np.ndarray


def to_tensor(array: np.ndarray) -> Tensor:
    """Convert (H, W, 3) uint8 to (1, 3, H, W) float64 in [0, 1]."""
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].double() / 255


def to_uint8(image: Tensor) -> np.ndarray:
    """Convert (1, 3, H, W) in [0, 1] to (H, W, 3) uint8."""
    return image[0].mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def list_images(directory: Path) -> list[Path]:
    """List the image files in a directory, without its subdirectories. Raise ValueError if there are none."""
    if not directory.is_dir():
        raise ValueError(f"'{directory}' is not a directory of ground-truth images.")
    found = sorted(path for path in directory.iterdir() if path.suffix.lower() in WRITE_SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"'{directory}' holds no images ({', '.join(WRITE_SUFFIXES)}).")
    return found


class PairedDataset(Sequence[ImagePair]):
    """LR/HR pairs of a benchmark, read on access.

    Args:
        data: Directory of ground-truth images, or their paths. Images are cropped to a multiple of the scale.
        lr: Directory of LR images of the same name, or NAMEx4; None generates them.
        downsampling: How LR images are generated: "matlab" (imresize's bicubic) or "pillow" (Pillow's).
        jpeg: JPEG quality to compress the LR images with.
        degradation: A training degradation or its name, in place of `lr`, `downsampling` and `jpeg`.
        seed: Seed of the degradation, whose sample index is the position in the list.

    Raises:
        ValueError: An option is invalid, or the directory holds no images.
    """

    def __init__(
        self,
        data: Path | Sequence[Path],
        *,
        scale: int,
        lr: Path | None = None,
        downsampling: str = "matlab",
        jpeg: int | None = None,
        degradation: str | Degradation | None = None,
        seed: int = SEED,
    ) -> None:
        if downsampling not in DOWNSAMPLINGS:
            raise ValueError(f"`downsampling` must be one of {', '.join(DOWNSAMPLINGS)}, got '{downsampling}'.")
        if jpeg is not None and not 1 <= jpeg <= 100:
            raise ValueError(f"`jpeg` must be a quality from 1 to 100, got {jpeg}.")
        if isinstance(degradation, str) and degradation not in DEGRADATIONS:
            raise ValueError(f"`degradation` must be one of {', '.join(DEGRADATIONS)}, got '{degradation}'.")
        if degradation and (lr or jpeg or downsampling != DOWNSAMPLINGS[0]):
            raise ValueError(f"`degradation` {degradation} excludes `lr`, `downsampling` and `jpeg`.")
        self.degrade = make_degradation(degradation, scale=scale) if isinstance(degradation, str) else degradation
        self.paths = list_images(data) if isinstance(data, Path) else list(data)
        self.lr, self.scale, self.downsampling, self.jpeg, self.seed = lr, scale, downsampling, jpeg, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> ImagePair:  # type: ignore[override]
        """Read a pair. Raise ImageError or ValueError if a file is missing, corrupt or of the wrong size."""
        path = self.paths[index]
        hr = _read(path)
        height, width = (side // self.scale * self.scale for side in hr.shape[:2])
        if not height or not width:
            raise ValueError(f"'{path}': {hr.shape[1]}x{hr.shape[0]} pixels are too small for scale {self.scale}.")
        hr = hr[:height, :width]
        lr = self._load_lr(self.lr, path, hr) if self.lr else self._generate_lr(hr, index)
        return ImagePair(path.stem, lr if self.jpeg is None else _compress_jpeg(lr, self.jpeg), hr)

    def _generate_lr(self, hr: np.ndarray, index: int) -> np.ndarray:
        if self.degrade:
            return to_uint8(self.degrade(torch.from_numpy(hr.copy()).permute(2, 0, 1)[None], [index], self.seed))
        if self.downsampling == "matlab":
            return to_uint8(downscale(to_tensor(hr), self.scale, round_to_uint8=True))
        size = hr.shape[1] // self.scale, hr.shape[0] // self.scale
        return np.asarray(Image.fromarray(hr).resize(size, Image.Resampling.BICUBIC))

    def _load_lr(self, directory: Path, path: Path, hr: np.ndarray) -> np.ndarray:
        stems = (path.stem, f"{path.stem}x{self.scale}")
        names = [path.name, *(f"{stem}{suffix}" for stem in stems for suffix in (path.suffix, *WRITE_SUFFIXES))]
        found = next((directory / name for name in names if (directory / name).is_file()), None)
        if found is None:
            raise ValueError(f"'{directory}' has no LR image for '{path.name}', such as {stems[1]}{path.suffix}.")
        lr = _read(found)
        height, width = hr.shape[0] // self.scale, hr.shape[1] // self.scale
        if lr.shape[:2] != (height, width):
            given = f"{lr.shape[1]}x{lr.shape[0]} for '{path}' of {hr.shape[1]}x{hr.shape[0]}"
            raise ValueError(f"'{found}' must have {width}x{height} pixels, got {given}.")
        return lr


def _read(path: Path) -> np.ndarray:
    return load_rgb(path, max_pixels=None)[0]


def _compress_jpeg(array: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))
