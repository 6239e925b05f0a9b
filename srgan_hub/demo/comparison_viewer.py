"""Before/after viewer with zoom: values of the component `static/viewer.html`.

It is a `gr.HTML`, since the handle of `gr.ImageSlider` cannot be reached by keyboard and its halves have no labels. Its
`select` event has the picked position `x`, `y` as fractions of width and height.
"""

import html
from typing import Any

from .uploads import to_file_data
from .upscale import Completed


def planned(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return the value for an output that does not exist yet: an empty frame with its proportions.

    A data URL `preview` in it is shown in the frame.
    """
    return {"name": html.escape(name), "width": size[0], "height": size[1]}


def compared(completed: Completed) -> dict[str, Any]:
    """Return the value that compares bicubic interpolation and a result."""
    bicubic, result = map(to_file_data, completed.viewer_files)
    return {**planned(completed.source.name, completed.image.size), "bicubic": bicubic, "result": result}
