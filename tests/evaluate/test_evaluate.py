"""Scores of models compared with other libraries and published values."""

import numpy as np
import piq
import pytest
import torch
from PIL import Image
from sample_images import FAST, image, truth
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srgan_hub import SRGAN
from srgan_hub.evaluate import evaluate
from srgan_hub.evaluate.datasets import to_tensor, to_uint8
from srgan_hub.evaluate.report import BICUBIC, HR
from srgan_hub.hub import ModelLoadError
from srgan_hub.metrics import rgb_to_y
from srgan_hub.resize import downscale, resize


def test_scores_equal_scikit_image_and_piq(data, make_model):
    directory = make_model("a", 0)
    report = evaluate([directory], data=data, metrics=FAST, device="cpu", crop_border=3)
    upscaler = SRGAN.from_pretrained(directory).upscaler(dtype="fp32", device="cpu")
    for name in ("color", "gray"):
        hr = truth(data, name)
        lr = downscale(to_tensor(hr), 4, round_to_uint8=True)
        bicubic = to_uint8(resize(lr, hr.shape[:2], round_to_uint8=True))
        for row, sr in (("a", upscaler.upscale(to_uint8(lr))), (BICUBIC, bicubic)):
            scores = report[row].images[name]
            inside = (slice(3, -3), slice(3, -3))
            a, b = sr[inside] / 255, hr[inside] / 255
            options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
            assert scores["psnr_rgb"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-4)
            assert scores["ssim_rgb"] == pytest.approx(structural_similarity(b, a, channel_axis=2, **options), abs=1e-4)
            ya, yb = (rgb_to_y(to_tensor(x[inside]))[0, 0].numpy() for x in (sr, hr))
            assert scores["psnr_y"] == pytest.approx(peak_signal_noise_ratio(yb, ya, data_range=1), abs=1e-4)
            assert scores["ssim_y"] == pytest.approx(structural_similarity(yb, ya, **options), abs=1e-4)
            pair = [to_tensor(x[inside]) for x in (sr, hr)]
            assert scores["psnr_rgb"] == pytest.approx(piq.psnr(*pair).item(), abs=1e-4)
            assert scores["ssim_rgb"] == pytest.approx(piq.ssim(*pair, downsample=False).item(), abs=1e-4)
    assert report[HR].images["color"]["lr_consistency"] == pytest.approx(0, abs=1e-9)
    assert report[HR].mean("high_freq_ratio") == 1
    assert [row.name for row in report.rows] == [BICUBIC, "a", HR]
    assert report["a"].seconds > 0 and len(report["a"].weights_sha256) == 64
    assert report["a"].mean("psnr_y") == np.mean([s["psnr_y"] for s in report["a"].images.values()])


def test_invalid_arguments_raise(data, make_model, tmp_path):
    with pytest.raises(ValueError, match="holds no images"):
        evaluate([], data=make_model("a", 0))
    with pytest.raises(ValueError, match="not a directory"):
        evaluate([], data=data / "color.png")
    with pytest.raises(ValueError, match=r"same scale, got \{'a': 4, 'b': 2\}"):
        evaluate([make_model("a", 0), make_model("b", 1, scale=2)], data=data)
    with pytest.raises(ValueError, match="'bicubic' is reserved"):
        evaluate([make_model("bicubic", 0)], data=data)
    with pytest.raises(ValueError, match="got 'niqe'"):
        evaluate([], data=data, metrics=["niqe"])
    with pytest.raises(ModelLoadError, match="Model 'nothing' not found"):
        evaluate(["nothing"], data=data)
    Image.fromarray(image(16, 80)).save(data / "low.png")
    with pytest.raises(ValueError, match="'low': SSIM requires 11x11"):
        evaluate([], data=data, metrics=["ssim_y"])


def test_options_are_passed_to_the_upscaler(data, make_model, monkeypatch):
    seen, done = [], []
    upscaler = SRGAN.upscaler

    def spy(self, **options):
        seen.append(options)
        return upscaler(self, **options)

    monkeypatch.setattr(SRGAN, "upscaler", spy)
    directory = make_model("a", 0)
    options = {"dtype": "bf16", "device": "cpu", "backend": "torch"}
    report = evaluate([directory], data=data, metrics=["psnr_y"], progress=lambda *n: done.append(n), **options)
    assert seen == [options]
    assert done == [(1, 2), (2, 2)]
    assert report.environment["dtype"] == "bf16" and report.environment["threads"] == torch.get_num_threads()


def test_contact_sheet_is_written(data, tmp_path):
    evaluate([], data=data, metrics=["psnr_y"], contact_sheets=tmp_path / "out" / "sheets")
    assert (tmp_path / "out" / "sheets" / "contact_sheet.png").is_file()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Set5", {BICUBIC: 28.43}),
        pytest.param("Set14", {BICUBIC: 26.09, "srresnet-x4": 28.53, "srgan-x4": 26.17}, marks=pytest.mark.slow),
    ],
)
def test_benchmark_scores_equal_published_ones(benchmark_data, name, expected):
    models = [model for model in expected if model != BICUBIC]
    data = benchmark_data / name
    report = evaluate(models, data=data, lr=data / "LRbicx4", metrics=["psnr_y"], device="cpu")
    for row, psnr in expected.items():
        assert report[row].mean("psnr_y") == pytest.approx(psnr, abs=0.02)
