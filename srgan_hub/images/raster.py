"""An image in memory: its levels, of 8 or 16 bits a channel, and what a larger copy must carry."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Raster:
    """Pixels, upright, and what is kept beside them.

    Args:
        array: (H, W) gray, or (H, W, C) with C of 2 gray and alpha, 3 RGB, 4 RGB and alpha; uint8 or uint16.
        info: what `metadata.read_metadata` finds.
    """

    array: np.ndarray
    info: dict[Any, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.array.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.array.shape[0])

    @property
    def bits(self) -> int:
        """Bits of a channel: 8 or 16."""
        return 8 * self.array.itemsize

    @property
    def alpha(self) -> bool:
        """Whether the last channel is transparency."""
        return self.array.ndim == 3 and self.array.shape[2] in (2, 4)

    def with_bits(self, bits: int) -> "Raster":
        """Return the same image with 8 or 16 bits a channel, of the full range both; 8 are rounded."""
        if bits == self.bits:
            return self
        # 257 * 255 is 65,535.
        wide = self.array.astype(np.uint32)
        array = (wide + 128) // 257 if bits == 8 else wide * 257
        return replace(self, array=array.astype(np.uint8 if bits == 8 else np.uint16))

    def to_pil(self) -> Image.Image:
        """Return a PIL image of mode L, LA, RGB or RGBA, or I;16; with 8 bits where Pillow has no mode for 16."""
        raster = self if self.array.ndim == 2 else self.with_bits(8)
        image = Image.fromarray(raster.array)
        image.info = dict(self.info)
        return image
