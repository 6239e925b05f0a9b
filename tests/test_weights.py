import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub import SRGAN, hub
from srgan_hub.evaluate import evaluate
from srgan_hub.hub import DEFAULT_MODEL, FIDELITY_MODEL, ModelLoadError, bundled_model_path
from srgan_hub.metrics import psnr


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("srresnet-x4", "Set5", 32.01),
        pytest.param("srresnet-x4", "Set14", 28.53, marks=pytest.mark.slow),
        ("srgan-x4", "Set5", 29.18),
        pytest.param("srgan-x4", "Set14", 26.17, marks=pytest.mark.slow),
    ],
)
def test_psnr_on_benchmarks(benchmark_data, bundled_model, name, dataset, expected):
    """PSNR on Y, 4 border pixels cropped, 8-bit rounding, LR images by MATLAB."""
    upscaler = bundled_model(name).upscaler(device="cpu", dtype="float32")
    scores = []
    for file in sorted((benchmark_data / dataset).glob("*.png")):
        with Image.open(next((benchmark_data / dataset / "LRbicx4").glob(f"{file.stem}*"))) as lr:
            sr = upscaler.upscale(np.asarray(lr.convert("RGB")))
        with Image.open(file) as image:
            hr = np.asarray(image.convert("RGB"))[: sr.shape[0], : sr.shape[1]]
        pair = [torch.from_numpy(a.copy()).permute(2, 0, 1)[None].double() / 255 for a in (sr, hr)]
        scores.append(psnr(*pair, crop_border=4, channel="y").item())
    assert len(scores) == {"Set5": 5, "Set14": 14}[dataset]
    assert np.mean(scores) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("name", "mean", "pixels"),
    [
        ("srresnet-x4", 93.644, ((191, 151, 118), (137, 101, 49), (7, 8, 5))),
        ("srgan-x4", 92.338, ((175, 145, 126), (123, 92, 49), (12, 12, 10))),
        ("srgan-x4-photo", 93.219, ((190, 150, 123), (132, 96, 45), (7, 8, 5))),
        ("srresnet-x4-photo", 93.286, ((192, 152, 120), (135, 100, 48), (7, 8, 5))),
    ],
)
def test_stored_pixels_of_the_example(name, mean, pixels, bundled_model, cat_image):
    sr = bundled_model(name).upscale(cat_image[50:80, 60:90], dtype="float32")
    assert sr.mean() == pytest.approx(mean, abs=0.01)
    for (y, x), value in zip(((0, 0), (60, 60), (33, 101)), pixels, strict=True):
        assert np.abs(sr[y, x].astype(int) - value).max() <= 1


@pytest.mark.parametrize(
    ("dataset", "alphas", "expected_psnr", "expected_high_freq"),
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
def test_detail_trades_psnr_for_high_frequencies(
    benchmark_data, bundled_model, tmp_path, dataset, alphas, expected_psnr, expected_high_freq
):
    ends = [bundled_model(name) for name in (FIDELITY_MODEL, DEFAULT_MODEL)]
    directories = [tmp_path / str(alpha) for alpha in alphas]
    for directory in directories:
        SRGAN.interpolate(*ends, float(directory.name)).save_pretrained(directory)
    data = benchmark_data / dataset
    metrics = ["psnr_y", "high_freq_ratio"]
    report = evaluate(directories, data=data, lr=data / "LRbicx4", metrics=metrics, device="cpu")
    psnrs, high_freqs = ([report[each.name].mean(metric) for each in directories] for metric in metrics)
    assert psnrs == sorted(psnrs, reverse=True) and high_freqs == sorted(high_freqs)
    assert psnrs == pytest.approx(expected_psnr, abs=0.02)
    assert high_freqs == pytest.approx(expected_high_freq, abs=0.01)


def test_bundled_model_without_card_is_refused(tmp_path, monkeypatch):
    shutil.copytree(bundled_model_path(DEFAULT_MODEL), tmp_path / DEFAULT_MODEL)
    monkeypatch.setattr(hub, "_BUNDLED", tmp_path)
    assert bundled_model_path(DEFAULT_MODEL) == tmp_path / DEFAULT_MODEL
    (tmp_path / DEFAULT_MODEL / "README.md").unlink()
    with pytest.raises(ModelLoadError, match=r"missing README\.md"):
        SRGAN.from_pretrained(DEFAULT_MODEL)
