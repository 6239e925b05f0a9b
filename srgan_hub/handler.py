"""For Hugging Face Inference Endpoints: `srgan-hub push --endpoint` puts this file beside a model's weights."""

import base64
import binascii
import io
from typing import Any

from PIL import Image

from srgan_hub.model import SRGAN
from srgan_hub.pictures import files

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
        """Enlarge a picture.

        Args:
            data: `inputs` is a PIL image, a file's bytes, or these in base64; `parameters` may hold `size`, which is
                "2x" or the like or the longest side in pixels.

        Raises:
            ValueError: the picture cannot be read or is too large, or the size is out of its range.
        """
        parameters = data.get("parameters") or {}
        unknown = set(parameters) - {"size"}
        if unknown:
            raise ValueError(f"Expected no parameter but size, got {', '.join(sorted(unknown))}.")
        image = _read(data.get("inputs"))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"Expected at most {MAX_PIXELS} pixels, got {image.width} x {image.height}.")
        return self.upscaler.upscale(image, size=parameters.get("size"))


def _read(inputs: Any) -> Image.Image:
    if isinstance(inputs, Image.Image):
        return inputs
    try:
        if isinstance(inputs, str):
            inputs = base64.b64decode(inputs.rpartition(",")[2], validate=True)  # of a data address too
        return files.normalise(Image.open(io.BytesIO(inputs)))
    except (binascii.Error, OSError, TypeError) as error:
        kind = type(inputs).__name__
        raise ValueError(f"Expected inputs as a picture, its bytes or base64 text, got {kind}: {error}.") from error
