"""Files that promise what they do not hold, which several tests share."""

import io
import struct
import zlib

from PIL import Image


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its data does not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def icon(kind: bytes, image: bytes) -> bytes:
    """A macOS icon that holds one image, whatever size its kind promises."""
    return b"icns" + struct.pack(">I", 16 + len(image)) + kind + struct.pack(">I", 8 + len(image)) + image


def huge_jpeg_2000(side: int) -> bytes:
    """A few hundred bytes that promise an image of side x side pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG2000")
    data = bytearray(buffer.getvalue())
    at, header = data.index(b"\xff\x4f\xff\x51"), data.index(b"ihdr")
    data[header + 4 : header + 12] = struct.pack(">II", side, side)
    data[at + 8 : at + 16] = data[at + 24 : at + 32] = struct.pack(">II", side, side)
    return bytes(data)
