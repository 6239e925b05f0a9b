"""Before/after viewer with zoom.

A `gr.HTML`, since the handle of `gr.ImageSlider` cannot be reached by keyboard and its halves have no labels.
"""

import html
from typing import Any

import gradio as gr

from .theme import component
from .uploads import to_file_data
from .upscale import Completed


def create_viewer() -> gr.HTML:
    """Create the viewer. Its `select` event has the picked position `x`, `y` as fractions of width and height."""
    return component("viewer", elem_id="viewer")


def planned(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return the value for an output that does not exist yet: an empty frame with its proportions.

    A data URL `preview` in it is shown in the frame.
    """
    return {"name": html.escape(name), "width": size[0], "height": size[1]}


def compared(completed: Completed) -> dict[str, Any]:
    """Return the value that compares bicubic interpolation and a result."""
    bicubic, result = map(to_file_data, completed.viewer_files)
    return {**planned(completed.source.name, completed.image.size), "bicubic": bicubic, "result": result}
