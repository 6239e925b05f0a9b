"""Training images, decoded once: safetensors shards of uint8 images, and random crops read out of them in place."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor
from torch.utils.data import Dataset

from ..fileio import atomic_write, remove_stale_parts
from ..images.decode import find_images
from ..images.formats import WRITE_SUFFIXES
from ..resize import resize
from ..rng import CROP, sample_rng

logger = logging.getLogger(__name__)

INDEX = "index.json"
FORMAT = 1
SHARD_BYTES = 512 * 2**20
HEADER_BYTES = 2**20  # kept free in each shard for the names of its images

# Called with what is being done, how much of it is done, and how much there is (images or bytes).
Progress = Callable[[str, int, int], None]


def build_shards(
    data: Path, output: Path, *, minimum_size: int = 96, min_images: int = 1, progress: Progress | None = None
) -> Path:
    """Decode every image under a folder once, into shards that `Crops` reads. Does nothing if that is done.

    The output is `index.json` and `shard-00000.safetensors` and so on, each at most 512 MiB, with one uint8 HWC RGB
    tensor per image. EXIF orientation is applied, alpha dropped. Everything is written aside and renamed at the end,
    so an interrupted run leaves no output; the next one clears its remains. One process at a time may do this.

    Args:
        data: Folder of images (BMP, JPEG, PNG, TIFF, WebP), searched with its subfolders.
        output: Folder to make. If it holds shards of other images, or of these before they changed (names, sizes,
            times of change), they are replaced.
        minimum_size: Images with a side shorter than this are left out, as are unreadable ones; each is named in a
            warning and under `left_out` in the index.
        min_images: How many images must remain.
        progress: Called as `progress("images", done, total)`.

    Returns:
        The output folder.

    Raises:
        ValueError: If too few images remain, `data` is no folder, or `output` holds anything but shards.
    """
    data, output = Path(data), Path(output)
    if not data.is_dir():
        raise ValueError(f"Expected a folder of images, got {data}, which is not a folder.")
    paths = find_images(data, output, WRITE_SUFFIXES)
    sources = {path.relative_to(data).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
    wanted = {"format": FORMAT, "minimum_size": minimum_size, "sources": sources}
    if output.exists() and any(output.iterdir()):
        old = read_index(output)
        if wanted.items() <= old.items() and len(old["images"]) >= min_images:
            return output
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(output.parent)
    with atomic_write(output, directory=True) as tmp_path:
        images, left_out = _write_shards(data, paths, tmp_path, minimum_size, progress)
        if len(images) < max(1, min_images):
            reasons = "".join(f"\n  {entry['name']}: {entry['reason']}" for entry in left_out[:5])
            raise ValueError(
                f"Expected at least {max(1, min_images)} usable images under {data}, got {len(images)} of "
                f"{len(paths)}. Add images of at least {minimum_size} pixels a side.{reasons}"
            )
        index = wanted | {"images": images, "left_out": left_out}
        (tmp_path / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return output


def read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a prepared folder. Raises ValueError if the folder was not made by `prepare`."""
    try:
        index = json.loads((Path(folder) / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a folder of prepared shards, got {folder}, which has no readable {INDEX}. "
            "Make one with `python -m srgan_hub prepare`, in a new or empty folder."
        ) from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"{folder} holds shards of another version. Remove it and prepare the images again.")
    return index


