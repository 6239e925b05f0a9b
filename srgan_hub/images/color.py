"""Colors by CICP code points (ITU-T H.273) and ICC profiles: describe them for each format, or convert to sRGB."""

import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .metadata import Metadata

Cicp = tuple[int, int, int, bool]

_HDR = {16: "PQ", 18: "HLG"}
_SDR_WHITE, _HLG_PEAK = 203, 1000  # cd/m2, of ITU-R BT.2408 and BT.2100
_AVIF_HEADER = 2**20  # bytes to search; a profile may come first
_ROWS = 256  # that are converted at a time
_D65, _C = (0.3127, 0.329), (0.31, 0.316)
_BT601 = ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65)
# Chromaticities of red, green, blue and white by color primaries.
_PRIMARIES = {
    1: ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), _D65),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), _D65),
    6: _BT601,
    7: _BT601,
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _D65),
    11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.314, 0.351)),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65),
    22: ((0.63, 0.34), (0.295, 0.605), (0.155, 0.077), _D65),
}
# (g, a, b, c, d) by transfer characteristics: linear light is (a * v + b) ** g from v = d on, and c * v below.
_CURVES = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), (1 / 0.45, 1 / 1.099297, 0.099297 / 1.099297, 1 / 4.5, 0.081243)),
    4: (2.2, 1, 0, 1, 0),
    5: (2.8, 1, 0, 1, 0),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    8: (1, 1, 0, 1, 0),
    13: (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
}
_NAMES = {(1, 13): "sRGB", (9, 1): "BT.2020", (9, 14): "BT.2020", (9, 15): "BT.2020", (12, 13): "Display P3"}
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def read_cicp(info: Mapping[Any, Any]) -> Cicp | None:
    """Return primaries, transfer, matrix (0) and full range from Pillow's `info`; None if unspecified, or for sRGB.

    ValueError if there is a matrix, which decoders have applied and PNG does not allow.
    """
    if nclx := not info.get("icc_profile") and info.get("nclx_profile"):  # of pillow-heif
        info = {"cicp": (nclx["color_primaries"], nclx["transfer_characteristics"], 0, True)}
    primaries, transfer, matrix, full = info.get("cicp") or (2, 2, 0, True)
    if matrix:
        raise ValueError(f"matrix {matrix} instead of 0")
    if primaries == transfer == 2:
        return None
    primaries, transfer = 1 if primaries == 2 else primaries, 13 if transfer == 2 else transfer
    is_default = (primaries, transfer, bool(full)) == (1, 13, True) and not info.get("icc_profile")
    return None if is_default else (primaries, transfer, 0, bool(full))


def fit_colors(
    array: np.ndarray, metadata: "Metadata", stores: Collection[str]
) -> tuple[np.ndarray, "Metadata", list[str]]:
    """Describe an image's colors as a format does, or convert them to sRGB.

    Args:
        array, metadata: As in `Raster`.
        stores: Features of the format, as in `Format`. Without "gray", it stores gray as RGB.

    Returns:
        The array, the metadata with code points and profile that the format stores, and warnings about changes.
    """
    warnings = []
    gray = array.ndim == 2 or array.shape[2] == 2
    stored_gray = gray and ("gray" if array.ndim == 2 else "gray with alpha") in stores
    if cicp := metadata.cicp:
        primaries, transfer, _, full = cicp
        known = primaries in _PRIMARIES and transfer in (*_CURVES, *_HDR)
        is_png, profile = "color_chunks" in stores, None
        if full and known and transfer in _CURVES and "icc_profile" in stores:
            name = _NAMES.get((primaries, transfer), f"CICP {primaries}, {transfer}")
            curve = b"para" + struct.pack(">2I5i", 0, 3 << 16, *(round(each * 65_536) for each in _CURVES[transfer]))
            profile = _make_profile(name, primaries, curve, gray=stored_gray)
        if "cicp" in stores and (is_png or (known and full)):
            # With a profile for programs that do not know code points. In other formats than PNG a profile overrides.
            metadata = replace(metadata, icc_profile=(is_png and metadata.icc_profile) or profile)
        else:
            if profile:
                warnings.append(f"colors are described by an ICC profile ({name}) instead of CICP")
            elif known:
                array = to_srgb(array, cicp)
                hdr = f"HDR ({_HDR.get(transfer)}) is reduced to SDR and sRGB, and clipped above {_SDR_WHITE} cd/m2"
                warnings.append(f"{hdr}; PNG and AVIF keep it" if transfer in _HDR else "colors are converted to sRGB")
            else:
                unknown = f"color primaries {primaries} and transfer characteristics {transfer}"
                warnings.append(f"dropped {unknown}, which cannot be converted; colors may look wrong")
            metadata = replace(metadata, icc_profile=profile, cicp=None, color_chunks={})
    if (profile := metadata.icc_profile) and "icc_profile" in stores:
        space, expected = profile[16:20], b"GRAY" if stored_gray else b"RGB "
        if space != expected:
            shared = _shared_curve(profile) if gray else None
            replacement = shared and _make_profile("Gray", 1, shared, gray=stored_gray)
            metadata = replace(metadata, icc_profile=replacement)
            if not replacement:
                names = space.decode("ascii", "replace").strip(), expected.decode().strip()
                warnings.append("dropped a color profile for {} pixels instead of {}; colors may change".format(*names))
    return array, metadata, warnings


