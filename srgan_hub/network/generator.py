"""SRGAN/SRResNet generator (Ledig et al. 2016, https://arxiv.org/abs/1609.04802)."""

from collections import OrderedDict

from torch import nn

from .layers import Residual

SCALES = (2, 3, 4)
UPSAMPLERS = ("pixelshuffle", "nearest")
TRUNK_ENDS = ("batchnorm", "prelu")
OUTPUT_ACTIVATIONS = ("sigmoid", "clamp")


def build_generator(
    *, scale: int, channels: int, num_blocks: int, upsampler: str, trunk_end: str, output_activation: str
) -> nn.Sequential:
    """Build the generator of SRResNet and SRGAN, as an `nn.Sequential` of named layers; options as for `SRGAN`.

    It maps RGB tensors (N, 3, H, W) in [0, 1] of any size to (N, 3, H * scale, W * scale) in [0, 1]. The paper names no
    output activation; the sigmoid equals a rescaled tanh, since `(tanh(z) + 1) / 2` is `sigmoid(2 z)`. Invalid options
    raise ValueError.
    """
    for name, choice, choices in (
        ("scale", scale, SCALES),
        ("upsampler", upsampler, UPSAMPLERS),
        ("trunk_end", trunk_end, TRUNK_ENDS),
        ("output_activation", output_activation, OUTPUT_ACTIVATIONS),
    ):
        if choice not in choices:
            raise ValueError(f"`{name}` must be one of {choices}, got {choice!r}.")
    for name, value in (("channels", channels), ("num_blocks", num_blocks)):
        if type(value) is not int or value < 1:
            raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")

    trunk: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(num_blocks):
        trunk[f"block{i}"] = _block(channels)
    trunk["conv"] = nn.Conv2d(channels, channels, 3, padding=1)
    trunk |= {"bn": nn.BatchNorm2d(channels)} if trunk_end == "batchnorm" else {"act": nn.PReLU(channels)}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["head_conv"] = nn.Conv2d(3, channels, 9, padding=4)
    layers["head_act"] = nn.PReLU(channels)
    layers["trunk"] = Residual(trunk)
    width = channels
    for i, factor in enumerate((2, 2) if scale == 4 else (scale,)):
        if upsampler == "pixelshuffle":
            layers[f"up{i}_conv"] = nn.Conv2d(channels, channels * factor**2, 3, padding=1)
            layers[f"up{i}_shuffle"] = nn.PixelShuffle(factor)
            layers[f"up{i}_act"] = nn.PReLU(channels)
        else:
            layers[f"up{i}_conv"] = nn.Conv2d(width, 4 * channels, 3, padding=1)
            layers[f"up{i}_repeat"] = nn.Upsample(scale_factor=factor, mode="nearest")
            layers[f"up{i}_act"] = nn.LeakyReLU(0.2)
            width = 4 * channels
    layers["tail_conv"] = nn.Conv2d(width, 3, 9, padding=4)
    layers["tail_act"] = nn.Sigmoid() if output_activation == "sigmoid" else nn.Hardtanh(0.0, 1.0)
    return nn.Sequential(layers)


def _block(channels: int) -> Residual:
    return Residual(
        OrderedDict[str, nn.Module](
            conv1=nn.Conv2d(channels, channels, 3, padding=1),
            bn1=nn.BatchNorm2d(channels),
            act=nn.PReLU(channels),
            conv2=nn.Conv2d(channels, channels, 3, padding=1),
            bn2=nn.BatchNorm2d(channels),
        )
    )
