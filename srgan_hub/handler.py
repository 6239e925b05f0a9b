"""For Hugging Face Inference Endpoints: `srgan-hub push --endpoint` puts this file beside a model's weights."""

import base64
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from srgan_hub.images import decode
from srgan_hub.model import SRGAN

# Four times as large, that is 64 megapixels.
MAX_PIXELS = 4_000_000


class EndpointHandler:
    """A model that answers an endpoint's requests.

    Args:
        path: the folder of the model's repository.
    """

    def __init__(self, path: str = "") -> None:
        model = SRGAN.from_pretrained(path or ".")
        self.upscaler = model.upscaler()

    def __call__(self, data: dict[str, Any]) -> Image.Image:
        """Upscale an image.

        Args:
            data: `inputs` is a PIL image, a file's bytes, or these in base64; `parameters` may hold `size`, which is
                "2x" or the like or the longest side in pixels.

        Raises:
            ValueError: the image cannot be read or is too large, or the size is out of its range.
        """
        if not isinstance(data, dict) or not isinstance(data.get("parameters") or {}, dict):
            raise ValueError('Expected {"inputs": an image, "parameters": {"size": "2x"}}, the parameters if wanted.')
        parameters = data.get("parameters") or {}
        unknown = set(parameters) - {"size"}
        if unknown:
            raise ValueError(f"Expected no parameter but size, got {', '.join(sorted(map(str, unknown)))}.")
        return self.upscaler.upscale(_read(data.get("inputs")), size=parameters.get("size"))


def _read(inputs: Any) -> Image.Image:
    if isinstance(inputs, Image.Image):
        if inputs.width * inputs.height > MAX_PIXELS:
            raise ValueError(f"Expected at most {MAX_PIXELS} pixels, got {inputs.width} x {inputs.height}.")
        return inputs
    if isinstance(inputs, str):
        try:
            inputs = base64.b64decode(inputs.rpartition(",")[2], validate=True)  # of a data address too
        except ValueError:
            raise ValueError("Expected inputs as an image's bytes in base64, got other text.") from None
    if not isinstance(inputs, bytes):
        raise ValueError(f"Expected inputs as an image, its bytes or base64 text, got {type(inputs).__name__}.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image")
        path.write_bytes(inputs)
        try:
            return decode.load_image(path, max_pixels=MAX_PIXELS)
        except decode.ImageError as error:
            raise ValueError(f"{error}".replace(str(path), "The image")) from None
