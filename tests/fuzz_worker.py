"""Malformed image files, for test_fuzz.py; as a program, each one is upscaled in a fork with limits.

    python fuzz_worker.py DIRECTORY COUNT

writes a small file of each format to DIRECTORY, mutates them COUNT times, and prints a line for each that is neither
upscaled nor rejected with an ImageError of a decoder: other errors, a crash, more than 10 s or 1 GB.
"""

import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pillow_heif
import tifffile
import torch
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.batch import upscale_files
from srgan_hub.images.encode import SaveOptions, save_image
from srgan_hub.images.raster import Raster
from srgan_hub.upscaler import Upscaler

MEMORY, SECONDS = 1_000_000_000, 10


def make_files(folder: Path) -> list[Path]:
    """Write one small file of each format, some with all metadata that it can store."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image, gray = Image.fromarray(rgb), Image.fromarray(rgb[..., 0])
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera", 6
    exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    frames = [Image.fromarray(np.roll(rgb, i, 1)) for i in range(1, 4)]
    rich = {"exif": exif, "dpi": (300, 300)}
    for suffix in ("bmp", "ppm", "tga", "ico", "jp2", "pcx", "sgi", "dds", "im"):
        image.save(folder / f"a.{suffix}")
    for suffix in ("jpg", "png", "webp", "avif"):
        image.save(folder / f"b.{suffix}", xmp=b"<x tiff:Orientation='3'/>", **rich)
    gray.save(folder / "c.tif", compression="tiff_lzw", **rich)
    image.quantize(8).save(folder / "d.png", transparency=3)
    image.save(folder / "e.gif", save_all=True, append_images=frames, loop=0, duration=50)
    image.save(folder / "f.png", save_all=True, append_images=frames, duration=50)
    image.save(folder / "g.webp", save_all=True, append_images=frames, duration=50, lossless=True)
    pillow_heif.from_pillow(image).save(folder / "h.heic")
    for name, array, options in (
        ("i", rgb.astype(np.uint16) * 257, {"photometric": "rgb", "compression": "zlib"}),
        ("j", rng.random((12, 16)).astype(np.float32), {}),
        ("k", rng.random((12, 16, 5)).astype(np.float32), {"photometric": "minisblack", "planarconfig": "contig"}),
        ("l", rgb, {"photometric": "rgb", "tile": (16, 16), "bigtiff": True}),
    ):
        tifffile.imwrite(folder / f"{name}.tif", array, metadata=None, **options)
    image.save(folder / "m.tif", save_all=True, append_images=frames)
    raster = Raster(rgb.astype(np.uint16) * 257)
    save_image(raster, folder / "n.png")
    with av.open(str(folder / "o.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 12, "yuv420p"
        for each in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(each)))
        file.mux(stream.encode())
    return sorted(folder.iterdir())


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return a copy with flipped bits, removed, repeated or swapped pieces, extreme integers, or a missing end."""
    copy = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(copy)) if rng.random() < 0.5 else rng.randrange(min(200, len(copy)))
        length = rng.choice((1, 2, 4, 8, 30))
        match rng.randrange(7):
            case 0:
                copy[at] ^= 1 << rng.randrange(8)
            case 1:
                copy = copy[: max(1, at)]
            case 2:
                del copy[at : at + length]
            case 3:
                copy[at:at] = copy[at : at + length]
            case 4:
                copy[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"))
            case 5:
                copy[at : at + length] = rng.randbytes(length)
            case 6:
                to = rng.randrange(len(copy))
                copy[at : at + length], copy[to : to + length] = (
                    copy[to : to + length],
                    copy[at : at + length],
                )
        if not copy:
            copy = bytearray(b"x")
    return bytes(copy)


def fuzz(directory: Path, count: int, check: Callable[[Upscaler, Path], str]) -> Iterator[str]:
    """Check the files of `make_files` and `count` mutated ones. Yield a description of each failure."""
    torch.manual_seed(0)
    upscaler = Upscaler(SRGAN(channels=2, num_blocks=1).generator.eval(), scale=4, device="cpu", dtype="float32")
    paths = make_files(directory)
    for path in paths:
        if failure := check(upscaler, path):
            yield f"{path.name} as it is: {failure}"
    rng = random.Random(0)
    originals = [path.read_bytes() for path in paths]
    for number in range(count):
        path = paths[number % len(paths)]
        mutated = path.with_name(f"mutated{path.suffix}")
        mutated.write_bytes(mutate(originals[number % len(paths)], rng))
        if failure := check(upscaler, mutated):
            mutated.rename(path.with_name(f"{number}-{path.name}"))
            yield f"{number} {path.name}: {failure}"


def check(upscaler: Upscaler, path: Path) -> str:
    """Upscale a file; return what is wrong, if it is neither upscaled nor rejected by an error that names it."""
    target = path.with_name(f"result{path.suffix if path.suffix in ('.tif', '.mp4') else '.png'}")
    (result,) = upscale_files(upscaler, [path], str(target), options=SaveOptions(overwrite=True), max_pixels=100_000)
    error = result.error
    message = str(error or "")
    if "cannot be upscaled:" in message:  # an error of another type
        return message
    if " object at 0x" in message or "\n" in message:
        return f"shows more than a sentence: {message}"
    return "" if error is None or str(path) in message or str(target) in message else f"names no file: {message}"


def check_in_fork(upscaler: Upscaler, path: Path) -> str:
    """As `check`, in a fork with limits of memory and time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        signal.alarm(SECONDS)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries print warnings
        try:
            failure = check(upscaler, path)
        except BaseException as error:
            failure = repr(error)
        os.write(writing, failure.encode()[:2000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        failure = file.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"{failure} exit code {code}" if code else failure


if __name__ == "__main__":
    torch.set_num_threads(1)
    for failure in fuzz(Path(sys.argv[1]), int(sys.argv[2]), check_in_fork):
        print(failure)
