"""SRGAN super-resolution: any image four times larger, in bounded memory, with weights on the Hugging Face Hub."""

from .hub import bundled_model_path
from .images.encode import save_image
from .model import SRGAN
from .version import __version__

__all__ = ["SRGAN", "__version__", "bundled_model_path", "save_image"]
