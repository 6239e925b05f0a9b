"""Controls of the settings of a job."""

from typing import Any

import gradio as gr

from .presets import PRESETS
from .settings import FORMATS, SIZES, STRIP_METADATA, Settings
from .theme import SYNC_EVENT, component

LONGEST_EDGE = "Longest edge"

Values = dict[Any, Any]  # inputs of an event, by component


class SettingsControls:
    """A control for each of the `Settings`, in the order of `all`."""

    def __init__(self, *, live_detail: bool = False) -> None:
        """Add the controls to the page; those that are not needed are hidden. `live_detail` adds a preview."""
        self.size = size_radio()
        self.longest = gr.Number(1600, label="Longest edge in pixels", precision=0, minimum=1, visible=False)
        if live_detail:
            self.detail_preview = component("detail_preview", elem_classes="detail-preview")
        self.detail = detail_slider(elem_id="detail" if live_detail else None)
        with gr.Accordion("More settings", open=False):
            self.preset = preset_radio()
            self.format = format_radio()
            self.quality = gr.Slider(1, 100, 90, step=1, label="Quality", visible=False, buttons=[])
            self.strip_metadata = metadata_radio()
        self.all: list[Any] = [
            self.size, self.longest, self.detail, self.preset, self.format, self.quality, self.strip_metadata
        ]  # fmt: skip
        edge, lossy = (
            (lambda value: gr.update(visible=value == LONGEST_EDGE)),
            lambda value: gr.update(visible=value != "PNG"),
        )
        self.size.change(edge, self.size, self.longest, **SYNC_EVENT)
        self.format.change(lossy, self.format, self.quality, **SYNC_EVENT)

    def to_settings(self, values: Values) -> Settings:
        """Return the chosen settings. Raises `ValueError`."""
        size, longest, *others = (values[each] for each in self.all)
        return Settings(str(int(longest or 0)) if size == LONGEST_EDGE else size, *others)


def size_radio() -> gr.Radio:
    """Create the choice of `SIZES` or a longest edge."""
    return gr.Radio([*SIZES, LONGEST_EDGE], value="4x", label="Size")


def detail_slider(**options: Any) -> gr.Slider:
    """Create the slider between the two models of a preset. Its style names its ends "Faithful" and "Sharp"."""
    return gr.Slider(0, 1, 1, step=0.05, label="Detail", buttons=[], elem_classes="detail", **options)


def preset_radio() -> gr.Radio:
    """Create the choice of `PRESETS`."""
    choices = [(preset.label, name) for name, preset in PRESETS.items()]
    info = " ".join(each.description for each in PRESETS.values())
    return gr.Radio(choices, value="photo", label="Image type", info=info)


def format_radio() -> gr.Radio:
    """Create the choice of `FORMATS`."""
    return gr.Radio([*FORMATS], value="PNG", label="Format")


def metadata_radio() -> gr.Radio:
    """Create the choice of metadata to remove."""
    choices = [(label, name) for name, label in STRIP_METADATA.items()]
    info = "Date, camera and location stored in the image. GPS location is removed by default."
    return gr.Radio(choices, value="gps", label="Metadata", info=info)
