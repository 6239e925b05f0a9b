"""A run's curves and images: metrics.jsonl, images/, and a tracker beside them."""

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from .state import TrainContext

logger = logging.getLogger(__name__)

FILE = "metrics.jsonl"
IMAGES = "validation"  # what trackers call the contact sheets


def choose_tracker(name: str) -> str | None:
    """Return the tracker's name as Accelerate takes it, if any: "auto" is tensorboard if it is installed.

    Raises:
        ValueError: one that was named is not installed.
    """
    chosen = "tensorboard" if name == "auto" else name
    if chosen == "none" or importlib.util.find_spec(chosen):
        return None if chosen == "none" else chosen
    if name != "auto":
        raise ValueError(f"--report-to {name} is not installed: pip install {name}, or use --report-to none.")
    logger.warning("tensorboard is not installed (pip install 'srgan-hub[tracker]'): metrics go to metrics.jsonl alone")
    return None


def log(run: TrainContext, step: int, values: dict[str, float]) -> None:
    """Append a line to metrics.jsonl, and tell the trackers."""
    if run.accelerator.is_main_process:
        with (run.args.output_dir / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
    run.accelerator.log(values, step=step)


def log_image(run: TrainContext, step: int, image: Path) -> None:
    """Show an image file to the trackers."""
    levels = np.array(Image.open(image).convert("RGB"))
    for tracker in run.accelerator.trackers:
        if tracker.name == "trackio":  # Accelerate passes on its numbers alone
            from trackio import Image as TrackioImage

            tracker.log({IMAGES: TrackioImage(levels)}, step=step)
        elif hasattr(tracker, "log_images"):
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({IMAGES: levels[None]}, step=step, **layout)


def truncate_metrics(folder: Path, step: int) -> None:
    """Drop the lines of steps that will be done again, and one that was cut short."""
    file, lines = folder / FILE, []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            if json.loads(line)["step"] <= step:
                lines.append(line + "\n")
        except ValueError:
            break
    if file.exists():
        file.write_text("".join(lines), encoding="utf-8")
