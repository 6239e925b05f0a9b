"""Named metrics and their optional packages."""

import sys
import types

import numpy as np
import pytest
import torch
from sample_images import FAST, image

from srgan_hub.evaluate.datasets import to_tensor
from srgan_hub.evaluate.scorers import SHIFTS, _averaged_over_shifts, make_scorers

CPU = torch.device("cpu")


def test_unavailable_metrics_are_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    scorers, notes = make_scorers(None, crop_border=4, scale=4, device=CPU)
    assert set(FAST) <= scorers.keys() and not {"lpips", "dists"} & scorers.keys()
    assert any("LPIPS" in note and "alexnet-owt-7be5be79.pth" in note for note in notes)
    monkeypatch.setitem(sys.modules, "piq", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    scorers, notes = make_scorers(None, crop_border=4, scale=4, device=CPU)
    assert any("DISTS requires the package piq" in note for note in notes)
    assert "lite0_distance" not in scorers and any("srgan-hub[lite]" in note for note in notes)
    with pytest.raises(ValueError, match=r"pip install 'srgan-hub\[metrics\]'"):
        make_scorers(["dists"], crop_border=4, scale=4, device=CPU)

    def unreachable(**options):
        raise OSError("no route")

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=unreachable))
    with pytest.raises(ValueError, match=r"LPIPS is unavailable: .*no route"):
        make_scorers(["lpips"], crop_border=4, scale=4, device=CPU)


class Distance(torch.nn.Module):
    """Mean of the first image minus the second, which depends on their range."""

    def __init__(self, **options):
        super().__init__()
        self.seen = []

    def forward(self, sr, hr):
        self.seen.append(sr)
        return (sr - hr).mean() if sr.dtype == torch.float32 else torch.tensor(torch.nan)


def test_lpips_and_dists_get_images_in_their_ranges(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Distance))
    monkeypatch.setitem(sys.modules, "piq", types.SimpleNamespace(DISTS=Distance))
    scorers, _ = make_scorers(["lpips", "dists"], crop_border=4, scale=4, device=CPU)
    sr, hr = (torch.full((1, 3, 8, 8), value, dtype=torch.float64) for value in (0.75, 0.25))
    assert scorers["lpips"](sr, hr, hr) == pytest.approx(1.0)  # [-1, 1]
    assert scorers["dists"](sr, hr, hr) == pytest.approx(0.5)  # [0, 1]


def test_lite0_distance_is_the_mean_of_four_offsets():
    network = Distance()
    score = _averaged_over_shifts(network, CPU)
    sr, hr = (to_tensor(image(40, 45, seed)) for seed in (0, 1))
    crops = [(slice(None), slice(None), slice(y, y + 37), slice(x, x + 42)) for y, x in SHIFTS]
    assert score(sr, hr, hr) == pytest.approx(np.mean([(sr[c] - hr[c]).mean().item() for c in crops]), abs=1e-6)
    assert all(torch.equal(seen, sr[c].float()) for seen, c in zip(network.seen, crops, strict=True))
    assert sorted(y % 4 for y, _ in SHIFTS) == sorted(x % 4 for _, x in SHIFTS) == [0, 1, 2, 3]
    assert score(sr[..., :34, :], hr[..., :34, :], hr) is None


def test_lite0_distance_of_equal_images_is_zero():
    pytest.importorskip("efficientnet_lite_pytorch")
    scorers, _ = make_scorers(["lite0_distance"], crop_border=4, scale=4, device=CPU)
    a, b = (to_tensor(image(40, 40, seed)) for seed in (0, 1))
    assert scorers["lite0_distance"](a, a, a) == 0
    assert scorers["lite0_distance"](a, b, b) > 0.1
