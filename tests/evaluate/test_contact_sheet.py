"""Contact sheets."""

import numpy as np
from PIL import Image
from sample_images import image

from srgan_hub.evaluate.contact_sheet import CELL, CROP, GAP, LABEL, ContactSheet, most_detailed_crop
from srgan_hub.evaluate.datasets import to_tensor, to_uint8
from srgan_hub.evaluate.report import BICUBIC, HR
from srgan_hub.resize import downscale


def test_contact_sheet_shows_full_images_and_close_ups(tmp_path):
    hr = np.full((120, 200, 3), 90, np.uint8)
    hr[48:72, 140:164] = image(24, 24)  # the only detail
    top, left, height, width = most_detailed_crop(hr, 4)
    assert (height, width) == (CROP, CROP) and top % 4 == left % 4 == 0
    assert top <= 48 and left <= 140 and top + CROP >= 72 and left + CROP >= 164
    lr = to_uint8(downscale(to_tensor(hr), 4, round_to_uint8=True))
    sheet = ContactSheet(tmp_path / "sheets")
    sheet.add("dot", lr, {BICUBIC: hr // 2, HR: hr})
    (path,) = sheet.write()
    assert path.name == "contact_sheet.png"
    page = np.asarray(Image.open(path))
    assert page.shape[1] == 3 * (CELL + GAP) + GAP
    below = LABEL + 144 + GAP  # the full image has 240x144 pixels
    for column, expected in ((0, lr.repeat(4, 0).repeat(4, 1)), (1, hr // 2), (2, hr)):
        x = GAP + column * (CELL + GAP)
        close = expected[top : top + CROP, left : left + CROP].repeat(4, 0).repeat(4, 1)
        assert np.array_equal(page[below : below + CELL, x : x + CELL], close)
    for _ in range(8):
        sheet.add("dot", lr, {HR: hr})
    assert [path.name for path in sheet.write()] == ["contact_sheet_1.png", "contact_sheet_2.png"]
