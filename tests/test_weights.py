"""The bundled weights are the real ones, converted rightly."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub import SRGAN, bundled_model_path, hub
from srgan_hub.evaluate import evaluate
from srgan_hub.hub import DEFAULT_MODEL, FIDELITY_MODEL, ModelLoadError, bundled_models
from srgan_hub.metrics import psnr

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("model", "image_set", "expected"),
    [
        ("srresnet-x4", "Set5", 32.01),
        pytest.param("srresnet-x4", "Set14", 28.53, marks=pytest.mark.slow),
        ("srgan-x4", "Set5", 29.18),
        pytest.param("srgan-x4", "Set14", 26.17, marks=pytest.mark.slow),
    ],
)
def test_psnr_on_the_benchmarks(benchmark_data, model, image_set, expected):
    """PSNR on Y, shave 4, 8-bit rounding, LR files by MATLAB. For the photo models on Set14 see the dial."""
    upscaler = SRGAN.from_pretrained(model).upscaler(device="cpu", dtype="fp32")
    scores = []
    for file in sorted((benchmark_data / image_set).glob("*.png")):
        with Image.open(next((benchmark_data / image_set / "LRbicx4").glob(f"{file.stem}*"))) as lr:
            sr = upscaler.upscale(np.asarray(lr.convert("RGB")))
        with Image.open(file) as hr:
            truth = np.asarray(hr.convert("RGB"))[: sr.shape[0], : sr.shape[1]]
        pair = [torch.from_numpy(a.copy()).permute(2, 0, 1)[None].double() / 255 for a in (sr, truth)]
        scores.append(psnr(*pair, crop_border=4, channel="y").item())
    assert len(scores) == {"Set5": 5, "Set14": 14}[image_set]
    assert np.mean(scores) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("model", "mean", "pixels"),
    [
        ("srresnet-x4", 93.644, ((191, 151, 118), (137, 101, 49), (7, 8, 5))),
        ("srgan-x4", 92.338, ((175, 145, 126), (123, 92, 49), (12, 12, 10))),
        ("srgan-x4-photo", 93.219, ((190, 150, 123), (132, 96, 45), (7, 8, 5))),
        ("srresnet-x4-photo", 93.286, ((192, 152, 120), (135, 100, 48), (7, 8, 5))),
    ],
)
def test_stored_values_on_an_own_image(model, mean, pixels):
    with Image.open(bundled_model_path(model).parent.parent / "examples" / "cat.png") as cat:
        sr = SRGAN.from_pretrained(model).upscale(np.asarray(cat)[50:80, 60:90], dtype="fp32")
    assert sr.mean() == pytest.approx(mean, abs=0.01)
    for (y, x), value in zip(((0, 0), (60, 60), (33, 101)), pixels, strict=True):
        assert np.abs(sr[y, x].astype(int) - value).max() <= 1


@pytest.mark.parametrize("model", bundled_models())
def test_notice_names_the_files_by_hash(model):
    digest = hashlib.sha256((bundled_model_path(model) / "model.safetensors").read_bytes()).hexdigest()
    assert f"srgan_hub/weights/{model}/model.safetensors  {digest}" in (ROOT / "NOTICE").read_text()


@pytest.mark.parametrize(
    ("image_set", "amounts", "expected_psnrs", "expected_textures"),
    [
        ("Set5", (0, 0.5, 1), [31.87, 31.64, 30.65], [0.25, 0.37, 0.57]),
        pytest.param(
            "Set14",
            (0, 0.25, 0.5, 0.75, 1),
            [28.37, 28.31, 28.17, 27.89, 27.43],
            [0.17, 0.21, 0.26, 0.34, 0.48],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_detail_is_a_smooth_dial(benchmark_data, tmp_path, image_set, amounts, expected_psnrs, expected_textures):
    """PSNR falls and texture rises, step by step."""
    pair = [SRGAN.from_pretrained(name) for name in (FIDELITY_MODEL, DEFAULT_MODEL)]
    folders = [tmp_path / str(amount) for amount in amounts]
    for folder in folders:
        SRGAN.interpolate(*pair, float(folder.name)).save_pretrained(folder)
    data = benchmark_data / image_set
    metrics = ["psnr_y", "high_freq_ratio"]
    report = evaluate(folders, data=data, lr=data / "LRbicx4", metrics=metrics, device="cpu")
    psnrs, textures = ([report[f.name].mean(metric) for f in folders] for metric in ("psnr_y", "high_freq_ratio"))
    assert psnrs == sorted(psnrs, reverse=True) and textures == sorted(textures)
    assert psnrs == pytest.approx(expected_psnrs, abs=0.02)
    assert textures == pytest.approx(expected_textures, abs=0.01)


def test_a_bundled_model_without_its_card_is_refused(tmp_path, monkeypatch):
    shutil.copytree(bundled_model_path(DEFAULT_MODEL), tmp_path / DEFAULT_MODEL)
    monkeypatch.setattr(hub, "_BUNDLED", tmp_path)
    assert bundled_model_path(DEFAULT_MODEL) == tmp_path / DEFAULT_MODEL
    (tmp_path / DEFAULT_MODEL / "README.md").unlink()
    with pytest.raises(ModelLoadError, match=r"lacks README.md, its card"):
        SRGAN.from_pretrained(DEFAULT_MODEL)
