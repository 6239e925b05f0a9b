"""SRGAN super-resolution: any picture four times larger, in bounded memory, with weights on the Hugging Face Hub."""

from .model import SRGAN
from .names import bundled
from .version import __version__

__all__ = ["SRGAN", "__version__", "bundled"]
