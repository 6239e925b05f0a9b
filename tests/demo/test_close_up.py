"""Close-ups and previews of a detail."""

import numpy as np
import pytest
from demo.test_upscale import decode

from srgan_hub import SRGAN
from srgan_hub.demo.close_up import close_up, preview_detail
from srgan_hub.demo.presets import PRESETS
from srgan_hub.demo.upscale import LoadedImage


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_close_up_equals_the_full_result(cat, mode):
    cat = cat.crop((60, 30, 156, 110))
    image = cat.convert(mode)
    if mode == "RGBA":
        image.putalpha(cat.convert("L"))
    source = LoadedImage(image, "cat.png", "")
    results = {
        name: np.asarray(SRGAN.from_pretrained(model).upscale(image).convert("RGBA")).astype(int)
        for name, model in (("Faithful", "srresnet-x4-photo"), ("Sharp", "srgan-x4-photo"))
    }
    for x, y, left, top in ((0, 0, 0, 0), (0.5, 0.4, 40, 24), (1, 1, 80, 64)):
        found = close_up(source, "photo", x, y, side=16)
        urls, box = found.images, found.box
        assert (box["x"] * 96, box["y"] * 80, box["width"] * 96) == pytest.approx((left, top, 16))
        assert list(urls) == ["Bicubic", *results]
        for name, result in results.items():
            region = result[4 * top : 4 * top + 64, 4 * left : 4 * left + 64]
            assert np.abs(decode(urls[name], "RGBA") - region).max() <= 1


def test_preview_of_a_detail_resembles_the_full_result(cat):
    source = LoadedImage(cat, "cat.png", "")
    for preset, detail, options in (("photo", 0.25, {"detail": 0.25}), ("photo", 1, {}), ("clean", 0.75, {})):
        model = PRESETS[preset].perceptual
        expected = np.asarray(SRGAN.from_pretrained(model).upscale(cat, **options)).astype(int)
        preview = preview_detail(source, preset, detail, 0.5, 0.5)
        region = expected[200:400, 352:552]
        assert np.abs(decode(preview.images["Detail"]) - region).mean() < 0.5
        assert preview.box["x"] * 904 == pytest.approx(352) and preview.box["height"] * 600 == pytest.approx(200)


@pytest.mark.parametrize(("preset", "wrap"), [("texture", "xy"), ("panorama", "x")])
def test_close_up_of_an_image_that_repeats_shows_the_opposite_edge(cat, preset, wrap):
    source = LoadedImage(cat.crop((0, 0, 60, 52)), "cat.png", "")
    full = SRGAN.from_pretrained("srgan-x4-photo").upscale(np.asarray(source.image), wrap=wrap)
    for x, y, left, top in ((0, 0, 0, 0), (1, 1, 44, 36)):
        detail = decode(close_up(source, preset, x, y, side=16).images["Sharp"])
        assert np.abs(detail - full[4 * top :, 4 * left :][:64, :64].astype(int)).max() <= 1


def test_close_up_of_a_tiny_image_shows_all_of_it(cat):
    source = LoadedImage(cat.crop((0, 0, 10, 6)), "cat.png", "")
    assert decode(close_up(source, "photo", 0.9, 0.1).images["Bicubic"]).shape == (24, 40, 3)
