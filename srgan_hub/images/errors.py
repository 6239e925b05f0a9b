"""Errors of reading and writing images."""

from .decode import ImageError

__all__ = ["ImageError"]
