"""Save images."""

from pathlib import Path
from typing import Literal

from PIL import Image

from . import decode, metadata
from .decode import validate_output

__all__ = ["save_image", "validate_output"]


def save_image(
    image: Image.Image,
    path: str | Path,
    *,
    quality: int | None = None,
    strip_metadata: Literal["all", "gps"] | None = None,
) -> None:
    """Save an image, in the format of the path's suffix.

    Args:
        image: Image with metadata in `info`, as `SRGAN.upscale` returns it.
        path: Output path.
        quality: Quality of JPEG, WebP and AVIF, 1 to 100; the format's default if None.
        strip_metadata: Metadata to remove: "gps" for the GPS location only, "all" except what defines the colors.
    """
    if strip_metadata:
        image = image.copy()
        metadata.strip(image, gps=strip_metadata == "gps")
    decode.save_image(image, Path(path), quality=quality)
