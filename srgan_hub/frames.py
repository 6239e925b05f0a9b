"""Frames that follow one another: what is equal in them is not computed twice."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np

from .resize import TargetSize
from .upscaler import Upscaler

# Of results that are kept for frames that come again, as in a loop that goes forth and back.
KEPT_BYTES = 256_000_000


def upscale_frames(
    upscaler: Upscaler, frames: Iterable[np.ndarray], size: TargetSize | None = None
) -> Iterator[np.ndarray]:
    """Upscale the frames of an animation.

    A frame that came before is not computed again, nor what lies far enough from all that has changed since the last
    one. The results are those of `Upscaler.upscale`, but for a few levels: where other kernels round otherwise, and in
    changes that are gray amid color.

    Args:
        upscaler: from `SRGAN.upscaler`.
        frames: uint8 or uint16 (H, W) or (H, W, C), as for `Upscaler.upscale`.
        size: as there.

    Yields:
        The results.
    """
    size = size or TargetSize()
    cache: OrderedDict[bytes, np.ndarray] = OrderedDict()
    before: np.ndarray | None = None
    result: np.ndarray | None = None
    for frame in frames:
        key = hashlib.sha256(frame.tobytes() + repr((frame.shape, frame.dtype)).encode()).digest()
        if key in cache:
            result = cache.pop(key)
        elif before is not None and result is not None and size == TargetSize() and _can_patch(before, frame):
            result = _patch_changed_region(upscaler, result, before, frame)
        else:
            result = upscaler.upscale(frame, size=size)
        before, cache[key] = frame, result
        while len(cache) > 1 and sum(each.nbytes for each in cache.values()) > KEPT_BYTES:
            cache.popitem(last=False)
        yield result


def _can_patch(before: np.ndarray, frame: np.ndarray) -> bool:
    """Return whether frames are alike, and opaque: hidden colors are filled from afar."""
    return (before.shape, before.dtype) == (frame.shape, frame.dtype) and (frame.ndim == 2 or frame.shape[2] in (1, 3))


def _patch_changed_region(upscaler: Upscaler, result: np.ndarray, before: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return a frame's result, given that of the one before it."""
    changed = (before != frame).reshape(*frame.shape[:2], -1).any(axis=2)
    reach, scale = upscaler.receptive_field, upscaler.scale
    # What the change reaches, and what that depends on.
    inner, outer = [], []
    for length, hit in zip(frame.shape, (changed.any(axis=1), changed.any(axis=0)), strict=False):
        first, last = hit.argmax(), length - hit[::-1].argmax()
        inner.append((max(0, first - reach), min(length, last + reach)))
        outer.append((max(0, first - 2 * reach), min(length, last + 2 * reach)))
    (top, bottom), (left, right) = outer
    part = upscaler.upscale(np.ascontiguousarray(frame[top:bottom, left:right]))
    at = tuple(slice(first * scale, last * scale) for first, last in inner)
    within = tuple(slice((a - c) * scale, (b - c) * scale) for (a, b), (c, _) in zip(inner, outer, strict=True))
    result = result.copy()
    result[at] = part[within]
    return result
