"""Save images."""

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageColor, features

from ..fileio import atomic_write
from . import formats, png16, tiff
from .color import write_nclx
from .errors import DECODE_ERRORS, ImageError, describe, wrap_decode_errors
from .metadata import Metadata, add_tiff_tags, pil_save_kwargs
from .raster import R, Raster, to_pixels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SaveOptions:
    """How upscaled files are saved.

    Args:
        quality: Quality of JPEG, WebP and AVIF, 1 to 100; by default 95, lossless and 90.
        bit_depth: Bits per channel, by default those of the input. Upscaling to 16 bits computes with 16.
        strip_metadata: "all" drops everything but the color profile, "gps" the location and maker notes.
        software: Program that the metadata names, unless all of it is dropped.
        overwrite: Replace existing files.
        codec: Video encoder, by default H.264, VP9 for WebM, and for alpha FFV1 in MKV and ProRes in MOV.
        crf: Constant rate factor of videos, by default nearly lossless.
        background: Color, "white" or "#rrggbb", behind transparent images in formats without alpha.
    """

    quality: int | None = None
    bit_depth: Literal[8, 16] | None = None
    strip_metadata: Literal["all", "gps"] | None = None
    software: str | None = None
    overwrite: bool = False
    codec: str | None = None
    crf: int | None = None
    background: str | None = None

    def __post_init__(self) -> None:
        if self.background is not None:
            try:
                invalid = len(ImageColor.getrgb(self.background)) > 3
            except (ValueError, TypeError):
                invalid = True
            if invalid:
                expected = "an opaque color such as 'white' or '#ffffff'"
                raise ValueError(f"`background` must be {expected}, got {self.background!r}.")
        if self.strip_metadata not in (None, "all", "gps"):
            raise ValueError(f"`strip_metadata` must be None, 'all' or 'gps', got {self.strip_metadata!r}.")

    def apply_to(self, metadata: Metadata) -> Metadata:
        """Return the metadata that is written."""
        metadata = metadata.stripped(self.strip_metadata)
        names_software = self.software and self.strip_metadata != "all"
        return replace(metadata, software=self.software) if names_software else metadata


def save_image(
    image: Raster | Image.Image | np.ndarray,
    path: str | os.PathLike[str],
    *,
    quality: int | None = None,
    strip_metadata: Literal["all", "gps"] | None = None,
    overwrite: bool = True,
    background: str | None = None,
) -> None:
    """Save an image in the format of the suffix, atomically.

    Args:
        image: A PIL image, an array as for `Upscaler.upscale`, or a `Raster`. PNG and TIFF store 16 bits per channel,
            other formats 8.
        path: The file.
        quality, strip_metadata, overwrite, background: As in `SaveOptions`.

    Raises:
        ImageError: The format cannot store the image, the file cannot be written, or it exists.
    """
    if isinstance(image, Image.Image):
        with wrap_decode_errors():
            image = Raster.from_pil(image)
    elif isinstance(image, np.ndarray):
        array = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        if array.ndim not in (2, 3) or array.shape[2:] > (4,):
            raise ImageError(f"`image` must be an array (H, W) or (H, W, 1 to 4), got {image.shape}.")
        image = Raster(to_pixels(array))
    options = SaveOptions(quality, strip_metadata=strip_metadata, overwrite=overwrite, background=background)
    write_raster(image, Path(path), options)


def write_raster(raster: Raster, path: Path, options: SaveOptions) -> None:
    """Save an image with options. Errors as for `save_image`."""
    target = formats.find_format(path.suffix)
    raster = fit_colors(raster, target, path).with_bits(options.bit_depth or raster.bits)
    if raster.bits > 8 and target and "high bit depth" not in target.stores:
        logger.warning("'%s': %s stores 8 bits per channel of %d", path, target.name, raster.bits)
        raster = raster.with_bits(8)
    raster = without_alpha(raster, path, options.background)
    width, height, bits, alpha = raster.width, raster.height, raster.bits, raster.has_alpha
    target = validate_output(path, width=width, height=height, alpha=alpha, bits=bits, quality=options.quality)
    raster = replace(raster, metadata=options.apply_to(raster.metadata).resized(width, height))
    with atomic_output(path, overwrite=options.overwrite) as temporary:
        if bits > 8 and target is formats.TIFF:
            tiff.write_tiff([raster], temporary, target=path)
        elif bits > 8:
            png16.write_png16(raster, temporary)
        else:
            _write_pil(raster, temporary, target, options.quality, path)


def fit_colors(raster: R, target: formats.Format | None, path: Path) -> R:
    """Return an image with colors that a format can describe; changes are logged."""
    fitted = replace(raster, warnings=[]).fit_colors(target.stores if target else ())
    for warning in fitted.warnings:
        logger.warning("'%s': %s", path, warning)
    return fitted


def _write_pil(raster: Raster, temporary: Path, target: formats.Format, quality: int | None, path: Path) -> None:
    image = Image.fromarray(raster.array)
    kwargs = pil_format_kwargs(target, quality)
    try:
        save_pil(image, temporary, format=target.pillow, **{**kwargs, **pil_save_kwargs(raster.metadata, target, path)})
    except DECODE_ERRORS as error:
        if isinstance(error, OSError):  # not a fault of the metadata
            raise
        _check_space(temporary)
        message = "'%s': dropped metadata other than the color profile that %s cannot store: %s"
        logger.warning(message, path, target.name, describe(error))
        save_pil(image, temporary, format=target.pillow, **kwargs, icc_profile=raster.metadata.icc_profile)
    if raster.metadata.cicp and target is formats.AVIF:
        write_nclx(temporary, raster.metadata.cicp)
    if target is formats.TIFF:
        add_tiff_tags(temporary, [raster.metadata])


