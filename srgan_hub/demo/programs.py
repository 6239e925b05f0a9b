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
from .compare import PROTOCOL, Compared
from .enlarge import Done, Progress
from .kinds import KINDS
from .service import Service, sentence
from .settings import FORMATS, METADATA, Settings
from .uploads import to_path, to_visitor


def build(service: Service) -> None:
    """Add the endpoints to the Blocks around."""

    def upscale(
        picture: Any,
        size: str,
        detail: float,
        kind: str,
        format: str,
        quality: int,
        metadata: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, int | None, int | None, float | None]]:
        """Enlarge a picture up to four times. The detail that is added is plausible, not evidence.

        Args:
            picture: The picture: PNG, JPEG, WebP, BMP or TIFF. It must have been uploaded here.
            size: "2x", "3x", "4x", or the result's longest side in pixels, at most four times the picture's.
            detail: From 0, faithful and calm, to 1, crisp with invented texture, in tenths.
            kind: "photo" for pictures from cameras, phones and the web, "clean" for those that were never a JPEG.
            format: Of the result: PNG, which is lossless, JPEG or WebP.
            quality: Of JPEG and WebP, from 1 to 100.
            metadata: What is kept of it: "no place" is all but the place (GPS), "all", or "none".

        Returns:
            file: The result.
            width: Its width in pixels.
            height: Its height in pixels.
            seconds: What it took, without waiting.
        """
        path = to_path(picture)
        with tempfile.TemporaryDirectory() as folder:
            try:
                settings = Settings(size, detail, kind, format, quality, metadata)
                for step in service.upscale(_given(path), settings, Path(folder), to_visitor(request)):
                    match step:
                        case Done():
                            yield str(step.file), *step.image.size, round(step.seconds, 3)
                        case Progress():
                            yield None, step.width, step.height, None
                        case _:
                            yield None, None, None, None
            except Exception as error:
                raise _refusal(error, path) from error

    def batch(
        pictures: Any, size: str, detail: float, kind: str, format: str, request: gr.Request
    ) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
        """Enlarge several pictures into one zip. One that fails does not stop the others.

        Args:
            pictures: The pictures. They must have been uploaded here.
            size: "2x", "3x", "4x", or the results' longest side in pixels.
            detail: From 0, faithful and calm, to 1, crisp with invented texture, in tenths.
            kind: "photo" for pictures from cameras, phones and the web, "clean" for those that were never a JPEG.
            format: Of the results: PNG, which is lossless, JPEG or WebP.

        Returns:
            file: The zip.
            pictures: For each picture its name, state, a text on it, width, height and seconds.
        """
        paths = [path for path in map(to_path, pictures or []) if path]
        with tempfile.TemporaryDirectory() as folder:
            try:
                settings = Settings(size, detail, kind, format)
                for entries in service.batch(paths, settings, Path(folder), to_visitor(request)):
                    told = [replace(entry, thumbnail="") for entry in entries]
                    yield None, list(map(vars, told))
                yield f"{folder}/results.zip", list(map(vars, told))
            except Exception as error:
                raise _refusal(error, None) from error

    def compare(
        picture: Any, models: list[str], request: gr.Request, truth: Any = None
    ) -> Iterator[tuple[Any, list[dict[str, Any]], str]]:
        """Enlarge a picture by two or three models, and score them where the ground truth is given.

        Args:
            picture: The picture. It must have been uploaded here.
            models: Two or three of those that are offered.
            truth: The ground truth, at the models' scale; or nothing.

        Returns:
            files: The results, lossless.
            scores: For each model its name, seconds, and psnr_y, ssim_y and lr_consistency as far as they can be had.
            protocol: How the scores were measured.
        """
        path = to_path(picture)
        made: list[Compared] = []
        with tempfile.TemporaryDirectory() as folder:
            try:
                for step in service.compare(_given(path), models or [], to_path(truth), to_visitor(request)):
                    if isinstance(step, Compared):
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
        picture = gr.Image(label="picture")
        pictures = gr.File(label="pictures", file_count="multiple")
        truth = gr.Image(label="truth")
        size = gr.Textbox("4x", label="size")
        detail = gr.Slider(0, 1, 1, label="detail")
        kind = gr.Radio([*KINDS], value="photo", label="kind")
        format = gr.Radio([*FORMATS], value="PNG", label="format")
        quality = gr.Slider(1, 100, 90, step=1, label="quality")
        metadata = gr.Radio([*METADATA], value="no place", label="metadata")
        models = gr.CheckboxGroup(service.models, value=[hub.FAITHFUL, hub.DEFAULT], label="models")
        file = gr.File(label="file")
        width, height = gr.Number(label="width", precision=0), gr.Number(label="height", precision=0)
        seconds = gr.Number(label="seconds")
        told = gr.JSON(label="pictures")
        files = gr.File(label="files", file_count="multiple")
        scores, protocol = gr.JSON(label="scores"), gr.Textbox(label="protocol")
        options: dict[str, Any] = {"preprocess": False, "concurrency_limit": None, "show_progress": "hidden"}
        gr.Button().click(
            upscale,
            [picture, size, detail, kind, format, quality, metadata],
            [file, width, height, seconds],
            api_name="upscale",
            **options,
        )
        gr.Button().click(batch, [pictures, size, detail, kind, format], [file, told], api_name="batch", **options)
        gr.Button().click(compare, [picture, models, truth], [files, scores, protocol], api_name="compare", **options)


def _given(path: Path | None) -> Path:
    if not path:
        raise ValueError("Upload a picture first, and name it as the answer to the upload does.")
    return path


def _refusal(error: Exception, path: Path | None) -> gr.Error:
    return gr.Error(sentence(error, path), print_exception=False)
