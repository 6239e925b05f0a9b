"""Pairs of LR and HR: made as stated, or found by name."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import image, truth
from skimage.metrics import peak_signal_noise_ratio

from srgan_hub.degradations import make_degradation
from srgan_hub.evaluate import evaluate
from srgan_hub.evaluate.datasets import PairedDataset, to_tensor, to_uint8
from srgan_hub.evaluate.report import BICUBIC
from srgan_hub.metrics import rgb_to_y
from srgan_hub.resize import downscale, resize


def test_lr_is_made_as_stated(data):
    def lr(**options):
        return PairedDataset(data, scale=4, **options)[0].lr

    def digest(**options):
        return evaluate([], data=data, metrics=["psnr_y"], **options).protocol.data_sha256

    hr = truth(data, "color")
    matlab, pillow, jpeg = lr(), lr(downsampling="pillow"), lr(jpeg=30)
    assert np.array_equal(matlab, to_uint8(downscale(to_tensor(hr), 4, round_to_uint8=True)))
    assert np.array_equal(pillow, np.asarray(Image.fromarray(hr).resize((20, 17), Image.Resampling.BICUBIC)))
    buffer = io.BytesIO()
    Image.fromarray(matlab).save(buffer, "JPEG", quality=30)
    assert np.array_equal(jpeg, np.asarray(Image.open(buffer)))
    assert not np.array_equal(matlab, pillow)
    assert len({digest(), digest(downsampling="pillow"), digest(jpeg=30)}) == 3
    assert digest() == digest()
    with pytest.raises(ValueError, match="Expected a downsampling out of matlab, pillow, got 'lanczos'"):
        lr(downsampling="lanczos")
    with pytest.raises(ValueError, match="quality from 1 to 100, got 0"):
        lr(jpeg=0)


@pytest.mark.parametrize("name", ["real-world", "gaussian"])
def test_lr_is_made_as_in_training(data, name):
    pairs = PairedDataset(data, lr=None, scale=4, downsampling="matlab", jpeg=None, degradation=name)
    degrade = make_degradation(name, scale=4)
    for index, (pair, path) in enumerate(zip(pairs, sorted(data.iterdir()), strict=True)):
        hr = torch.from_numpy(truth(data, path.stem).copy()).permute(2, 0, 1)[None]
        assert np.array_equal(pair.lr, to_uint8(degrade(hr, [index], 0)))
    report = evaluate([], data=data, metrics=["psnr_y"], degradation=name)
    assert report.protocol.lr.startswith(f"training's degradation {name}, seed 0")
    assert ("half of the images clean" in report.protocol.lr) == (name == "real-world")
    for options in ({"jpeg": 75}, {"downsampling": "pillow"}, {"lr": data}):
        with pytest.raises(ValueError, match=f"Degradation {name} makes the LR by itself"):
            evaluate([], data=data, degradation=name, **options)
    with pytest.raises(ValueError, match="Expected a degradation out of gaussian, real-world, got 'lanczos'"):
        evaluate([], data=data, degradation="lanczos")


def test_lr_files_are_found_by_name_and_checked(data, tmp_path):
    folder = tmp_path / "LRx4"
    folder.mkdir()
    Image.fromarray(image(17, 20, seed=2)).save(folder / "color.png")
    Image.fromarray(image(16, 16, seed=3)[:, :, 1]).save(folder / "grayx4.png")
    report = evaluate([], data=data, lr=folder, metrics=["psnr_y"])
    sr = to_uint8(resize(to_tensor(image(17, 20, seed=2)), (68, 80), round_to_uint8=True))
    ya, yb = (rgb_to_y(to_tensor(x[4:-4, 4:-4])).numpy() for x in (sr, truth(data, "color")))
    assert report[BICUBIC].images["color"]["psnr_y"] == pytest.approx(
        peak_signal_noise_ratio(yb, ya, data_range=1), abs=1e-4
    )
    assert report.protocol.degradation == "x4, files in LRx4"
    Image.fromarray(image(16, 17)).save(folder / "grayx4.png")
    with pytest.raises(ValueError, match=r"grayx4.png has 17 x 16 pixels, expected 16 x 16.*cropped to a multiple"):
        evaluate([], data=data, lr=folder, metrics=["psnr_y"])
    (folder / "grayx4.png").unlink()
    with pytest.raises(ValueError, match=r"no LR image for gray.png: expected gray.png or grayx4.png"):
        evaluate([], data=data, lr=folder, metrics=["psnr_y"])
