"""Write a fused network as an ONNX graph: complete, or as one stage of its stream, which is itself a network.

The graph is built layer by layer instead of traced, so it does not depend on the version of PyTorch. Batch size, height
and width are dynamic.
"""

import itertools
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..network.layers import ChannelSlice, Residual, is_same_conv, nearest_scale
from ..network.streaming import receptive_field_radius

# Of 2022: supported by the runtimes in other programs.
OPSET = 17
IR_VERSION = 8
# Whether a stage takes cached rows, and whether it returns rows to cache.
STAGES = {"whole": (False, False), "first": (False, True), "middle": (True, True), "last": (True, False)}


class OnnxModel(NamedTuple):
    """A serialized ONNX model, and the minimum rows of the first strip of a stream."""

    data: bytes
    min_rows: int


def build_onnx(
    network: nn.Sequential, *, scale: int, stage: str = "whole", metadata: Mapping[str, str | None] = {}
) -> OnnxModel:
    """Convert a network to ONNX.

    The input is `lr` (N, 3, H, W), the output `sr` (N, 3, H * scale, W * scale), float32 RGB.

    A stage of a stream takes the next rows of an image and the rows cached before (`cache0`, `cache1`, ...), and
    returns output rows, delayed by the receptive field, and rows to cache (`new_cache0`, ...). The first strip of an
    image passes through "first", which takes no cache; the last one through "last", which returns none; all others
    through "middle". Concatenated, the outputs equal that of "whole".

    The network is a fused generator, or its first layers. Stages of a stream add `min_rows` to the file's metadata, of
    which None values are left out.

    Raises:
        ValueError: The package onnx is not installed.
        TypeError: The network has a layer that cannot be exported.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError('ONNX export requires the `onnx` package: pip install "srgan-hub[onnx]".') from error
    takes_cache, returns_cache = STAGES[stage]
    graph = _Graph(onnx, takes_cache=takes_cache, returns_cache=returns_cache)
    graph.node("Identity", [graph.network(network, "lr")], output="sr")
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(
        graph.build(scale), opset_imports=[opset], ir_version=IR_VERSION, producer_name="srgan-hub"
    )
    properties = {**metadata, "min_rows": None if stage == "whole" else str(graph.min_rows)}
    onnx.helper.set_model_props(model, {key: value for key, value in properties.items() if value})
    onnx.checker.check_model(model, full_check=True)
    return OnnxModel(model.SerializeToString(), graph.min_rows)


class _Graph:
    """Nodes and initializers of an ONNX graph, in order of execution. Methods add to them and return the result's name.

    Rows are cached once for each chain of convolutions, at its input: its inner layers compute a few rows twice, which
    is cheaper than a concatenation before each.

    Args:
        onnx: The package.
        takes_cache: Start with the cached rows instead of the zero padding above the image.
        returns_cache: Return rows to cache instead of ending with the zero padding below the image.

    Attributes:
        caches: Channels, rows, and width as a multiple of the LR width, of each cache.
        latency: Rows by which the output is delayed, at its own scale.
        min_rows: Minimum LR rows of the first strip.
    """

    def __init__(self, onnx: ModuleType, *, takes_cache: bool, returns_cache: bool) -> None:
        self.onnx, self.takes_cache, self.returns_cache = onnx, takes_cache, returns_cache
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.caches: list[tuple[int, int, int]] = []
        self.channels, self.scale, self.latency, self.min_rows = 3, 1, 0, 1

    def network(self, layers: Iterable[nn.Module], x: str) -> str:
        for pointwise_or_conv, group in itertools.groupby(layers, _keeps_resolution):
            if pointwise_or_conv:
                x = self.conv_chain([*group], x)[1]
            else:
                for layer in group:
                    x = self.residual(layer, x) if isinstance(layer, Residual) else self.upsample(layer, x)
        return x

    def conv_chain(self, layers: list[nn.Module], x: str) -> tuple[str, str]:
        """Add convolutions and pointwise layers; return the names of their input, with cached rows, and output."""
        radius = receptive_field_radius(layers)
        rows = y = self.with_cache(x, 2 * radius) if radius else x
        for layer in layers:
            y = self.layer(layer, y)
        self.latency += radius
        return rows, y

    def residual(self, block: Residual, x: str) -> str:
        radius = receptive_field_radius(block)
        if all(map(_keeps_resolution, block)):
            rows, y = self.conv_chain([*block], x)
            start, end = radius if self.takes_cache else 0, -radius if self.returns_cache else None
            return self.node("Add", [self.slice(rows, start, end), y])
        rows = self.with_cache(x, radius)
        y = self.network(block, x)
        return self.node("Add", [self.slice(rows, 0, -radius if self.returns_cache else None), y])

    def upsample(self, layer: nn.Module, x: str) -> str:
        if isinstance(layer, nn.PixelShuffle):
            factor = layer.upscale_factor
            self.channels //= factor**2
            y = self.node("DepthToSpace", [x], blocksize=factor, mode="CRD")
        elif factor := nearest_scale(layer):
            scales = self.initializer(torch.tensor([1, 1, factor, factor], device="cpu"))
            modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            y = self.node("Resize", [x, "", scales], **modes)
        else:
            raise TypeError(f"Cannot export {layer}: not a layer of a fused generator.")
        self.scale, self.latency = self.scale * factor, self.latency * factor
        return y

    def layer(self, layer: nn.Module, x: str) -> str:
        if isinstance(layer, nn.Conv2d):
            weights = [self.initializer(layer.weight)] + ([] if layer.bias is None else [self.initializer(layer.bias)])
            above, side = layer.kernel_size[0] // 2, layer.kernel_size[1] // 2
            pads = [0 if self.takes_cache else above, side, 0 if self.returns_cache else above, side]
            self.channels = layer.out_channels
            return self.node("Conv", [x, *weights], kernel_shape=layer.kernel_size, pads=pads, group=layer.groups)
        if isinstance(layer, nn.PReLU):
            return self.node("PRelu", [x, self.initializer(layer.weight[:, None, None])])
        if isinstance(layer, nn.LeakyReLU):
            return self.node("LeakyRelu", [x], alpha=layer.negative_slope)
        if isinstance(layer, ChannelSlice):
            self.channels = layer.count
            return self.slice(x, 0, layer.count, axis=1)
        if isinstance(layer, nn.Sigmoid):
            return self.node("Sigmoid", [x])
        assert isinstance(layer, nn.Hardtanh)
        limits = [self.initializer(torch.tensor(each, device="cpu")) for each in (layer.min_val, layer.max_val)]
        return self.node("Clip", [x, *limits])

    def with_cache(self, x: str, count: int) -> str:
        """Return the name of the cached rows followed by `x`, of which the last `count` are cached next."""
        number = len(self.caches)
        self.caches.append((self.channels, count, self.scale))
        self.min_rows = max(self.min_rows, -(-(self.latency + count) // self.scale))
        rows = self.node("Concat", [f"cache{number}", x], axis=2) if self.takes_cache else x
        if self.returns_cache:
            self.slice(rows, -count, None, output=f"new_cache{number}")
        return rows

    def slice(self, x: str, start: int, end: int | None, *, axis: int = 2, output: str = "") -> str:
        """Add a slice along an axis, rows by default, with Python's indices."""
        if (start, end) == (0, None):
            return x
        bounds = map(self.int_const, (start, 2**31 if end is None else end, axis))
        return self.node("Slice", [x, *bounds], output=output)

    def node(self, operator: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        output = output or f"x{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def initializer(self, values: Tensor) -> str:
        name = f"weight{len(self.initializers)}"
        self.initializers.append(self.onnx.numpy_helper.from_array(values.detach().float().cpu().numpy(), name))
        return name

    def int_const(self, value: int) -> str:
        name = f"integer{value}"
        if all(constant.name != name for constant in self.initializers):
            self.initializers.append(self.onnx.numpy_helper.from_array(np.array([value]), name))
        return name

    def build(self, scale: int) -> Any:
        """Return the graph from `lr` and the cache to `sr` and the new cache."""

        def tensor(name: str, *shape: int | str) -> Any:
            return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, ["batch", *shape])

        rows = "rows" if self.takes_cache or self.returns_cache else f"height_x{scale}"
        inputs = [tensor("lr", 3, "height", "width")]
        outputs = [tensor("sr", 3, rows, f"width_x{scale}")]
        for number, (channels, count, factor) in enumerate(self.caches):
            shape = channels, count, "width" if factor == 1 else f"width_x{factor}"
            inputs += [tensor(f"cache{number}", *shape)] if self.takes_cache else []
            outputs += [tensor(f"new_cache{number}", *shape)] if self.returns_cache else []
        return self.onnx.helper.make_graph(self.nodes, "srgan", inputs, outputs, self.initializers)


def _keeps_resolution(layer: nn.Module) -> bool:
    return is_same_conv(layer) or type(layer) in (nn.PReLU, nn.LeakyReLU, nn.Sigmoid, nn.Hardtanh, ChannelSlice)
