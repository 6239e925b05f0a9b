"""Compare models on one image."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..evaluate.datasets import ImagePair
from ..evaluate.evaluate import score_pair
from ..evaluate.scorers import make_scorers
from .presets import load_model, stream
from .upscale import LoadedImage

# Names for the UI; other models have their own.
LABELS = {
    "srresnet-x4-photo": "Photo, faithful",
    "srgan-x4-photo": "Photo, sharp",
    "srresnet-x4": "Clean, faithful",
    "srgan-x4": "Clean, sharp",
}
SCORES = {
    "psnr_y": "PSNR: how near the pixels are to the ground truth, in dB; higher is nearer.",
    "ssim_y": "SSIM: how similar the structures are to the ground truth, up to 1; higher is more similar.",
    "lr_consistency": "LR consistency: how far the output, downscaled, is from the input, out of 255; lower is nearer.",
}
PROTOCOL = (
    "PSNR in dB and SSIM on Y of YCbCr, 8 bits, {scale} pixels cropped from each border. LR consistency is the mean "
    "absolute difference between the input and the downscaled output, out of 255; lower is better."
)


@dataclass(frozen=True)
class ModelComparison:
    """Output of one model, with scores if there is a ground truth."""

    model: str
    scale: int
    image: Image.Image
    seconds: float
    scores: dict[str, float]

    def save(self, directory: Path, *, compress_level: int = 6) -> Path:
        """Write the output as a PNG named after the model."""
        path = directory / f"{self.model.replace('/', '--')}.png"
        self.image.save(path, compress_level=compress_level)
        return path


def compare(
    source: LoadedImage, models: Sequence[str], ground_truth: LoadedImage | None
) -> Iterator[ModelComparison | float]:
    """Upscale an image with each of some models of equal scale, in float32, and score the outputs.

    Yields the fraction done in [0, 1] after each strip, and each model's output. Raises `ModelLoadError`, and
    `ValueError` if the ground truth is not `scale` times as large as the image.
    """
    scale = load_model(models[0]).scale
    lr = np.asarray(source.image.convert("RGB"))
    expected = source.image.width * scale, source.image.height * scale
    if ground_truth and ground_truth.image.size != expected:
        raise ValueError(
            f"The ground truth must have {expected[0]} × {expected[1]} pixels, {scale} times {source.name}, "
            f"got {ground_truth.image.width} × {ground_truth.image.height}."
        )
    for number, name in enumerate(models):
        start = time.perf_counter()
        strips: list[np.ndarray] = []
        # float32 gives the same scores on every server.
        for strip in stream(np.asarray(source.image), name, dtype="float32"):
            strips.append(strip)
            yield (number + sum(map(len, strips)) / (scale * source.image.height)) / len(models)
        image = source.with_pixels(np.concatenate(strips))
        seconds = time.perf_counter() - start
        scores: dict[str, float] = {}
        if ground_truth:
            scorers, _ = make_scorers([*SCORES], crop_border=scale, scale=scale, device=torch.device("cpu"))
            outputs = {name: np.asarray(image.convert("RGB"))}
            pair = ImagePair(source.name, lr, np.asarray(ground_truth.image.convert("RGB")))
            scores = {
                key: value for key, value in score_pair(pair, outputs, scorers)[name].items() if value is not None
            }
        yield ModelComparison(name, scale, image, seconds, scores)
