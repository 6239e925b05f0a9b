"""IPTC-IIM records, and the Photoshop resources that contain them."""

import struct
from collections.abc import Collection, Iterator

RESOURCE = 0x0404
_HEADER = b"Photoshop 3.0\0"
# Datasets of record 2: content location, city, sublocation, province and country; orientation and previews.
LOCATION = {26, 27, 90, 92, 95, 100, 101}
STALE = {131, 200, 201, 202}


def select(data: bytes, without: Collection[int]) -> bytes:
    """Return records 1 and 2, which describe the content, without these datasets of record 2."""
    kept, at = [], 0
    while at + 5 <= len(data) and data[at] == 0x1C:
        record, dataset, size = struct.unpack_from(">BBH", data, at + 1)
        end = at + 5 + size
        if size & 0x8000:  # the size of the size
            start = at + 5 + (size & 0x7FFF)
            end = start + int.from_bytes(data[at + 5 : start], "big")
        if end > len(data):
            break
        if record == 1 or (record == 2 and dataset not in without):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def find(data: bytes) -> bytes:
    """Return the records within Photoshop resources, or the data itself if it is not such resources."""
    data = data.removeprefix(_HEADER)
    return dict(_resources(data)).get(RESOURCE, b"") if data.startswith(b"8BIM") else data


def to_segment(data: bytes) -> bytes:
    """Return records as the segment APP13 of a JPEG. struct.error if they are too long."""
    padded = data + bytes(len(data) % 2)
    content = _HEADER + b"8BIM" + struct.pack(">HHI", RESOURCE, 0, len(data)) + padded
    return b"\xff\xed" + struct.pack(">H", 2 + len(content)) + content


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        (code,) = struct.unpack_from(">H", data, at + 4)
        at += 6 + (data[at + 6] + 2) // 2 * 2  # a name of even length with its length
        size = int.from_bytes(data[at : at + 4], "big")
        yield code, data[at + 4 : at + 4 + size]
        at += 4 + size + size % 2
