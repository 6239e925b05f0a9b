"""Processing-time estimates."""

from collections import deque

import numpy as np

FIXED_SECONDS = 0.1  # per job, assumed until jobs of different sizes were timed


class EtaEstimator:
    """Linear fit of time over pixels to the latest jobs."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[float, float]] = deque(maxlen=32)

    def update(self, pixels: int, seconds: float) -> None:
        """Record the time of a job of that many LR pixels."""
        self._jobs.append((pixels, seconds))

    def estimate(self, pixels: int) -> float | None:
        """Estimate the seconds for that many LR pixels; None before the first job."""
        if not self._jobs:
            return None
        sizes, seconds = np.array([(0, FIXED_SECONDS), *self._jobs]).T
        # Least squares of relative errors; the assumed fixed cost has a tenth of a job's weight.
        weights = np.where(sizes, 1, 0.1) / seconds
        design = np.stack([np.ones_like(sizes), sizes], axis=1)
        fixed, rate = np.linalg.lstsq(design * weights[:, None], seconds * weights, rcond=None)[0]
        if fixed < 0 or rate < 0:
            fixed, rate = 0, (seconds / sizes.clip(1))[1:].mean()
        return float(fixed + rate * pixels)


def format_duration(seconds: float) -> str:
    """Format a duration for the UI: "less than 1 s", "about 7 s", "about 3 min"."""
    if seconds < 0.75:
        return "less than 1 s"
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"
