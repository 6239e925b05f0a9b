"""Messages of libraries become one line without representations of objects."""

import io

import pytest
from malformed_files import icon, png_header
from PIL import Image

from srgan_hub import Upscaler
from srgan_hub.images.errors import ImageError, describe


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"cannot identify image file {io.BytesIO()!r}", "cannot identify image file"),
        (f"{Image.new('L', (1, 1))!r} has no data", "has no data"),
        (f"not a TIFF: {open(__file__)!r}\n\n bad  <header>", "not a TIFF: bad <header>"),  # noqa: PTH123, SIM115
        ("", "ValueError"),
    ],
    ids=["stream", "image", "file", "empty"],
)
def test_description_is_one_line_without_representations_of_objects(message, expected):
    assert describe(ValueError(message)) == expected


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0", b"II*\0", b"II*\0\x08\0\0\0\0\0\0\0\0\0", b"MM\0*\0\0\0\x08\0\1\1\0\0\3", b"\xff\xd8\xff\xe0"),
        *(b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF\4\0\0\0WEBP", b"\0\0\0\x18ftypavif", b"\0\0\0\x18ftypheic", b"BM"),
        png_header(9, 9),
        icon(b"ic07", png_header(9, 9)),
    ],
)
def test_malformed_files_are_refused_in_one_line(data, tiny_generator, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        Upscaler(tiny_generator(), scale=4).upscale(path)
    message = str(caught.value)
    assert str(path) in message and " at 0x" not in message and "\n" not in message and "<_io" not in message
