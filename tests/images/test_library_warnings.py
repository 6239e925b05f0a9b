"""What libraries say comes as one line with the file's name."""

import logging
import os
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from srgan_hub.images.library_warnings import in_one_line


def test_all_ways_to_say_something_become_one_line(caplog, capfd):
    ours = logging.getLogger("srgan_hub.images.decode")
    with in_one_line(Path("a.tif")):
        warnings.warn("Truncated\n File Read", stacklevel=1)
        warnings.warn("for programmers", DeprecationWarning, stacklevel=1)
        warnings.warn("many pixels", Image.DecompressionBombWarning, stacklevel=1)
        logging.getLogger("PIL.TiffImagePlugin").error("More %s", "samples")
        logging.getLogger("PIL.TiffImagePlugin").debug("not this")
        os.write(2, b"TIFFFillStrip: Read error\nTIFFFillStrip: Read error\n")
        os.write(2, b"and this\n")
        ours.warning("a.tif has 16 bits")
    assert [record.message for record in caplog.records] == [
        "a.tif has 16 bits",
        "a.tif: Truncated File Read; More samples; TIFFFillStrip: Read error (and 1 more)",
    ]
    assert capfd.readouterr().err == ""


def test_silence_and_what_was_before(caplog, capfd):
    pillow, filters = logging.getLogger("PIL"), list(warnings.filters)
    with pytest.raises(KeyError), in_one_line(Path("a.tif")):
        raise KeyError
    assert not caplog.records and pillow.propagate and not pillow.handlers and warnings.filters == filters
    os.write(2, b"heard again\n")
    print("and Python's", file=sys.stderr)
    assert capfd.readouterr().err == "heard again\nand Python's\n"
