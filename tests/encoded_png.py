"""Encoder of PNG files of every bit depth, color type and interlacing, with any chunks."""

import struct
import zlib

import numpy as np

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6  # color types
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def pack(rows: np.ndarray, bits: int) -> bytes:
    """Pack (H, W, C) as unfiltered rows of a PNG."""
    samples = rows.reshape(len(rows), -1)
    if bits == 16:
        data = samples.astype(">u2").view(np.uint8)
    else:
        each = np.unpackbits(samples.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :]
        data = np.packbits(each.reshape(len(rows), -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in data)


def png(samples: np.ndarray, color: int, bits: int, *chunks: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """Encode (H, W, C) as PNG with chunks ahead of the pixels."""
    passes = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    pixels = b"".join(pack(each, bits) for each in passes if each.size)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, color, 0, 0, interlaced)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    encoded = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(encoded)
