"""Run models over a benchmark and score what comes out."""

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch

from ..card import file_sha256
from ..hub import WEIGHTS, resolve
from ..model import SRGAN
from ..pictures.resize import bicubic
from ..upscaler import Upscaler
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
    threads: int | None = None,
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
        metrics: names out of ``judges.TITLES``; all that can be had without a download by default.
        pictures: a folder for contact sheets.
        precision, device: as for ``srgan_hub.upscaler.Upscaler``.
        threads: processor threads meanwhile.
        progress: called with (pictures done, all pictures).

    Raises:
        ModelError: a model cannot be found or loaded.
        PictureError: a picture cannot be read.
        ValueError: an option is out of its range, models differ in scale, LR and HR do not fit, or a score that was
            named cannot be had; the message says what to do.
    """
    with _threads(threads):
        folders = {name: resolve(name) for name in models}
        labels = _label(list(folders))
        loaded = {name: SRGAN.from_pretrained(folder) for name, folder in folders.items()}
        scales = {labels[name]: model.scale for name, model in loaded.items()}
        if len(set(scales.values())) > 1:
            raise ValueError(f"expected models of one scale, got {scales}")
        scale = next(iter(scales.values()), 4)
        shave = scale if shave is None else shave
        pairs = Pairs(data, lr=lr, scale=scale, downsampling=downsampling, jpeg=jpeg, degradation=degradation)
        upscalers = {labels[name]: model.upscaler(precision=precision, device=device) for name, model in loaded.items()}
        place = next((u.device for u in upscalers.values()), torch.device("cpu"))
        judges, notes = make_judges(metrics, shave=shave, scale=scale, device=place)
        runs = {label: _Run(upscaler) for label, upscaler in upscalers.items()}
        sheet = ContactSheet(pictures) if pictures else None
        scores: dict[str, dict[str, Scores]] = {name: {} for name in (BICUBIC, *runs, HR)}
        for done, pair in enumerate(pairs, start=1):
            outputs = {BICUBIC: to_levels(bicubic(to_tensor(pair.lr), pair.hr.shape[:2], rounded=True))}
            outputs |= {label: run(pair.lr) for label, run in runs.items()}
            for label, sr in outputs.items():
                scores[label][pair.name] = _judge(pair, sr, judges)
            of_hr = {name: score for name, score in judges.items() if name in OF_HR}
            scores[HR][pair.name] = _judge(pair, pair.hr, of_hr)
            if sheet:
                sheet.add(pair.name, pair.lr, {**outputs, HR: pair.hr}, scale=scale)
            if progress:
                progress(done, len(pairs))
        if sheet:
            sheet.write()
        hashes = {labels[name]: file_sha256(folder / WEIGHTS) for name, folder in folders.items()}
        rows = tuple(
            Row(label, by_picture, runs[label].seconds, hashes[label]) if label in runs else Row(label, by_picture)
            for label, by_picture in scores.items()
        )
        protocol = Protocol(
            data=data.resolve().name,
            pictures=len(pairs),
            scale=scale,
            shave=shave,
            lr=_describe_lr(lr, downsampling, degradation),
            jpeg=f"JPEG {jpeg} (4:2:0)" if jpeg else "",
            data_sha256=pairs.sha256,
        )
        return Report(protocol, rows, tuple(notes), _environment(place, precision))


def _describe_lr(lr: Path | None, downsampling: str, degradation: str | None) -> str:
    if degradation:
        half_clean = ", which leaves half of the pictures clean" if degradation == "camera" else ""
        return f"training's degradation {degradation}, seed {SEED}{half_clean}"
    return f"files in {lr.resolve().name}" if lr else f"bicubic of {downsampling.replace('matlab', 'MATLAB')}"


class _Run:
    """A model at work, and its time."""

    def __init__(self, upscaler: Upscaler) -> None:
        self.upscaler = upscaler
        self.seconds = 0.0
        upscaler.upscale(np.zeros((16, 16, 3), np.uint8))  # libraries set themselves up at the first call

    def __call__(self, lr: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        sr = self.upscaler.upscale(lr)
        self.seconds += time.perf_counter() - start
        return sr


def _judge(pair: Pair, sr: np.ndarray, judges: dict[str, Score]) -> Scores:
    pictures = to_tensor(sr), to_tensor(pair.hr), to_tensor(pair.lr)
    try:
        return {name: score(*pictures) for name, score in judges.items()}
    except ValueError as error:
        raise ValueError(f"{pair.name}: {error}") from error


def _label(names: list[str | Path]) -> dict[str | Path, str]:
    """Call folders by their last part, as long as these differ."""
    short = {name: Path(name).resolve().name if Path(name).is_dir() else str(name) for name in names}
    twice = [label for label in short.values() if list(short.values()).count(label) > 1]
    labels = {name: str(name) if label in twice else label for name, label in short.items()}
    for label in labels.values():
        if label in (BICUBIC, HR):
            raise ValueError(f"a model cannot be called {label}: that is a row of its own")
    return labels


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    if count is not None and count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _environment(device: torch.device, precision: str) -> dict[str, str | int]:
    return {
        "code": code_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }
