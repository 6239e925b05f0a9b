"""What a video says about its pixels and itself: colors, HDR, languages, statistics and locations."""

import re
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

# Side data of frames, and what messages call it.
SIDE_DATA = {
    "MASTERING_DISPLAY_METADATA": "HDR10 mastering display",
    "CONTENT_LIGHT_LEVEL": "HDR10 content light level",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "SPHERICAL": "360° projection",
    "STEREO3D": "3D layout",
    "A53_CC": "closed captions",
}
# Containers for whose time code PyAV cannot set the frame rate.
TIMELESS = ("mp4", "mov")
_RGB, _BT709, _SMPTE170M = 0, 1, 6
_LIMITED, _FULL = 1, 2
_MATRICES = {1, 4, 5, 6, 7, 9}  # that libswscale knows
# Tags that describe the source's packets, pixels or file.
_STALE = re.compile(
    r"alpha_mode|stereo_mode|rotate|encoder|duration.*|bps.*|number_of_.*|_statistics_.*|source_id.*|display.*"
    r"|major_brand|minor_version|compatible_brands",
    re.IGNORECASE,
)
_LOCATION = re.compile("location|gps|geo|xyz|6709|latitude|longitude|altitude|country|city", re.IGNORECASE)
_COORDINATES = re.compile(r"[+-]\d{1,2}\.\d+\s*[+-]\d{1,3}\.\d+")
_TELEMETRY = re.compile(rb"(gps|latitude|longitude)\w*\s*[(:=]", re.IGNORECASE)
# QuickTime's names of languages, where they differ from those of MP4 and Matroska.
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb", "mkd": "mac", "fre": "fra",
    "rum": "ron", "cze": "ces", "slo": "slk", "swe": "sve",
}  # fmt: skip


def color_tags(frame: Any) -> tuple[int, int]:
    """Return matrix and range of a frame; those that players assume where they are not specified."""
    name, matrix = frame.format.name, frame.colorspace
    if frame.format.is_rgb:
        return _RGB, _FULL
    if matrix not in _MATRICES:
        matrix = _BT709 if frame.width >= 1280 or frame.height > 576 else _SMPTE170M
    if name.startswith("yuvj"):
        return matrix, _FULL
    return matrix, frame.color_range or (_FULL if name.startswith(("gray", "ya")) else _LIMITED)


def output_color_tags(frame: Any, is_rgb: bool, codec: str) -> tuple[int, int]:
    """Return matrix and range of a frame encoded by `codec`; RGB that becomes YUV is BT.709 of limited range."""
    if is_rgb:
        return _RGB, _FULL
    matrix, color_range = color_tags(frame)
    if matrix == _RGB:
        return _BT709, _LIMITED
    return matrix, _LIMITED if codec.startswith("prores") else color_range  # which has no full range


def side_data(frame: Any) -> dict[str, bytes]:
    """Return a frame's side data by type; none if PyAV does not know a type."""
    try:
        return {each.type.name: bytes(each) for each in frame.side_data}
    except ValueError:
        return {}


def hdr_values(frame: Any) -> dict[str, str]:
    """Return mastering display and content light level of a frame, by type of side data, as x264 and x265 take them."""
    found, values = side_data(frame), {}
    if data := found.get("MASTERING_DISPLAY_METADATA"):
        *numbers, has_primaries, has_luminance = struct.unpack("22i", data[:88])
        if has_primaries and has_luminance:
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            units = zip(pairs, [50_000] * 8 + [10_000] * 2, strict=True)
            rx, ry, gx, gy, bx, by, wx, wy, low, high = (round(Fraction(a, b) * unit) for (a, b), unit in units)
            display = f"G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({high},{low})"
            values["MASTERING_DISPLAY_METADATA"] = display
    if data := found.get("CONTENT_LIGHT_LEVEL"):
        values["CONTENT_LIGHT_LEVEL"] = "{},{}".format(*struct.unpack("2I", data[:8]))
    return values


def kept_tags(tags: Mapping[str, str], strip: str | None, container: str, *, stale: bool = False) -> dict[str, str]:
    """Return the tags that are written.

    Args:
        tags: Tags of a file, stream or chapter.
        strip: "gps" leaves out locations, "all" everything but languages and the names of attachments.
        container: The output's.
        stale: Keep those that describe the source's packets, pixels or file.
    """
    kept = {key: value for key, value in tags.items() if stale or not _STALE.fullmatch(key)}
    if strip == "all":
        kept = {key: value for key, value in kept.items() if key in ("language", "filename", "mimetype")}
    elif strip == "gps":
        kept = {key: each for key, each in kept.items() if not (_LOCATION.search(key) or _COORDINATES.search(each))}
    if container in TIMELESS:
        kept = {key: value for key, value in kept.items() if key.lower() != "timecode"}
    if container == "mov" and "language" in kept:
        kept["language"] = _QUICKTIME_LANGUAGES.get(kept["language"], kept["language"])
    return kept


def is_telemetry(packet: Any) -> bool:
    """Return whether a packet is a subtitle with coordinates, as drones write them."""
    return packet.stream.type == "subtitle" and bool(_TELEMETRY.search(bytes(packet)))
