"""The fused network as an ONNX file, for other upscaler programs; or one step of its stream, with what it keeps.

The generator is plain data, so its graph is written down layer by layer: no tracing, and the same file from every
version of PyTorch. Batch, height and width stay free.

In the step every layer gives as many rows as it takes, late by its reach. Rows above and below the picture are set to
zero behind each convolution, which is the zero padding of the whole picture.
"""

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from .model import SRGAN
from .network.fuse import fuse
from .network.layers import Residual, keeps_size, repeat_factor
from .replacing import replacing

# Of 2022: old enough for the runtimes in other programs, new enough for all that is needed.
OPSET = 17
IR_VERSION = 8


def export(
    model: SRGAN, target: Path, *, streaming: bool = False, name: str | None = None, license: str | None = None
) -> Path:
    """Write a model as ONNX: input `lr` (N, 3, H, W) and output `sr` (N, 3, H * scale, W * scale), any size.

    Both are float32 RGB in [0, 1]. The file's metadata state this, `scale`, and what is given here.

    With `streaming` the file is one step of a stream. It takes `lr`, the next rows of a picture; `top`, the number of
    the first of them; `height`, that of all; and `keptN`, zeros at first, (1, channels, rows, width or a multiple). It
    gives `sr`, and what to keep. All rows of `sr` are late by the metadata's `delay`; rows of zeros follow the picture
    until the last one has come.

    Args:
        model: the model; batch norm is taken in evaluation mode.
        target: the file; one that is there is replaced, and only by a whole one.
        streaming: write a step.
        name: what the model is called.
        license: the licence of its weights.

    Raises:
        ValueError: the package onnx is missing.
        OSError: the file cannot be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError('The package onnx is missing; pip install "srgan-hub[onnx]".') from error
    graph = _Step(onnx) if streaming else _Graph(onnx)
    graph.add("Identity", [graph.layer(fuse(model.generator), "lr")], output="sr")
    facts = {"scale": str(model.scale), "range": "[0, 1]", "colours": "RGB", "name": name, "license": license}
    if isinstance(graph, _Step):
        facts["delay"] = str(graph.delay)
    result = onnx.helper.make_model(
        graph.finish(model.scale),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="srgan-hub",
    )
    onnx.helper.set_model_props(result, {key: value for key, value in facts.items() if value})
    onnx.checker.check_model(result, full_check=True)
    with replacing(target) as aside:
        aside.write_bytes(result.SerializeToString())
    return target


def export_openvino(model: SRGAN, target: Path, *, streaming: bool = False) -> Path:
    """Write what `export` writes as OpenVINO's files, `target` (.xml) and the weights beside it (.bin).

    Raises:
        ValueError: the package openvino or onnx is missing.
        OSError: a file cannot be written.
    """
    try:
        import openvino
    except ImportError as error:
        raise ValueError('The package openvino is missing; pip install "srgan-hub[openvino]".') from error
    with tempfile.TemporaryDirectory() as folder:
        file = export(model, Path(folder) / "model.onnx", streaming=streaming)
        openvino.save_model(openvino.convert_model(file), target, compress_to_fp16=False)
    return target


class _Graph:
    """Nodes and weights of an ONNX graph, in the order in which they are computed."""

    def __init__(self, onnx: ModuleType) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def layer(self, layer: nn.Module, x: str) -> str:
        """Add a layer, or a whole network, that takes the tensor called `x`; return the name of what it makes."""
        if isinstance(layer, nn.Sequential):
            y = x
            for inner in layer:
                y = self.layer(inner, y)
            return self.add("Add", [x, y]) if isinstance(layer, Residual) else y
        if isinstance(layer, nn.Conv2d) and keeps_size(layer):
            weights = [self.weight(layer.weight)] + ([] if layer.bias is None else [self.weight(layer.bias)])
            pads = [*layer.padding, *layer.padding]
            return self.add("Conv", [x, *weights], kernel_shape=layer.kernel_size, pads=pads, group=layer.groups)
        if isinstance(layer, nn.PReLU):
            return self.add("PRelu", [x, self.weight(layer.weight[:, None, None])])
        if isinstance(layer, nn.LeakyReLU):
            return self.add("LeakyRelu", [x], alpha=layer.negative_slope)
        if isinstance(layer, nn.PixelShuffle):
            return self.add("DepthToSpace", [x], blocksize=layer.upscale_factor, mode="CRD")
        if factor := repeat_factor(layer):
            scales = self.weight(Tensor([1, 1, factor, factor]))
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            return self.add("Resize", [x, "", scales], **how)
        if isinstance(layer, nn.Sigmoid):
            return self.add("Sigmoid", [x])
        if isinstance(layer, nn.Hardtanh):
            limits = [self.weight(Tensor([limit])[0]) for limit in (layer.min_val, layer.max_val)]
            return self.add("Clip", [x, *limits])
        raise TypeError(f"Cannot export {layer}: only the fused generator's layers are known.")

    def add(self, operator: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its result."""
        output = output or f"x{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, values: Tensor) -> str:
        """Add a constant; return its name."""
        name = f"weight{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(values.detach().float().cpu().numpy(), name))
        return name

    def finish(self, scale: int) -> Any:
        """Return the graph from `lr` to `sr`."""
        lr, sr = (
            self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, ["batch", 3, *size])
            for name, size in (("lr", ("height", "width")), ("sr", (f"height_x{scale}", f"width_x{scale}")))
        )
        return self.onnx.helper.make_graph(self.nodes, "srgan", [lr], [sr], self.weights)


