"""ZeroGPU support on Hugging Face Spaces. Imports no torch, since `spaces` must be imported first."""

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

ZERO_GPU = importlib.util.find_spec("spaces") is not None


def on_gpu(*, duration: Callable[..., int]) -> Callable[[Function], Function]:
    """Decorate a generator function that needs the GPU; `duration` maps its arguments to seconds."""
    if not ZERO_GPU:
        return lambda function: function
    import spaces

    return spaces.GPU(duration=duration)