def pil_format_kwargs(target: formats.Format, quality: int | None) -> dict[str, Any]:
    """Return keyword arguments of `Image.save` for a format and a quality, None for the default."""
    if quality is None:
        return target.save
    return {**target.save, "quality": quality, "lossless": False}  # which JPEG and AVIF ignore


def validate_output(
    path: Path,
    *,
    width: int,
    height: int,
    alpha: bool = False,
    bits: int = 8,
    quality: int | None = None,
    kind: str = "image",
) -> formats.Format:
    """Check in advance that an image, or media of another `kind`, can be written to `path`.

    Returns:
        The format of the file.

    Raises:
        ImageError: The suffix is unknown, its format cannot store the image, a package for it is missing, or the
            directory cannot be written.
    """
    suffixes = formats.WRITE_SUFFIXES if kind == "image" else formats.media_suffixes(kind)
    target = formats.find_format(path.suffix)
    if target is None or path.suffix.lower() not in suffixes:
        what = f"{kind} as {path.suffix or 'a file without suffix'}"
        raise ImageError(f"'{path}': cannot save {what}; use {', '.join(suffixes)}.")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        state = "is not a directory that you may write to" if path.parent.exists() else "does not exist"
        raise ImageError(f"'{path}' cannot be written: '{path.parent}' {state}.")
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long
        raise ImageError(f"'{path}' cannot be written: {error.strerror}.") from error
    if (bits > 8 or kind != "image") and not target.is_available():
        what = f"{kind} of {bits} bits" if kind == "image" else kind
        raise ImageError(f"'{path}': writing {what} requires the `{target.package}` package: {target.install_hint}.")
    if max(width, height) > target.max_side:
        limit = f"{target.name} stores at most {target.max_side} pixels a side"
        raise ImageError(f"'{path}': {limit}, got {width} x {height}; use .png.")
    if alpha and "alpha" not in target.stores:
        way_out = f"use {_suffixes('alpha')}, or set `background`"
        raise ImageError(f"'{path}': {target.name} cannot store transparency; {way_out}.")
    if target.pillow == "AVIF" and not features.check("avif"):
        raise ImageError(f"'{path}': this version of Pillow cannot write AVIF; update it, or use .webp.")
    if quality is not None and not (target.quality and 1 <= quality <= 100):
        lossy = ", ".join(each.suffixes[0] for each in formats.FORMATS if each.quality)
        raise ImageError(f"'{path}': `quality` must be 1 to 100, and the file one of {lossy}, got {quality}.")
    return target


def _suffixes(feature: str) -> str:
    """Return suffixes of formats that store single images with a feature."""
    return ", ".join(each.suffixes[0] for each in formats.FORMATS if {"image", feature} <= {*each.stores})


class _File(io.FileIO):
    """A file that hides its descriptor from Pillow, whose encoders take a part of a write for all of it."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation


def save_pil(image: Image.Image, path: Path, *, format: str, **kwargs: Any) -> None:
    """Call `Image.save`. OSError if the file cannot be written completely."""
    if format == "TIFF":  # whose encoder checks its writes, and keeps the file in memory if it has no descriptor
        image.save(path, format=format, **kwargs)
    else:
        with io.BufferedWriter(_File(path, "w")) as file:
            image.save(file, format=format, **kwargs)


def without_alpha(raster: Raster, path: Path, background: str | None) -> Raster:
    """Remove alpha for a format without it: opaque, or over a background color. Otherwise return the image itself."""
    target = formats.find_format(path.suffix)
    if not raster.has_alpha or target is None or "alpha" in target.stores:
        return raster
    maximum = np.iinfo(raster.array.dtype).max
    colors = raster.array[..., :-1]
    if (raster.array[..., -1] < maximum).any():
        if background is None:
            return raster
        color = np.array(ImageColor.getrgb(background)[:3], np.uint32) * (maximum // 255)
        if colors.shape[2] == 1 and (color == color[0]).all():
            color = color[:1]
        colors = np.empty((*colors.shape[:2], len(color)), raster.array.dtype)
        for row, result in zip(raster.array, colors, strict=True):
            alpha = row[:, -1:].astype(np.uint32)
            result[:] = (row[:, :-1] * alpha + color * (maximum - alpha) + maximum // 2) // maximum
    return replace(raster, array=np.ascontiguousarray(colors[..., 0] if colors.shape[2] == 1 else colors))


def _check_space(path: Path) -> None:
    """Raise the operating system's error, such as that of a full disk, where an encoder reports only that it failed."""
    with path.open("ab") as file:
        file.write(bytes(1 << 20))


@contextmanager
def atomic_output(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary file that is renamed to `path` after the block. Errors of writing become `ImageError`."""
    try:
        with atomic_write(path, overwrite=overwrite) as temporary:
            try:
                yield temporary
            except DECODE_ERRORS as error:
                if not isinstance(error, ImageError) and getattr(error, "errno", None) is None:
                    _check_space(temporary)
                raise
    except ImageError:
        raise
    except FileExistsError:
        raise ImageError(f"'{path}' already exists; set `overwrite` to replace it.") from None
    except DECODE_ERRORS as error:
        raise ImageError(f"'{path}' cannot be written: {describe(error)}.") from error
