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

SIZES = [(1, 3, 1, 1), (2, 3, 7, 5), (1, 3, 12, 30)]
SCALES = pytest.mark.parametrize("scale", [2, 3, 4])
UPSAMPLERS = pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
ENDS = pytest.mark.parametrize("ends", [{}, {"trunk_end": "prelu", "output_activation": "clamp"}])


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tiny_model(tiny_generator):
    def build(**options) -> SRGAN:
        model = SRGAN(channels=4, num_blocks=2, **options)
        model.generator = tiny_generator(**options)
        return model.eval()

    return build


def assert_same_output(file, model: SRGAN) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for size in SIZES:
        lr = noise(*size)
        with torch.inference_mode():
            expected = model(lr)
        sr = torch.from_numpy(session.run(["sr"], {"lr": lr.numpy()})[0])
        torch.testing.assert_close(sr, expected, atol=2e-5, rtol=0)


def test_bundled_weights_compute_the_same(bundled_model, tmp_path):
    model = bundled_model("srgan-x4")
    assert_same_output(export_onnx(model, tmp_path / "a.onnx"), model)


@SCALES
@UPSAMPLERS
@ENDS
def test_all_architectures_compute_the_same_at_any_size(scale, upsampler, ends, tiny_model, tmp_path):
    model = tiny_model(scale=scale, upsampler=upsampler, **ends).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    file = export_onnx(model, tmp_path / "a.onnx")  # batch norm in evaluation mode
    assert model.training and all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert_same_output(file, model.eval())


def test_metadata_and_shapes(tiny_model, tmp_path):
    file = export_onnx(tiny_model(scale=3), tmp_path / "a.onnx", name="org/mine", license="cc-by-4.0")
    exported = onnx.load(file)
    assert {entry.key: entry.value for entry in exported.metadata_props} == {
        **{"scale": "3", "range": "[0, 1]", "colors": "RGB"},
        **{"name": "org/mine", "license": "cc-by-4.0"},
    }
    assert [entry.version for entry in exported.opset_import] == [17]
    session = onnxruntime.InferenceSession(file)
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 3, "height_x3", "width_x3"]
    operators = {node.op_type for node in exported.graph.node}
    assert "BatchNormalization" not in operators and "DepthToSpace" in operators
    last_conv = next(node for node in reversed(exported.graph.node) if node.op_type == "Conv")
    kernel = next(entry.ints for entry in last_conv.attribute if entry.name == "kernel_shape")
    assert list(kernel) == [5, 5]  # nine rows at full resolution are five before the shuffle by three
    unnamed = onnx.load(export_onnx(tiny_model(), tmp_path / "a.onnx"))
    assert {entry.key for entry in unnamed.metadata_props} == {"scale", "range", "colors"}


def test_missing_package_is_reported(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r'pip install "srgan-hub\[onnx\]"'):
        export_onnx(tiny_model(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_files_are_written_atomically(tiny_model, tmp_path, monkeypatch):
    target = tmp_path / "a.onnx"
    target.write_bytes(b"mine")

    def disk_full(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(type(target), "write_bytes", disk_full)
    with pytest.raises(OSError, match="No space"):
        export_onnx(tiny_model(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"] and target.read_bytes() == b"mine"


def test_unsupported_layers_are_refused(tiny_model, tmp_path):
    model = tiny_model()
    model.generator = nn.Sequential(nn.MaxPool2d(2))
    with pytest.raises(TypeError, match="Cannot export MaxPool2d"):
        export_onnx(model, tmp_path / "a.onnx")


def stream(steps, min_rows: int, lr: np.ndarray, strip_height: int) -> np.ndarray:
    """Run a stream without the package: three functions from lists of arrays to lists of arrays."""
    first, middle, last = steps
    strips = np.split(lr, range(min_rows + strip_height, lr.shape[2], strip_height), axis=2)
    outputs, cache = [], []
    for number, rows in enumerate(strips):
        step = first if number == 0 else last if number == len(strips) - 1 else middle
        sr, *cache = step([rows, *cache])
        outputs.append(sr)
    return np.concatenate(outputs, 2)


def stages(file):
    return [file.with_stem(file.stem + end) for end in ("_first", "", "_last")]


def onnx_steps(file):
    sessions = [onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]) for each in stages(file)]
    names = [each.name for each in sessions[1].get_inputs()]
    (min_rows,) = {int(each.get_modelmeta().custom_metadata_map["min_rows"]) for each in sessions}
    steps = [
        lambda arrays, session=session: session.run(None, dict(zip(names, arrays, strict=False)))
        for session in sessions
    ]
    return steps, min_rows


@SCALES
@UPSAMPLERS
@ENDS
def test_streaming_steps_compute_the_same(scale, upsampler, ends, tiny_model, tmp_path):
    model = tiny_model(scale=scale, upsampler=upsampler, **ends)
    steps, min_rows = onnx_steps(export_onnx(model, tmp_path / "a.onnx", streaming=True))
    for height, strip_height in ((30, 1), (50, 7), (26, 10)):
        lr = noise(2, 3, height, 9)
        with torch.inference_mode():
            expected = model(lr).numpy()
        assert np.abs(stream(steps, min_rows, lr.numpy(), strip_height) - expected).max() < 1e-5


def test_min_rows_of_the_paper_and_openvino_steps(bundled_model, tiny_model, tmp_path):
    assert onnx_steps(export_onnx(bundled_model("srgan-x4-photo"), tmp_path / "a.onnx", streaming=True))[1] == 41
    model = tiny_model()
    _, min_rows = onnx_steps(export_onnx(model, tmp_path / "b.onnx", streaming=True))
    file = export_openvino(model, tmp_path / "b.xml", streaming=True)
    assert "DisablePrecisionConversion" in file.read_text()  # or CPUs with bfloat16 would compute in it
    compiled = [openvino.compile_model(each, "CPU") for each in stages(file)]
    steps = [lambda arrays, step=step: [*step(arrays).values()] for step in compiled]
    lr = noise(1, 3, 90, 40)
    with torch.inference_mode():
        expected = model(lr).numpy()
    assert np.abs(stream(steps, min_rows, lr.numpy(), 16) - expected).max() < 1e-5
