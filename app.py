"""The Gradio demo: upload a small picture, get it four times as large, compare, download. Run: python app.py"""

import functools
import html
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.pictures import files
from srgan_hub.upscaler import Upscaler

# What the page calls the models, and what SRGAN.from_pretrained takes: a bundled name, a folder or a Hub id.
MODELS = {"SRGAN: crisp, invents texture": "srgan-x4", "SRResNet: faithful, best for JPEG": "srresnet-x4"}
EXAMPLES = Path(files.__file__).parent.parent / "examples"
# A megapixel takes about half a minute on two processor cores.
MAX_PIXELS = 4_000_000
MAX_FILE_SIZE = "50mb"
# Rows go through in small portions, so that progress is smooth and cancelling is quick.
BAND_PIXELS = 8_192
# Browsers struggle with larger pictures in the slider; the download is always whole.
SLIDER_SIDE = 2_048
THEME = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=["system-ui", "sans-serif"])
CSS = """
.gradio-container {max-width: 1200px !important; margin: auto !important}
footer {display: none !important}
#status {min-height: 1.5em}
#status .bar {background: #e2e8f0; border-radius: 4px; margin-top: 6px}
#status .bar div {background: #6366f1; border-radius: 4px; height: 8px}
"""


def create_demo(
    models: dict[str, str] | None = None, *, max_pixels: int = MAX_PIXELS, slider_side: int = SLIDER_SIDE
) -> gr.Blocks:
    """Build the demo.

    Args:
        models: label on the page -> bundled name, folder or Hub id. Each is loaded when it is first used.
        max_pixels: the largest picture that is accepted, in pixels.
        slider_side: the largest side of the pictures in the slider.
    """
    models = models or MODELS

    @functools.cache
    def load(name: str) -> Upscaler:
        budget = BAND_PIXELS if not torch.cuda.is_available() else None
        return SRGAN.from_pretrained(name).upscaler(memory=budget)

    def upscale(picture: str | None, model: str) -> Iterator[tuple[Any, Any, str]]:
        """Enlarge a picture: a file and a model's name in; slider pictures, the result as PNG, a line of text out."""
        if not picture:
            raise gr.Error("Choose a picture first: upload one or click an example.")
        path = Path(picture)
        name = html.escape(path.name)
        started = time.perf_counter()
        try:
            image = files.read(path, max_pixels=max_pixels)
            upscaler = load(model)
            array = files.to_array(image)
            yield None, None, _bar(f"{name}: {image.width} x {image.height} pixels", 0)
            bands = []
            done = 0
            for band in upscaler.stream(array):
                bands.append(band)
                done += len(band)
                share = done / (image.height * upscaler.scale)
                # A cancel takes effect where the function yields.
                yield gr.skip(), gr.skip(), _bar(f"{name}: {share:.0%}", share)
        except ValueError as error:
            # The visitor knows the picture's name, not where the server keeps it.
            raise gr.Error(f"{error}".replace(str(path), path.name), print_exception=False) from error
        result = files.to_image(np.concatenate(bands), like=image)
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            download = Path(folder) / f"{path.stem}_x{upscaler.scale}.png"
            files.write(result, download)
            slider, note = _slider_pictures(image, result, Path(folder), slider_side)
            summary = (
                f"{image.width} x {image.height} → <b>{result.width} x {result.height}</b> pixels in {seconds:.1f} s."
            )
            yield slider, str(download), f"{summary} {note}"

    with gr.Blocks(title="SRGAN upscaler", delete_cache=(3600, 3600)) as demo:
        gr.Markdown(
            "# Small picture in, four times larger out\n"
            "SRGAN redraws the detail that a small picture lost. The whole picture goes through the network in "
            "full-width bands, so there are no seams. The new detail is plausible, not evidence."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                picture = gr.Image(label="Your picture", sources=["upload", "clipboard"], height=300, elem_id="picture")
                # The file as it came: Gradio would decode it before the limits are checked, and drop transparency.
                picture.preprocess = lambda payload: payload and payload.path  # type: ignore[assignment, return-value]
                model = gr.Radio(
                    list(models.items()), value=next(iter(models.values())), label="Model", elem_id="model"
                )
                with gr.Row():
                    run = gr.Button("Upscale", variant="primary", elem_id="run")
                    cancel = gr.Button("Cancel", elem_id="cancel")
                gr.Examples([[str(path)] for path in _examples()], inputs=[picture], label="Or try one of these")
                gr.Markdown(
                    f"PNG, JPEG, WebP, BMP or TIFF, up to {max_pixels / 1e6:.3g} megapixels and "
                    f"{MAX_FILE_SIZE[:-2]} MB. Animations are not supported."
                )
            with gr.Column(scale=3, min_width=300):
                slider = gr.ImageSlider(
                    label="Bicubic | result",
                    format="png",
                    interactive=False,
                    max_height=640,
                    elem_id="slider",
                )
                status = gr.HTML("Drag the handle to compare once the result is here.", elem_id="status")
                download = gr.DownloadButton("Download PNG", variant="primary", elem_id="download", interactive=False)
        job = run.click(
            upscale,
            [picture, model],
            [slider, download, status],
            api_name="upscale",
            show_progress="hidden",  # the status line has a bar of its own, exact to the band
            scroll_to_output=True,
        )
        job.success(lambda: gr.update(interactive=True), None, download, api_visibility="private")
        cancel.click(lambda: "Cancelled.", None, status, cancels=[job], api_visibility="private")
    return demo


def _bar(text: str, share: float) -> str:
    return f"{text}<div class='bar'><div style='width: {share:.1%}'></div></div>"


def _examples() -> list[Path]:
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in files.SUFFIXES)


def _slider_pictures(image: Image.Image, result: Image.Image, folder: Path, side: int) -> tuple[tuple[str, str], str]:
    """Save bicubic and result for the slider, at one size of at most ``side``, and say so if it is reduced."""
    shrink = min(1.0, side / max(result.size))
    size = (max(1, round(result.width * shrink)), max(1, round(result.height * shrink)))
    bicubic = image.resize(result.size, Image.Resampling.BICUBIC)
    pictures = []
    for name, large in (("bicubic", bicubic), ("result", result)):
        path = folder / f"{name}.png"
        files.write(large.resize(size, Image.Resampling.LANCZOS) if shrink < 1 else large, path)
        pictures.append(str(path))
    note = f"The comparison shows it at {size[0]} x {size[1]}, the download is full size." if shrink < 1 else ""
    return (pictures[0], pictures[1]), note


if __name__ == "__main__":
    # Ours is the limit that counts, and it is checked before anything is decoded.
    Image.MAX_IMAGE_PIXELS = None
    demo = create_demo()
    demo.queue(max_size=20, default_concurrency_limit=1)
    demo.launch(max_file_size=MAX_FILE_SIZE, ssr_mode=False, theme=THEME, css=CSS)
