"""Contact sheets: LR, bicubic, models and HR side by side, whole and close up."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ..images.encode import save_image
from .datasets import to_tensor

CELL = 240  # pixels a side
CROP = 60  # HR pixels a side that a close-up shows, four times as large
GAP, LABEL = 8, 18
ROWS = 8  # images on a sheet
INK, PAPER, FRAME = (20, 20, 20), (255, 255, 255), (220, 30, 30)


class ContactSheet:
    """Images, collected and then written to contact_sheet.png, or contact_sheet_1.png, _2.png, ... if there are many.

    Args:
        folder: where the sheets go; it is made if it is not there.
        name: of the files, in place of contact_sheet.
    """

    def __init__(self, folder: Path, name: str = "contact_sheet") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.rows: list[Image.Image] = []

    def add(self, name: str, lr: np.ndarray, outputs: dict[str, np.ndarray], *, scale: int) -> None:
        """Add an image: (h, w, 3) uint8, and by label what is `scale` times as large, the ground truth last."""
        hr = list(outputs.values())[-1]
        top, left, height, width = most_detailed_crop(hr, scale)
        # The LR by its pixels as they are, so that the cells show the same place.
        shown = {"LR": lr.repeat(scale, axis=0).repeat(scale, axis=1), **outputs}
        fit = min(CELL / hr.shape[0], CELL / hr.shape[1])
        size = max(1, round(hr.shape[1] * fit)), max(1, round(hr.shape[0] * fit))
        row = Image.new("RGB", ((CELL + GAP) * len(shown) + GAP, size[1] + CELL + 2 * LABEL + 2 * GAP), PAPER)
        draw = ImageDraw.Draw(row)
        font = ImageFont.load_default(13)
        for i, (label, image) in enumerate(shown.items()):
            x = GAP + i * (CELL + GAP)
            draw.text((x, 2), f"{name}: {label}", INK, font)
            row.paste(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), (x, LABEL))
            box = [x + left * fit, LABEL + top * fit, x + (left + width) * fit, LABEL + (top + height) * fit]
            draw.rectangle(box, outline=FRAME)
            close = Image.fromarray(np.ascontiguousarray(image[top : top + height, left : left + width]))
            factor = min(CELL // height, CELL // width)
            close = close.resize((width * factor, height * factor), Image.Resampling.NEAREST)
            row.paste(close, (x, LABEL + size[1] + GAP))
            draw.text((x, LABEL + size[1] + GAP + CELL + 1), f"{label}, close up", INK, font)
        self.rows.append(row)

    def write(self) -> list[Path]:
        """Write the sheets and return their paths."""
        pages = [self.rows[i : i + ROWS] for i in range(0, len(self.rows), ROWS)]
        paths = []
        for number, page in enumerate(pages, start=1):
            sheet = Image.new("RGB", (max(row.width for row in page), sum(row.height for row in page)), PAPER)
            y = 0
            for row in page:
                sheet.paste(row, (0, y))
                y += row.height
            paths.append(self.folder / (f"{self.name}.png" if len(pages) == 1 else f"{self.name}_{number}.png"))
            save_image(sheet, paths[-1])
        return paths


def most_detailed_crop(hr: np.ndarray, scale: int) -> tuple[int, int, int, int]:
    """Find the square with the most fine detail: top, left, height and width, on LR's pixel grid."""
    luma = to_tensor(hr).mean(dim=1, keepdim=True)
    fine = (luma - F.avg_pool2d(luma, 5, 1, 2, count_include_pad=False)).square()
    height, width = (min(CROP, side) // scale * scale for side in hr.shape[:2])
    energy = F.avg_pool2d(fine, (height, width), scale)[0, 0]
    top, left = divmod(int(torch.argmax(energy)), energy.shape[1])
    return top * scale, left * scale, height, width
