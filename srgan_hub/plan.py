"""Plan of a run over files: the output of each input, and what is left out. All processes of a run share it."""

import functools
import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ExifTags, Image

from .images import decode, formats
from .images.errors import DECODE_ERRORS, ImageError, describe
from .images.media import MediaReader
from .images.metadata import Metadata
from .images.raster import Raster
from .version import PROGRAM

LEFT_OUT = "left out"
IMAGE_FORMATS = ("png", "jpeg", "webp", "avif", "tiff")
RESULT = "already upscaled"
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # not a drive letter; pathlib merges slashes
_SUFFIXES = "|".join(suffix[1:] for each in formats.FORMATS for suffix in (*each.suffixes, *each.read_suffixes))


@dataclass
class Job:
    """An input, its output, and its decoded content: an image, media, an error, or the state of one with no work."""

    source: Path
    target: Path
    found: Raster | MediaReader | ImageError | str | None = None


@dataclass
class Plan:
    """All jobs of a run in order, the reason of each path that is left out, and warnings about those."""

    jobs: list[Job] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def plan_outputs(inputs: Sequence[Path], output: str | None, suffix: str, format: str | None = None) -> Plan:
    """Find the inputs and choose distinct outputs.

    Args:
        inputs: Files and directories.
        output, format: As for `upscale_files`.
        suffix: End of the names of outputs.

    Raises:
        ValueError: A directory contains no images, all inputs are left out, a path is a remote address, or `format` is
            invalid.
    """
    for path in (*inputs, *([Path(output)] if output else [])):
        if match := _ADDRESS.match(path.as_posix()):
            address = f"{match[1]}://{path.as_posix()[match.end() :]}"
            raise ValueError(f"'{address}' is a remote address; pass local paths, or see docs/scale.md for recipes.")
    if format not in (None, *IMAGE_FORMATS):
        raise ValueError(f"`format` must be one of {', '.join(IMAGE_FORMATS)}, got {format!r}.")
    directories = [path for path in inputs if decode.is_directory(path)]
    root = None if output is None else Path(output)
    several = len(inputs) > 1 or directories
    if output and root and not (several or output.endswith(("/", "\\")) or decode.is_directory(root)):
        if format and formats.find_format(root.suffix) is not formats.find_format(f".{format}"):
            raise ValueError(f"`format` is {format}, but the output is '{root}'.")
        return Plan([Job(inputs[0], root)])
    plan = Plan()
    names = functools.cache(_names)
    results = {path: RESULT for path in inputs if several and path not in directories and _is_result(path, names)}
    for path in inputs:
        if path not in directories:
            found = decode.Listing([] if path in results else [path])
        else:
            found = decode.list_directory(path, root)
            found.left_out |= {each: RESULT for each in found.images if _is_result(each, names)}
            found.images = [each for each in found.images if each not in found.left_out]
            summary = _summarize(found.left_out)
            if not (found.images or found.errors):
                raise ValueError(f"The directory '{path}' contains no images{summary and f'; {summary}'}.")
            plan.warnings += [f"'{path}': {summary}"] * bool(summary)
            plan.left_out |= found.left_out
        for each in found.images:
            target = each.with_name(f"{each.stem}_{suffix}{_suffix(each, format)}")
            relative = target.relative_to(path) if path in directories else target.name
            plan.jobs.append(Job(each, root / relative if root else target))
        for error in found.errors:
            source = Path(error.filename or path)
            message = f"The directory '{source}' cannot be read: {describe(error)}."
            plan.jobs.append(Job(source, root / source.relative_to(path) if root else source, ImageError(message)))
    if results:
        plan.left_out |= results
        plan.warnings.append(f"{_summarize(results)}; pass one file alone to upscale it again")
    if inputs and not plan.jobs:
        raise ValueError(f"Nothing to upscale: {plan.warnings[-1]}.")
    _resolve_clashes(plan.jobs)
    return plan


