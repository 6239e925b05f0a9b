"""The SRGAN generator (Ledig et al. 2016, https://arxiv.org/abs/1609.04802) as plain data: one named nn.Sequential."""

from collections import OrderedDict

from torch import nn

from .layers import Residual

SCALES = (2, 3, 4)
UPSAMPLERS = ("pixelshuffle", "nearest")
TRUNK_ENDS = ("batchnorm", "prelu")
OUTPUTS = ("sigmoid", "clamp")


def build_generator(
    *,
    scale: int = 4,
    channels: int = 64,
    num_blocks: int = 16,
    upsampler: str = "pixelshuffle",
    trunk_end: str = "batchnorm",
    output_activation: str = "sigmoid",
) -> nn.Sequential:
    """Build the generator, SRResNet's and SRGAN's alike.

    It maps an NCHW RGB tensor in [0, 1] of any size to one `scale` times as high and wide, in [0, 1] too. The paper
    ends in tanh and rescales; `(tanh(z) + 1) / 2` is `sigmoid(2 z)`, so a sigmoid says the same in one layer.

    Args:
        scale: 2, 3 or 4.
        channels: feature maps of the trunk.
        num_blocks: residual blocks of the trunk.
        upsampler: "pixelshuffle" is the paper's sub-pixel convolution, "nearest" repeats pixels after a convolution.
        trunk_end: what follows the trunk's last convolution: "batchnorm" as in the paper, or "prelu", which some older
            weights have.
        output_activation: how the result gets into [0, 1]: "sigmoid" is the paper's tanh, "clamp" cuts off, which has
            no gradient outside.

    Raises:
        ValueError: an option is out of its range.
    """
    if scale not in SCALES:
        raise ValueError(f"Expected a scale out of {SCALES}, got {scale!r}.")
    for name, choice, choices in (
        ("upsampler", upsampler, UPSAMPLERS),
        ("trunk_end", trunk_end, TRUNK_ENDS),
        ("output_activation", output_activation, OUTPUTS),
    ):
        if choice not in choices:
            raise ValueError(f"Expected {name} out of {choices}, got {choice!r}.")
    for name, value in (("channels", channels), ("num_blocks", num_blocks)):
        if type(value) is not int or value < 1:
            raise ValueError(f"Expected {name} as a positive integer, got {value!r}.")

    trunk: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(num_blocks):
        trunk[f"block{i}"] = _block(channels)
    trunk["conv"] = nn.Conv2d(channels, channels, 3, padding=1)
    if trunk_end == "batchnorm":
        trunk["bn"] = nn.BatchNorm2d(channels)
    else:
        trunk["act"] = nn.PReLU(channels)

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
