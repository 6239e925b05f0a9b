"""Prepared training images and random crops."""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from torch.utils.data import Dataset

from ..degradations import Degradation
from ..fileio import atomic_write, remove_stale_parts, wrap_write_errors
from ..images.decode import load_rgb
from ..images.errors import ImageError
from ..progress import ProgressCallback
from ..resize import resize
from ..rng import CROP, sample_rng
from .sources import ImageFolder, Images

logger = logging.getLogger(__name__)

INDEX = "index.json"
FORMAT = 3
SHARD_BYTES = 512 * 2**20
HEADER_BYTES = 2**20  # reserved in each shard for the names of its images


def build_shards(
    data: Path | Images,
    output: Path,
    *,
    min_size: int = 96,
    min_images: int = 1,
    store: bool = True,
    progress: ProgressCallback | None = None,
) -> Path:
    """Decode all images into shards for `RandomCropDataset`; return `output`.

    The output is `index.json` and `shard-00000.safetensors`, ..., each at most 512 MiB, with one uint8 HWC RGB tensor
    per image, as `load_rgb` decodes it. The directory is written atomically: an interrupted call leaves no output, and
    the next one removes its temporary files. Call it from one process at a time.

    Args:
        data: Directory of images (BMP, JPEG, PNG, TIFF, WebP), searched recursively; or other images.
        output: Directory to create. Shards of the same images (name, size, modification time) are kept, others are
            replaced.
        min_size: Images with a shorter side are skipped with a warning, as are unreadable ones.
        min_images: Minimum number of usable images.
        store: Write the shards. Otherwise all images are decoded to check them, and only the index is written.
        progress: Called with (images done, number of images).

    Raises:
        ValueError: Too few images are usable, `data` is not a directory, or `output` holds anything but shards.
        OSError: The disk is full.
    """
    images = ImageFolder(data, output) if isinstance(data, Path) else data
    wanted = {"format": FORMAT, "min_size": min_size, "stored": store, "sources": images.version()}
    if output.exists() and any(output.iterdir()):
        index = read_index(output)
        if wanted.items() <= index.items() and len(index["images"]) >= min_images:
            return output
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(output.parent)
    with wrap_write_errors(output), atomic_write(output, directory=True) as tmp_path:
        usable, skipped = _decode_and_store(images, tmp_path if store else None, min_size, progress)
        if len(usable) < min_images:
            reasons = "".join(f"\n  {entry['reason']}" for entry in skipped[:5])
            found = f"{len(usable)} usable images of {len(images.names)} (at least {min_size}x{min_size} pixels)"
            raise ValueError(f"'{images.title}' has {found}; at least {min_images} are required.{reasons}")
        index = wanted | {"images": usable, "skipped": skipped}
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


class PreparedImages:
    """The images of a directory that `build_shards` wrote, in memory-mapped shards.

    Files are opened on first use in each process, so DataLoader workers may inherit or unpickle the object.

    Args:
        directory: Output of `build_shards`.
        originals: The images, which are decoded at each access, if `build_shards` did not store them.

    Attributes:
        images: Name, shard, height, width and SHA-256 of the file of each image.

    Raises:
        ValueError: The directory holds no index, or one of images that are not stored.
    """

    def __init__(self, directory: Path, originals: Images | None = None) -> None:
        self.directory = directory
        index = read_index(directory)
        self.images: list[dict[str, Any]] = index["images"]
        if not index["stored"] and not originals:
            raise ValueError(f"'{directory}' has only the index of its images; prepare them with `srgan-hub prepare`.")
        self._originals = None if index["stored"] else originals
        self._files: dict[str, Any] = {}
        self._process = 0

    def read(self, number: int, top: int, left: int, side: int) -> np.ndarray:
        """Return the square window of an image as uint8 HWC RGB. Raise ImageError if its file cannot be decoded."""
        name, rows, columns = self.images[number]["name"], slice(top, top + side), slice(left, left + side)
        if self._originals:
            return decode(self._originals, name)[0][rows, columns]
        window: np.ndarray = self._open(self.images[number]["shard"]).get_slice(name)[rows, columns]
        return window

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def _open(self, shard: str) -> Any:
        if self._process != os.getpid():
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            self._files[shard] = safe_open(self.directory / shard, framework="numpy")
        return self._files[shard]


class Source(NamedTuple):
    """Training images, the LR images of the same order if there are any, and how often each image is drawn."""

    hr: PreparedImages
    lr: PreparedImages | None = None
    weight: float = 1.0


