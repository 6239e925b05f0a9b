"""SRGAN super-resolution: any picture four times larger, in bounded memory, with weights on the Hugging Face Hub."""

from .model import SRGAN
from .names import bundled

__all__ = ["SRGAN", "bundled"]
__version__ = "0.1.0"
