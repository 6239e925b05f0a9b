"""OpenVINO CPU backend."""

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
from ..network.streaming import receptive_field_radius
from .graph import build_onnx

logger = logging.getLogger(__name__)

# Models whose compiled stages, at most four of 7 MB each, are cached on disk; the least recently used are removed.
MAX_CACHED_MODELS = 8


class OpenVINOBackend:
    """Run a network with OpenVINO on the CPU; see `Backend`.

    Each stage of the stream is converted and compiled on first use, for all image sizes, and cached on disk. CPUs
    without bfloat16 compute it in float32.
    """

    # Limited by the last layers, which have 16 times as many values per LR pixel as the others.
    strip_pixels = 24_576
    whole_image_pixels = 65_536
    # The first strip has at least `min_first_rows` rows, so wider images take a lot of memory.
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
        self.column_radius = receptive_field_radius(network, axis=1)
        self.min_first_rows = build_onnx(network, scale=scale, stage="first").min_rows

    def stream(self, lr: Any, *, strip_height: int, to_input: Callable[[Any], Tensor]) -> Iterator[Tensor]:
        height = lr.shape[2]
        cuts = range(self.min_first_rows + strip_height, height, strip_height)
        strips = [*lr.tensor_split([*cuts], dim=2)]
        stages = {"first": strips[:1], "middle": strips[1:-1], "last": strips[-1:]} if cuts else {"whole": strips}
        cache: list[Any] = []
        for stage, strips in stages.items():
            if not strips:
                continue
            with self._borrow(stage) as compiled:
                # Two requests alternate: the cache that one returns is passed to the other without a copy.
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
    def is_faster_for(cls, height: int, width: int, dtype: torch.dtype) -> bool:
        """Return whether an image of this size should run on this backend instead of PyTorch.

        Streaming in float32 takes as long on both, and several times the memory here.
        """
        return width * height <= cls.whole_image_pixels or (dtype != torch.float32 and width <= cls.max_stream_width)

    @contextlib.contextmanager
    def _borrow(self, stage: str) -> Iterator[Any]:
        """Lend a compiled stage; its working memory is released after the last concurrent user."""
        with self._lock:
            if stage not in self._compiled:
                core, pid = _core()
                model = core.read_model(build_onnx(self.network, scale=self.scale, stage=stage).data)
                # A forked process lacks the threads of the streams, which compilation waits for.
                forked = {"NUM_STREAMS": 0} if pid != os.getpid() else {}
                options = self.options | forked | _cache_config(self.network)
                self._compiled[stage] = core.compile_model(model, "CPU", options)
            compiled = self._compiled[stage]
            self._users[stage] += 1
        try:
            yield compiled
        finally:
            with self._lock:
                self._users[stage] -= 1
                # Small images often come in large numbers, and allocating memory again takes time.
                if stage != "whole" and not self._users[stage]:
                    compiled.release_memory()


@functools.cache
def _core() -> tuple[Any, int]:
    """Return the process's only core, and the id of the process that created it.

    Each core installs a stack for signal handlers, and restores the previous one when it is deleted. If two are deleted
    in order of creation, a freed stack is restored, and the next signal kills the process (2026.4).
    """
    import openvino

    return openvino.Core(), os.getpid()


def _cache_config(network: nn.Module) -> dict[str, str]:
    """Return the option with the cache directory for these weights; the least recently used directories are removed.

    OpenVINO compiles again what is corrupt there, or was compiled by another version or for another CPU.
    """
    try:
        key = weights_sha256(network)
        directory = cached_assets_path("srgan-hub", "openvino", key, assets_dir=constants.HF_ASSETS_CACHE)
        os.utime(directory)
        cached = sorted(directory.parent.iterdir(), key=lambda each: each.stat().st_mtime)
    except (OSError, ValueError) as error:  # ValueError: a file is in the way
        logger.info("Compiled OpenVINO models are not cached: %s", error)
        return {}
    for oldest in cached[:-MAX_CACHED_MODELS]:
        shutil.rmtree(oldest, ignore_errors=True)
    return {"CACHE_DIR": str(directory)}