class Crop(NamedTuple):
    """A random draw: image `number` of a source, window and orientation (0 to 7)."""

    source: Source
    number: int
    top: int
    left: int
    side: int
    orientation: int


class RandomCropDataset(Dataset[Tensor]):
    """Endless random crops: `dataset[sample_index]` is a uint8 CHW RGB tensor of `size` x `size` pixels.

    Image, position, flips and quarter turns are a pure function of (seed, sample index). All images are equally likely,
    except for the weights of their sources.

    Args:
        sources: The images. Windows of images with LR images are aligned with the LR pixels.
        scale: HR pixels per LR pixel of the LR images.
        seed: 0 to 2**64 - 1.
        downscale_prob: Probability of cutting a larger window, of up to twice the size, and downscaling it bicubically:
            more detail per pixel. It takes one or two milliseconds per crop instead of a tenth.

    Raises:
        ValueError: An image is smaller than a crop, or differs from its LR image in name or size.
    """

    def __init__(
        self, sources: Sequence[Source], *, size: int, seed: int, scale: int = 1, downscale_prob: float = 0.0
    ) -> None:
        self.sources, self.size, self.scale = list(sources), size, scale
        self.seed, self.downscale_prob = seed, downscale_prob
        for source in self.sources:
            _check_sizes(source.hr, size)
            if source.lr:
                _check_pairs(source.hr, source.lr, scale)

    @property
    def num_images(self) -> int:
        """Number of images of all sources."""
        return sum(len(source.hr.images) for source in self.sources)

    def fingerprint(self) -> str:
        """Return a hash of the images' content and weights."""
        content = [[s.hr.images, s.lr and s.lr.images, s.weight] for s in self.sources]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def find(self, hashes: Collection[str]) -> list[str]:
        """Return the names of the images whose file has one of these SHA-256."""
        return [image["name"] for source in self.sources for image in source.hr.images if image["sha256"] in hashes]

    def __len__(self) -> int:
        return 2**48  # virtual: every index is a sample

    def __getitem__(self, index: int) -> Tensor:
        crop = self._draw(index)
        pixels = crop.source.hr.read(crop.number, crop.top, crop.left, crop.side).transpose(2, 0, 1)
        if crop.side > self.size:
            # In float64 and rounded as in MATLAB: the same 8-bit values on every machine.
            window = torch.from_numpy(np.ascontiguousarray(pixels))[None].double() / 255
            pixels = resize(window, (self.size, self.size), round_to_uint8=True)[0].mul(255).round().byte().numpy()
        return _orient(pixels, crop.orientation)

    def read_lr(self, index: int) -> Tensor:
        """Return the window of the LR image of a sample, as uint8 CHW."""
        crop = self._draw(index)
        assert crop.source.lr is not None
        window = (value // self.scale for value in (crop.top, crop.left, crop.side))
        return _orient(crop.source.lr.read(crop.number, *window).transpose(2, 0, 1), crop.orientation)

    def _draw(self, index: int) -> Crop:
        which, down, right, turn, downscaled, factor = sample_rng(self.seed, index, CROP).random(6).tolist()
        position = which * sum(len(source.hr.images) * source.weight for source in self.sources)
        for source in self.sources:
            if position < len(source.hr.images) * source.weight:
                break
            position -= len(source.hr.images) * source.weight
        number = min(int(position / source.weight), len(source.hr.images) - 1)
        height, width = source.hr.images[number]["height"], source.hr.images[number]["width"]
        side = self.size
        if downscaled < self.downscale_prob:
            side = min(round(self.size / (0.5 + 0.5 * factor)), height, width)
        step = self.scale if source.lr else 1
        top, left = (int(draw * ((edge - side) // step + 1)) * step for draw, edge in ((down, height), (right, width)))
        return Crop(source, number, top, left, side, int(turn * 8))


class TrainingPairs(Dataset[tuple[Tensor, Tensor]]):
    """LR and HR crops of samples: `pairs[indices]` is (float32 NCHW in [0, 1], uint8 NCHW).

    LR crops are degraded HR crops; without a degradation, they are cut from the LR images.
    """

    def __init__(self, crops: RandomCropDataset, degrade: Degradation | None, seed: int) -> None:
        self.crops, self.degrade, self.seed = crops, degrade, seed

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        hr = torch.stack([self.crops[index] for index in indices])
        if self.degrade:
            return self.degrade(hr, indices, self.seed), hr
        return torch.stack([self.crops.read_lr(index) for index in indices]).float() / 255, hr


def decode(images: Images, name: str) -> tuple[np.ndarray, list[str]]:
    """Decode one image as `load_rgb` does."""
    return load_rgb(images.path(name), max_pixels=(SHARD_BYTES - HEADER_BYTES) // 3, file=images.open(name))


def _orient(crop: np.ndarray, orientation: int) -> Tensor:
    """Flip and transpose a CHW crop."""
    if orientation & 1:
        crop = crop[:, ::-1]
    if orientation & 2:
        crop = crop[:, :, ::-1]
    if orientation & 4:
        crop = crop.transpose(0, 2, 1)
    return torch.from_numpy(np.ascontiguousarray(crop))


def _check_sizes(prepared: PreparedImages, size: int) -> None:
    small = [image for image in prepared.images if min(image["height"], image["width"]) < size]
    if small:
        example = f"{small[0]['name']} ({small[0]['width']}x{small[0]['height']})"
        count = f"{len(small)} of {len(prepared.images)} images in '{prepared.directory}'"
        raise ValueError(f"{count} are smaller than {size}x{size} crops, such as {example}; prepare them again.")


def _check_pairs(hr: PreparedImages, lr: PreparedImages, scale: int) -> None:
    """Raise ValueError unless the LR images are those of the HR images, `scale` times smaller."""
    for high, low in itertools.zip_longest(hr.images, lr.images):
        names = [image and _stem(image["name"], scale) for image in (high, low)]
        if names[0] != names[1]:
            found = [f"'{image['name']}'" if image else "no image" for image in (high, low)]
            raise ValueError(
                f"--train-data has {found[0]} where --train-lr-data has {found[1]}; names must be the same."
            )
        expected = high["width"] // scale, high["height"] // scale
        if (low["width"], low["height"]) != expected:
            given = f"{low['width']}x{low['height']} for {high['width']}x{high['height']} pixels"
            raise ValueError(f"'{low['name']}' of --train-lr-data must have {expected[0]}x{expected[1]}, got {given}.")


def _stem(name: str, scale: int) -> str:
    """Return a name without its suffix and the "x4" of DIV2K's LR images."""
    return str(PurePosixPath(name).with_suffix("")).removesuffix(f"x{scale}")


def _decode_and_store(
    images: Images, directory: Path | None, min_size: int, progress: ProgressCallback | None
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Write the shards to a directory, if any; return the index entries of the usable and of the skipped images."""
    usable: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    files = (f"shard-{number:05d}.safetensors" for number in itertools.count())
    file, shard, size = next(files), dict[str, np.ndarray](), 0
    for done, (name, (pixels, warnings, digest)) in enumerate(_decode_all(images, min_size), start=1):
        for warning in warnings:
            logger.warning("'%s': %s", images.path(name), warning)
        if isinstance(pixels, str):
            logger.warning("skipped %s", pixels)
            skipped.append({"name": name, "reason": pixels})
        else:
            if directory:
                if size + pixels.nbytes > SHARD_BYTES - HEADER_BYTES:
                    _save_shard(shard, directory / file)
                    file, shard, size = next(files), {}, 0
                shard[name], size = pixels, size + pixels.nbytes
            height, width, _ = pixels.shape
            entry = {"name": name, "shard": file, "height": height, "width": width, "sha256": digest}
            usable.append(entry)
        if progress:
            progress(done, len(images.names))
    if directory:
        _save_shard(shard, directory / file)
    return usable, skipped


def _save_shard(shard: dict[str, np.ndarray], path: Path) -> None:
    try:
        save_file(shard, path)
    except SafetensorError as error:  # of a full disk, in place of an OSError
        raise OSError(f"cannot write the training images to '{path.parent.parent}': {error}") from error


def _decode_all(images: Images, min_size: int) -> Iterator[tuple[str, tuple[np.ndarray | str, list[str], str]]]:
    workers = os.cpu_count() or 1
    # Pillow decodes without the GIL. A few images at a time bound the memory.
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(images.names), 2 * workers):
            group = images.names[start : start + 2 * workers]
            yield from zip(group, pool.map(lambda name: _decode_one(images, name, min_size), group), strict=True)


def _decode_one(images: Images, name: str, min_size: int) -> tuple[np.ndarray | str, list[str], str]:
    """Return the image, or the reason why it is unusable, warnings and the SHA-256 of the file."""
    try:
        with images.open(name) as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        pixels, warnings = decode(images, name)
    except (OSError, ImageError) as error:
        return str(error), [], ""
    height, width, _ = pixels.shape
    if min(height, width) < min_size:
        return f"'{images.path(name)}': {width}x{height} is smaller than {min_size}x{min_size} pixels", [], digest
    return pixels, warnings, digest
