"""SRGAN super-resolution: any picture four times larger, in bounded memory, with weights on the Hugging Face Hub."""

from .hub import bundled
from .model import SRGAN
from .version import __version__

__all__ = ["SRGAN", "__version__", "bundled"]
