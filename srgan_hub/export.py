"""Export models to ONNX and OpenVINO, as a whole or as one streaming step."""

import tempfile
from pathlib import Path

from .backends.graph import build_onnx
from .fileio import atomic_write
from .model import SRGAN
from .network.fusion import fuse


def export_onnx(
    model: SRGAN, target: Path, *, streaming: bool = False, name: str | None = None, license: str | None = None
) -> Path:
    """Export a model to ONNX: input `lr` (N, 3, H, W), output `sr` (N, 3, H * scale, W * scale), dynamic sizes.

    Both are float32 RGB in [0, 1]; the file's metadata state this, `scale`, `name`, and the weights' `license`. Batch
    norm is exported in evaluation mode, and files are written atomically. Returns `target`.

    With `streaming` the file is one step of a stream: it takes the next rows of an image and the rows cached before
    (`cache0`, ...), and returns output rows, delayed by the receptive field, and rows to cache (`new_cache0`, ...).
    Two more files handle the ends of an image: NAME_first takes no cache, and at least `min_rows` rows, which its
    metadata state; NAME_last returns no cache. Concatenated, the outputs are that of the whole image.

    Raises:
        ValueError: The package onnx is not installed.
        OSError: The file cannot be written.
    """
    metadata = {"scale": str(model.scale), "range": "[0, 1]", "colors": "RGB", "name": name, "license": license}
    network = fuse(model.generator)
    for stage, file in _files(target, streaming).items():
        onnx_model = build_onnx(network, scale=model.scale, stage=stage, metadata=metadata)
        with atomic_write(file) as tmp_path:
            tmp_path.write_bytes(onnx_model.data)
    return target


def export_openvino(model: SRGAN, target: Path, *, streaming: bool = False) -> Path:
    """Export a model as `export_onnx` does, to OpenVINO IR: `target` (.xml), and the weights (.bin) next to it.

    The files request float32 inference. Returns `target`.

    Raises:
        ValueError: The package openvino or onnx is not installed.
        OSError: A file cannot be written.
    """
    try:
        import openvino
    except ImportError as error:
        raise ValueError('OpenVINO export requires `openvino`: pip install "srgan-hub[openvino]".') from error
    with tempfile.TemporaryDirectory() as directory:
        source = export_onnx(model, Path(directory, target.stem + ".onnx"), streaming=streaming)
        targets = _files(target, streaming)
        for stage, file in _files(source, streaming).items():
            converted = openvino.convert_model(file)
            for operation in converted.get_ops():  # by default, CPUs with bfloat16 would compute in it
                operation.get_rt_info()["precise_0"] = ""
            openvino.save_model(converted, targets[stage], compress_to_fp16=False)
    return target


def _files(target: Path, streaming: bool) -> dict[str, Path]:
    if not streaming:
        return {"whole": target}
    return {"middle": target, **{end: target.with_stem(f"{target.stem}_{end}") for end in ("first", "last")}}
