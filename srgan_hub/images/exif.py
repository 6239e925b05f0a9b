"""EXIF data as directories of raw values, which keep the types, encodings and byte order of their source."""

import io
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import IO

EXIF, GPS, INTEROP = 34665, 34853, 40965
MAKER_NOTE = 37500
_PARENTS = {EXIF: 0, GPS: 0, INTEROP: EXIF}  # directories by the directory that points at them; 0 is the first
# Bytes per value of each type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_BYTE, _ASCII, _LONG, _RATIONAL, _UNDEFINED, _SIGNED_RATIONAL = 1, 2, 4, 5, 7, 10
# Shutter speed, brightness, exposure bias, temperature, water depth and camera elevation.
_SIGNED = {37377, 37379, 37380, 37888, 37891, 37893}


@dataclass
class Exif:
    """EXIF data without thumbnail.

    Args:
        order: Byte order as in `struct`, "<" or ">".
        groups: Types and raw values by tag, of each directory by the tag that points at it; 0 is the first.
        note_at: Position of the maker note, which contains offsets from the start; 0 if it may move.
    """

    order: str = "<"
    groups: dict[int, dict[int, tuple[int, bytes]]] = field(default_factory=dict)
    note_at: int = 0

    @classmethod
    def load(cls, data: bytes) -> "Exif":
        """Parse EXIF data. ValueError if it contains no readable tag."""
        while data.startswith(b"Exif\0\0"):
            data = data[6:]
        return cls.read(io.BytesIO(data))

    @classmethod
    def read(cls, file: IO[bytes], start: int | None = None) -> "Exif":
        """Parse a TIFF's directory at `start`, by default the first. ValueError if it contains no readable tag."""
        unread = file.seek(0, io.SEEK_END)  # together, values are no longer than the file unless they overlap
        file.seek(0)
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 8:
            raise ValueError("no byte order")
        big = head[2:4] in (b"+\0", b"\0+")
        word, count_format, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
        width = struct.calcsize(word)
        exif = cls(order)
        pending = [(0, struct.unpack_from(order + word, head, width)[0] if start is None else start)]
        while pending:
            group, at = pending.pop()
            file.seek(at)
            count = file.read(struct.calcsize(count_format))
            if group in exif.groups or len(count) < struct.calcsize(count_format):
                continue
            directory = exif.groups[group] = {}
            table = file.read(min(entry * struct.unpack(order + count_format, count)[0], unread))
            for at in range(0, len(table) - entry + 1, entry):
                tag, kind, number = struct.unpack_from(f"{order}HH{word}", table, at)
                data = table[at + entry - width : at + entry]
                size = number * _SIZES.get(kind, 0)
                if tag in _PARENTS:
                    pending.append((tag, *struct.unpack(order + word, data)))
                    continue
                if not 0 < size <= unread:
                    continue
                if size > width:
                    unread -= size
                    (where,) = struct.unpack(order + word, data)
                    if tag == MAKER_NOTE and where < 2**16:
                        exif.note_at = where
                    file.seek(where)
                    data = file.read(size)
                if len(data) >= size:
                    directory[tag] = _correct_type(group, tag, kind), data[:size]
        if not any(exif.groups.values()):
            raise ValueError("no readable tags")
        return exif

    def remove(self, tags: Collection[int]) -> None:
        """Remove tags and directories wherever they are."""
        self.groups = {
            group: {tag: value for tag, value in directory.items() if tag not in tags}
            for group, directory in self.groups.items()
            if group not in tags
        }

    def value(self, tag: int) -> bytes | None:
        """Return the raw value of a tag in the first directory."""
        return self.groups.get(0, {}).get(tag, (0, None))[1]

    def number(self, tag: int) -> int | None:
        """Return an unsigned integer in the first directory."""
        kind, data = self.groups.get(0, {}).get(tag, (_BYTE, None))
        return None if data is None else int.from_bytes(data[: _SIZES[kind]], "little" if self.order == "<" else "big")

    def update_numbers(self, values: dict[int, int]) -> None:
        """Replace integers by tag, wherever they are."""
        for directory in self.groups.values():
            for tag in values.keys() & directory.keys():
                directory[tag] = _LONG, struct.pack(f"{self.order}I", values[tag])

    def set_text(self, tag: int, text: str) -> None:
        """Set a text in the first directory."""
        self.groups.setdefault(0, {})[tag] = _ASCII, text.encode() + b"\0"

    def tobytes(self) -> bytes:
        """Return EXIF data as most formats store it; empty if there are no tags."""
        groups = {group: directory for group, directory in self.groups.items() if directory}
        if not groups:
            return b""
        if INTEROP in groups:
            groups.setdefault(EXIF, {})
        result = bytearray(struct.pack(f"{self.order}2sHI", b"II" if self.order == "<" else b"MM", 42, 8))
        note = groups.get(EXIF, {}).get(MAKER_NOTE, (0, b""))[1]
        note_at = self.note_at if len(note) > 4 else 0
        result_end = len(result)

        def reserve(size: int) -> int:
            nonlocal result_end
            at = result_end
            if note_at and at < note_at + len(note) and at + size > note_at:
                at = note_at + len(note) + len(note) % 2
            result_end = at + size + size % 2
            return at

        def put(data: bytes, at: int) -> None:
            result.extend(bytes(max(0, at + len(data) - len(result))))
            result[at : at + len(data)] = data

        def write(group: int) -> int:
            children = [tag for tag, parent in _PARENTS.items() if parent == group and tag in groups]
            directory = groups.get(group, {})
            tags = sorted([*directory, *children])
            at = reserve(2 + 12 * len(tags) + 4)
            table = struct.pack(f"{self.order}H", len(tags))
            for tag in tags:
                kind, data = (_LONG, b"") if tag in children else directory[tag]
                number = len(data) // _SIZES[kind] if data else 1
                if tag in children:
                    data = struct.pack(f"{self.order}I", write(tag))
                elif len(data) > 4:
                    where = note_at if note_at and tag == MAKER_NOTE else reserve(len(data))
                    put(data, where)
                    data = struct.pack(f"{self.order}I", where)
                table += struct.pack(f"{self.order}HHI", tag, kind, number) + data.ljust(4, b"\0")
            put(table + bytes(4), at)
            return at

        write(0)
        return b"Exif\0\0" + bytes(result)


def _correct_type(group: int, tag: int, kind: int) -> int:
    """Return the type of a tag where Pillow and programs like it write another."""
    if group == EXIF and kind == _BYTE:
        return _UNDEFINED
    return _SIGNED_RATIONAL if tag in _SIGNED and kind == _RATIONAL else kind
