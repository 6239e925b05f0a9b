"""Values of the components that show an image and its result."""

import html
from pathlib import Path
from typing import Any

from PIL import Image

from . import theme
from .eta import format_duration
from .inputs import Prepared
from .presets import PRESETS, load_model
from .service import Service
from .settings import Settings
from .uploads import to_file_data
from .upscale import Completed, LoadedImage, Preview, UpscaleProgress, flatten_alpha, limit_size, to_data_url


def show_large(prepared: Prepared) -> dict[str, Any]:
    """Return the viewer's value for an image that has more pixels than the limit."""
    with Image.open(prepared.preview) as preview:
        url = to_data_url(preview, "JPEG")
    name = html.escape(prepared.file.name)
    return {"name": name, "width": prepared.width, "height": prepared.height, "preview": url}


def largest_edge(prepared: Prepared) -> int:
    """Return the largest longest edge of an image's output."""
    return load_model(PRESETS["photo"].perceptual).scale * max(prepared.width, prepared.height)


def describe_plan(service: Service, source: LoadedImage, settings: Settings) -> str:
    """Describe what upscaling an image will give."""
    width, height = source.output_size(settings)
    seconds = service.eta.estimate(source.cost)
    duration = f", {format_duration(seconds)}" if seconds is not None else ""
    text = f"{source.name}: {source.image.width} × {source.image.height} to {width} × {height}{duration}."
    return f"{text} {source.warnings}"


def show_preview(source: LoadedImage, settings: Settings, url: str | None = None) -> dict[str, Any]:
    """Return the viewer's value for an output that is not complete, with a preview of it, by default bicubic."""
    width, height = source.output_size(settings)
    url = url or Preview(source.image, (width, height)).render()
    return {"name": html.escape(source.name), "width": width, "height": height, "preview": url}


def show_progress(step: UpscaleProgress) -> dict[str, Any]:
    """Return the job's value while it runs."""
    left = f", {format_duration(step.seconds_left)} left" if step.seconds_left and step.fraction < 1 else ""
    return theme.job("running", f"Upscaling {step.source.name} to {step.width} × {step.height}{left}", step.fraction)


def show_result(service: Service, step: Completed, settings: Settings) -> tuple[Any, Any, Any]:
    """Return the values of viewer, download and job for a result."""
    before, after = step.viewer_files
    model, detail = PRESETS[settings.preset].select_model(settings.detail)
    width, height = step.image.size
    viewer = {
        "name": html.escape(step.source.name),
        "width": width,
        "height": height,
        "before": to_file_data(before),
        "after": to_file_data(after),
        "labels": ["Before: bicubic", f"After: {model}{'' if detail is None else f', detail {detail:g}'}"],
        "full": to_file_data(step.file) if after != step.file else None,
    }
    again = width * height <= service.max_pixels
    file = theme.download(step.file, f"Download {settings.format}", again=again)
    return viewer, file, theme.job("done", describe_result(step), result=True)


def history_entry(step: Completed, path: Path, viewer: Any, job: Any) -> dict[str, Any]:
    """Return what the download's value of a result needs to be shown again."""
    size = limit_size(step.image.size, 96)
    thumbnail = flatten_alpha(step.image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2))
    return {"thumbnail": to_data_url(thumbnail, "JPEG"), "source": to_file_data(path), "viewer": viewer, "job": job}


def describe_result(step: Completed) -> str:
    """Describe a result."""
    before, (width, height) = step.source.image, step.image.size
    size = f"{before.width} × {before.height} to {width} × {height}"
    return f"{step.source.name}: {size} in {step.seconds:.1f} s. {step.source.warnings}"
