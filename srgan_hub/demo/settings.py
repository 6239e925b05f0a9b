"""Validated user settings and generated code snippets."""

import json
import re
from dataclasses import dataclass
from reprlib import repr  # of limited length
from typing import Any

from .presets import PRESETS

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp"}
STRIP_METADATA = {"gps": "Remove GPS", "none": "Keep all", "all": "Remove all"}
SIZES = ("2x", "3x", "4x")


@dataclass(frozen=True)
class Settings:
    """How to upscale an image. Raises `ValueError` if a setting is out of range."""

    size: str | int = "4x"  # one of `SIZES`, or the longest edge of the output in pixels
    detail: float = 1.0  # from 0 (faithful) to 1 (sharp), in steps of 0.05
    preset: str = "photo"  # one of `PRESETS`
    format: str = "PNG"  # one of `FORMATS`
    quality: int = 90  # of JPEG and WebP, from 1 to 100
    strip_metadata: str = "gps"  # one of `STRIP_METADATA`

    def __post_init__(self) -> None:
        if isinstance(self.size, int) and 0 < self.size < 10**6:  # as JSON may have it
            object.__setattr__(self, "size", str(self.size))
        if not isinstance(self.size, str) or not (self.size in SIZES or re.fullmatch("[1-9][0-9]{0,5}", self.size)):
            sizes = ", ".join(SIZES)
            raise ValueError(f"`size` must be one of {sizes} or a longest edge in pixels, got {repr(self.size)}.")
        for name, low, high in (("detail", 0, 1), ("quality", 1, 100)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not low <= value <= high:
                raise ValueError(f"`{name}` must be a number from {low} to {high}, got {repr(value)}.")
        if self.quality != int(self.quality):
            raise ValueError(f"`quality` must be an integer, got {self.quality}.")
        object.__setattr__(self, "quality", int(self.quality))
        for name, choices in (("preset", PRESETS), ("format", FORMATS), ("strip_metadata", STRIP_METADATA)):
            if getattr(self, name) not in [*choices]:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {repr(getattr(self, name))}.")

    @property
    def target_size(self) -> str | int:
        """The size as `SRGAN.upscale` takes it."""
        return self.size if self.size in SIZES else int(self.size)

    @property
    def save_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `save_image`."""
        strip_metadata = None if self.strip_metadata == "none" else self.strip_metadata
        return {"quality": None if self.format == "PNG" else self.quality, "strip_metadata": strip_metadata}


def to_python(settings: Settings, name: str) -> str:
    """Return a Python program that writes the demo's result for the image `name`."""
    preset = PRESETS[settings.preset]
    model, detail = preset.select_model(settings.detail)
    kwargs = _format_kwargs({"size": settings.target_size, "detail": detail, "wrap": preset.wrap})
    return f"""from srgan_hub import SRGAN, save_image

model = SRGAN.from_pretrained("{model}")
result = model.upscale({json.dumps(name)}{kwargs})
save_image(result, "upscaled{FORMATS[settings.format]}"{_format_kwargs(settings.save_kwargs)})"""


def to_curl(settings: Settings, name: str, url: str) -> str:
    """Return shell commands that upload the image `name` to the server at `url`, and wait for the result."""
    image = {"path": "IMAGE", "meta": {"_type": "gradio.FileData"}}
    data = json.dumps({"data": [image, *vars(settings).values()]}).replace("IMAGE", "'$IMAGE'")
    return f"""API={url.rstrip("/")}/gradio_api
IMAGE=$(curl -s $API/upload -F files=@{json.dumps(name)} | cut -d '"' -f 2)
EVENT=$(curl -s $API/call/upscale -H 'Content-Type: application/json' -d '{data}' | cut -d '"' -f 4)
curl -sN $API/call/upscale/$EVENT"""


def _format_kwargs(kwargs: dict[str, Any]) -> str:
    return "".join(f", {name}={json.dumps(value)}" for name, value in kwargs.items() if value is not None)
