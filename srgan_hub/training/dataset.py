"""Sharded training images and random crops."""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator
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

from ..fileio import atomic_write, remove_stale_parts, wrap_write_errors
from ..images.decode import find_images
from ..images.formats import WRITE_SUFFIXES
from ..progress import ProgressCallback
from ..resize import resize
from ..rng import CROP, sample_rng

logger = logging.getLogger(__name__)

INDEX = "index.json"
FORMAT = 2
SHARD_BYTES = 512 * 2**20
HEADER_BYTES = 2**20  # reserved in each shard for the names of its images


def build_shards(
    data: Path, output: Path, *, min_size: int = 96, min_images: int = 1, progress: ProgressCallback | None = None
) -> Path:
    """Decode every image in a directory into shards for `RandomCropDataset`; return `output`.

    The output is `index.json` and `shard-00000.safetensors`, ..., each at most 512 MiB, with one uint8 HWC RGB tensor
    per image. EXIF orientation is applied, alpha dropped. The directory is written atomically: an interrupted call
    leaves no output, and the next one removes its temporary files. Call it from one process at a time.

    Args:
        data: Directory of images (BMP, JPEG, PNG, TIFF, WebP), searched recursively.
        output: Directory to create. Shards of the same images (name, size, modification time) are kept, others are
            replaced.
        min_size: Images with a shorter side are skipped with a warning, as are unreadable ones.
        min_images: Minimum number of usable images.
        progress: Called with (images done, number of images).

    Raises:
        ValueError: Too few images are usable, `data` is not a directory, or `output` holds anything but shards.
    """
    if not data.is_dir():
        raise ValueError(f"'{data}' is not a directory of training images.")
    paths = find_images(data, output, WRITE_SUFFIXES)
    sources = {path.relative_to(data).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
    wanted = {"format": FORMAT, "min_size": min_size, "sources": sources}
    if output.exists() and any(output.iterdir()):
        index = read_index(output)
        if wanted.items() <= index.items() and len(index["images"]) >= min_images:
            return output
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(output.parent)
    with wrap_write_errors(output), atomic_write(output, directory=True) as tmp_path:
        images, skipped = _write_shards(data, paths, tmp_path, min_size, progress)
        if len(images) < min_images:
            reasons = "".join(f"\n  {entry['name']}: {entry['reason']}" for entry in skipped[:5])
            usable = f"{len(images)} usable images of {len(paths)} (at least {min_size}x{min_size} pixels)"
            raise ValueError(f"'{data}' has {usable}; at least {min_images} are required.{reasons}")
        index = wanted | {"images": images, "skipped": skipped}
        (tmp_path / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return output


def read_index(directory: Path) -> dict[str, Any]:
    """Return the index of a directory of shards. Raise ValueError if `build_shards` did not write it."""
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        advice = "create shards with `srgan-hub prepare`, in a new or empty directory"
        raise ValueError(f"'{directory}' has no readable {INDEX}; {advice}.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"'{directory}' holds shards of another version; delete it and prepare the images again.")
    return index


class RandomCropDataset(Dataset[Tensor]):
    """Endless random crops of shards: `dataset[sample_index]` is a uint8 CHW RGB tensor of `size` x `size` pixels.

    Image, position, flips and quarter turns are a pure function of (seed, sample index). Crops are read from
    memory-mapped files without decoding, over 10,000 crops of 96 pixels per second on one core. Files are opened on
    first use in each process, so DataLoader workers may inherit or unpickle the dataset.

    Args:
        directory: Output of `build_shards`.
        seed: 0 to 2**64 - 1.
        downscale_prob: Probability of cutting a larger window, of up to twice the size, and downscaling it bicubically:
            more detail per pixel. It takes one or two milliseconds per crop instead of a tenth.

    Raises:
        ValueError: An image is smaller than a crop, or the directory holds no shards.
    """

    def __init__(self, directory: Path, *, size: int, seed: int, downscale_prob: float = 0.0) -> None:
        self.directory, self.size, self.seed, self.downscale_prob = directory, size, seed, downscale_prob
        images = read_index(directory)["images"]
        self.images = [(image["shard"], image["name"], image["height"], image["width"]) for image in images]
        small = [f"{name} ({width}x{height})" for _, name, height, width in self.images if min(height, width) < size]
        if small:
            count = f"{len(small)} of {len(self.images)} images in '{directory}'"
            raise ValueError(f"{count} are smaller than {size}x{size} crops, such as {small[0]}; prepare them again.")
        self._files: dict[str, Any] = {}
        self._process = 0

    def __len__(self) -> int:
        return 2**48  # virtual: every index is a sample

    def __getitem__(self, index: int) -> Tensor:
        which, down, right, turn, downscaled, factor = sample_rng(self.seed, index, CROP).random(6).tolist()
        shard, name, height, width = self.images[int(which * len(self.images))]
        window = self.size
        if downscaled < self.downscale_prob:
            window = min(round(self.size / (0.5 + 0.5 * factor)), height, width)
        y, x = int(down * (height - window + 1)), int(right * (width - window + 1))
        crop = self._open(shard).get_slice(name)[y : y + window, x : x + window].transpose(2, 0, 1)
        if window > self.size:
            # In float64 and rounded as in MATLAB: the same 8-bit values on every machine.
            pixels = torch.from_numpy(np.ascontiguousarray(crop))[None].double() / 255
            crop = resize(pixels, (self.size, self.size), round_to_uint8=True)[0].mul(255).round().byte().numpy()
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
            self._files[shard] = safe_open(self.directory / shard, framework="numpy")
        return self._files[shard]


def _write_shards(
    data: Path, paths: list[Path], directory: Path, min_size: int, progress: ProgressCallback | None
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Write the shards, and return the index entries of the usable and of the skipped images."""
    images: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    files = (f"shard-{number:05d}.safetensors" for number in itertools.count())
    file, shard = next(files), dict[str, np.ndarray]()
    for done, (path, (pixels, digest)) in enumerate(_decode_all(paths, min_size), start=1):
        name = path.relative_to(data).as_posix()
        if isinstance(pixels, str):
            logger.warning("'%s' is skipped: %s", path, pixels)
            skipped.append({"name": name, "reason": pixels})
        else:
            if sum(array.nbytes for array in shard.values()) + pixels.nbytes > SHARD_BYTES - HEADER_BYTES:
                save_file(shard, directory / file)
                file, shard = next(files), {}
            shard[name] = pixels
            height, width, _ = pixels.shape
            images.append({"name": name, "shard": file, "height": height, "width": width, "sha256": digest})
        if progress:
            progress(done, len(paths))
    save_file(shard, directory / file)
    return images, skipped


def _decode_all(paths: list[Path], min_size: int) -> Iterator[tuple[Path, tuple[np.ndarray | str, str]]]:
    workers = os.cpu_count() or 1
    # Pillow decodes without the GIL. A few images at a time bound the memory.
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), 2 * workers):
            group = paths[start : start + 2 * workers]
            yield from zip(group, pool.map(lambda path: _decode(path, min_size), group), strict=True)


def _decode(path: Path, min_size: int) -> tuple[np.ndarray | str, str]:
    """Return the image as uint8 HWC RGB, or the reason why it is unusable, and the SHA-256 of the file."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
            file.seek(0)
            with Image.open(file) as image:
                if image.mode.startswith(("I", "F")):
                    return f"its bit depth is not 8 (mode {image.mode})", digest
                if min(image.size) < min_size:
                    return f"{image.width}x{image.height} is smaller than {min_size}x{min_size} pixels", digest
                if 3 * image.width * image.height > SHARD_BYTES - HEADER_BYTES:
                    return f"{image.width}x{image.height} is too large for a shard; cut it into pieces", digest
                return np.array(ImageOps.exif_transpose(image).convert("RGB")), digest
    # Pillow's errors on corrupt files, by format.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return f"cannot decode: {error}", ""
