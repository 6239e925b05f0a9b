"""Files whose headers declare other sizes than their data, for several tests."""

import io
import struct
import zlib

from PIL import Image


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header declares this size, with data for none of its rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def icon(kind: bytes, image: bytes) -> bytes:
    """Return a macOS icon that contains one image, whatever size its type declares."""
    return b"icns" + struct.pack(">I", 16 + len(image)) + kind + struct.pack(">I", 8 + len(image)) + image


def huge_jpeg_2000(side: int) -> bytes:
    """Return a JPEG 2000 of a few hundred bytes whose header declares side x side pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG2000")
    data = bytearray(buffer.getvalue())
    at, header = data.index(b"\xff\x4f\xff\x51"), data.index(b"ihdr")
    data[header + 4 : header + 12] = struct.pack(">II", side, side)
    data[at + 8 : at + 16] = data[at + 24 : at + 32] = struct.pack(">II", side, side)
    return bytes(data)
