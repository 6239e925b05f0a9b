import sys

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from srgan_hub import SRGAN
from srgan_hub.export import export_onnx, export_openvino


def run(file, lr: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["sr"], {"lr": lr.numpy()})[0])


def lively_model(tiny_generator, **options) -> SRGAN:
    model = SRGAN(channels=4, num_blocks=2, **options)
    model.generator = tiny_generator(**options)
    return model


SIZES = [(1, 3, 1, 1), (2, 3, 7, 5), (1, 3, 12, 30)]


@pytest.mark.parametrize("size", SIZES)
def test_bundled_weights_compute_the_same(size, tmp_path):
    model = SRGAN.from_pretrained("srgan-x4")
    lr = torch.rand(size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(lr)
    torch.testing.assert_close(run(export_onnx(model, tmp_path / "a.onnx"), lr), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
@pytest.mark.parametrize("ends", [{}, {"trunk_end": "prelu", "output_activation": "clamp"}])
def test_every_architecture_computes_the_same_at_any_size(scale, upsampler, ends, tiny_generator, tmp_path):
    model = lively_model(tiny_generator, scale=scale, upsampler=upsampler, **ends)
    file = export_onnx(model.train(), tmp_path / "a.onnx")  # batch norm in evaluation mode all the same
    model.eval()
    for size in SIZES:
        lr = torch.rand(size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            torch.testing.assert_close(run(file, lr), model(lr), atol=1e-5, rtol=0)


def test_metadata_and_shapes(tiny_generator, tmp_path):
    file = export_onnx(lively_model(tiny_generator, scale=3), tmp_path / "a.onnx", name="org/mine", license="cc-by-4.0")
    found = onnx.load(file)
    facts = {entry.key: entry.value for entry in found.metadata_props}
    assert facts == {
        **{"scale": "3", "range": "[0, 1]", "colors": "RGB"},
        **{"name": "org/mine", "license": "cc-by-4.0"},
    }
    assert [entry.version for entry in found.opset_import] == [17]
    session = onnxruntime.InferenceSession(file)
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 3, "height_x3", "width_x3"]
    operators = {node.op_type for node in found.graph.node}
    assert "BatchNormalization" not in operators and "DepthToSpace" in operators
    last_conv = next(node for node in reversed(found.graph.node) if node.op_type == "Conv")
    kernel = next(entry.ints for entry in last_conv.attribute if entry.name == "kernel_shape")
    assert list(kernel) == [5, 5]  # nine rows at full size are five before the shuffle by three


def test_unknown_facts_are_left_out(tiny_generator, tmp_path):
    facts = onnx.load(export_onnx(lively_model(tiny_generator), tmp_path / "a.onnx")).metadata_props
    assert {entry.key for entry in facts} == {"scale", "range", "colors"}


def test_missing_package_is_said(tiny_generator, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r'pip install "srgan-hub\[onnx\]"'):
        export_onnx(lively_model(tiny_generator), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_is_whole_or_as_it_was(tiny_generator, tmp_path, monkeypatch):
    target = tmp_path / "a.onnx"
    target.write_bytes(b"mine")

    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(type(target), "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        export_onnx(lively_model(tiny_generator), target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"] and target.read_bytes() == b"mine"


def test_unknown_layers_raise(tmp_path):
    model = SRGAN(channels=4, num_blocks=1)
    model.generator = nn.Sequential(nn.MaxPool2d(2))
    with pytest.raises(TypeError, match="Cannot export MaxPool2d"):
        export_onnx(model, tmp_path / "a.onnx")


def test_the_model_stays_as_it_was(tiny_generator, tmp_path):
    model = lively_model(tiny_generator)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "a.onnx")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())


def stream(steps, least: int, lr: np.ndarray, strip: int) -> np.ndarray:
    """Nothing of the package: three functions that take and give lists of arrays."""
    first, middle, last = steps
    strips = np.split(lr, range(least + strip, lr.shape[2], strip), axis=2)
    parts, kept = [], []
    for number, rows in enumerate(strips):
        step = first if number == 0 else last if number == len(strips) - 1 else middle
        sr, *kept = step([rows, *kept])
        parts.append(sr)
    return np.concatenate(parts, 2)


def onnx_steps(file):
    files = [file.with_stem(file.stem + end) for end in ("_first", "", "_last")]
    sessions = [onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]) for each in files]
    names = [each.name for each in sessions[1].get_inputs()]
    least = {int(each.get_modelmeta().custom_metadata_map["min_rows"]) for each in sessions}
    assert len(least) == 1
    steps = [
        lambda arrays, session=session: session.run(None, dict(zip(names, arrays, strict=False)))
        for session in sessions
    ]
    return steps, least.pop()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
@pytest.mark.parametrize("ends", [{}, {"trunk_end": "prelu", "output_activation": "clamp"}])
@pytest.mark.parametrize(("height", "strip"), [(30, 1), (50, 7), (26, 10)])
def test_an_image_is_streamed_by_steps(scale, upsampler, ends, height, strip, tiny_generator, tmp_path):
    model = lively_model(tiny_generator, scale=scale, upsampler=upsampler, **ends).eval()
    steps, least = onnx_steps(export_onnx(model, tmp_path / "a.onnx", streaming=True))
    lr = torch.rand(2, 3, height, 9, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(lr).numpy()
    assert np.abs(stream(steps, least, lr.numpy(), strip) - expected).max() < 1e-5


def test_openvino_streams_the_bundled_weights(tmp_path):
    model = SRGAN.from_pretrained("srgan-x4-photo")
    _, least = onnx_steps(export_onnx(model, tmp_path / "a.onnx", streaming=True))
    assert least == 41
    file = export_openvino(model, tmp_path / "a.xml", streaming=True)
    # Or a CPU with bfloat16 would compute in it.
    assert "DisablePrecisionConversion" in file.read_text()
    compiled = [openvino.compile_model(file.with_stem(file.stem + end), "CPU") for end in ("_first", "", "_last")]
    steps = [lambda arrays, step=step: [*step(arrays).values()] for step in compiled]
    lr = torch.rand(1, 3, 90, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(lr).numpy()
    assert np.abs(stream(steps, least, lr.numpy(), 16) - expected).max() < 1e-5
