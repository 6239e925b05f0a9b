"""Evaluate models on a benchmark."""

import hashlib
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch

from ..degradations import RealWorldDegradation
from ..hub import WEIGHTS, resolve_model_path
from ..model import SRGAN
from ..model_card import file_sha256
from ..progress import ProgressCallback
from ..resize import resize
from ..version import code_version
from .contact_sheet import ContactSheet
from .datasets import SEED, ImagePair, PairedDataset, to_tensor, to_uint8
from .report import BICUBIC, HR, ModelResult, Protocol, Report, Scores
from .scorers import NO_REFERENCE, Scorer, make_scorers


def evaluate(
    models: Sequence[str | Path],
    *,
    data: Path,
    lr: Path | None = None,
    downsampling: str = "matlab",
    jpeg: int | None = None,
    degradation: str | None = None,
    crop_border: int | None = None,
    metrics: Sequence[str] | None = None,
    contact_sheets: Path | None = None,
    dtype: str = "float32",
    device: str | torch.device = "auto",
    backend: str = "torch",
    progress: ProgressCallback | None = None,
) -> Report:
    """Score models on a directory of ground truth, with bicubic and the ground truth itself for comparison.

    Args:
        models: Directories, bundled names or Hub ids; the first is the baseline of the differences.
        data, lr, downsampling, jpeg, degradation: As for `datasets.PairedDataset`.
        crop_border: Pixels cropped from each side for PSNR and SSIM; the scale by default.
        metrics: Keys of `scorers.METRICS`; all that are available without a download by default.
        contact_sheets: Directory for contact sheets.
        dtype, device, backend: As for `srgan_hub.upscaler.Upscaler`.
        progress: Called with (images done, number of images).

    Raises:
        ModelLoadError: A model cannot be found or loaded.
        ImageError: An image cannot be read.
        ValueError: An option is invalid, models differ in scale, LR and HR sizes do not fit, or a requested metric is
            unavailable.
    """
    directories = _unique_names(models)
    loaded = {label: SRGAN.from_pretrained(directory) for label, directory in directories.items()}
    scales = {label: model.scale for label, model in loaded.items()}
    if len(set(scales.values())) > 1:
        raise ValueError(f"`models` must have the same scale, got {scales}; evaluate each scale separately.")
    scale = next(iter(scales.values()), 4)
    crop_border = scale if crop_border is None else crop_border
    pairs = PairedDataset(data, lr=lr, scale=scale, downsampling=downsampling, jpeg=jpeg, degradation=degradation)
    upscalers = {label: model.upscaler(dtype=dtype, device=device, backend=backend) for label, model in loaded.items()}
    main_device = next((u.device for u in upscalers.values()), torch.device("cpu"))
    scorers, notes = make_scorers(metrics, crop_border=crop_border, scale=scale, device=main_device)
    for upscaler in upscalers.values():
        upscaler.upscale(np.zeros((16, 16, 3), np.uint8))  # warm-up
    pixels = hashlib.sha256()
    seconds = dict.fromkeys(upscalers, 0.0)
    sheet = ContactSheet(contact_sheets) if contact_sheets else None
    scores: dict[str, dict[str, Scores]] = {name: {} for name in (BICUBIC, *upscalers, HR)}
    for done, pair in enumerate(pairs, start=1):
        for part in (pair.name.encode(), str(pair.hr.shape).encode(), pair.lr.tobytes(), pair.hr.tobytes()):
            pixels.update(part)
        outputs = {}
        for label, upscaler in upscalers.items():
            start = time.perf_counter()
            outputs[label] = upscaler.upscale(pair.lr)
            seconds[label] += time.perf_counter() - start
        for label, by_name in score_pair(pair, outputs, scorers, sheet).items():
            scores[label][pair.name] = by_name
        if progress:
            progress(done, len(pairs))
    if sheet:
        sheet.write()
    hashes = {label: file_sha256(directory / WEIGHTS) for label, directory in directories.items()}
    rows = tuple(ModelResult(label, each, seconds.get(label), hashes.get(label)) for label, each in scores.items())
    protocol = Protocol(
        data=data.resolve().name,
        images=len(pairs),
        scale=scale,
        crop_border=crop_border,
        lr=describe_lr(lr, downsampling, degradation),
        jpeg=f"JPEG {jpeg} (4:2:0)" if jpeg else "",
        data_sha256=pixels.hexdigest(),
    )
    environment: dict[str, str | int] = {
        "code": code_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(main_device) if main_device.type == "cuda" else main_device.type,
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "backend": backend,
    }
    return Report(protocol, rows, tuple(notes), environment)


def score_pair(
    pair: ImagePair, outputs: Mapping[str, np.ndarray], scorers: Mapping[str, Scorer], sheet: ContactSheet | None = None
) -> dict[str, Scores]:
    """Return scores of one image: of bicubic upscaling, of the outputs of models by name, and of the ground truth.

    A row with all images is added to `sheet`. Raise ValueError if an image cannot be scored, such as a too small one.
    """
    outputs = {BICUBIC: to_uint8(resize(to_tensor(pair.lr), pair.hr.shape[:2], round_to_uint8=True)), **outputs}
    scores = {label: _score_all(pair, sr, scorers) for label, sr in outputs.items()}
    scores[HR] = _score_all(pair, pair.hr, {name: scorer for name, scorer in scorers.items() if name in NO_REFERENCE})
    if sheet:
        sheet.add(pair.name, pair.lr, {**outputs, HR: pair.hr})
    return scores


def describe_lr(
    lr: Path | None,
    downsampling: str,
    degradation: str | None,
    *,
    seed: int = SEED,
    clean_prob: float = RealWorldDegradation.clean_prob,
) -> str:
    """Return the protocol's description of how LR images were generated."""
    if degradation:
        clean = f" ({clean_prob:.0%} of the images stay clean)" if degradation == "real-world" else ""
        return f"training's degradation {degradation}, seed {seed}{clean}"
    return f"files in {lr.resolve().name}" if lr else f"bicubic of {downsampling.replace('matlab', 'MATLAB')}"


def _score_all(pair: ImagePair, sr: np.ndarray, scorers: Mapping[str, Scorer]) -> Scores:
    images = to_tensor(sr), to_tensor(pair.hr), to_tensor(pair.lr)
    try:
        return {name: scorer(*images) for name, scorer in scorers.items()}
    except ValueError as error:
        raise ValueError(f"'{pair.name}': {error}") from error


def _unique_names(models: Sequence[str | Path]) -> dict[str, Path]:
    """Map names to model directories: the last part of the path if that is unique."""
    short = {name: Path(name).resolve().name if Path(name).is_dir() else str(name) for name in models}
    often = Counter(short.values())
    directories = {str(name) if often[label] > 1 else label: resolve_model_path(name) for name, label in short.items()}
    if reserved := directories.keys() & {BICUBIC, HR}:
        raise ValueError(f"The model name '{reserved.pop()}' is reserved; rename the directory.")
    return directories
