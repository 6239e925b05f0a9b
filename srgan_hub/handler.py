"""Custom handler for Hugging Face Inference Endpoints, added to a repository by `srgan-hub push --endpoint`."""

import base64
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from srgan_hub.images.decode import load_image
from srgan_hub.model import SRGAN

PARAMETERS = ("size", "wrap", "alpha")
MAX_PIXELS = 4_000_000  # the output has 16 times as many


class EndpointHandler:
    """Answers requests with the model in the repository's directory `path`."""

    def __init__(self, path: str = "") -> None:
        self.upscaler = SRGAN.from_pretrained(path or ".").upscaler()

    def __call__(self, data: dict[str, Any]) -> Image.Image:
        """Upscale an image.

        Args:
            data: `inputs` is a PIL image, the bytes of an image file, or these in base64. `parameters` may contain
                `size`, a factor ("2x") or the longest edge in pixels; and `wrap` and `alpha` as for `Upscaler.upscale`.

        Raises:
            ValueError: The request or the image is invalid, or the image or the requested size is too large.
        """
        parameters = isinstance(data, dict) and (data.get("parameters") or {})
        if not isinstance(parameters, dict):
            raise ValueError(
                'The request must be {"inputs": image, "parameters": {"size": "2x"}}; `parameters` is optional.'
            )
        if unknown := sorted(str(name) for name in parameters if name not in PARAMETERS):
            supported = ", ".join(f"`{name}`" for name in PARAMETERS)
            raise ValueError(f"Unknown parameter {', '.join(unknown)}; supported are {supported}.")
        return self.upscaler.upscale(_load(data.get("inputs")), **parameters)


def _load(inputs: Any) -> Image.Image:
    if isinstance(inputs, Image.Image):
        if inputs.width * inputs.height > MAX_PIXELS:
            raise ValueError(f"The image has {inputs.width}x{inputs.height} pixels; the limit is {MAX_PIXELS}.")
        return inputs
    if isinstance(inputs, str):
        try:
            inputs = base64.b64decode(inputs.rpartition(",")[2], validate=True)  # also of a data URL
        except ValueError:
            raise ValueError("`inputs` is a string, but not valid base64.") from None
    if not isinstance(inputs, bytes):
        raise ValueError(f"`inputs` must be an image, its bytes or base64, got {type(inputs).__name__}.")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "image")
        path.write_bytes(inputs)
        try:
            return load_image(path, max_pixels=MAX_PIXELS)
        except ValueError as error:  # names the temporary file
            message = str(error).replace(f"'{path}'", "the image").replace(str(path), "the image")
            raise ValueError(message[:1].upper() + message[1:]) from None
