"""A fused network as an ONNX graph: whole, or as a part of its stream, which is itself a network.

The generator is plain data, so its graph is written down layer by layer: no tracing, and the same file from every
version of PyTorch. Batch, height and width stay free.
"""

import itertools
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from ..network.layers import ChannelSlice, Residual, is_same_conv, nearest_scale

# Of 2022: old enough for the runtimes in other programs, new enough for all that is needed.
OPSET = 17
IR_VERSION = 8
# Of an image: what takes no rows that were kept, and what keeps none.
STAGES = {"whole": (False, False), "first": (False, True), "middle": (True, True), "last": (True, False)}


class Graph(NamedTuple):
    """An ONNX file's bytes, and how many rows must come first in a stream."""

    data: bytes
    min_rows: int


def build_onnx(
    network: nn.Sequential, *, scale: int, part: str = "whole", metadata: Mapping[str, str | None] = {}
) -> Graph:
    """Return a network's graph.

    Input is `lr` (N, 3, H, W) and output `sr` (N, 3, H * scale, W * scale), float32 RGB.

    A part of a stream takes the next rows of an image, and what was kept of those before (`cache0`, `cache1`, ...). It
    gives rows of the result, which are late, and what to keep (`new_cache0`, ...). The first rows of an image go
    through "first", which takes no kept rows, the last ones through "last", which keeps none, and those between through
    "middle". Together they give what "whole" gives.

    Args:
        network: a fused generator, or its first layers.
        scale: its scale.
        part: one of `PARTS`.
        metadata: for the file's metadata; `least` says how many rows "first" must be given.

    Raises:
        ValueError: the package onnx is missing.
        TypeError: the network has a layer that cannot be exported.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError('The package onnx is missing; pip install "srgan-hub[onnx]".') from error
    above, below = STAGES[part]
    graph = _Graph(onnx, above=above, below=below)
    graph.node("Identity", [graph.network(network, "lr")], output="sr")
    result = onnx.helper.make_model(
        graph.build(scale),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="srgan-hub",
    )
    least = None if part == "whole" else str(graph.min_rows)
    onnx.helper.set_model_props(result, {key: value for key, value in {**metadata, "min_rows": least}.items() if value})
    onnx.checker.check_model(result, full_check=True)
    return Graph(result.SerializeToString(), graph.min_rows)


class _Graph:
    """Nodes and weights of an ONNX graph, in the order in which they are computed.

    Rows are kept where a run of convolutions begins, as many as all of them look at: those between compute a few rows
    twice, which is cheaper than joining rows before each.

    Args:
        onnx: the package.
        above: rows have come before, and what was kept of them goes in as `cache0`, `cache1`, ... Otherwise zeros stand
            above, the image's padding.
        below: rows will come, and what they need comes out as `new_cache0`, `new_cache1`, ... Otherwise zeros stand
            below.

    Attributes:
        cache: channels, rows, and times the width, of each.
        receptive_field: how many rows the output is late, in its own rows.
        min_rows: how many rows must come first.
    """

    def __init__(self, onnx: ModuleType, *, above: bool = False, below: bool = False) -> None:
        self.onnx, self.above, self.below = onnx, above, below
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.cache: list[tuple[int, int, int]] = []
        self.channels, self.factor, self.receptive_field, self.min_rows = 3, 1, 0, 1

    def network(self, layers: Iterable[nn.Module], x: str) -> str:
        """Add layers, one after another, that take the tensor called `x`; return the name of what they make."""
        for together, run in itertools.groupby(layers, _is_plain):
            if together:
                x = self.conv_chain([*run], x)[1]
            else:
                for layer in run:
                    x = self.residual(layer, x) if isinstance(layer, Residual) else self.upsample(layer, x)
        return x

    def conv_chain(self, layers: list[nn.Module], x: str) -> tuple[str, str]:
        """Add convolutions and what computes pixel by pixel; return the names of what goes in and comes out."""
        reach = sum(layer.kernel_size[0] // 2 for layer in layers if isinstance(layer, nn.Conv2d))
        rows = y = self.with_cache(x, 2 * reach) if reach else x
        for layer in layers:
            y = self.pointwise(layer, y)
        self.receptive_field += reach
        return rows, y

    def residual(self, block: Residual, x: str) -> str:
        """Add a sum of what goes in and what comes out."""
        before, channels = self.receptive_field, self.channels
        if all(map(_is_plain, block)):
            rows, y = self.conv_chain([*block], x)
            reach = self.receptive_field - before
            return self.node("Add", [self.slice(rows, reach if self.above else 0, -reach if self.below else None), y])
        number = len(self.cache)
        self.cache.append((0, 0, 0))
        y = self.network(block, x)
        reach = self.receptive_field - before
        self.cache[number] = channels, reach, self.factor
        rows = self.node("Concat", [f"cache{number}", x], axis=2) if self.above else x
        if self.below:
            self.slice(rows, -reach, None, output=f"new_cache{number}")
            rows = self.slice(rows, 0, -reach)
        return self.node("Add", [rows, y])

    def upsample(self, layer: nn.Module, x: str) -> str:
        """Add an upsampling."""
        if isinstance(layer, nn.PixelShuffle):
            factor = layer.upscale_factor
            self.channels //= factor**2
            y = self.node("DepthToSpace", [x], blocksize=factor, mode="CRD")
        elif factor := nearest_scale(layer):
            scales = self.initializer(Tensor([1, 1, factor, factor]))
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            y = self.node("Resize", [x, "", scales], **how)
        else:
            raise TypeError(f"Cannot export {layer}: only the fused generator's layers are known.")
        self.factor, self.receptive_field = self.factor * factor, self.receptive_field * factor
        return y

    def pointwise(self, layer: nn.Module, x: str) -> str:
        """Add a layer that makes of each pixel one pixel."""
        if isinstance(layer, nn.Conv2d):
            weights = [self.initializer(layer.weight)] + ([] if layer.bias is None else [self.initializer(layer.bias)])
            reach, side = layer.kernel_size[0] // 2, layer.kernel_size[1] // 2
            pads = [0 if self.above else reach, side, 0 if self.below else reach, side]
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
        limits = [self.initializer(Tensor([limit])[0]) for limit in (layer.min_val, layer.max_val)]
        return self.node("Clip", [x, *limits])

    def with_cache(self, x: str, count: int) -> str:
        """Return rows below those that were kept, of which the last `count` are kept in turn."""
        number = len(self.cache)
        self.cache.append((self.channels, count, self.factor))
        self.min_rows = max(self.min_rows, -(-(self.receptive_field + count) // self.factor))
        rows = self.node("Concat", [f"cache{number}", x], axis=2) if self.above else x
        if self.below:
            self.slice(rows, -count, None, output=f"new_cache{number}")
        return rows

    def slice(self, x: str, start: int, end: int | None, *, axis: int = 2, output: str = "") -> str:
        """Return the rows from `start` to `end`, counted as Python does, or what is along another axis."""
        if (start, end) == (0, None):
            return x
        return self.node(
            "Slice", [x, *map(self.int_const, (start, 2**31 if end is None else end, axis))], output=output
        )

    def node(self, operator: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its result."""
        output = output or f"x{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def initializer(self, values: Tensor) -> str:
        """Add a constant; return its name."""
        name = f"weight{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(values.detach().float().cpu().numpy(), name))
        return name

    def int_const(self, value: int) -> str:
        """Add an integer, once; return its name."""
        name = f"integer{value}"
        if all(weight.name != name for weight in self.weights):
            self.weights.append(self.onnx.numpy_helper.from_array(np.array([value]), name))
        return name

    def build(self, scale: int) -> Any:
        """Return the graph from `lr` and what was kept to `sr` and what to keep."""

        def tensor(name: str, *shape: int | str) -> Any:
            return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, ["batch", *shape])

        rows = f"height_x{scale}" if not (self.above or self.below) else "rows"
        inputs = [tensor("lr", 3, "height", "width")]
        outputs = [tensor("sr", 3, rows, f"width_x{scale}")]
        for number, (channels, count, factor) in enumerate(self.cache):
            shape = channels, count, "width" if factor == 1 else f"width_x{factor}"
            inputs += [tensor(f"cache{number}", *shape)] if self.above else []
            outputs += [tensor(f"new_cache{number}", *shape)] if self.below else []
        return self.onnx.helper.make_graph(self.nodes, "srgan", inputs, outputs, self.weights)


def _is_plain(layer: nn.Module) -> bool:
    return is_same_conv(layer) or type(layer) in (nn.PReLU, nn.LeakyReLU, nn.Sigmoid, nn.Hardtanh, ChannelSlice)