def _suffix(path: Path, format: str | None) -> str:
    """Return the suffix of an output; `format` is that of single images."""
    target = formats.find_format(f".{format}")
    if target is None:
        return decode.default_suffix(path)
    with suppress(Exception), decode.open_image(path, max_pixels=None) as opened:  # reported when it is upscaled
        if opened.kind not in ("image", "rows", *target.media):
            return opened.default_suffix
    return target.suffixes[0]


def _names(directory: Path) -> set[str]:
    """Return the stems of images and videos in a directory."""
    with suppress(OSError):
        return {path.stem for path in directory.iterdir() if formats.find_format(path.suffix)}
    return set()


def _is_result(path: Path, names: Callable[[Path], set[str]]) -> bool:
    """Return whether the name and size of a file are those of an upscaled one whose original lies next to it."""
    stem, _, size = path.stem.rpartition("_")
    original = re.sub(rf"(_[0-9a-f]{{8}})?_({_SUFFIXES})$", "", stem, flags=re.IGNORECASE)
    if not (re.fullmatch("[0-9]+x?[0-9]*|x[0-9]+", size) and {stem, original} & names(path.parent)):
        return False
    if size in ("x2", "x3", "x4"):
        return True
    width, cross, height = size.partition("x")  # as `TargetSize.suffix` names them; photo_2 is no upscaled photo
    with suppress(Exception), decode.open_image(path, max_pixels=None) as opened:
        if not cross:
            return int(width) in (opened.width, opened.height)
        return width in ("", str(opened.width)) and height in ("", str(opened.height))
    return False


def names_program(metadata: Metadata | None) -> bool:
    """Return whether metadata says that this program wrote the image."""
    exif = Image.Exif()
    with suppress(*DECODE_ERRORS):
        exif.load((metadata and metadata.exif) or b"")
    text = metadata.text if metadata else {}
    names = (text.get("Software"), text.get("Comment"), exif.get(ExifTags.Base.Software))
    return any(str(name).startswith(f"{PROGRAM} ") for name in names)


def _summarize(left_out: dict[Path, str]) -> str:
    """Count paths by the reasons why they are left out; name upscaled ones."""
    names = defaultdict(list)
    for path, reason in left_out.items():
        names[reason].append(path.name)
    counts = {reason: f"{len(each)} {reason}" for reason, each in names.items()}
    if found := names.get(RESULT):
        counts[RESULT] += f" ({', '.join(found[:10])}{', ...' if len(found) > 10 else ''})"
    return f"{LEFT_OUT} {', '.join(counts.values())}" if counts else ""


def _resolve_clashes(jobs: Sequence[Job]) -> None:
    """Give distinct outputs to inputs of one name, also where names ignore case: by their suffix, else a hash."""
    sources = {_key(job.source): job for job in jobs}
    for label in ("suffix", "hash", None):
        groups: defaultdict[str, dict[Path, Job]] = defaultdict(dict)
        for job in jobs:
            if job.found is None and groups[_key(job.target)].setdefault(job.source.absolute(), job) is not job:
                job.found = ImageError(f"'{job.source}' is passed twice.")
        for target, group in groups.items():
            for job in group.values():
                if label and len(group) > 1:
                    stem, hashed = job.source.stem, hashlib.sha256(os.fsencode(job.source)).hexdigest()[:8]
                    part = job.source.suffix[1:] if label == "suffix" else hashed
                    job.target = job.target.with_name(f"{stem}{part and '_'}{part}{job.target.name[len(stem) :]}")
                elif len(group) > 1 or sources.get(target, job) is not job:
                    used = f"output '{job.target}' is already used by another input"
                    job.found = ImageError(f"'{job.source}': {used}; rename one of them.")


def _key(path: Path) -> str:
    """Return what paths that a file system may take for the same have in common."""
    return unicodedata.normalize("NFD", os.path.normpath(path.absolute())).casefold()
