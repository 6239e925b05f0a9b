"""ZeroGPU of Hugging Face Spaces: a GPU is lent to a decorated function while it runs. Elsewhere nothing of it is here.

Imported before torch, as the package `spaces` wants.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

ZERO_GPU = importlib.util.find_spec("spaces") is not None


def on_gpu(*, duration: Callable[..., int]) -> Callable[[Function], Function]:
    """Decorate a generator function that needs the GPU; `duration` has its arguments and returns seconds."""
    if not ZERO_GPU:
        return lambda function: function
    import spaces

    return spaces.GPU(duration=duration)
