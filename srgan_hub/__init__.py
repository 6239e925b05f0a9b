"""SRGAN image super-resolution for PyTorch and the Hugging Face Hub."""

from .batch import upscale_files
from .hub import bundled_models
from .images.encode import SaveOptions, save_image
from .model import SRGAN
from .upscaler import Upscaler
from .version import __version__

__all__ = ["SRGAN", "SaveOptions", "Upscaler", "__version__", "bundled_models", "save_image", "upscale_files"]
