"""Run models over a benchmark and score what comes out."""

import hashlib
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch

from ..card import file_sha256
from ..hub import WEIGHTS, resolve
from ..model import SRGAN
from ..pictures.resize import bicubic
from ..version import code_version
from .data import SEED, Pair, Pairs, to_levels, to_tensor
from .judges import OF_HR, Score, make_judges
from .report import BICUBIC, HR, Protocol, Report, Row, Scores
from .sheet import ContactSheet

# Called with (pictures done, all pictures).
Progress = Callable[[int, int], None]


def evaluate(
    models: Sequence[str | Path],
    *,
    data: Path,
    lr: Path | None = None,
    downsampling: str = "matlab",
    jpeg: int | None = None,
    degradation: str | None = None,
    shave: int | None = None,
    metrics: Sequence[str] | None = None,
    pictures: Path | None = None,
    precision: str = "fp32",
    device: str | torch.device = "auto",
    engine: str = "torch",
    progress: Progress | None = None,
) -> Report:
    """Score models on a folder of ground truth, beside bicubic and the ground truth itself.

    Args:
        models: folders, bundled names or Hub ids; the first is the one that others are compared to.
        data: the ground truth: a folder of pictures, cropped to a multiple of the scale. Gray is scored as three equal
            channels.
        lr: a folder of LR pictures, NAME or NAMEx4 for each; None makes them of the ground truth.
        downsampling: how LR is made: "matlab" (imresize's bicubic) or "pillow" (Pillow's).
        jpeg: save the LR as JPEG of this quality first.
        degradation: make the LR as training does, by "camera" or "gaussian", with a fixed seed.
        shave: border left out of PSNR and SSIM, in pixels; the scale by default.
        metrics: names out of `judges.TITLES`; all that can be had without a download by default.
        pictures: a folder for contact sheets.
        precision, device, engine: as for `srgan_hub.upscaler.Upscaler`.
        progress: called with (pictures done, all pictures).

    Raises:
        ModelError: a model cannot be found or loaded.
        PictureError: a picture cannot be read.
        ValueError: an option is out of its range, models differ in scale, LR and HR do not fit, or a score that was
            named cannot be had; the message says what to do.
    """
    folders = _label(models)
    loaded = {label: SRGAN.from_pretrained(folder) for label, folder in folders.items()}
    scales = {label: model.scale for label, model in loaded.items()}
    if len(set(scales.values())) > 1:
        raise ValueError(f"Expected models of one scale, got {scales}; score those of each scale by themselves.")
    scale = next(iter(scales.values()), 4)
    shave = scale if shave is None else shave
    pairs = Pairs(data, lr=lr, scale=scale, downsampling=downsampling, jpeg=jpeg, degradation=degradation)
    upscalers = {
        label: model.upscaler(precision=precision, device=device, engine=engine) for label, model in loaded.items()
    }
    place = next((u.device for u in upscalers.values()), torch.device("cpu"))
    judges, notes = make_judges(metrics, shave=shave, scale=scale, device=place)
    for upscaler in upscalers.values():
        upscaler.upscale(np.zeros((16, 16, 3), np.uint8))  # libraries set themselves up at the first call
    pixels = hashlib.sha256()
    seconds = dict.fromkeys(upscalers, 0.0)
    sheet = ContactSheet(pictures) if pictures else None
    scores: dict[str, dict[str, Scores]] = {name: {} for name in (BICUBIC, *upscalers, HR)}
    for done, pair in enumerate(pairs, start=1):
        for part in (pair.name.encode(), str(pair.hr.shape).encode(), pair.lr.tobytes(), pair.hr.tobytes()):
            pixels.update(part)
        outputs = {}
        for label, upscaler in upscalers.items():
            start = time.perf_counter()
            outputs[label] = upscaler.upscale(pair.lr)
            seconds[label] += time.perf_counter() - start
        for label, by_name in score_pair(pair, outputs, judges, scale=scale, sheet=sheet).items():
            scores[label][pair.name] = by_name
        if progress:
            progress(done, len(pairs))
    if sheet:
        sheet.write()
    hashes = {label: file_sha256(folder / WEIGHTS) for label, folder in folders.items()}
    rows = tuple(Row(label, each, seconds.get(label), hashes.get(label)) for label, each in scores.items())
    protocol = Protocol(
        data=data.resolve().name,
        pictures=len(pairs),
        scale=scale,
        shave=shave,
        lr=describe_lr(lr, downsampling, degradation),
        jpeg=f"JPEG {jpeg} (4:2:0)" if jpeg else "",
        data_sha256=pixels.hexdigest(),
    )
    environment: dict[str, str | int] = {
        "code": code_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "engine": engine,
    }
    return Report(protocol, rows, tuple(notes), environment)


def score_pair(
    pair: Pair,
    outputs: Mapping[str, np.ndarray],
    judges: Mapping[str, Score],
    *,
    scale: int,
    sheet: ContactSheet | None = None,
) -> dict[str, Scores]:
    """Score bicubic, models' outputs and the ground truth itself on one picture, by label, and show them on a sheet.

    Args:
        pair: LR and HR.
        outputs: what models made of the LR, by label.
        judges: from `make_judges`.
        scale: how many times larger HR is.
        sheet: gets a row.

    Raises:
        ValueError: the picture cannot be scored, such as one that is too small; the message names it.
    """
    outputs = {BICUBIC: to_levels(bicubic(to_tensor(pair.lr), pair.hr.shape[:2], rounded=True)), **outputs}
    scores = {label: _judge(pair, sr, judges) for label, sr in outputs.items()}
    scores[HR] = _judge(pair, pair.hr, {name: judge for name, judge in judges.items() if name in OF_HR})
    if sheet:
        sheet.add(pair.name, pair.lr, {**outputs, HR: pair.hr}, scale=scale)
    return scores


def describe_lr(lr: Path | None, downsampling: str, degradation: str | None, *, seed: int = SEED) -> str:
    """Describe in a protocol how the LR was made."""
    if degradation:
        half_clean = ", which leaves half of the pictures clean" if degradation == "camera" else ""
        return f"training's degradation {degradation}, seed {seed}{half_clean}"
    return f"files in {lr.resolve().name}" if lr else f"bicubic of {downsampling.replace('matlab', 'MATLAB')}"


def _judge(pair: Pair, sr: np.ndarray, judges: Mapping[str, Score]) -> Scores:
    pictures = to_tensor(sr), to_tensor(pair.hr), to_tensor(pair.lr)
    try:
        return {name: score(*pictures) for name, score in judges.items()}
    except ValueError as error:
        raise ValueError(f"{pair.name}: {error}") from error


def _label(models: Sequence[str | Path]) -> dict[str, Path]:
    """Resolve models to folders, each called by its folder's last part as long as these differ."""
    short = {name: Path(name).resolve().name if Path(name).is_dir() else str(name) for name in models}
    often = Counter(short.values())
    folders = {str(name) if often[label] > 1 else label: resolve(name) for name, label in short.items()}
    for label in (BICUBIC, HR):
        if label in folders:
            raise ValueError(f"A model cannot be called {label}, which is a row of its own; rename its folder.")
    return folders
