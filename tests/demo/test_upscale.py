"""A user's image on its way: what is shown of it, and what it becomes."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.demo import upscale as module
from srgan_hub.demo.eta import EtaEstimator
from srgan_hub.demo.settings import Settings
from srgan_hub.demo.upscale import Completed, LoadedImage, Preview, close_up, flatten_alpha, read, upscale
from srgan_hub.images.errors import ImageError

CAT = Path(module.__file__).parent.parent / "examples" / "cat.png"


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    with Image.open(CAT) as image:
        return image.convert("RGB")


def decode(address: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_preview_is_bicubic_and_then_the_result_from_the_top(cat):
    result = np.asarray(cat.resize((904, 600), Image.Resampling.BICUBIC)) // 2  # darker, to tell them apart
    preview = Preview(cat, (904, 600))
    bicubic = decode(preview.draw())
    assert np.abs(bicubic - np.asarray(cat.resize((904, 600), Image.Resampling.BICUBIC))).mean() < 3
    strips = [result[:100], result[100:300]]
    half = decode(preview.draw(strips))
    assert np.abs(half[:300] - result[:300]).mean() < 3 and np.abs(half[310:] - bicubic[310:]).mean() < 1
    whole = decode(preview.draw([*strips, result[300:]]))
    assert np.abs(whole - result).mean() < 3


def test_a_large_preview_is_reduced_and_its_strips_fit(cat):
    size = (2260, 1500)
    result = np.asarray(cat.resize(size, Image.Resampling.BICUBIC))
    preview = Preview(cat, size)
    whole = decode(preview.draw(np.array_split(result, 37)))
    assert whole.shape == (680, 1024, 3)
    assert np.abs(whole - np.asarray(cat.resize((1024, 680), Image.Resampling.BICUBIC))).mean() < 4


def test_previews_are_few_and_cost_little(cat, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    real = module.to_data_url
    cost = 0.3

    def slow(image: Image.Image, kind: str) -> str:
        now[0] += cost
        return real(image, kind)

    monkeypatch.setattr(module, "to_data_url", slow)
    for pace in (0.01, 0.3, 2):  # seconds for each of 100 strips
        preview, drawn = Preview(cat, (904, 600)), 0
        strips = []
        for strip in np.array_split(np.zeros((600, 904, 3), np.uint8), 100):
            now[0] += pace
            strips.append(strip)
            if preview.is_due(sum(map(len, strips))):
                preview.draw(strips)
                drawn += 1
        assert drawn <= 10
        if drawn > 1:  # the first one tells the cost
            assert (drawn - 1) * cost < 0.05 * 100 * pace
    assert drawn >= 9


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_close_up_shows_the_pixels_of_the_whole_result(cat, mode):
    cat = cat.crop((60, 30, 156, 110))
    image = cat.convert(mode)
    if mode == "RGBA":
        image.putalpha(cat.convert("L"))
    loaded = LoadedImage(image, "cat.png", "")
    wholes = {
        name: np.asarray(flatten_alpha(SRGAN.from_pretrained(model).upscale(image))).astype(int)
        for name, model in (("Faithful", "srresnet-x4-photo"), ("Crisp", "srgan-x4-photo"))
    }
    for x, y, left, top in ((0, 0, 0, 0), (0.5, 0.4, 40, 24), (1, 1, 80, 64)):
        shown = close_up(loaded, "photo", x, y, side=16)
        assert list(shown) == ["Bicubic", *wholes]
        for name, whole in wholes.items():
            region = whole[4 * top : 4 * top + 64, 4 * left : 4 * left + 64]
            assert np.abs(decode(shown[name]) - region).max() <= 1


def test_a_close_up_of_a_tiny_image_is_all_of_it(cat):
    image = LoadedImage(cat.crop((0, 0, 10, 6)), "cat.png", "")
    assert decode(close_up(image, "photo", 0.9, 0.1)["Bicubic"]).shape == (24, 40, 3)


def test_a_run_tells_how_far_it_is_and_how_long_it_took(tmp_path):
    speed = EtaEstimator()
    *steps, done = upscale(CAT, Settings(), tmp_path, max_pixels=10**6, speed=speed, previews=True)
    assert isinstance(done, Completed) and (done.image.size, done.file.name) == ((904, 600), "cat_x4.png")
    shares = [step.share for step in steps]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1 and len(shares) >= 4
    assert steps[0].preview and all((step.width, step.height) == (904, 600) for step in steps)
    assert speed.estimate(226 * 150) == pytest.approx(done.seconds)
    bicubic, shown = (Image.open(path) for path in done.pair)
    with Image.open(CAT) as cat, bicubic, shown:
        assert np.array_equal(np.asarray(bicubic), np.asarray(cat.resize((904, 600), Image.Resampling.BICUBIC)))
        assert np.array_equal(np.asarray(shown), np.asarray(done.image))


def test_the_compared_images_are_capped_and_the_file_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAIR_SIDE", 512)
    *_, done = upscale(CAT, Settings(), tmp_path, max_pixels=10**6, speed=EtaEstimator(), previews=True)
    for path in done.pair:
        with Image.open(path) as image:
            assert image.size == (512, 340)
    with Image.open(done.file) as result:
        assert result.size == (904, 600)


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, cat, monkeypatch):
    clear = cat.copy()
    clear.putalpha(100)
    clear.save(tmp_path / "clear.png")
    monkeypatch.setattr(module, "stream", None)
    with pytest.raises(ImageError, match=r"clear\.png.* JPEG cannot store transparency"):
        list(upscale(tmp_path / "clear.png", Settings(format="JPEG"), tmp_path, max_pixels=10**6, speed=EtaEstimator()))


def test_notes_of_one_reader_are_not_shown_to_another(tmp_path, cat):
    cat.crop((0, 0, 9, 9)).save(tmp_path / "small.png")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with ThreadPoolExecutor(2) as pool:
        names = ["deep.png", "small.png"] * 20
        images = list(pool.map(lambda name: read(tmp_path / name, max_pixels=10**6), names))
    assert [image.notes for image in images] == ["deep.png: has 16 bits per channel and is read with 8.", ""] * 20
