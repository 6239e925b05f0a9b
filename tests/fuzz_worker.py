"""Run by test_fuzz.py in a process of its own: upscales broken files, each in a fork with limits.

    python fuzz_worker.py FOLDER COUNT

makes a small file of each kind in FOLDER, breaks them COUNT times, and prints a line for each that is neither upscaled
nor refused by an ImageError of those that read it: other errors, more than 10 s or 1 GB.
"""

import os
import random
import resource
import signal
import sys
from pathlib import Path

import av
import numpy as np
import pillow_heif
import tifffile
import torch
from PIL import Image

from srgan_hub.batch import SaveOptions, upscale_files
from srgan_hub.images.decode import open_image
from srgan_hub.images.raster import Raster
from srgan_hub.network.generator import build_generator
from srgan_hub.upscaler import Upscaler

MEMORY, SECONDS = 1_000_000_000, 10


def make_files(folder: Path) -> list[Path]:
    """Write one small file of each kind, some of them with all that a file may carry."""
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
    from srgan_hub.images.encode import save_image

    save_image(raster, folder / "n.png")
    with av.open(str(folder / "o.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 12, "yuv420p"
        for each in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(each)))
        file.mux(stream.encode())
    return sorted(folder.iterdir())


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Break a file: bits, ends, pieces, numbers."""
    broken = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(broken)) if draw.random() < 0.5 else draw.randrange(min(200, len(broken)))
        length = draw.choice((1, 2, 4, 8, 30))
        match draw.randrange(7):
            case 0:
                broken[at] ^= 1 << draw.randrange(8)
            case 1:
                broken = broken[: max(1, at)]
            case 2:
                del broken[at : at + length]
            case 3:
                broken[at:at] = broken[at : at + length]
            case 4:
                broken[at : at + 4] = draw.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"))
            case 5:
                broken[at : at + length] = draw.randbytes(length)
            case 6:
                to = draw.randrange(len(broken))
                broken[at : at + length], broken[to : to + length] = broken[to : to + length], broken[at : at + length]
        if not broken:
            broken = bytearray(b"x")
    return bytes(broken)


def scorer(upscaler: Upscaler, path: Path) -> str:
    """Upscale a file in this process; return what is wrong with how that went."""
    suffix = ".tif" if path.suffix == ".tif" else ".mp4" if path.suffix == ".mp4" else ".png"
    target = path.with_name(f"result{suffix}")
    options = SaveOptions(overwrite=True)
    (result,) = upscale_files(upscaler, [path], str(target), options=options, max_pixels=100_000)
    problem = result.error
    text = str(problem or "")
    if "cannot be upscaled:" in text:
        return text
    return "" if problem is None or str(path) in text or str(target) in text else f"names no file: {text}"


def attempt(upscaler: Upscaler, path: Path) -> str:
    """Judge in a fork with limits."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        signal.alarm(SECONDS)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries print warnings
        try:
            said = scorer(upscaler, path)
        except BaseException as error:
            said = repr(error)
        os.write(writing, said.encode()[:2000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return " | ".join(part for part in (said, f"exit code {code}" if code else "") if part)


def main(folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    import logging

    logging.getLogger("srgan_hub").addHandler(logging.NullHandler())
    torch.manual_seed(0)
    upscaler = Upscaler(build_generator(channels=2, num_blocks=1).eval(), scale=4, device="cpu", dtype="fp32")
    whole = make_files(folder)
    draw = random.Random(0)
    for path in whole:
        if said := attempt(upscaler, path):
            print(f"{path.name} as it is: {said}")
    originals = {path: path.read_bytes() for path in whole}
    for number in range(count):
        path = whole[number % len(whole)]
        broken = path.with_name(f"broken{path.suffix}")
        broken.write_bytes(mutate(originals[path], draw))
        if said := attempt(upscaler, broken):
            broken.rename(path.with_name(f"{number}-{path.name}"))
            print(f"{number} {path.name}: {said}")
    with open_image(whole[0]) as opened:
        assert opened.kind == "image"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
