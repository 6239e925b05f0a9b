"""EXIF data as directories of raw values, which keep the types, encodings and byte order of their source."""

import io
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

EXIF, GPS, INTEROP = 34665, 34853, 40965
MAKER_NOTE = 37500
_PARENTS = {EXIF: 0, GPS: 0, INTEROP: EXIF}  # directories by the directory that points at them; 0 is the first
# Bytes per value of each type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_UNITS = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4}  # bytes whose order is that of the file
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
        """Parse EXIF data. ValueError if none of its tags is readable."""
        while data.startswith(b"Exif\0\0"):
            data = data[6:]
        return cls.read(io.BytesIO(data))

    @classmethod
    def read(cls, file: IO[bytes], start: int | None = None) -> "Exif":
        """Parse a TIFF's directory at `start`, by default the first. ValueError if none of its tags is readable."""
        unread = file.seek(0, io.SEEK_END)  # together, values are no longer than the file unless they overlap
        file.seek(0)
        layout = _Layout.read(file.read(16))
        order, word, width = layout.order, layout.word, layout.width
        entry = 4 + 2 * width
        exif, declared = cls(order), 0
        pending = [(0, layout.unpack(word, file, width) if start is None else start)]
        while pending:
            group, at = pending.pop()
            file.seek(at)
            count = file.read(struct.calcsize(layout.count))
            if group in exif.groups or len(count) < struct.calcsize(layout.count):
                continue
            directory = exif.groups[group] = {}
            (number,) = struct.unpack(order + layout.count, count)
            declared += number
            table = file.read(min(entry * number, unread))
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
        if not any(exif.groups.values()) and (declared or not exif.groups):
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

    def set_text(self, tag: int, text: str | None) -> None:
        """Set a text in the first directory, unless it is None."""
        if text is not None:
            self.groups.setdefault(0, {})[tag] = _ASCII, text.encode() + b"\0"

    def tobytes(self) -> bytes:
        """Return EXIF data as most formats store it; empty if there are no tags."""
        if not any(self.groups.values()):
            return b""
        head = struct.pack(f"{self.order}2sHI", b"II" if self.order == "<" else b"MM", 42, 8)
        return b"Exif\0\0" + head + self._encode(_Layout(self.order), 8, self.note_at)

    def _encode(
        self, layout: "_Layout", start: int, note_at: int = 0, entries: Sequence[bytes] = (), following: int = 0
    ) -> bytes:
        """Return the directories, the first of which is at position `start` and contains further raw entries."""
        groups = {group: directory for group, directory in self.groups.items() if directory}
        if INTEROP in groups:
            groups.setdefault(EXIF, {})
        note = len(groups.get(EXIF, {}).get(MAKER_NOTE, (0, b""))[1])
        if note <= layout.width or note_at < start + layout.size(len(groups.get(0, {})) + len(_PARENTS)):
            note_at = 0
        result, end = bytearray(), start

        def reserve(size: int) -> int:
            nonlocal end
            at = end
            if at < note_at + note and at + size > note_at > 0:
                at = note_at + note + note % 2
            end = at + size + size % 2
            return at

        def put(data: bytes, at: int) -> None:
            result.extend(bytes(max(0, at - start + len(data) - len(result))))
            result[at - start : at - start + len(data)] = data

        def write(group: int, entries: Sequence[bytes] = (), following: int = 0) -> int:
            children = [tag for tag, parent in _PARENTS.items() if parent == group and tag in groups]
            directory = groups.get(group, {})
            table = {layout.tag(entry): entry for entry in entries} | dict.fromkeys([*directory, *children], b"")
            at = reserve(layout.size(len(table)))
            for tag in children:
                table[tag] = layout.entry(tag, _LONG, 1, layout.offset(write(tag)))
            for tag, (kind, data) in directory.items():
                number = len(data) // _SIZES[kind]
                if layout.order != self.order and (unit := _UNITS.get(kind)):
                    data = b"".join(data[each : each + unit][::-1] for each in range(0, len(data), unit))
                if len(data) > layout.width:
                    where = note_at if note_at and (group, tag) == (EXIF, MAKER_NOTE) else reserve(len(data))
                    put(data, where)
                    data = layout.offset(where)
                table[tag] = layout.entry(tag, kind, number, data)
            count = struct.pack(layout.order + layout.count, len(table))
            put(count + b"".join(table[tag] for tag in sorted(table)) + layout.offset(following), at)
            return at

        write(0, entries, following)
        return bytes(result)


@dataclass(frozen=True)
class _Layout:
    """Sizes and byte order of the directories of a TIFF or BigTIFF."""

    order: str = "<"
    big: bool = False

    @classmethod
    def read(cls, head: bytes) -> "_Layout":
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 8:
            raise ValueError("no byte order")
        return cls(order, head[2:4] in (b"+\0", b"\0+"))

    @property
    def word(self) -> str:
        return "Q" if self.big else "I"

    @property
    def width(self) -> int:
        return 8 if self.big else 4

    @property
    def count(self) -> str:
        return "Q" if self.big else "H"

    def size(self, entries: int) -> int:
        return struct.calcsize(f"<{self.count}{self.word}") + (4 + 2 * self.width) * entries

    def offset(self, at: int) -> bytes:
        return struct.pack(self.order + self.word, at)

    def entry(self, tag: int, kind: int, number: int, data: bytes) -> bytes:
        return struct.pack(f"{self.order}HH{self.word}", tag, kind, number) + data.ljust(self.width, b"\0")

    def tag(self, entry: bytes) -> int:
        return int(struct.unpack_from(f"{self.order}H", entry)[0])

    def unpack(self, layout: str, file: IO[bytes], at: int) -> int:
        file.seek(at)
        return int(struct.unpack(self.order + layout, file.read(struct.calcsize(layout)))[0])


def add_to_tiff(path: Path, pages: Iterable[Exif]) -> None:
    """Add tags to the pages of a TIFF or BigTIFF, in place of equal ones."""
    with path.open("r+b") as file:
        layout = _Layout.read(file.read(16))
        link = layout.width  # position of the position of the next directory
        for exif in pages:
            at = layout.unpack(layout.word, file, link)
            count = layout.unpack(layout.count, file, at)
            if not any(exif.groups.values()):
                link = at + layout.size(count) - layout.width
                continue
            table = file.read((4 + 2 * layout.width) * count)
            following = layout.unpack(layout.word, file, file.tell())
            entries = [table[each : each + len(table) // count] for each in range(0, len(table), len(table) // count)]
            start = file.seek(0, io.SEEK_END)
            start += file.write(bytes(start % 2))
            file.write(exif._encode(layout, start, entries=entries, following=following))
            file.seek(link)
            file.write(layout.offset(start))
            link = start + layout.size(layout.unpack(layout.count, file, start)) - layout.width


def _correct_type(group: int, tag: int, kind: int) -> int:
    """Return the type of a tag where Pillow and programs like it write another."""
    if group == EXIF and kind == _BYTE:
        return _UNDEFINED
    return _SIGNED_RATIONAL if tag in _SIGNED and kind == _RATIONAL else kind