class RandomCropDataset(Dataset[Tensor]):
    """Endless random crops: `crops[sample_index]` is a uint8 CHW RGB tensor of `size` x `size` pixels.

    Which image, where, flips and quarter turns are a pure function of (seed, sample index). Crops are read from
    mapped files without decoding: over 10,000 crops of 96 pixels a second on one core. Files are opened on first use
    in each process, so the dataset may be sent or forked to DataLoader workers.

    Args:
        folder: Made by `prepare`.
        size: Of the crops, in pixels.
        seed: 0 to 2**64 - 1.
        downscale_prob: Share of the samples, 0 to 1, that are cut from a larger window, of up to twice the size, and
            shrunk to `size` by bicubic: more detail a pixel. Such a sample takes one or two milliseconds, not a tenth
            of one.

    Raises:
        ValueError: If an image is smaller than a crop, or the folder is not a prepared one.
    """

    def __init__(self, folder: Path, *, size: int, seed: int, downscale_prob: float = 0.0) -> None:
        self.folder = Path(folder)
        self.size = size
        self.seed = seed
        self.downscale_prob = downscale_prob
        images = read_index(self.folder)["images"]
        self.images = [(p["shard"], p["name"], p["height"], p["width"]) for p in images]
        small = [f"{name} ({height}x{width})" for _, name, height, width in self.images if min(height, width) < size]
        if small:
            raise ValueError(
                f"Expected images of at least {size} pixels a side, but {len(small)} of {len(self.images)} in "
                f"{folder} are smaller, such as {small[0]}. Prepare them again with a minimum size of {size}."
            )
        self._files: dict[str, Any] = {}
        self._process = 0

    def __len__(self) -> int:
        return 2**48  # virtual: every index gives a sample

    def __getitem__(self, index: int) -> Tensor:
        where, down, right, turn, shrink, factor = sample_rng(self.seed, index, CROP).random(6).tolist()
        shard, name, height, width = self.images[int(where * len(self.images))]
        window = self.size
        if shrink < self.downscale_prob:
            window = min(round(self.size / (0.5 + 0.5 * factor)), height, width)
        y, x = int(down * (height - window + 1)), int(right * (width - window + 1))
        crop = self._open(shard).get_slice(name)[y : y + window, x : x + window].transpose(2, 0, 1)
        if window > self.size:
            levels = torch.from_numpy(np.ascontiguousarray(crop))[None]
            # Rounded as MATLAB rounds, in float64, so that every machine gets the same levels.
            shrunk = resize(levels.double() / 255, (self.size, self.size), round_to_uint8=True)
            crop = shrunk[0].mul(255).round().byte().numpy()
        orientation = int(turn * 8)
        if orientation & 1:
            crop = crop[:, ::-1]
        if orientation & 2:
            crop = crop[:, :, ::-1]
        if orientation & 4:
            crop = crop.transpose(0, 2, 1)
        return torch.from_numpy(np.ascontiguousarray(crop))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def _open(self, shard: str) -> Any:
        if self._process != os.getpid():
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            self._files[shard] = safe_open(self.folder / shard, framework="numpy")
        return self._files[shard]


def _write_shards(
    data: Path, paths: list[Path], folder: Path, minimum_size: int, progress: Progress | None
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Write the shards, and return the index entries of the images in them and of those left out."""
    images: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    shard: dict[str, np.ndarray] = {}
    shards = 0
    for done, (path, (pixels, digest)) in enumerate(_decode_all(paths, minimum_size), start=1):
        name = path.relative_to(data).as_posix()
        if isinstance(pixels, str):
            logger.warning("Left out %s: %s", path, pixels)
            left_out.append({"name": name, "reason": pixels})
        else:
            if sum(array.nbytes for array in shard.values()) + pixels.nbytes > SHARD_BYTES - HEADER_BYTES:
                save_file(shard, folder / _shard_name(shards))
                shard, shards = {}, shards + 1
            shard[name] = pixels
            height, width, _ = pixels.shape
            entry = {"name": name, "shard": _shard_name(shards), "height": height, "width": width, "sha256": digest}
            images.append(entry)
        if progress:
            progress("images", done, len(paths))
    if shard:
        save_file(shard, folder / _shard_name(shards))
    return images, left_out


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _decode_all(paths: list[Path], minimum_size: int) -> Iterator[tuple[Path, tuple[np.ndarray | str, str]]]:
    workers = os.cpu_count() or 1
    # Pillow decodes without Python's lock, so threads do. A few at a time, so that memory is bounded.
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), 2 * workers):
            group = paths[start : start + 2 * workers]
            yield from zip(group, pool.map(lambda path: _decode(path, minimum_size), group), strict=True)


def _decode(path: Path, minimum_size: int) -> tuple[np.ndarray | str, str]:
    """Return the image as uint8 HWC RGB, or else the reason why it can't be used, and the SHA-256 of the file."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
            file.seek(0)
            with Image.open(file) as image:
                if image.mode.startswith(("I", "F")):
                    return f"its pixels are not 8-bit (mode {image.mode})", digest
                if min(image.size) < minimum_size:
                    return f"{image.width}x{image.height} is smaller than {minimum_size} pixels", digest
                if 3 * image.width * image.height > SHARD_BYTES - HEADER_BYTES:
                    return f"{image.width}x{image.height} is too large for a shard: cut it in pieces", digest
                return np.array(ImageOps.exif_transpose(image).convert("RGB")), digest
    # What Pillow raises on broken files, by format.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return f"it can't be read ({error})", ""
