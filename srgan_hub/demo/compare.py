"""One image through several models, with scores where the ground truth is given."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from ..evaluate.datasets import ImagePair
from ..evaluate.evaluate import score_pair
from ..evaluate.scorers import make_scorers
from .presets import load_model, stream
from .upscale import LoadedImage

SCORES = ("psnr_y", "ssim_y", "lr_consistency")
PROTOCOL = (
    "PSNR in dB and SSIM on Y of YCbCr, 8 bits, {scale} pixels shaved from each border. LR-consistency is the mean "
    "difference between the image and the result reduced to its size, in levels of 255; lower is closer."
)


@dataclass(frozen=True)
class ModelComparison:
    """What a model made of an image; its scores are empty without the ground truth, but for LR-consistency."""

    model: str
    scale: int
    image: Image.Image
    seconds: float
    scores: dict[str, float] = field(default_factory=dict)


def compare(source: LoadedImage, models: Sequence[str], truth: LoadedImage | None) -> Iterator[ModelComparison | float]:
    """Upscale an image by each model, and score the results.

    Args:
        source: the LR image.
        models: bundled names, folders or Hub ids, of one scale.
        truth: the image at the models' scale that LR was made of.

    Yields:
        The share that is done in [0, 1] after each strip, and each model's result.

    Raises:
        ModelLoadError: a model cannot be loaded.
        ValueError: the ground truth has another size.
    """
    scale = load_model(models[0]).scale
    lr = np.asarray(source.image.convert("RGB"))
    if truth:
        size = source.image.width * scale, source.image.height * scale
        if truth.image.size != size:
            raise ValueError(
                f"Expected a ground truth of {size[0]} x {size[1]} pixels, {scale} times {source.name}, "
                f"got {truth.image.width} x {truth.image.height}."
            )
    for number, name in enumerate(models):
        start = time.perf_counter()
        strips: list[np.ndarray] = []
        # In float32, so that scores are the same on every server.
        for rows in stream(np.asarray(source.image), name, dtype="fp32"):
            strips.append(rows)
            yield (number + sum(map(len, strips)) / (scale * source.image.height)) / len(models)
        image = Image.fromarray(np.concatenate(strips))
        image.info = dict(source.image.info)
        seconds = time.perf_counter() - start
        hr = np.asarray((truth.image if truth else image).convert("RGB"))
        names = SCORES if truth else SCORES[-1:]
        scorers, _ = make_scorers(names, crop_border=scale, scale=scale, device=torch.device("cpu"))
        made = {name: np.asarray(image.convert("RGB"))}
        scores = score_pair(ImagePair(source.name, lr, hr), made, scorers, scale=scale)[name]
        yield ModelComparison(
            name, scale, image, seconds, {key: value for key, value in scores.items() if value is not None}
        )
