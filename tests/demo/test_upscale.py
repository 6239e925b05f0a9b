"""Upscaling one image in the demo."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_hub.demo import upscale as module
from srgan_hub.demo.eta import EtaEstimator
from srgan_hub.demo.settings import Settings
from srgan_hub.demo.upscale import (
    Completed,
    Preview,
    load,
    upscale,
)
from srgan_hub.images.errors import ImageError

CAT = Path(module.__file__).parent.parent / "examples" / "cat.png"


def decode(url: str, mode: str = "RGB") -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert(mode)).astype(int)


def test_preview_is_bicubic_then_the_result_from_the_top(cat):
    result = np.asarray(cat.resize((904, 600), Image.Resampling.BICUBIC)) // 2  # darker, to tell them apart
    preview = Preview(cat, (904, 600))
    bicubic = decode(preview.render())
    assert np.abs(bicubic - np.asarray(cat.resize((904, 600), Image.Resampling.BICUBIC))).mean() < 3
    strips = [result[:100], result[100:300]]
    half = decode(preview.render(strips))
    assert np.abs(half[:300] - result[:300]).mean() < 3 and np.abs(half[310:] - bicubic[310:]).mean() < 1
    complete = decode(preview.render([*strips, result[300:]]))
    assert np.abs(complete - result).mean() < 3


def test_preview_of_a_large_image_is_reduced(cat):
    size = (2260, 1500)
    result = np.asarray(cat.resize(size, Image.Resampling.BICUBIC))
    preview = decode(Preview(cat, size).render(np.array_split(result, 37)))
    assert preview.shape == (680, 1024, 3)
    assert np.abs(preview - np.asarray(cat.resize((1024, 680), Image.Resampling.BICUBIC))).mean() < 4


def test_previews_are_limited_in_number_and_time(cat, monkeypatch):
    now, cost = [0.0], 0.3
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "to_data_url", lambda image, format: now.__setitem__(0, now[0] + cost) or "")
    for seconds in (0.01, 0.3, 2):  # for each of 100 strips
        preview, rendered = Preview(cat, (904, 600)), 0
        strips = []
        for strip in np.array_split(np.zeros((600, 904, 3), np.uint8), 100):
            now[0] += seconds
            strips.append(strip)
            if preview.is_due(sum(map(len, strips))):
                preview.render(strips)
                rendered += 1
        assert rendered <= 10
        if rendered > 1:  # the cost is unknown before the first
            assert (rendered - 1) * cost < 0.05 * 100 * seconds
    assert rendered >= 9


def test_progress_result_viewer_files_and_eta(tmp_path, cat, monkeypatch):
    monkeypatch.setattr(module, "VIEWER_EDGE", 904)
    eta = EtaEstimator()
    *steps, completed = upscale(CAT, Settings(), tmp_path, max_pixels=10**6, eta=eta, previews=True)
    assert isinstance(completed, Completed)
    assert (completed.image.size, completed.file.name) == ((904, 600), "cat_x4.png")
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1 and len(fractions) >= 4
    assert steps[0].preview and all((step.width, step.height) == (904, 600) for step in steps)
    assert eta.estimate(226 * 150) == pytest.approx(completed.seconds)
    bicubic, result = (np.asarray(Image.open(path)) for path in completed.viewer_files)
    assert np.array_equal(bicubic, np.asarray(cat.resize((904, 600), Image.Resampling.BICUBIC)))
    assert np.array_equal(result, np.asarray(completed.image)) and completed.viewer_files[1] == completed.file


def test_viewer_files_are_reduced_and_the_output_is_not(tmp_path, cat, monkeypatch):
    monkeypatch.setattr(module, "VIEWER_EDGE", 64)
    cat.crop((0, 0, 24, 16)).save(tmp_path / "small.png")
    *_, completed = upscale(
        tmp_path / "small.png", Settings(), tmp_path, max_pixels=10**6, eta=EtaEstimator(), previews=True
    )
    assert [Image.open(path).size for path in completed.viewer_files] == [(64, 43)] * 2
    assert Image.open(completed.file).size == (96, 64)
    *_, completed = upscale(CAT, Settings(), tmp_path, max_pixels=10**6, eta=EtaEstimator(), previews=True)
    sizes = [Image.open(path).size for path in completed.viewer_files]
    assert sizes == [(226, 150), (64, 42)]  # the image has more pixels than its reduced bicubic


def test_invalid_output_is_refused_before_upscaling(tmp_path, cat, monkeypatch):
    cat = cat.copy()
    cat.putalpha(100)
    cat.save(tmp_path / "alpha.png")
    monkeypatch.setattr(module, "stream", None)
    with pytest.raises(ImageError, match="transparency") as error:
        list(upscale(tmp_path / "alpha.png", Settings(format="JPEG"), tmp_path, max_pixels=10**6, eta=EtaEstimator()))
    assert "alpha.png" in str(error.value) and ".jpg" not in str(error.value)


def test_warnings_name_the_file_without_its_path(tmp_path):
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(tmp_path / "16bit.png")
    source = load(tmp_path / "16bit.png", max_pixels=10**6)
    assert source.warnings.startswith("16bit.png has 16 bits per channel") and str(tmp_path) not in source.warnings
    assert load(CAT, max_pixels=10**6).warnings == ""
