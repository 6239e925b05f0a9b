"""Upscale frame sequences, reusing results for repeated frames and unchanged regions."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np

from .resize import TargetSize
from .upscaler import Upscaler

CACHE_BYTES = 256_000_000  # of results for repeated frames, as in a loop that goes back and forth


def upscale_frames(
    upscaler: Upscaler,
    frames: Iterable[np.ndarray],
    size: TargetSize | None = None,
    *,
    restart_interval: int | None = None,
) -> Iterator[np.ndarray]:
    """Upscale a sequence of frames.

    Exact repeats are served from a cache. For partially changed frames only the changed region plus its receptive field
    is recomputed. The results are those of `Upscaler.upscale` up to a few 8-bit values, where other kernels round
    differently, and in changed regions that are gray within color.

    Args:
        upscaler, size: As for `batch.upscale_files`.
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
            result = _patch_changed_region(upscaler, result, previous, frame)
        else:
            result = upscaler.upscale(frame, size=size)
        previous, cache[key] = frame, result
        while len(cache) > 1 and sum(each.nbytes for each in cache.values()) > CACHE_BYTES:
            cache.popitem(last=False)
        yield result


def _can_patch(previous: np.ndarray, frame: np.ndarray) -> bool:
    """Return whether frames have the same shape and no alpha; hidden colors are inpainted from far away."""
    same = (previous.shape, previous.dtype) == (frame.shape, frame.dtype)
    return same and (frame.ndim == 2 or frame.shape[2] in (1, 3))


def _patch_changed_region(
    upscaler: Upscaler, result: np.ndarray, previous: np.ndarray, frame: np.ndarray
) -> np.ndarray:
    changed = (previous != frame).reshape(*frame.shape[:2], -1).any(axis=2)
    halo, scale = upscaler.receptive_field, upscaler.scale
    # The region that the change affects, and the region that this one depends on.
    spans = []
    for hit in (changed.any(axis=1), changed.any(axis=0)):
        first, last = hit.argmax(), len(hit) - hit[::-1].argmax()
        spans.append([(max(0, first - margin), min(len(hit), last + margin)) for margin in (halo, 2 * halo)])
    inner, outer = zip(*spans, strict=True)
    (top, bottom), (left, right) = outer
    patch = upscaler.upscale(np.ascontiguousarray(frame[top:bottom, left:right]))
    at = tuple(slice(first * scale, last * scale) for first, last in inner)
    within = tuple(slice((a - c) * scale, (b - c) * scale) for (a, b), (c, _) in zip(inner, outer, strict=True))
    result = result.copy()
    result[at] = patch[within]
    return result
