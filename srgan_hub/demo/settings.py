"""What a user asks for, and the same in code: Python on one's own machine, and curl."""

import json
from dataclasses import dataclass

from .presets import PRESETS

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp"}
METADATA = {
    "no place": "Keep, but for the place (GPS)",
    "all": "Keep all, the place too",
    "none": "Keep none",
}
SIZES = ("2x", "3x", "4x")


@dataclass(frozen=True)
class Settings:
    """How an image is upscaled.

    Args:
        size: "2x", "3x", "4x", or the result's longest side in pixels.
        detail: from 0, faithful, to 1, crisp, in tenths.
        kind: out of `KINDS`.
        format: out of `FORMATS`.
        quality: of JPEG and WebP, 1 to 100.
        metadata: what is kept of it, out of `METADATA`.

    Raises:
        ValueError: a setting is out of its range; the message says what it can be.
    """

    size: str = "4x"
    detail: float = 1.0
    kind: str = "photo"
    format: str = "PNG"
    quality: int = 90
    metadata: str = "no place"

    def __post_init__(self) -> None:
        if self.size not in SIZES and not (str(self.size).isdecimal() and int(self.size)):
            raise ValueError(f"Expected a size of {', '.join(SIZES)} or a longest side in pixels, got {self.size!r}.")
        for name, low, high in (("detail", 0, 1), ("quality", 1, 100)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and low <= value <= high):
                raise ValueError(f"Expected a {name} from {low} to {high}, got {value!r}.")
        for name, choices in (("kind", PRESETS), ("format", FORMATS), ("metadata", METADATA)):
            if getattr(self, name) not in choices:
                raise ValueError(f"Expected a {name} out of {', '.join(choices)}, got {getattr(self, name)!r}.")

    @property
    def target_size(self) -> str | int:
        """The size as `SRGAN.upscale` takes it."""
        return self.size if self.size in SIZES else int(self.size)


def to_python(settings: Settings, name: str) -> str:
    """Return a program that makes the same file of the image `name`."""
    model, mixed = PRESETS[settings.kind].weights(settings.detail)
    detail = "" if mixed is None else f"detail={mixed}, "
    lines = [
        "from srgan_hub import SRGAN",
        "from srgan_hub.images.encode import save_image",
        "",
        f'model = SRGAN.from_pretrained("{model}")',
        f"result = model.upscale({json.dumps(name)}, {detail}size={json.dumps(settings.target_size)})",
    ]
    options = "" if settings.format == "PNG" else f", quality={settings.quality}"
    if settings.metadata != "all":
        options += f', strip_metadata="{"gps" if settings.metadata == "no place" else "all"}"'
    lines.append(f'save_image(result, "large{FORMATS[settings.format]}"{options})')
    return "\n".join(lines)


def to_curl(settings: Settings, name: str, url: str) -> str:
    """Return shell commands that let the Space at `url` make it: send the image, ask, and wait for the result."""
    image = {"path": "IMAGE", "meta": {"_type": "gradio.FileData"}}
    values = [settings.size, settings.detail, settings.kind, settings.format, settings.quality, settings.metadata]
    data = json.dumps({"data": [image, *values]}).replace("IMAGE", "'$IMAGE'")
    return "\n".join(
        [
            f"API={url.rstrip('/')}/gradio_api",
            f"IMAGE=$(curl -s $API/upload -F files=@{json.dumps(name)} | cut -d '\"' -f 2)",
            f"EVENT=$(curl -s $API/call/upscale -H 'Content-Type: application/json' -d '{data}' | cut -d '\"' -f 4)",
            "curl -sN $API/call/upscale/$EVENT",
        ]
    )