class _Step(_Graph):
    """One step of the stream: rows in and out, and what the layers keep.

    Attributes:
        delay: how many rows of the result come before its first one.
    """

    def __init__(self, onnx: ModuleType) -> None:
        super().__init__(onnx)
        self.kept: list[tuple[str, str, int, int, int]] = []  # before, after, channels, rows, times as wide
        self.delay, self.factor, self.channels = 0, 1, 3

    def layer(self, layer: nn.Module, x: str) -> str:
        """Add a layer as `_Graph` does."""
        if isinstance(layer, Residual):
            before, channels = self.delay, self.channels
            y = x
            for inner in layer:
                y = self.layer(inner, y)
            waiting = self.keep(x, channels, self.delay - before)
            early = self.add("Slice", [waiting, self.ints(0), self.ints(before - self.delay), self.ints(2)])
            return self.add("Add", [early, y])
        if isinstance(layer, nn.Conv2d) and keeps_size(layer):
            reach = layer.kernel_size[0] // 2
            rows = self.keep(x, layer.in_channels, 2 * reach)
            weights = [self.weight(layer.weight)] + ([] if layer.bias is None else [self.weight(layer.bias)])
            pads = [0, layer.padding[1], 0, layer.padding[1]]
            y = self.add("Conv", [rows, *weights], kernel_shape=layer.kernel_size, pads=pads, group=layer.groups)
            self.channels, self.delay = layer.out_channels, self.delay + reach
            return self.add("Mul", [y, self.mask(y)])
        if isinstance(layer, nn.PixelShuffle) or repeat_factor(layer):
            times = layer.upscale_factor if isinstance(layer, nn.PixelShuffle) else repeat_factor(layer)
            self.channels //= times**2 if isinstance(layer, nn.PixelShuffle) else 1
            self.factor, self.delay = self.factor * times, self.delay * times
        return super().layer(layer, x)

    def keep(self, x: str, channels: int, rows: int) -> str:
        """Return rows behind those that were kept, of which the last ones are kept in turn."""
        before, after = f"kept{len(self.kept)}", f"keep{len(self.kept)}"
        self.kept.append((before, after, channels, rows, self.factor))
        both = self.add("Concat", [before, x], axis=2)
        self.add("Slice", [both, self.ints(-rows), self.ints(2**31), self.ints(2)], output=after)
        return both

    def mask(self, y: str) -> str:
        """Return 1 for the rows of `y` that lie in the picture, 0 for others: (1, 1, rows, 1)."""
        factor = self.ints(self.factor)
        rows = self.add("Slice", [self.add("Shape", [y]), self.ints(2), self.ints(3)])
        first = self.add("Sub", [self.add("Mul", ["top", factor]), self.ints(self.delay)])
        zero, one = self.ints(0, scalar=True), self.ints(1, scalar=True)
        number = self.add("Range", [zero, self.add("Squeeze", [rows]), one])
        number = self.add("Add", [number, first])
        low = self.add("GreaterOrEqual", [number, self.ints(0)])
        high = self.add("Less", [number, self.add("Mul", ["height", factor])])
        inside = self.add("Cast", [self.add("And", [low, high])], to=self.onnx.TensorProto.FLOAT)
        return self.add("Reshape", [inside, self.ints(1, 1, -1, 1)])

    def ints(self, *values: int, scalar: bool = False) -> str:
        """Add integers; return their name."""
        name = f"ints{'_'.join(map(str, values))}{'s' if scalar else ''}".replace("-", "m")
        if all(weight.name != name for weight in self.weights):
            array = np.array(values[0] if scalar else values, np.int64)
            self.weights.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def finish(self, scale: int) -> Any:
        """Return the graph from rows and what is kept to rows and what to keep."""
        floats, ints = self.onnx.TensorProto.FLOAT, self.onnx.TensorProto.INT64
        info = self.onnx.helper.make_tensor_value_info
        wide = {times: "width" if times == 1 else f"width_x{times}" for *_, times in self.kept}
        inputs = [info("lr", floats, [1, 3, "rows", "width"]), info("top", ints, [1]), info("height", ints, [1])]
        inputs += [
            info(before, floats, [1, channels, rows, wide[times]]) for before, _, channels, rows, times in self.kept
        ]
        outputs = [info("sr", floats, [1, 3, f"rows_x{scale}", f"width_x{scale}"])]
        outputs += [
            info(after, floats, [1, channels, rows, wide[times]]) for _, after, channels, rows, times in self.kept
        ]
        return self.onnx.helper.make_graph(self.nodes, "srgan_step", inputs, outputs, self.weights)
