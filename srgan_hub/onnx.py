"""The fused network as an ONNX file, for other upscaler programs.

The generator is plain data, so its graph is written down layer by layer: no tracing, and the same file from every
version of PyTorch. Batch, height and width stay free.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from .model import SRGAN
from .network.fuse import fuse
from .network.layers import Residual, keeps_size, repeat_factor
from .replacing import replacing

# Of 2022: old enough for the runtimes in other programs, new enough for all that is needed.
OPSET = 17
IR_VERSION = 8


def export(model: SRGAN, target: Path, *, name: str | None = None, license: str | None = None) -> Path:
    """Write a model as ONNX: input `lr` (N, 3, H, W) and output `sr` (N, 3, H * scale, W * scale), any size.

    Both are float32 RGB in [0, 1]. The file's metadata state this, `scale`, and what is given here.

    Args:
        model: the model; batch norm is taken in evaluation mode.
        target: the file; one that is there is replaced, and only by a whole one.
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
    graph = _Graph(onnx)
    graph.add("Identity", [graph.layer(fuse(model.generator), "lr")], output="sr")
    facts = {"scale": str(model.scale), "range": "[0, 1]", "colours": "RGB", "name": name, "license": license}
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
