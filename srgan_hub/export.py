"""The fused network as ONNX or OpenVINO files, for other programs; or one step of its stream, with what it keeps."""

import tempfile
from pathlib import Path

from .backends.graph import build_onnx
from .fileio import atomic_write
from .model import SRGAN
from .network.fusion import fuse


def export_onnx(
    model: SRGAN, target: Path, *, streaming: bool = False, name: str | None = None, license: str | None = None
) -> Path:
    """Write a model as ONNX: input `lr` (N, 3, H, W) and output `sr` (N, 3, H * scale, W * scale), any size.

    Both are float32 RGB in [0, 1]. The file's metadata state this, `scale`, and what is given here.

    With `streaming` the file is one step of a stream: it takes the next rows of an image and what was kept of those
    before (`kept0`, ...), and gives rows of the result, which are late, and what to keep (`keep0`, ...). Beside it are
    two files for the ends of an image: NAME_first takes nothing that was kept, and at least as many rows as `least` in
    its metadata says; NAME_last gives nothing to keep. Together the rows are the result for the whole image.

    Args:
        model: the model; batch norm is taken in evaluation mode.
        target: the file; one that is there is replaced, and only by a whole one.
        streaming: write a step and its two ends.
        name: what the model is called.
        license: the license of its weights.

    Raises:
        ValueError: the package onnx is missing.
        OSError: the file cannot be written.
    """
    metadata = {"scale": str(model.scale), "range": "[0, 1]", "colors": "RGB", "name": name, "license": license}
    network = fuse(model.generator)
    for part, file in _files(target, streaming).items():
        graph = build_onnx(network, scale=model.scale, part=part, metadata=metadata)
        with atomic_write(file) as tmp_path:
            tmp_path.write_bytes(graph.data)
    return target


def export_openvino(model: SRGAN, target: Path, *, streaming: bool = False) -> Path:
    """Write what `export` writes as OpenVINO's files, `target` (.xml) and the weights beside it (.bin).

    The files state that all is computed in float32.

    Raises:
        ValueError: the package openvino or onnx is missing.
        OSError: a file cannot be written.
    """
    try:
        import openvino
    except ImportError as error:
        raise ValueError('The package openvino is missing; pip install "srgan-hub[openvino]".') from error
    with tempfile.TemporaryDirectory() as folder:
        file = export_onnx(model, Path(folder, target.stem + ".onnx"), streaming=streaming)
        for source, goal in zip(_files(file, streaming).values(), _files(target, streaming).values(), strict=True):
            converted = openvino.convert_model(source)
            for operation in converted.get_ops():  # CPUs with bfloat16 would compute in it by default
                operation.get_rt_info()["precise_0"] = ""
            openvino.save_model(converted, goal, compress_to_fp16=False)
    return target


def _files(target: Path, streaming: bool) -> dict[str, Path]:
    if not streaming:
        return {"whole": target}
    return {"middle": target, **{end: target.with_stem(f"{target.stem}_{end}") for end in ("first", "last")}}
