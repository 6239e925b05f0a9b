"""One picture through several models, with scores where the ground truth is given."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from ..evaluate.data import Pair
from ..evaluate.judges import make_judges
from ..evaluate.run import score_pair
from ..pictures.raster import Raster
from .enlarge import Picture
from .kinds import load_model, stream

SCORES = ("psnr_y", "ssim_y", "lr_consistency")
PROTOCOL = (
    "PSNR in dB and SSIM on Y of YCbCr, 8 bits, {scale} pixels shaved from each border. LR-consistency is the mean "
    "difference between the picture and the result reduced to its size, in levels of 255; lower is closer."
)


@dataclass(frozen=True)
class Compared:
    """What a model made of a picture; its scores are empty without the ground truth, but for LR-consistency."""

    model: str
    scale: int
    image: Image.Image
    seconds: float
    scores: dict[str, float] = field(default_factory=dict)


def compare(picture: Picture, models: Sequence[str], truth: Picture | None) -> Iterator[Compared | float]:
    """Enlarge a picture by each model, and score the results.

    Args:
        picture: the LR picture.
        models: bundled names, folders or Hub ids, of one scale.
        truth: the picture at the models' scale that LR was made of.

    Yields:
        The share that is done in [0, 1] after each band, and each model's result.

    Raises:
        ModelError: a model cannot be loaded.
        ValueError: the ground truth has another size.
    """
    scale = load_model(models[0]).scale
    lr = np.asarray(picture.image.convert("RGB"))
    if truth:
        size = picture.image.width * scale, picture.image.height * scale
        if truth.image.size != size:
            raise ValueError(
                f"Expected a ground truth of {size[0]} x {size[1]} pixels, {scale} times {picture.name}, "
                f"got {truth.image.width} x {truth.image.height}."
            )
    for number, name in enumerate(models):
        start = time.perf_counter()
        bands: list[np.ndarray] = []
        # In float32, so that scores are the same on every server.
        for rows in stream(np.asarray(picture.image), name, precision="fp32"):
            bands.append(rows)
            yield (number + sum(map(len, bands)) / (scale * picture.image.height)) / len(models)
        image = Raster(np.concatenate(bands), picture.image.info).to_image()
        seconds = time.perf_counter() - start
        hr = np.asarray((truth.image if truth else image).convert("RGB"))
        names = SCORES if truth else SCORES[-1:]
        judges, _ = make_judges(names, shave=scale, scale=scale, device=torch.device("cpu"))
        made = {name: np.asarray(image.convert("RGB"))}
        scores = score_pair(Pair(picture.name, lr, hr), made, judges, scale=scale)[name]
        yield Compared(name, scale, image, seconds, {key: value for key, value in scores.items() if value is not None})