def to_srgb(array: np.ndarray, cicp: Cicp) -> np.ndarray:
    """Convert colors to sRGB, and clip what it does not contain. HDR's reference white becomes white.

    Args:
        array: (H, W) or (H, W, C), uint8 or uint16, as in `Raster`; alpha is kept.
        cicp: Known primaries, a known transfer, matrix 0, and whether the range is full.
    """
    primaries, transfer, _, full = cicp
    top = int(np.iinfo(array.dtype).max)
    values = np.linspace(0, 1, top + 1)
    if not full:
        unit = (top + 1) // 256
        values = np.clip((np.arange(top + 1) - 16 * unit) / (219 * unit), 0, 1)
    table = _linearize(values, transfer).astype(np.float32)
    pixels = array[:, :, None] if array.ndim == 2 else array
    colors = 1 if pixels.shape[2] < 3 else 3
    matrix, weights = np.eye(1), np.ones(1)
    if colors == 3:
        to_xyz = _to_xyz(primaries)
        srgb_white, white = (each @ np.ones(3) for each in (_to_xyz(1), to_xyz))
        matrix, weights = np.linalg.inv(_to_xyz(1)) @ _adaptation(white, srgb_white) @ to_xyz, to_xyz[1]
    matrix, weights = matrix.T.astype(np.float32), weights.astype(np.float32)
    result = pixels.copy()
    for first in range(0, len(pixels), _ROWS):
        linear = table[pixels[first : first + _ROWS, :, :colors]]
        if transfer == 18:  # the system gamma of HLG depends on the luminance
            linear *= _HLG_PEAK / _SDR_WHITE * (linear @ weights)[:, :, None] ** np.float32(0.2)
        linear = np.clip(linear @ matrix, 0, 1)
        encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        result[first : first + _ROWS, :, :colors] = (encoded * top).round()
    return result.reshape(array.shape)


def write_nclx(path: Path, cicp: Cicp) -> None:
    """Set the code points of an AVIF that Pillow wrote, which declares sRGB, or none where there is a profile."""
    with path.open("r+b") as file:
        for match in re.finditer(rb"colrnclx(?=\0[\1\2]\0[\2\r])", file.read(_AVIF_HEADER)):
            file.seek(match.end())
            file.write(struct.pack(">2H", *cicp[:2]))


def _linearize(values: np.ndarray, transfer: int) -> np.ndarray:
    """Return linear light in units of SDR white; of HLG, that of the scene in [0, 1]."""
    if transfer == 16:
        power = values ** (32 / 2523)
        fraction = np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)
        return 10_000 / _SDR_WHITE * fraction ** (8192 / 1305)
    if transfer == 18:
        return np.where(values <= 0.5, values**2 / 3, (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    g, a, b, c, d = _CURVES[transfer]
    return np.where(values >= d, (a * values + b) ** g, c * values)


def _to_xyz(primaries: int) -> np.ndarray:
    """Return the matrix (3, 3) from linear RGB to XYZ whose luminance of white is 1."""
    xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _PRIMARIES[primaries]]).T
    return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])


def _adaptation(white: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the Bradford matrix (3, 3) from XYZ under one white to XYZ under another one."""
    return np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ other / (_BRADFORD @ white)) @ _BRADFORD


def _make_profile(name: str, primaries: int, curve: bytes, *, gray: bool) -> bytes:
    """Return an ICC profile of version 4 with one curve, a tag of type "curv" or "para"."""

    def text(value: str) -> bytes:
        return b"mluc" + struct.pack(">3I4s2I", 0, 1, 12, b"enUS", 2 * len(value), 28) + value.encode("utf-16-be")

    def numbers(kind: bytes, values: Any) -> bytes:
        return kind + bytes(4) + b"".join(struct.pack(">i", round(each * 65_536)) for each in np.ravel(values))

    to_xyz = _to_xyz(primaries)
    adaptation = _adaptation(to_xyz @ np.ones(3), np.array(_D50))
    tags = {b"desc": text(name), b"cprt": text("No copyright"), b"wtpt": numbers(b"XYZ ", _D50)}
    tags[b"chad"] = numbers(b"sf32", adaptation)
    if gray:
        tags[b"kTRC"] = curve
    else:
        columns = zip(b"rgb", (adaptation @ to_xyz).T, strict=True)
        tags |= {bytes([color]) + b"XYZ": numbers(b"XYZ ", column) for color, column in columns}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    index, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        index += struct.pack(">4s2I", tag, 132 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    space = b"GRAY" if gray else b"RGB "
    header = struct.pack(">2I4s4s4s6H4s", 0, 0x04200000, b"mntr", space, b"XYZ ", 2000, 1, 1, 0, 0, 0, b"acsp")
    header += bytes(28) + numbers(b"", _D50)[4:]
    header = header.ljust(124, b"\0") + index + data
    return struct.pack(">I", 4 + len(header)) + header


def _shared_curve(profile: bytes) -> bytes | None:
    """Return the curve of a gray profile, or the only one of an RGB profile; None if colors are defined otherwise."""
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        entries = [struct.unpack_from(">4s2I", profile, 132 + 12 * index) for index in range(min(count, 100))]
    except struct.error:
        return None
    tags = {name: profile[start : start + size] for name, start, size in entries}
    curves = {tags.get(name, b"") for name in ((b"kTRC",) if b"kTRC" in tags else (b"rTRC", b"gTRC", b"bTRC"))}
    (curve, *others) = curves
    defined = not others and b"A2B0" not in tags and profile[20:24] == b"XYZ " and curve[:4] in (b"curv", b"para")
    return curve if defined else None
