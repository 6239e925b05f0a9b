"""The example image of the tests of the demo."""

import pytest
from PIL import Image

from srgan_hub.demo.tabs.upscale import EXAMPLES


@pytest.fixture(scope="session")
def cat() -> Image.Image:
    with Image.open(EXAMPLES / "cat.png") as image:
        return image.convert("RGB")
