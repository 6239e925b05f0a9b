"""TIFF files whose numbers are no colors: floats, and channels of a microscope. Each channel is upscaled as gray.

Needs tifffile. What is not a number stays so: it is filled by what is around it, and put back.
"""

import importlib.util
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F

from . import decode, pillow_fixes, png16
from .media import Media, MediaUpscaler, OutputOptions
from .tensors import inpaint


class MultiChannelTiff(Media):
    """The pages of such a file.

    Args:
        path: the file.
        numbers: of the pages that count.
        size: width and height of the largest page.
        max_side: what black and white mean; None takes the lowest and the highest number of each page.
    """

    kind: ClassVar[str] = "floats and channels that are no colors"
    suffixes = (".tif", ".tiff")
    max_side: ClassVar[dict[str, int]] = dict.fromkeys(suffixes, 2**31 - 1)

    def __init__(
        self, path: Path, numbers: list[int], size: tuple[int, int], value_range: tuple[float, float] | None
    ) -> None:
        self._path, self._numbers, self._range = path, numbers, value_range
        self.width, self.height = size
        self.count = len(numbers)

    def write(self, media_upscaler: MediaUpscaler, tmp_path: Path, output: OutputOptions) -> None:
        """Upscale channel by channel, and write a TIFF of the same type and layout."""
        import tifffile

        with tifffile.TiffFile(self._path) as source, tifffile.TiffWriter(tmp_path) as file:
            for number in self._numbers:
                page = cast(Any, source.pages[number])
                with decode.wrap_decode_errors(self._path):
                    array = page.asarray()
                last, flat = page.planarconfig != 2 and page.samplesperpixel > 1, array.ndim == 2
                low, high = self._range or _finite_range(array)
                planes = array[None] if flat else np.moveaxis(array, -1, 0) if last else array
                results = [_upscale(plane, low, high, media_upscaler) for plane in planes]
                has_resolution = "XResolution" in page.tags
                turn = page.tags["Orientation"].value if "Orientation" in page.tags else 1
                file.write(
                    results[0] if flat else np.stack(results, axis=-1 if last else 0),
                    photometric="rgb" if page.photometric == 2 and len(results) == 3 else "minisblack",
                    planarconfig=None if flat else "contig" if last else "separate",
                    compression="zlib",
                    resolution=page.resolution if has_resolution else None,
                    resolutionunit=page.resolutionunit if has_resolution else None,
                    software=output.software or False,
                    extratags=[(274, 3, 1, turn, True)] if turn != 1 else (),
                    metadata=None,
                )


def open_planes(
    path: Path, *, max_pixels: int | None, value_range: tuple[float, float] | None
) -> MultiChannelTiff | None:
    """Read such a file; None if it is of another kind. Errors as for `decode.load_raster`."""
    if path.suffix.lower() not in (".tif", ".tiff") or not importlib.util.find_spec("tifffile") or not path.is_file():
        return None
    import tifffile

    try:
        if not png16.has_valid_ifds(path):
            return None
        with tifffile.TiffFile(path) as file:
            pages = {number: cast(Any, page).aspage() for number, page in enumerate(file.pages)}
            # Neither smaller copies nor masks.
            pages = {number: page for number, page in pages.items() if not page.subfiletype & (1 | 4)} or pages
            if not any(map(_is_special, pages.values())):
                return None
            width, height = (
                max(getattr(page, side) for page in pages.values()) for side in ("imagewidth", "imagelength")
            )
            if max_pixels is not None and width * height > max_pixels:
                raise decode.ImageError(
                    f"{path} has {width} x {height} pixels; the limit is {max_pixels / 1e6:.3g} million pixels."
                )
            kinds = {str(page.dtype) for page in pages.values()}
            if odd := kinds - {"uint8", "uint16", "float16", "float32", "float64"}:
                raise decode.ImageError(
                    f"{path} holds {', '.join(odd)}; expected floats, or 8 or 16 bits without sign."
                )
            return MultiChannelTiff(path, [*pages], (width, height), value_range)
    except pillow_fixes.DECODE_ERRORS as error:
        if isinstance(error, decode.ImageError):
            raise
        return None  # Pillow says what is wrong with it


def _upscale(plane: np.ndarray, low: float, high: float, media_upscaler: MediaUpscaler) -> np.ndarray:
    """Upscale numbers (H, W), of which two limits mean black and white; what is no number stays so."""
    values = plane.astype(np.float64)
    hole = ~np.isfinite(values)
    scaled = np.clip((np.where(hole, low, values) - low) / ((high - low) or 1), 0, 1).astype(np.float32)
    if hole.any() and not hole.all():
        scaled = inpaint(scaled, ~hole)
    result = media_upscaler.plane(scaled).astype(np.float64) * (high - low) + low
    if plane.dtype.kind == "u":
        result = np.clip(result.round(), 0, np.iinfo(plane.dtype).max)
    result = result.astype(plane.dtype)
    if hole.any():
        kept = torch.from_numpy(np.where(hole, plane.astype(np.float32), 0))[None, None]
        size = result.shape[0], result.shape[1]
        holes = (
            F.interpolate(torch.from_numpy(hole.astype(np.float32))[None, None], size, mode="nearest")[0, 0].numpy() > 0
        )
        result = np.where(holes, F.interpolate(kept, size, mode="nearest")[0, 0].numpy().astype(plane.dtype), result)
    return result


def _finite_range(array: np.ndarray) -> tuple[float, float]:
    """Return the range of integers, or of the numbers that are there."""
    if array.dtype.kind == "u":
        return 0.0, float(np.iinfo(array.dtype).max)
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _is_special(page: Any) -> bool:
    """Return whether a page holds floats, or channels that are no colors and no transparency."""
    if page.dtype is not None and page.dtype.kind == "f":
        return True
    colors = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}.get(page.photometric, page.samplesperpixel)
    more = page.samplesperpixel - colors
    return bool(more > 1 or (more == 1 and not set(page.extrasamples) & {1, 2}))
