"""Upscale frame sequences, reusing results for repeated frames and unchanged regions."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .images.tensors import Alpha, Wrap
from .resize import TargetSize
from .upscaler import Upscaler

CACHE_BYTES = 256_000_000  # of results for repeated frames, as in a loop that goes back and forth


def upscale_frames(
    upscaler: Upscaler,
    frames: Iterable[np.ndarray],
    size: TargetSize | None = None,
    *,
    wrap: Wrap | None = None,
    alpha: Alpha = "opacity",
    restart_interval: int | None = None,
) -> Iterator[np.ndarray]:
    """Upscale a sequence of frames.

    Exact repeats are served from a cache. For partially changed frames only the changed region plus its receptive field
    is recomputed. The results are those of `Upscaler.upscale` up to a few 8-bit values, where other kernels round
    differently, and in changed regions that are gray within color.

    Args:
        upscaler, size, wrap, alpha: As for `batch.upscale_files`.
        frames: uint8 or uint16 (H, W) or (H, W, C), as for `Upscaler.upscale`.
        restart_interval: Number of frames after which nothing is reused, so results do not depend on earlier frames.
    """
    size = size or TargetSize()
    cache: OrderedDict[bytes, np.ndarray] = OrderedDict()
    previous = result = None
    for number, frame in enumerate(frames):
        if restart_interval and number % restart_interval == 0:
            previous = None
            cache.clear()
        key = hashlib.sha256(frame.tobytes() + repr((frame.shape, frame.dtype)).encode()).digest()
        if key in cache:
            result = cache.pop(key)
        elif previous is not None and result is not None and size == TargetSize() and _can_patch(previous, frame):
            result = _patch_changed_region(upscaler, result, previous, frame, wrap)
        else:
            result = upscaler.upscale(frame, size=size, wrap=wrap, alpha=alpha)
        previous, cache[key] = frame, result
        while len(cache) > 1 and sum(each.nbytes for each in cache.values()) > CACHE_BYTES:
            cache.popitem(last=False)
        yield result


def _can_patch(previous: np.ndarray, frame: np.ndarray) -> bool:
    """Return whether frames have the same shape and no alpha; hidden colors are inpainted from far away."""
    same = (previous.shape, previous.dtype) == (frame.shape, frame.dtype)
    return same and (frame.ndim == 2 or frame.shape[2] in (1, 3))


def _patch_changed_region(
    upscaler: Upscaler, result: np.ndarray, previous: np.ndarray, frame: np.ndarray, wrap: Wrap | None
) -> np.ndarray:
    changed = (previous != frame).reshape(*frame.shape[:2], -1).any(axis=2)
    halo, scale = upscaler.receptive_field, upscaler.scale
    # The rows and columns that the change affects, and those that these depend on; some may lie beyond an edge.
    affected: list[tuple[int, int]] = []
    read: list[tuple[int, int]] = []
    wrapped_axes: Any = ""  # of the patch
    for axis, hit in (("y", changed.any(axis=1)), ("x", changed.any(axis=0))):
        side, wraps = len(hit), axis in (wrap or "")
        first, last = hit.argmax(), side - hit[::-1].argmax()
        if wraps and last - first + 4 * halo >= side:
            first, last, wraps, wrapped_axes = 0, side, False, axis + wrapped_axes
        for spans, margin in ((affected, halo), (read, 2 * halo)):
            span = first - margin, last + margin
            spans.append(span if wraps else (max(0, span[0]), min(side, span[1])))
    rows, columns = (np.arange(*span) % side for span, side in zip(read, frame.shape, strict=False))
    patch = upscaler.upscale(frame[np.ix_(rows, columns)], wrap=wrapped_axes or None)
    within = tuple(slice((a - c) * scale, (b - c) * scale) for (a, b), (c, _) in zip(affected, read, strict=True))
    at = (np.arange(a * scale, b * scale) % side for (a, b), side in zip(affected, result.shape, strict=False))
    result = result.copy()
    result[np.ix_(*at)] = patch[within]
    return result
