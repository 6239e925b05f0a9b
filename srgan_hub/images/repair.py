"""Files that others read and Pillow refuses: PNG with faulty or large texts, rare kinds of BMP, and cut-off files."""

import importlib.util
import io
import re
import struct
import zlib
from contextlib import suppress
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, PngImagePlugin

from .errors import DECODE_ERRORS, describe

_MAX_TEXT = 2**26  # decompressed bytes of all texts and the color profile of a PNG
# Key, rest of the header, and compressed data of chunks.
_COMPRESSED = {
    b"zTXt": rb"([^\0]*\0)\0()(.*)",
    b"iCCP": rb"([^\0]*\0)\0()(.*)",
    b"iTXt": rb"([^\0]*\0)\x01(\0[^\0]*\0[^\0]*\0)(.*)",
}
_FRAME_CHUNKS = (b"acTL", b"fcTL", b"fdAT")  # which an animation needs
_END_OF_IMAGE = b"\xff\xd9"


class PngFile(PngImagePlugin.PngImageFile):
    """A PNG of which ancillary chunks that are faulty or too large are ignored, which `warnings` tells."""

    warnings: list[str]

    def _open(self) -> None:
        self.fp, self.warnings, profile = _clean_png(cast(BinaryIO, self.fp))
        super()._open()
        if profile:
            self.info["icc_profile"] = profile


def _clean_png(file: BinaryIO) -> tuple[BinaryIO, list[str], bytes | None]:
    """Return a PNG without chunks that Pillow refuses and with uncompressed texts; warnings; and a large profile."""
    file.seek(8)
    stream, left = PngImagePlugin.PngStream(file), _MAX_TEXT
    replaced: list[tuple[int, int, bytes]] = []
    warnings, profile = [], None
    while len(head := file.read(8)) == 8 and head[4:].isalpha() and head[4:] != b"IEND":
        name, length, start = head[4:], int.from_bytes(head[:4], "big"), file.tell()
        handler = getattr(stream, f"chunk_{name.decode('latin-1')}", None)
        if name == b"IHDR" or not (name[:1].isupper() or name in _FRAME_CHUNKS):
            data, checksum = file.read(length), file.read(4)
            new, problem = None, ""
            match = name in _COMPRESSED and re.match(_COMPRESSED[name], data, re.DOTALL)
            text = _inflate(match[3], left + 1) if match else data if name in (b"tEXt", b"iTXt") else b""
            if checksum != zlib.crc32(name + data).to_bytes(4, "big"):
                problem = "its checksum is wrong"
            elif len(text) > left:
                problem = f"the texts exceed {_MAX_TEXT // 2**20} MiB"
            elif match and len(text) > PngImagePlugin.MAX_TEXT_CHUNK:
                profile = text if name == b"iCCP" else profile
                plain = {b"zTXt": (b"tEXt", match[1] + text), b"iTXt": (name, match[1] + b"\0" + match[2] + text)}
                new = _chunk(*plain[name]) if name in plain else b""
            elif handler:
                stream.fp = io.BytesIO(data)
                try:
                    handler(0, length)
                except DECODE_ERRORS as error:
                    problem = describe(error)
            if problem and name != b"IHDR":
                warnings.append(f"ignored a chunk {name.decode('latin-1')}: {problem}")
                new = b""
            else:
                left -= len(text)
            if new is not None:
                replaced.append((start - 8, start + length + 4, new))
        file.seek(start + length + 4)
    file.seek(0)
    if not replaced:
        return file, warnings, profile
    data, parts, at = file.read(), [], 0
    for first, last, new in replaced:
        parts += [data[at:first], new]
        at = last
    return io.BytesIO(b"".join([*parts, data[at:]])), warnings, profile


def _inflate(data: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, limit)
    except zlib.error:  # which Pillow ignores, too
        return b""


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


