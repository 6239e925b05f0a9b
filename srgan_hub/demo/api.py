"""The same for programs and agents: /upscale, /batch and /compare, with named values and without the page.

They are generators so that a client that leaves ends its run: until the result is there, its file is None.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from .. import hub
from .compare import PROTOCOL, ModelComparison
from .presets import PRESETS
from .service import Service, user_message
from .settings import FORMATS, METADATA, Settings
from .uploads import get_client, to_path
from .upscale import Completed, Progress


def build(service: Service) -> None:
    """Add the endpoints to the Blocks around."""

    def upscale(
        image: Any,
        size: str,
        detail: float,
        kind: str,
        format: str,
        quality: int,
        metadata: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, int | None, int | None, float | None]]:
        """Upscale an image up to four times. The detail that is added is plausible, not evidence.

        Args:
            image: The image: PNG, JPEG, WebP, BMP or TIFF. It must have been uploaded here.
            size: "2x", "3x", "4x", or the result's longest side in pixels, at most four times the image's.
            detail: From 0, faithful and calm, to 1, crisp with invented texture, in tenths.
            kind: "photo" for images from cameras, phones and the web, "clean" for those that were never a JPEG.
            format: Of the result: PNG, which is lossless, JPEG or WebP.
            quality: Of JPEG and WebP, from 1 to 100.
            metadata: What is kept of it: "no place" is all but the place (GPS), "all", or "none".

        Returns:
            file: The result.
            width: Its width in pixels.
            height: Its height in pixels.
            seconds: What it took, without waiting.
        """
        path = to_path(image)
        with tempfile.TemporaryDirectory() as folder:
            try:
                settings = Settings(size, detail, kind, format, quality, metadata)
                for step in service.upscale(_given(path), settings, Path(folder), get_client(request)):
                    match step:
                        case Completed():
                            yield str(step.file), *step.image.size, round(step.seconds, 3)
                        case Progress():
                            yield None, step.width, step.height, None
                        case _:
                            yield None, None, None, None
            except Exception as error:
                raise _refusal(error, path) from error

    def batch(
        images: Any, size: str, detail: float, kind: str, format: str, request: gr.Request
    ) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
        """Upscale several images into one zip. One that fails does not stop the others.

        Args:
            images: The images. They must have been uploaded here.
            size: "2x", "3x", "4x", or the results' longest side in pixels.
            detail: From 0, faithful and calm, to 1, crisp with invented texture, in tenths.
            kind: "photo" for images from cameras, phones and the web, "clean" for those that were never a JPEG.
            format: Of the results: PNG, which is lossless, JPEG or WebP.

        Returns:
            file: The zip.
            images: For each image its name, state, a text on it, width, height and seconds.
        """
        paths = [path for path in map(to_path, images or []) if path]
        with tempfile.TemporaryDirectory() as folder:
            try:
                settings = Settings(size, detail, kind, format)
                for entries in service.batch(paths, settings, Path(folder), get_client(request)):
                    told = [replace(entry, thumbnail="") for entry in entries]
                    yield None, list(map(vars, told))
                yield f"{folder}/results.zip", list(map(vars, told))
            except Exception as error:
                raise _refusal(error, None) from error

    def compare(
        image: Any, models: list[str], request: gr.Request, truth: Any = None
    ) -> Iterator[tuple[Any, list[dict[str, Any]], str]]:
        """Upscale an image by two or three models, and score them where the ground truth is given.

        Args:
            image: The image. It must have been uploaded here.
            models: Two or three of those that are offered.
            truth: The ground truth, at the models' scale; or nothing.

        Returns:
            files: The results, lossless.
            scores: For each model its name, seconds, and psnr_y, ssim_y and lr_consistency as far as they can be had.
            protocol: How the scores were measured.
        """
        path = to_path(image)
        made: list[ModelComparison] = []
        with tempfile.TemporaryDirectory() as folder:
            try:
                for step in service.compare(_given(path), models or [], to_path(truth), get_client(request)):
                    if isinstance(step, ModelComparison):
                        made.append(step)
                    yield None, [], ""
                files = []
                for each in made:
                    file = Path(folder) / f"{each.model.replace('/', '--')}.png"
                    each.image.save(file)
                    files.append(str(file))
                scores = [{"model": each.model, "seconds": round(each.seconds, 3), **each.scores} for each in made]
                yield files, scores, PROTOCOL.format(scale=made[0].scale)
            except Exception as error:
                raise _refusal(error, path) from error

    with gr.Column(visible=False):
        image = gr.Image(label="image")
        images = gr.File(label="images", file_count="multiple")
        truth = gr.Image(label="truth")
        size = gr.Textbox("4x", label="size")
        detail = gr.Slider(0, 1, 1, label="detail")
        kind = gr.Radio([*PRESETS], value="photo", label="kind")
        format = gr.Radio([*FORMATS], value="PNG", label="format")
        quality = gr.Slider(1, 100, 90, step=1, label="quality")
        metadata = gr.Radio([*METADATA], value="no place", label="metadata")
        models = gr.CheckboxGroup(service.models, value=[hub.FIDELITY_MODEL, hub.DEFAULT_MODEL], label="models")
        file = gr.File(label="file")
        width, height = gr.Number(label="width", precision=0), gr.Number(label="height", precision=0)
        seconds = gr.Number(label="seconds")
        told = gr.JSON(label="images")
        files = gr.File(label="files", file_count="multiple")
        scores, protocol = gr.JSON(label="scores"), gr.Textbox(label="protocol")
        options: dict[str, Any] = {"preprocess": False, "concurrency_limit": None, "show_progress": "hidden"}
        gr.Button().click(
            upscale,
            [image, size, detail, kind, format, quality, metadata],
            [file, width, height, seconds],
            api_name="upscale",
            **options,
        )
        gr.Button().click(batch, [images, size, detail, kind, format], [file, told], api_name="batch", **options)
        gr.Button().click(compare, [image, models, truth], [files, scores, protocol], api_name="compare", **options)


def _given(path: Path | None) -> Path:
    if not path:
        raise ValueError("Upload an image first, and name it as the answer to the upload does.")
    return path


def _refusal(error: Exception, path: Path | None) -> gr.Error:
    return gr.Error(user_message(error, path), print_exception=False)
