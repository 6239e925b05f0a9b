"""API and MCP endpoints: /upscale, /batch and /compare.

They are generators, which ends the job of a client that disconnects. Until the result exists, its file is None.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from .. import hub
from .compare import PROTOCOL, ModelComparison
from .presets import PRESETS
from .service import Service, user_message
from .settings import FORMATS, STRIP_METADATA, Settings
from .uploads import get_client, to_path, to_paths
from .upscale import Completed, UpscaleProgress

BATCH_FIELDS = ("name", "state", "text", "width", "height", "seconds")


def build(service: Service) -> None:
    """Add the endpoints. Gradio names their parameters and results by the labels of hidden components."""

    def upscale(
        image: Any,
        size: str,
        detail: float,
        preset: str,
        format: str,
        quality: int,
        strip_metadata: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, int | None, int | None, float | None]]:
        """Upscale an image up to 4x. Added detail is generated and may differ from reality.

        Args:
            image: The image: PNG, JPEG, WebP, BMP or TIFF, uploaded to this server.
            size: "2x", "3x", "4x", or the longest edge of the output in pixels, at most 4 times that of the image.
            detail: From 0 (faithful, smooth) to 1 (sharp, with generated texture), in steps of 0.05.
            preset: "photo" for images from cameras, phones and the web, "clean" for images never saved as JPEG,
                "texture" for images that repeat, "panorama" for 360° panoramas.
            format: Output format: PNG (lossless), JPEG or WebP.
            quality: Quality of JPEG and WebP, from 1 to 100.
            strip_metadata: Metadata to remove: "gps" for the GPS location only, "all" or "none".

        Returns:
            file: The upscaled image.
            width: Its width in pixels.
            height: Its height in pixels.
            seconds: Processing time, without waiting in the queue.
        """
        path = to_path(image)
        with _job(path) as directory:
            settings = Settings(size, detail, preset, format, quality, strip_metadata)
            for step in service.upscale(_require(path), settings, directory, get_client(request)):
                match step:
                    case Completed():
                        yield str(step.file), *step.image.size, round(step.seconds, 3)
                    case UpscaleProgress():
                        yield None, step.width, step.height, None
                    case _:
                        yield None, None, None, None

    def batch(
        images: Any,
        size: str,
        detail: float,
        preset: str,
        format: str,
        quality: int,
        strip_metadata: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
        """Upscale several images into one ZIP file. A failure does not stop the others.

        Args:
            images: The images, uploaded to this server.
            size: "2x", "3x", "4x", or the longest edge of the outputs in pixels.
            detail: From 0 (faithful, smooth) to 1 (sharp, with generated texture), in steps of 0.05.
            preset: "photo" for images from cameras, phones and the web, "clean" for images never saved as JPEG,
                "texture" for images that repeat, "panorama" for 360° panoramas.
            format: Output format: PNG (lossless), JPEG or WebP.
            quality: Quality of JPEG and WebP, from 1 to 100.
            strip_metadata: Metadata to remove: "gps" for the GPS location only, "all" or "none".

        Returns:
            file: The ZIP file; None if every image failed.
            images: Name, state, message, width, height and seconds of each image.
        """
        with _job(None) as directory:
            settings = Settings(size, detail, preset, format, quality, strip_metadata)
            for items in service.batch(to_paths(images), settings, directory, get_client(request)):
                states = [{name: getattr(item, name) for name in BATCH_FIELDS} for item in items]
                yield None, states
            archive = directory / "results.zip"
            yield str(archive) if archive.exists() else None, states

    def compare(
        image: Any, models: list[str], request: gr.Request, ground_truth: Any = None
    ) -> Iterator[tuple[Any, list[dict[str, Any]], str]]:
        """Upscale an image with two or three models, and score them if there is a ground truth.

        Args:
            image: The image, uploaded to this server.
            models: Two or three of the available models.
            ground_truth: The HR image, at the models' scale; optional.

        Returns:
            files: The outputs as PNG.
            scores: Model name and seconds, and with a ground truth psnr_y, ssim_y and lr_consistency, for each model.
            protocol: How the scores are measured, if there are any.
        """
        path = to_path(image)
        with _job(path) as directory:
            outputs: list[ModelComparison] = []
            for step in service.compare(_require(path), models or [], to_path(ground_truth), get_client(request)):
                if isinstance(step, ModelComparison):
                    outputs.append(step)
                yield None, [], ""
            files = [str(output.save(directory)) for output in outputs]
            scores = [{"model": each.model, "seconds": round(each.seconds, 3), **each.scores} for each in outputs]
            yield files, scores, PROTOCOL.format(scale=outputs[0].scale) if ground_truth else ""

    with gr.Column(visible=False):
        image = gr.Image(label="image")
        images = gr.File(label="images", file_count="multiple")
        ground_truth = gr.Image(label="ground_truth")
        size = gr.Textbox("4x", label="size")
        detail = gr.Slider(0, 1, 1, label="detail")
        preset = gr.Radio([*PRESETS], value="photo", label="preset")
        format = gr.Radio([*FORMATS], value="PNG", label="format")
        quality = gr.Slider(1, 100, 90, step=1, label="quality")
        strip_metadata = gr.Radio([*STRIP_METADATA], value="gps", label="strip_metadata")
        models = gr.CheckboxGroup(service.models, value=[hub.FIDELITY_MODEL, hub.DEFAULT_MODEL], label="models")
        file, seconds = gr.File(label="file"), gr.Number(label="seconds")
        width, height = gr.Number(label="width", precision=0), gr.Number(label="height", precision=0)
        files, states = gr.File(label="files", file_count="multiple"), gr.JSON(label="images")
        scores, protocol = gr.JSON(label="scores"), gr.Textbox(label="protocol")

    upscaling = [size, detail, preset, format, quality, strip_metadata]
    endpoints = [
        (upscale, [image, *upscaling], [file, width, height, seconds]),
        (batch, [images, *upscaling], [file, states]),
        (compare, [image, models, ground_truth], [files, scores, protocol]),
    ]
    options: dict[str, Any] = {"preprocess": False, "concurrency_limit": None, "show_progress": "hidden"}
    for function, inputs, outputs in endpoints:
        gr.on([], function, inputs, outputs, api_name=function.__name__, **options)


@contextmanager
def _job(path: Path | None) -> Iterator[Path]:
    """Provide a temporary directory, and turn errors into messages for the client."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            yield Path(directory)
        except Exception as error:
            raise gr.Error(user_message(error, path, api=True), print_exception=False) from error


def _require(path: Path | None) -> Path:
    if not path:
        raise ValueError("Upload the image first, and pass the path that the server returned.")
    return path