class BmpFile(BmpImagePlugin.BmpImageFile):
    """A BMP, also with any color masks; and with RLE4 or a gray palette of few bits, if PyAV is installed."""

    def _bitmap(self, header: int = 0, offset: int = 0) -> None:
        assert self.fp is not None
        start = self.fp.tell()
        try:
            super()._bitmap(header, offset)
        except OSError as error:
            if "bitfields" not in str(error):
                raise
        position = self.fp.tell()
        self.fp.seek(start)
        info = self.fp.read(56).ljust(56, b"\0")
        self.fp.seek(position)
        size, self._bits, compression = info[0], info[14], info[16]
        if size < 40:
            return
        self._masks = struct.unpack_from("<4I" if size >= 56 else "<3I", info, 40)
        is_masked = compression == 3 and (not self.tile or (self._bits == 16 and any(self._masks[3:])))
        if is_masked and (self._bits not in (16, 32) or not all(self._masks[:3])):
            raise OSError("unsupported color masks")
        self._is_bottom_up = info[11] != 0xFF
        if is_masked:
            self.info["compression"], self._mode = 3, "RGBA" if any(self._masks[3:]) else "RGB"
        elif importlib.util.find_spec("av") and is_misread_by_pillow(self, self._bits):
            self._mode, self.palette = "RGB", None
        else:
            return
        self.tile = [ImageFile._Tile("", (0, 0, *self.size), offset)]  # decoded by `load`

    def load(self) -> Any:
        if self.tile and not self.tile[0].codec_name and self.fp:
            decode = self._decode_masked if self.info["compression"] == 3 else self._decode_by_av
            self.im = Image.fromarray(decode()).im
            self.tile = []
        return super().load()

    def _decode_masked(self) -> np.ndarray:
        assert self.fp is not None
        size = self._bits // 8
        stride = -(-self.width * size // 4) * 4
        self.fp.seek(self.tile[0].offset)
        data = np.frombuffer(self.fp.read(stride * self.height), np.uint8).reshape(self.height, stride)
        pixels = data[:, : self.width * size].copy().view(f"<u{size}").astype(np.uint64)
        channels = []
        for mask in self._masks[: 3 + any(self._masks[3:])]:
            lowest = mask & -mask
            largest = mask // lowest
            channels.append((((pixels & mask) // lowest * 255 + largest // 2) // largest).astype(np.uint8))
        return np.dstack(channels)[:: -1 if self._is_bottom_up else 1]

    def _decode_by_av(self) -> np.ndarray:
        import av

        assert self.fp is not None
        self.fp.seek(0)
        with av.open(self.fp, "r", format="bmp_pipe") as container:
            (frame,) = container.decode(video=0)
            return frame.to_ndarray(format="rgb24")


def is_misread_by_pillow(image: ImageFile.ImageFile, bits: int) -> bool:
    """Return whether a BMP has RLE4 compression, or a gray palette of another size than Pillow assumes."""
    return image.info["compression"] == 2 or bits != {"1": 1, "L": 8}.get(image.mode, bits)


def complete(file: BinaryIO, image: ImageFile.ImageFile, *, allow_truncated: bool) -> tuple[BinaryIO, str] | None:
    """Complete a file of which the end is missing, so that it can be decoded.

    Args:
        file: A file that could not be decoded.
        image: The file as opened by Pillow.
        allow_truncated: Fill in missing pixels. Otherwise only a JPEG's end marker is added.

    Returns:
        The complete file and a warning; None if it cannot be completed.
    """
    file.seek(0)
    missing = "is truncated; the missing part is blank"
    if image.format in ("JPEG", "MPO"):
        data = file.read().removesuffix(b"\xff")
        if _has_all_scans(data) and not data.endswith(b"\0\0"):
            # Any pixel that lacks data would depend on what follows.
            results = (type(image)(io.BytesIO(data + _noise(seed) + _END_OF_IMAGE)).tobytes() for seed in range(8))
            with suppress(*DECODE_ERRORS):
                if all(map(next(results).__eq__, results)):
                    return io.BytesIO(data + _END_OF_IMAGE), "lacks the marker of its end"
        return (io.BytesIO(data + _END_OF_IMAGE), missing) if allow_truncated else None
    if not allow_truncated:
        return None
    data = file.read()
    if image.format == "GIF":  # the rest of the last block, and blocks of which each code is one pixel
        at = image.tile[0].offset
        while at < len(data):
            at += 1 + data[at]
        count = image.width * image.height * 12 // (8 * 255) + 2
        return io.BytesIO(data + bytes(at - len(data)) + (b"\xff" + bytes(255)) * count + b"\0;"), missing
    if image.format == "PNG":
        return (io.BytesIO(completed), missing) if (completed := _complete_png(data)) else None
    channels = max(4, len(image.getbands()))
    return io.BytesIO(data + bytes(2 * channels * image.width * image.height + 4 * image.height)), missing


def _noise(seed: int) -> bytes:
    """Return data of a JPEG scan, each part larger than a block of pixels, with restart markers."""
    rows = np.random.default_rng(seed).integers(0, 255, (16, 2048), dtype=np.uint8)
    return b"".join(row.tobytes() + bytes([0xFF, 0xD0 + (seed + index) % 8]) for index, row in enumerate(rows))


def _has_all_scans(data: bytes) -> bool:
    """Return whether the scans of a JPEG contain all bits of all coefficients of all components."""
    frame = max(data.rfind(b"\xff" + marker) for marker in (b"\xc0", b"\xc1", b"\xc2"))
    missing = {(data[frame + 10 + 3 * index], k) for index in range(data[frame + 9]) for k in range(64)}
    for scan in re.finditer(rb"\xff\xda\0[\x08\x0a\x0c\x0e]([\1-\4])", data[frame:]):
        start, count = frame + scan.end(), scan[1][0]
        components, (first, last, bits) = data[start : start + 2 * count : 2], data[start + 2 * count :][:3]
        if not bits & 15:
            missing -= {(component, k) for component in components for k in range(first, last + 1)}
    return not missing


def _complete_png(data: bytes) -> bytes | None:
    """Return a PNG whose pixels are as many as its header declares, those that `data` lacks being 0."""
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    at, compressed, start = 8, [], None
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            start = at if start is None else start
            compressed.append(data[at + 8 : at + 8 + length])
        elif start is not None:
            break
        at += length + 12
    # Interlacing adds less than four bytes a row.
    size = height * (-(-width * bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] // 8) + 4) + 64
    pixels = _inflate(b"".join(compressed), size)
    if not pixels or start is None:
        return None
    return data[:start] + _chunk(b"IDAT", zlib.compress(pixels.ljust(size, b"\0"), 1)) + _chunk(b"IEND", b"")
