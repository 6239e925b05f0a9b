"""The error of this package's image functions, and the errors of the libraries that it wraps."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

# Exceptions of decoders on corrupt files.
DECODE_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


class ImageError(ValueError):
    """An image that cannot be read, upscaled or written. The message names the file, the reason and the way out."""


class DamagedImageError(ImageError):
    """A file that cannot be decoded."""


class TruncatedImageError(DamagedImageError):
    """A file whose end is missing."""


def one_line(text: str) -> str:
    """Return a library's message in one line, without the representations of objects in it."""
    return " ".join(re.sub(r"<(_io\.[^<>]*|[^<>]* at 0x[0-9A-Fa-f]+)>", "", text).split())


def describe(error: BaseException) -> str:
    """Return an error's message in one line, without the number of an operating system's error."""
    # Of a decoder that expects certain values; Pillow wraps some in a SyntaxError.
    if isinstance(error, LookupError) or isinstance(error.__cause__, LookupError):
        return "unexpected data"
    return getattr(error, "strerror", None) or one_line(str(error)) or type(error).__name__


@contextmanager
def wrap_decode_errors(path: Path | None = None) -> Iterator[None]:
    """Convert errors of decoders to an `ImageError` that names `path`, if there is one."""
    name = f"'{path}'" if path else "the image"
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"Cannot decode {name}: it needs more memory than is available.") from None
    except Image.DecompressionBombError as error:
        limit = f"Pillow limits this format to {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.3g} million pixels"
        raise ImageError(f"Cannot decode {name}: {limit} ({describe(error)}); convert it to PNG.") from error
    except DECODE_ERRORS as error:
        reason = f"the file is corrupt or truncated ({describe(error)})"
        raise DamagedImageError(f"Cannot decode {name}: {reason}.") from error
