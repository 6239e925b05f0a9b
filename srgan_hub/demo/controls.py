"""Controls of the settings of a job."""

import uuid
from collections.abc import Iterable
from typing import Any

import gradio as gr

from .presets import PRESETS
from .settings import FORMATS, SIZES, STRIP_METADATA, Settings
from .theme import SYNC_EVENT, component

Values = dict[Any, Any]  # inputs of an event, by component


class SettingsControls:
    """A control for each of the `Settings`, in the order of `all`."""

    def __init__(self, *, live_detail: bool = False) -> None:
        """Add the controls to the page; those that are not needed are hidden. `live_detail` adds a preview."""
        self.size = size_control(elem_id="size" if live_detail else None)
        if live_detail:
            self.detail_preview = component("detail_preview", elem_classes="detail-preview")
        self.detail = detail_slider(elem_id="detail" if live_detail else None)
        with gr.Accordion("More settings", open=False):
            self.preset = preset_segments()
            self.format = segments("Format", [(name, name) for name in FORMATS], "PNG")
            self.quality = gr.Slider(1, 100, 90, step=1, label="Quality", visible=False, buttons=[])
            self.strip_metadata = metadata_segments()
        self.all: list[Any] = [self.size, self.detail, self.preset, self.format, self.quality, self.strip_metadata]
        self.format.change(lambda value: gr.update(visible=value != "PNG"), self.format, self.quality, **SYNC_EVENT)

    def to_settings(self, values: Values) -> Settings:
        """Return the chosen settings. Raises `ValueError`."""
        size, *others = (values[each] for each in self.all)
        return Settings(size["size"] or size["edge"], *others)


def size_control(**options: Any) -> gr.HTML:
    """Create the choice of `SIZES` or a longest edge, whose value is a `size_value`.

    Unlike `gr.Number`, it refuses fractions instead of rounding them, next to the field.
    """
    options = {"label": "Size", "sizes": [*SIZES], "group": uuid.uuid4().hex, "elem_classes": "segmented", **options}
    return component("size", size_value("4x", 0), **options)


def size_value(size: str, limit: int, edge: Any = "") -> dict[str, Any]:
    """Return the value of a `size_control`: a factor or "", and a longest edge within a limit, 0 for none."""
    if size or not str(edge).isdecimal() or (limit and int(edge) > limit):
        edge = min(1600, limit or 1600)
    return {"size": size, "edge": str(edge), "limit": limit}


def detail_slider(**options: Any) -> gr.Slider:
    """Create the slider between the two models of a preset. Its style names its ends "Faithful" and "Sharp"."""
    return gr.Slider(0, 1, 1, step=0.05, label="Detail", buttons=[], elem_classes="detail", **options)


def segments(label: str, choices: Iterable[tuple[str, str]], value: str, info: str = "") -> gr.HTML:
    """Create a choice between (text, value) pairs; that of `gr.Radio` has several tab stops and no arrow keys."""
    options: dict[str, Any] = {"label": label, "choices": [*choices], "info": info, "group": uuid.uuid4().hex}
    return component("segments", value, elem_classes="segmented", **options)


def preset_segments() -> gr.HTML:
    """Create the choice of `PRESETS`."""
    info = " ".join(each.description for each in PRESETS.values())
    return segments("Image type", [(preset.label, name) for name, preset in PRESETS.items()], "photo", info)


def metadata_segments() -> gr.HTML:
    """Create the choice of metadata to remove."""
    choices = [(label, name) for name, label in STRIP_METADATA.items()]
    info = "Date, camera and location stored in the image. GPS location is removed by default."
    return segments("Metadata", choices, "gps", info)
