"""How long an image takes on this machine, learnt from those that it has upscaled."""

from collections import deque

import numpy as np

# What a run takes beside its pixels, in seconds, as long as no runs have told.
START = 0.1


class EtaEstimator:
    """Times of the latest runs, and what they say of the next one: a straight line, from a start and by a rate."""

    def __init__(self) -> None:
        self._runs: deque[tuple[float, float]] = deque(maxlen=32)

    def update(self, pixels: int, seconds: float) -> None:
        """Take note that an image of so many LR pixels took so many seconds."""
        self._runs.append((pixels, seconds))

    def estimate(self, pixels: int) -> float | None:
        """Return the seconds that an image of so many LR pixels will take, None before the first run."""
        if not self._runs:
            return None
        sizes, seconds = np.array([(0, START), *self._runs]).T
        # Least squares of relative errors, as a user feels them. The guess of the start counts little.
        weights = np.where(sizes, 1, 0.1) / seconds
        line = np.stack([np.ones_like(sizes), sizes], axis=1)
        start, rate = np.linalg.lstsq(line * weights[:, None], seconds * weights, rcond=None)[0]
        if start < 0 or rate < 0:
            start, rate = 0, (seconds / sizes.clip(1))[1:].mean()
        return float(start + rate * pixels)


def format_duration(seconds: float) -> str:
    """Say a time as one does: under a second, about 7 seconds, about 3 minutes."""
    if seconds < 0.75:
        return "under a second"
    count, unit = (seconds, "second") if seconds < 90 else (seconds / 60, "minute")
    return f"about {count:.0f} {unit}{'' if round(count) == 1 else 's'}"
