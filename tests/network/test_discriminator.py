import pytest
import torch
from torch import nn

from srgan_hub.network.discriminator import Discriminator, build_discriminator, build_patch_discriminator


def test_thesis_discriminator_layer_by_layer():
    with torch.device("meta"):
        network = Discriminator(hr_size=384)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in (*network.features, *network.classifier)]
    plan = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    expected = [3 * 64 * 9 + 64, 0]
    for before, after in plan:
        expected += [before * after * 9 + after, 2 * after, 0]
    expected += [0, 294_912 * 1024 + 1024, 0, 1024 + 1]
    assert counts == expected
    statistics = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert statistics == 3_712
    assert sum(counts) + statistics == 306_684_737


def test_paper_crop_size():
    network = Discriminator()
    assert network.classifier[1].in_features == 18_432
    logits = network.eval()(torch.zeros(2, 3, 96, 96))
    assert logits.shape == (2, 1)
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=0)


def test_other_crop_size_is_refused():
    with pytest.raises(ValueError, match=r"\(N, 3, 32, 32\).*hr_size"):
        Discriminator(hr_size=32)(torch.zeros(1, 3, 48, 48))
    with pytest.raises(ValueError, match="multiple of 16"):
        Discriminator(hr_size=100)


def test_unknown_discriminator_is_refused():
    with pytest.raises(ValueError, match="'paper', 'patch', got 'unet'"):
        build_discriminator("unet", hr_size=96)


def test_patch_discriminator_is_bounded_and_local():
    torch.manual_seed(0)
    network = build_patch_discriminator().train()
    image = torch.rand(1, 3, 96, 96)
    for _ in range(20):  # the power iteration behind the spectral norm settles
        network(image)
    network.eval()
    logits = network(image)
    assert logits.shape == (1, 1, 12, 12)
    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2) < 1.1
    changed = image.clone()
    changed[..., :8, :8] = 1 - changed[..., :8, :8]
    difference = (network(changed) - logits).abs()[0, 0]
    assert difference[0, 0] > 0
    assert difference[8:, 8:].max() == 0


@pytest.mark.parametrize("name", ["paper", "patch"])
def test_leaky_relus_have_the_papers_slope(name):
    slopes = [m.negative_slope for m in build_discriminator(name, hr_size=32).modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.2] * {"paper": 9, "patch": 5}[name]
