"""How long a picture takes on this machine, learnt from those that it has enlarged."""

from collections import deque

import numpy as np

# Below this the overhead of a run, which varies, says more than its size.
_SHORTEST = 0.05


class Speed:
    """Times of the latest runs, and what they say of the next one: a start and a rate, a straight line."""

    def __init__(self) -> None:
        self._runs: deque[tuple[float, float]] = deque(maxlen=32)

    def observe(self, pixels: int, seconds: float) -> None:
        """Take note that a picture of so many LR pixels took so many seconds."""
        self._runs.append((float(pixels), max(seconds, _SHORTEST)))

    def predict(self, pixels: int) -> float | None:
        """Return the seconds that a picture of so many LR pixels will take, None before the first run."""
        if not self._runs:
            return None
        sizes, seconds = np.array(self._runs).T
        if sizes.max() >= 2 * sizes.min():
            # Errors count in proportion, as a visitor feels them.
            line = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
            start, rate = np.linalg.lstsq(line, np.ones_like(seconds), rcond=None)[0]
            if start >= 0 and rate >= 0:
                return float(start + rate * pixels)
        return float(pixels * np.median(seconds / sizes))


def words(seconds: float) -> str:
    """Say a time as one does: under a second, about 7 seconds, about 3 minutes."""
    if seconds < 0.75:
        return "under a second"
    count, unit = (seconds, "second") if seconds < 90 else (seconds / 60, "minute")
    return f"about {count:.0f} {unit}{'' if round(count) == 1 else 's'}"
