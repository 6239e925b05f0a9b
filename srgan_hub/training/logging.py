"""Metric logging to JSONL and experiment trackers."""

import contextlib
import importlib.util
import json
import logging
import math
from pathlib import Path

import numpy as np
from PIL import Image

from .state import TrainContext

logger = logging.getLogger(__name__)

FILE = "metrics.jsonl"
IMAGES = "validation"  # name of the contact sheets in trackers


def choose_tracker(name: str) -> str | None:
    """Return the tracker's name for Accelerate, or None. Raise ValueError if one other than "auto" is not installed."""
    chosen = {"auto": "tensorboard", "none": None}.get(name, name)
    if chosen is None or importlib.util.find_spec(chosen):
        return chosen
    if name != "auto":
        raise ValueError(f"--report-to {name} requires the package: pip install {name}.")
    logger.warning("tensorboard is not installed, logging to %s only: pip install 'srgan-hub[tracker]'", FILE)
    return None


def log(run: TrainContext, step: int, values: dict[str, float]) -> None:
    """Append a line to metrics.jsonl, with null for NaN and infinity, and log the values to the tracker."""
    if run.accelerator.is_main_process:
        line = {"step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()}
        with (run.config.output_dir / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
    run.accelerator.log(values, step=step)


def log_image(run: TrainContext, step: int, path: Path) -> None:
    """Log an image file to the tracker."""
    image = np.array(Image.open(path).convert("RGB"))
    for tracker in run.accelerator.trackers:
        if tracker.name == "trackio":  # Accelerate's wrapper logs only numbers
            from trackio import Image as TrackioImage

            tracker.log({IMAGES: TrackioImage(image)}, step=step)
        elif hasattr(tracker, "log_images"):
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({IMAGES: image[None]}, step=step, **layout)


def truncate_metrics(directory: Path, step: int) -> None:
    """Remove the lines after a step, and a partial last line, before a run resumes from that step."""
    file, lines = directory / FILE, []
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                lines.append(line + "\n")
    file.write_text("".join(lines), encoding="utf-8")
