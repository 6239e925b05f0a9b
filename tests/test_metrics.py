import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srgan_hub import metrics
from srgan_hub.resize import downscale, resize


def image(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def noisy_pair():
    hr = resize(image(2, 3, 8, 10), (40, 50)).clamp(0, 1)
    return (hr + 0.05 * (image(2, 3, 40, 50, seed=1) - 0.5)).clamp(0, 1), hr


def as_channels_last(tensor, index, border):
    return tensor[index, :, border:-border, border:-border].permute(1, 2, 0).double().numpy()


def test_luma_of_black_white_and_green():
    rgb = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0]]).view(3, 3, 1, 1)
    torch.testing.assert_close(metrics.rgb_to_y(rgb).flatten() * 255, torch.tensor([16.0, 235.0, 144.553]))


def test_psnr_of_a_constant_difference():
    hr = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    assert metrics.psnr(hr + 0.1, hr, crop_border=2, channel="rgb").item() == pytest.approx(20.0)
    # The difference in luma is 219/255 of that.
    assert metrics.psnr(hr + 0.1, hr, crop_border=2).item() == pytest.approx(20 - 20 * math.log10(219 / 255))
    assert metrics.psnr(hr, hr, crop_border=0).item() == math.inf


def test_psnr_ignores_the_cropped_border():
    hr = torch.full((1, 3, 8, 8), 0.5)
    sr = hr + 0.1
    sr[..., :2, :] = 0
    sr[..., -2:] = 1
    assert metrics.psnr(sr, hr, crop_border=2, channel="rgb").item() == pytest.approx(20.0, abs=1e-5)
    assert metrics.psnr(sr, hr, crop_border=1, channel="rgb").item() < 15


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_psnr_and_ssim_equal_scikit_image(channel):
    sr, hr = noisy_pair()
    scores = metrics.psnr(sr, hr, crop_border=4, channel=channel), metrics.ssim(sr, hr, crop_border=4, channel=channel)
    if channel == "y":
        sr, hr = metrics.rgb_to_y(sr.double()), metrics.rgb_to_y(hr.double())
    for i in range(2):
        a, b = as_channels_last(sr, i, 4), as_channels_last(hr, i, 4)
        assert scores[0][i].item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-4)
        expected = structural_similarity(
            b, a, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert scores[1][i].item() == pytest.approx(expected, abs=1e-4)


def test_lr_consistency_is_in_8bit_values():
    hr = image(2, 3, 16, 24).mul(255).round() / 255
    lr = downscale(hr, 4, round_to_uint8=True)
    assert metrics.lr_consistency(hr, lr).tolist() == pytest.approx([0, 0], abs=1e-4)
    flat = torch.full((1, 3, 8, 8), 100 / 255)
    assert metrics.lr_consistency(flat, torch.full((1, 3, 4, 4), 103 / 255)).item() == pytest.approx(3, abs=1e-5)
    with pytest.raises(ValueError, match="integer multiple"):
        metrics.lr_consistency(hr, lr[..., :5])


def waves(size, *frequencies, amplitude=0.1):
    """Gray waves along x, with frequencies in cycles per pixel."""
    x = torch.arange(size, dtype=torch.float64)
    row = 0.5 + sum(amplitude * torch.cos(2 * math.pi * f * x) for f in frequencies)
    return row.expand(1, 3, size, size)


def test_high_freq_energy_starts_at_a_quarter_cycle():
    # A wave of amplitude a has a mean square of a^2 / 2; luma's range is 219/255 of RGB's.
    energy = 0.1**2 / 2 * (219 / 255) ** 2
    assert metrics.high_freq_energy(waves(128, 0.375)).item() == pytest.approx(energy, rel=1e-6)
    assert metrics.high_freq_energy(waves(128, 0.125)).item() < 1e-12
    assert metrics.high_freq_energy(waves(128, 0.125, 0.375)).item() == pytest.approx(energy, rel=1e-6)
    weaker = waves(128, 0.375, amplitude=0.05)
    assert metrics.high_freq_ratio(weaker, waves(128, 0.375)).item() == pytest.approx(0.25, rel=1e-6)
    tall = waves(128, 0.375).transpose(2, 3)[..., :96]
    assert metrics.high_freq_energy(tall).item() == pytest.approx(energy, rel=1e-6)


def test_checkerboard_db_of_noise_and_of_a_pattern():
    noise = image(1, 3, 256, 256).double()
    assert abs(metrics.checkerboard_db(noise).item()) < 0.5
    dots = torch.zeros(1, 3, 256, 256, dtype=torch.float64)
    dots[..., ::4, ::4] = 0.1
    # Dots of height a every p pixels: each frequency of the checkerboard has amplitude a / p^2. A Hann window of n x n
    # gives it the power (a / p^2)^2 (n / 2)^4, and white noise of variance v the power v (3 / 8 n^2).
    variance = 0.01**2 / 12 * (65.481**2 + 128.553**2 + 24.966**2) / 255**2 + (0.1 / 255) ** 2
    expected = 10 * math.log10(1 + (0.1 * 219 / 255 / 16) ** 2 * 32**4 / (variance * 24**2))
    assert metrics.checkerboard_db(noise * 0.01 + dots).item() == pytest.approx(expected, abs=0.5)
    # A pattern of twice the period does not count, a flat image has none.
    assert abs(metrics.checkerboard_db(noise * 0.01 + waves(256, 0.125)).item()) < 0.5
    assert metrics.checkerboard_db(torch.full((2, 3, 64, 64), 0.5)).tolist() == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(("name", "expected"), [("Set5", (28.43, 0.811)), ("Set14", (26.09, 0.705))])
def test_bicubic_scores_equal_published_ones(benchmark_data, name, expected):
    scores = []
    for path in sorted((benchmark_data / name / "LRbicx4").glob("*.png")):
        lr, hr = (
            torch.from_numpy(np.array(Image.open(p).convert("RGB"))).permute(2, 0, 1)[None] / 255
            for p in (path, benchmark_data / name / path.name)
        )
        hr = hr[..., : lr.shape[2] * 4, : lr.shape[3] * 4]
        sr = resize(lr, tuple(hr.shape[2:]), round_to_uint8=True)
        scores.append((metrics.psnr(sr, hr, crop_border=4).item(), metrics.ssim(sr, hr, crop_border=4).item()))
    assert np.mean(scores, axis=0) == pytest.approx(expected, abs=0.006)


def test_invalid_arguments_raise():
    a = torch.rand(1, 3, 12, 12)
    with pytest.raises(ValueError, match="one shape"):
        metrics.psnr(a, a[..., :8], crop_border=0)
    with pytest.raises(ValueError, match=r"`channel` must be .* got 'gray'"):
        metrics.psnr(a, a, crop_border=0, channel="gray")
    with pytest.raises(ValueError, match="half of 12x12 pixels, got 6"):
        metrics.psnr(a, a, crop_border=6)
    with pytest.raises(ValueError, match="SSIM requires 11x11"):
        metrics.ssim(a, a, crop_border=2)
    with pytest.raises(ValueError, match="3 channels"):
        metrics.rgb_to_y(a[:, :1])
    with pytest.raises(ValueError, match="64x64"):
        metrics.checkerboard_db(a)
