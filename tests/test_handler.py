"""The handler for Inference Endpoints: inputs, sizes and limits. test_hub.py runs it from a pushed repository."""

import base64
import io

import numpy as np
import pytest
import torch
from malformed_files import huge_jpeg_2000, icon, png_header
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.handler import EndpointHandler


@pytest.fixture(scope="module")
def handler(tmp_path_factory):
    path = tmp_path_factory.mktemp("handler") / "model"
    torch.manual_seed(0)
    SRGAN(channels=4, num_blocks=1).save_pretrained(path)
    return EndpointHandler(str(path))


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))


def test_accepts_images_bytes_base64_and_data_urls(handler, image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    expected = np.asarray(handler.upscaler.upscale(image))
    for inputs in (image, buffer.getvalue(), text, f"data:image/png;base64,{text}"):
        assert np.array_equal(np.asarray(handler({"inputs": inputs})), expected)


def test_wrap_and_alpha_parameters(handler, image):
    image.putalpha(0)
    options = {"wrap": "xy", "alpha": "independent"}
    result = handler({"inputs": image, "parameters": options})
    assert np.array_equal(np.asarray(result), np.asarray(handler.upscaler.upscale(image, **options)))
    assert np.asarray(result)[..., :3].any()
    with pytest.raises(ValueError, match="`wrap`"):
        handler({"inputs": image, "parameters": {"wrap": "z"}})


def test_size_parameter(handler, image):
    assert handler({"inputs": image, "parameters": {"size": "2x"}}).size == (40, 24)
    assert handler({"inputs": image, "parameters": {"size": 50}}).size == (50, 30)
    assert handler({"inputs": image, "parameters": None}).size == (80, 48)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inputs": "no image"}, "base64"),
        ({"inputs": "größe"}, "base64"),
        ({"inputs": b"no image"}, "[Tt]he image"),
        ({"inputs": b""}, "[Tt]he image"),
        ({"inputs": png_header(20_000, 20_000)}, "20000"),
        ({"inputs": png_header(2_001, 2_000)}, "2001"),
        ({"inputs": icon(b"ic10", huge_jpeg_2000(510_000))}, "[Tt]he image"),
        ({"inputs": Image.new("L", (4000, 1001))}, "4000x1001"),
        ({}, "NoneType"),
        ("x", "inputs"),
        ({"inputs": b"", "parameters": 5}, "parameters"),
        ({"inputs": b"", "parameters": {"prompt": "a cat"}}, "prompt"),
        ({"inputs": Image.new("RGB", (20, 12)), "parameters": {"size": "9x"}}, "180x108"),
    ],
)
def test_invalid_requests_raise_value_error(handler, data, message):
    with pytest.raises(ValueError, match=message) as caught:
        handler(data)
    assert "/" not in str(caught.value)  # no path of the server
