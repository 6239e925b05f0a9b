import io
import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub.degradations import GaussianBlur, RealWorldDegradation, make_degradation
from srgan_hub.resize import downscale


def batch(count=8, size=24, seed=0):
    """Smooth images with some texture, uint8 NCHW."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, size // 4, size // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    fine = torch.rand(count, 3, size, size, generator=generator)
    return (200 * smooth + 55 * fine).byte()


def to_8bit(lr):
    scaled = lr.double() * 255
    assert (scaled - scaled.round()).abs().max() < 1e-4
    assert lr.dtype == torch.float32 and lr.min() >= 0 and lr.max() <= 1
    return scaled.round()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_matlabs(scale):
    hr = batch()
    lr = make_degradation("bicubic", scale=scale)(hr, range(8), 0)
    assert torch.equal(to_8bit(lr), downscale(hr.double() / 255, scale, round_to_uint8=True).mul(255).round())


def test_bicubic_equals_the_lr_files_of_set5(benchmark_data):
    hr, expected = (
        torch.from_numpy(np.array(Image.open(benchmark_data / "Set5" / name).convert("RGB"))).permute(2, 0, 1)
        for name in ("butterfly.png", "LRbicx4/butterfly.png")
    )
    lr = make_degradation("bicubic", scale=4)(hr[None], [0], 0)
    assert torch.equal(to_8bit(lr)[0], expected.double())


@pytest.mark.parametrize("name", ["bicubic", "gaussian", "real-world"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_result_does_not_depend_on_the_batch(name, scale):
    degrade = pickle.loads(pickle.dumps(make_degradation(name, scale=scale)))
    hr, indices = batch(), list(range(100, 108))
    together = degrade(hr, indices, 7)
    assert together.shape == (8, 3, 24 // scale, 24 // scale)
    alone = torch.cat([degrade(hr[i : i + 1], [indices[i]], 7) for i in range(8)])
    order = [5, 2, 7, 0]
    mixed = degrade(hr[order], torch.tensor(indices)[order], 7)
    assert torch.equal(together, alone)
    assert torch.equal(mixed, together[order])
    to_8bit(together)


@pytest.mark.parametrize("name", ["gaussian", "real-world"])
def test_result_depends_on_seed_and_index(name):
    degrade = make_degradation(name, scale=4, **({"clean_prob": 0.0} if name == "real-world" else {}))
    hr = batch(1).expand(6, -1, -1, -1)
    lr = degrade(hr, range(6), 7)
    assert len({image.numpy().tobytes() for image in lr}) == 6
    assert not torch.equal(lr, degrade(hr, range(6), 8))


def test_gaussian_point_spread_function():
    sigma = 1.3
    degrade = make_degradation("gaussian", scale=4, sigma=(sigma, sigma))
    hr = torch.zeros(1, 3, 24, 24, dtype=torch.uint8)
    hr[..., 13, 8] = 255
    # The center of LR pixel k is at HR 4k + 1.5, between the pixels.
    norm = sum(math.exp(-0.5 * ((d + 0.5) / sigma) ** 2) for d in range(-20, 20))

    def weight(k, at):
        return math.exp(-0.5 * ((at - 4 * k - 1.5) / sigma) ** 2) / norm

    expected = [[math.floor(255 * weight(y, 13) * weight(x, 8) + 0.5) for x in range(6)] for y in range(6)]
    assert expected[3][2] > 4
    assert to_8bit(degrade(hr, [0], 0))[0, 1].tolist() == expected


def test_gaussian_reflects_the_borders():
    # The middle of a mirrored ramp of three times the width gives the same result.
    row = torch.arange(0, 240, 10, dtype=torch.uint8)
    hr = row.expand(1, 3, 24, 24)
    wide = torch.cat([hr.flip(3), hr, hr.flip(3)], dim=3)
    degrade = make_degradation("gaussian", scale=4, sigma=(2.0, 2.0))
    lr = to_8bit(degrade(hr, [0], 0))
    assert torch.equal(lr, to_8bit(degrade(wide, [0], 0))[..., 6:12])
    assert lr[0, 0, 0, 0] > 15  # 4x4 means would give 15


def test_gaussian_sigma_is_drawn_from_its_range():
    point = torch.zeros(1, 3, 25, 25, dtype=torch.uint8)
    point[..., 12, 12] = 255
    peaks = {}
    for bounds in ((0.8, 0.8), (1.2, 1.2), (0.8, 1.2)):
        many = GaussianBlur(scale=5, sigma=bounds)(point.expand(50, -1, -1, -1), range(50), 3)
        peaks[bounds] = to_8bit(many)[:, 0, 2, 2]
    low, high = peaks[1.2, 1.2][0], peaks[0.8, 0.8][0]
    drawn = peaks[0.8, 1.2]
    assert drawn.min() >= low and drawn.max() <= high
    assert drawn.min() < low + 3 and drawn.max() > high - 6


def test_real_world_keeps_two_fifths_of_the_samples_clean():
    hr = batch(1).expand(400, -1, -1, -1)
    lr = RealWorldDegradation(scale=4)(hr, range(400), 1)
    clean = downscale(hr[:1].float() / 255, 4, round_to_uint8=True)
    same = sum(torch.equal(image, clean[0]) for image in lr)
    assert 125 < same < 195
    assert torch.equal(
        RealWorldDegradation(scale=4, clean_prob=1.0)(hr[:20], range(20), 1), clean.expand(20, -1, -1, -1)
    )


def degradation_with(**options):
    """A real-world degradation in which only the given steps have an effect."""
    return RealWorldDegradation(
        **({"scale": 4, "clean_prob": 0.0, "sigma": (0.1, 0.1), "noise": (0, 0), "jpeg_quality": (95, 95)} | options)
    )


def through_jpeg(image, quality, subsampling):
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality, subsampling=subsampling)
    return Image.open(file)


@pytest.mark.parametrize("quality", [40, 95])
def test_real_world_draws_kernel_and_one_or_two_jpegs(quality):
    hr, count = batch(1, size=64), 120
    lr = to_8bit(degradation_with(jpeg_quality=(quality, quality))(hr.expand(count, -1, -1, -1), range(count), 2))
    source = Image.fromarray(hr[0].permute(1, 2, 0).contiguous().numpy())
    outcomes, seen = {}, Counter()
    for kernel in ("BICUBIC", "BOX", "BILINEAR", "LANCZOS"):
        small = source.resize((16, 16), getattr(Image.Resampling, kernel))
        # A second identical compression may have no effect, and then counts as one.
        for first, second in [(0, None), (2, None), (0, 2), (2, 0), (0, 0), (2, 2)]:
            once = through_jpeg(small, quality, first)
            encoded = once if second is None else through_jpeg(once, quality, second)
            outcomes.setdefault(np.asarray(encoded).tobytes(), (kernel, second is None))
    for image in lr:
        seen[outcomes[image.permute(1, 2, 0).byte().contiguous().numpy().tobytes()]] += 1
    assert len(seen) == 8 and min(seen.values()) >= 3


def test_real_world_draws_the_quality():
    lr = to_8bit(degradation_with(jpeg_quality=(40, 95))(batch(1, size=64).expand(60, -1, -1, -1), range(60), 2))
    assert len({image.numpy().tobytes() for image in lr}) > 50  # kernels and subsampling give only 24


def test_real_world_noise_has_its_standard_deviation_and_shares():
    hr = torch.full((40, 3, 64, 64), 128, dtype=torch.uint8)

    def noise_of(**options):
        return to_8bit(degradation_with(noise=(24, 24), noise_prob=1, **options)(hr, range(40), 2)) - 128

    # JPEG of quality 95 hardly changes strong noise. That of luma is (0.299^2 + 0.587^2 + 0.114^2)^0.5 of a channel's.
    noise = noise_of(gray_noise_prob=0)
    luma = noise[:, 0] * 0.299 + noise[:, 1] * 0.587 + noise[:, 2] * 0.114
    assert luma.std().item() == pytest.approx(24 * 0.669, rel=0.04)
    assert luma.mean().abs() < 0.4
    assert not torch.equal(noise[0], noise[1])
    gray = noise_of(gray_noise_prob=1)
    assert gray.mean(1).std().item() == pytest.approx(24, rel=0.04)
    assert (gray - gray.mean(1, keepdim=True)).abs().max() <= 3
    some = degradation_with(noise=(24, 24), noise_prob=0.5)(hr, range(40), 2)
    assert 12 <= sum(image.std() < 0.01 for image in some) <= 28


def test_real_world_defaults():
    degradation = RealWorldDegradation(scale=4)
    assert (degradation.noise, degradation.noise_prob, degradation.gray_noise_prob) == ((0, 6), 0.7, 0.4)
    assert (degradation.jpeg_quality, degradation.clean_prob, degradation.second_order_prob) == ((30, 95), 0.4, 0)
    hr, blurs = batch(1, size=64).expand(50, -1, -1, -1), {}
    for sigma in (None, (0.2, 2.2), (0.2, 2.1)):
        blurs[sigma] = degradation_with(sigma=sigma, noise_prob=0)(hr, range(50), 0)
    assert torch.equal(blurs[None], blurs[0.2, 2.2]) and not torch.equal(blurs[None], blurs[0.2, 2.1])


def test_real_world_second_order_resizes_and_compresses_again():
    hr, count = batch(1, size=64).expand(60, -1, -1, -1), 60
    first = degradation_with()(hr, range(count), 2)
    mixed = degradation_with(second_order_prob=0.5)(hr, range(count), 2)
    assert mixed.shape == first.shape
    assert 18 < sum(torch.equal(a, b) for a, b in zip(first, mixed, strict=True)) < 42
    # Half the size keeps no detail of single pixels; the same size keeps it.
    detail = {}
    for factor in (0.5, 1.0):
        options = {"second_order_prob": 1, "second_order_resize": (factor, factor)}
        again = to_8bit(degradation_with(**options)(hr, range(count), 2))
        detail[factor] = (again[..., 1:] - again[..., :-1]).abs().mean().item()
    before = to_8bit(first)
    assert detail[0.5] < 0.8 * detail[1.0]
    assert detail[1.0] == pytest.approx((before[..., 1:] - before[..., :-1]).abs().mean().item(), rel=0.1)
    # Noise and JPEG of the second round.
    options = {"second_order_prob": 1, "second_order_resize": (1, 1)}
    flat = torch.full((20, 3, 64, 64), 128, dtype=torch.uint8)
    noisy = {"noise": (10, 10), "noise_prob": 1, "gray_noise_prob": 1}
    once, twice = (degradation_with(**noisy, **o)(flat, range(20), 2) * 255 for o in ({}, options))
    assert twice.std().item() == pytest.approx(2**0.5 * once.std().item(), rel=0.05)


def test_real_world_sigma_blurs():
    hr = batch(4, size=64)
    contrast = [to_8bit(degradation_with(sigma=(s, s))(hr, range(4), 2)).std().item() for s in (0.1, 2.0, 6.0)]
    assert contrast[0] > 1.02 * contrast[1] > 1.05 * contrast[2]


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="bicubic, gaussian, real-world, got 'lanczos'"):
        make_degradation("lanczos", scale=4)
    for name, options in [
        ("gaussian", {"sigma": (2, 1)}),
        ("gaussian", {"sigma": (0, 1)}),
        ("real-world", {"sigma": (-1, 1)}),
        ("real-world", {"jpeg_quality": (40, 101)}),
        ("real-world", {"second_order_prob": -1}),
        ("real-world", {"second_order_resize": (0, 1)}),
        ("real-world", {"noise_prob": 2}),
        ("real-world", {"noise": (-1, 1)}),
        ("real-world", {"clean_prob": 1.5}),
    ]:
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be a range"):
            make_degradation(name, scale=4, **options)
    degrade = make_degradation("gaussian", scale=4)
    with pytest.raises(ValueError, match="uint8 NCHW RGB"):
        degrade(batch().float(), range(8), 0)
    with pytest.raises(ValueError, match="8 samples, got 7"):
        degrade(batch(), range(7), 0)
    with pytest.raises(ValueError, match="divisible by 5"):
        make_degradation("bicubic", scale=5)(batch(), range(8), 0)
    with pytest.raises(ValueError, match="divisible by 5"):
        make_degradation("gaussian", scale=5)(batch(), range(8), 0)
