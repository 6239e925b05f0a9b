"""Ground truth and the LR images made of it, or found beside it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..degradations import Degradation, make_degradation
from ..images.decode import load_image
from ..images.formats import WRITE_SUFFIXES
from ..resize import downscale

DOWNSAMPLINGS = ("matlab", "pillow")
# Training's random ones: what an image gets depends on this seed and its place in the folder alone.
DEGRADATIONS = ("gaussian", "real-world")
SEED = 0


@dataclass(frozen=True)
class ImagePair:
    """An image's name, its LR (h, w, 3) and its HR (h * scale, w * scale, 3), uint8. Gray has three equal channels."""

    name: str
    lr: np.ndarray
    hr: np.ndarray


def to_tensor(array: np.ndarray) -> Tensor:
    """Turn (H, W, 3) uint8 into (1, 3, H, W) float64 in [0, 1]."""
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].double() / 255


def to_uint8(image: Tensor) -> np.ndarray:
    """Turn (1, 3, H, W) in [0, 1] into (H, W, 3) uint8."""
    return image[0].mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def list_images(folder: Path) -> list[Path]:
    """List a folder's image files by name. ValueError if there are none."""
    if not folder.is_dir():
        raise ValueError(f"Expected a folder of ground-truth images, got {folder}, which is not a folder.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in WRITE_SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"Expected images ({', '.join(WRITE_SUFFIXES)}) in {folder}, which holds no images.")
    return found


class PairedDataset(Sequence[ImagePair]):
    """The images of a benchmark, each read when it is asked for.

    Args:
        data: the folder of ground truth, or its files. They are cropped to a multiple of the scale.
        lr: a folder of LR files of the same name, or NAMEx4; None makes them.
        scale: how many times larger the ground truth is.
        downsampling: how they are made: "matlab" is imresize's bicubic, "pillow" is Pillow's.
        jpeg: the quality with which the LR is saved as JPEG and read again, or None.
        degradation: one of training's, by name or itself, in place of the three options above, or None.
        seed: of the degradation; what an image gets is a function of this seed and its place in the list.

    Raises:
        ValueError: an option is out of its range, or the folder holds no images.
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
            raise ValueError(f"Expected a downsampling out of {', '.join(DOWNSAMPLINGS)}, got {downsampling!r}.")
        if jpeg is not None and not 1 <= jpeg <= 100:
            raise ValueError(f"Expected jpeg as a quality from 1 to 100, got {jpeg}.")
        if isinstance(degradation, str) and degradation not in DEGRADATIONS:
            raise ValueError(f"Expected a degradation out of {', '.join(DEGRADATIONS)}, got {degradation!r}.")
        if degradation and (lr or jpeg or downsampling != DOWNSAMPLINGS[0]):
            raise ValueError(f"Degradation {degradation} makes the LR by itself; leave out lr, downsampling and jpeg.")
        self.degrade = make_degradation(degradation, scale=scale) if isinstance(degradation, str) else degradation
        self.paths = list_images(data) if isinstance(data, Path) else list(data)
        self.lr, self.scale, self.downsampling, self.jpeg, self.seed = lr, scale, downsampling, jpeg, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> ImagePair:  # type: ignore[override]
        """Read a pair. Raises ImageError or ValueError: a file is missing, broken or of the wrong size."""
        path = self.paths[index]
        hr = _read(path)
        height, width = (side // self.scale * self.scale for side in hr.shape[:2])
        if not height or not width:
            raise ValueError(f"{path} has {hr.shape[1]} x {hr.shape[0]} pixels, too few for a scale of {self.scale}.")
        hr = hr[:height, :width]
        lr = self._make(hr, index) if self.lr is None else self._find(path, hr)
        return ImagePair(path.stem, lr if self.jpeg is None else _through_jpeg(lr, self.jpeg), hr)

    def _make(self, hr: np.ndarray, index: int) -> np.ndarray:
        if self.degrade:
            return to_uint8(self.degrade(torch.from_numpy(hr.copy()).permute(2, 0, 1)[None], [index], self.seed))
        if self.downsampling == "matlab":
            return to_uint8(downscale(to_tensor(hr), self.scale, round_to_uint8=True))
        size = hr.shape[1] // self.scale, hr.shape[0] // self.scale
        return np.asarray(Image.fromarray(hr).resize(size, Image.Resampling.BICUBIC))

    def _find(self, path: Path, hr: np.ndarray) -> np.ndarray:
        assert self.lr is not None
        stems = (path.stem, f"{path.stem}x{self.scale}")
        names = [path.name, *(f"{stem}{suffix}" for stem in stems for suffix in (path.suffix, *WRITE_SUFFIXES))]
        found = next((self.lr / name for name in names if (self.lr / name).is_file()), None)
        if found is None:
            raise ValueError(
                f"{self.lr} has no LR image for {path.name}: expected {path.name} or {stems[1]}{path.suffix}."
            )
        lr = _read(found)
        height, width = hr.shape[0] // self.scale, hr.shape[1] // self.scale
        if lr.shape[:2] != (height, width):
            raise ValueError(
                f"{found} has {lr.shape[1]} x {lr.shape[0]} pixels, expected {width} x {height}: "
                f"{path} is {hr.shape[1]} x {hr.shape[0]}, cropped to a multiple of the scale {self.scale}."
            )
        return lr


def _read(path: Path) -> np.ndarray:
    return np.asarray(load_image(path, max_pixels=None).convert("RGB"))


def _through_jpeg(array: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))
