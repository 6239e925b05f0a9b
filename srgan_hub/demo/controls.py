"""Controls of the settings of a job."""

import uuid
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
        # Unlike `gr.Number`, it refuses fractions instead of rounding them, next to the field.
        self.size = _segmented(
            "size", size_value("4x", 0), label="Size", sizes=[*SIZES], elem_id="size" if live_detail else None
        )
        if live_detail:
            self.detail_preview = component("detail_preview", elem_classes="detail-preview")
        style: dict[str, Any] = {"elem_classes": "detail", "elem_id": "detail" if live_detail else None}
        self.detail = gr.Slider(0, 1, 1, step=0.05, label="Detail", buttons=[], **style)
        with gr.Accordion("More settings", open=False):
            self.preset = _choice("Image type", {name: each.label for name, each in PRESETS.items()})
            self.format = _choice("Format", {name: name for name in FORMATS})
            self.quality = gr.Slider(1, 100, 90, step=1, label="Quality", visible=False, buttons=[])
            self.strip_metadata = _choice("Metadata", STRIP_METADATA)
        self.all: list[Any] = [self.size, self.detail, self.preset, self.format, self.quality, self.strip_metadata]
        self.format.change(lambda value: gr.update(visible=value != "PNG"), self.format, self.quality, **SYNC_EVENT)

    def to_settings(self, values: Values) -> Settings:
        """Return the chosen settings. Raises `ValueError`."""
        size, *others = (values[each] for each in self.all)
        return Settings(size["size"] or size["edge"], *others)


def size_value(size: str, limit: int, edge: Any = "") -> dict[str, Any]:
    """Return the value of the size's control: a factor or "", and a longest edge within a limit, 0 for none."""
    if size or not str(edge).isdecimal() or (limit and int(edge) > limit):
        edge = min(1600, limit or 1600)
    return {"size": size, "edge": str(edge), "limit": limit}


def _choice(label: str, choices: dict[str, str]) -> gr.HTML:
    """Create a choice between values by their labels, at first the first one.

    That of `gr.Radio` has several tab stops and no arrow keys.
    """
    hints = {name: PRESETS[name].description for name in choices if name in PRESETS}
    return _segmented("segments", next(iter(choices)), label=label, choices=choices, hints=hints)


def _segmented(name: str, value: Any, **options: Any) -> gr.HTML:
    return component(name, value, group=uuid.uuid4().hex, elem_classes="segmented", **options)
