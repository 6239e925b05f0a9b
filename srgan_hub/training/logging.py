"""Metric logging to JSONL and experiment trackers."""

import contextlib
import importlib.util
import json
import logging
import math
import re
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..fileio import atomic_write, wrap_write_errors
from .arguments import FLAGS
from .distributed import shared_errors
from .state import TrainContext

logger = logging.getLogger(__name__)

FILE = "metrics.jsonl"
TRACKER_FILE = "tracker.json"  # name of the run in the tracker
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


def start_tracker(run: TrainContext, step: int) -> None:
    """Start the tracker at a step. A resumed run continues in the tracker's run, which TensorBoard cuts at the step."""
    config, accelerator = run.config, run.accelerator
    settings = {name: value for name in FLAGS if isinstance(value := getattr(config, name), (int, float, str))}
    resumed = config.resume_from_checkpoint is not None
    with shared_errors(accelerator):
        name = _tracker_run(config.output_dir, resumed) if accelerator.is_main_process else ""
        options: dict[str, dict[str, Any]] = {
            "tensorboard": {"purge_step": step + 1 if step else 0} if resumed else {},
            "trackio": {"name": name, "resume": "allow"},
            "wandb": {"id": name, "name": name, "resume": "allow"},
        }
        accelerator.init_trackers("srgan", config=settings, init_kwargs=options)


def _tracker_run(directory: Path, resumed: bool) -> str:
    """Return the name of the run in the tracker, which is stored in the output directory."""
    file = directory / TRACKER_FILE
    if resumed and file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))["run"]
    name = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', directory.resolve().name)}-{secrets.token_hex(4)}"
    with wrap_write_errors(file), atomic_write(file) as tmp_path:
        tmp_path.write_text(json.dumps({"run": name}) + "\n", encoding="utf-8")
    return name


def log(run: TrainContext, step: int, values: dict[str, float]) -> None:
    """Append a line to metrics.jsonl, with null for NaN and infinity, and log the values to the tracker.

    Raise OSError if the disk is full.
    """
    file = run.config.output_dir / FILE
    with shared_errors(run.accelerator):
        if run.accelerator.is_main_process:
            line = {"step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()}
            with wrap_write_errors(file), file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line, allow_nan=False) + "\n")
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


def truncate_metrics(directory: Path, step: int, *, validated: bool) -> None:
    """Remove the lines after a step, and a partial last line, before a run resumes from that step.

    Unless it is validated, the step's validation is removed as well: it is repeated.
    """
    file, lines = directory / FILE, []
    if not file.exists():
        return
    before = file.read_text(encoding="utf-8")
    for line in before.splitlines():
        with contextlib.suppress(ValueError):
            values = json.loads(line)
            repeated = values["step"] == step and not validated and any(name.startswith("val_") for name in values)
            if values["step"] <= step and not repeated:
                lines.append(line + "\n")
    if (after := "".join(lines)) != before:
        with wrap_write_errors(file), atomic_write(file) as tmp_path:
            tmp_path.write_text(after, encoding="utf-8")
