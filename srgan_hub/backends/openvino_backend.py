"""OpenVINO on a CPU."""

import contextlib
import functools
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from huggingface_hub import cached_assets_path, constants
from torch import Tensor, nn

from ..network.layers import weights_sha256
from .graph import build_onnx

logger = logging.getLogger(__name__)

# Of so many models, those that were used last, the compiled parts stay on disk: 7 MB each, at most four of a model.
MAX_CACHED_MODELS = 8


class OpenVINOBackend:
    """A network that OpenVINO runs: whole where an image is small, and otherwise in strips.

    Each part of a stream is converted and compiled at its first use, once for all widths, and kept on disk.

    Args:
        network: a fused generator, but for what is left of it to the caller.
        scale: of the network.
        dtype: float32, or bfloat16, which CPUs without it compute in float32.
    """

    # The last layers have 16 times as many numbers for a pixel as the others, and all of a strip at once.
    strip_pixels = 24_576
    whole_image_pixels = 65_536
    # The first push has `least` rows at least, and the last one brings as many: wider images take a lot of memory.
    max_stream_width = 1_024

    def __init__(self, network: nn.Sequential, *, scale: int, dtype: torch.dtype) -> None:
        import openvino

        self.openvino = openvino
        self.network, self.scale = network, scale
        self.options = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32" if dtype == torch.float32 else "bf16",
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled: dict[str, Any] = {}
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.min_first_rows = build_onnx(network, scale=scale, part="first").min_rows

    def stream(self, lr: Any, *, strip_height: int, to_input: Callable[[Any], Tensor]) -> Iterator[Tensor]:
        """Yield the output for an image; see `Backend`."""
        height = lr.shape[2]
        cuts = range(self.min_first_rows + strip_height, height, strip_height)
        strips = [*lr.tensor_split([*cuts], dim=2)]
        parts = {"whole": strips} if not cuts else {"first": strips[:1], "middle": strips[1:-1], "last": strips[-1:]}
        cache: list[Any] = []
        for part, strips in parts.items():
            if not strips:
                continue
            with self._borrow(part) as compiled:
                # Two take turns, since what one has kept goes into the other as it is.
                requests = [compiled.create_infer_request() for _ in range(2)]
                for number, rows in enumerate(strips):
                    request = requests[number % 2]
                    inputs = [self.openvino.Tensor(np.ascontiguousarray(to_input(rows).numpy())), *cache]
                    for index, tensor in enumerate(inputs):
                        request.set_input_tensor(index, tensor)
                    request.infer()
                    outputs = [request.get_output_tensor(index) for index in range(len(request.model_outputs))]
                    cache = outputs[1:]
                    yield torch.from_numpy(outputs[0].data.copy())

    @classmethod
    def is_faster_for(cls, width: int, height: int, dtype: torch.dtype) -> bool:
        """Say whether an image should go through this backend if PyTorch is there as well.

        Streams in float32 take as long in both, and several times the memory here.
        """
        return width * height <= cls.whole_image_pixels or (dtype != torch.float32 and width <= cls.max_stream_width)

    @contextlib.contextmanager
    def _borrow(self, part: str) -> Iterator[Any]:
        """Lend a compiled part; the memory that it has computed in is free when the last user is done."""
        with self._lock:
            compiled = self._compile(part)
            self._users[part] += 1
        try:
            yield compiled
        finally:
            with self._lock:
                self._users[part] -= 1
                # Small images often come in numbers, and memory that is new takes time.
                if part != "whole" and not self._users[part]:
                    compiled.release_memory()

    def _compile(self, part: str) -> Any:
        if part not in self._compiled:
            model = _core().read_model(build_onnx(self.network, scale=self.scale, part=part).data)
            self._compiled[part] = _core().compile_model(model, "CPU", self.options | _cache_config(self.network))
        return self._compiled[part]


@functools.cache
def _core() -> Any:
    """Return the process's one core, which stays.

    Each core sets a stack for signals, and puts the one before it back when it goes. Of two that go in the order in
    which they came, the second puts back what is free by then, and the next signal ends the process (2026.4).
    """
    import openvino

    return openvino.Core()


def _cache_config(network: nn.Module) -> dict[str, str]:
    """Return the option that names the folder of what is compiled of these weights; the oldest folders go.

    OpenVINO compiles again what it finds broken there, or made by another version or for another CPU.
    """
    try:
        folder = cached_assets_path(
            "srgan-hub", "openvino", weights_sha256(network), assets_dir=constants.HF_ASSETS_CACHE
        )
        os.utime(folder)
        others = sorted(folder.parent.iterdir(), key=lambda each: each.stat().st_mtime)
    except (OSError, ValueError) as error:  # a ValueError where a file is in the way
        logger.info("what OpenVINO compiles is not kept: %s", error)
        return {}
    for other in others[:-MAX_CACHED_MODELS]:
        shutil.rmtree(other, ignore_errors=True)
    return {"CACHE_DIR": str(folder)}
