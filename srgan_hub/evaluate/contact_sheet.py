"""Side-by-side comparison images."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ..images.encode import save_image
from .datasets import to_tensor

CELL = 240  # side of a cell in pixels
CROP = 60  # side of the close-up in HR pixels, shown at 4x
GAP, LABEL = 8, 18
ROWS = 8  # images per sheet
INK, PAPER, FRAME = (20, 20, 20), (255, 255, 255), (220, 30, 30)


class ContactSheet:
    """Collects LR, bicubic, model outputs and HR of images, in full and as close-ups, and saves them as PNG sheets.

    The file is `NAME.png`, or `NAME_1.png`, `NAME_2.png`, ... for more than 8 images.
    """

    def __init__(self, directory: Path, name: str = "contact_sheet") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.name = directory, name
        self.rows: list[Image.Image] = []

    def add(self, name: str, lr: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Add a row: LR (h, w, 3) uint8, and outputs by label, the ground truth (h * scale, w * scale, 3) last."""
        hr = list(outputs.values())[-1]
        scale = hr.shape[0] // lr.shape[0]
        top, left, height, width = most_detailed_crop(hr, scale)
        # Nearest-neighbor upscaling of LR: all cells show the same region.
        shown = {"LR": lr.repeat(scale, axis=0).repeat(scale, axis=1), **outputs}
        fit = min(CELL / hr.shape[0], CELL / hr.shape[1])
        size = max(1, round(hr.shape[1] * fit)), max(1, round(hr.shape[0] * fit))
        row = Image.new("RGB", ((CELL + GAP) * len(shown) + GAP, size[1] + CELL + 2 * LABEL + 2 * GAP), PAPER)
        draw, font = ImageDraw.Draw(row), ImageFont.load_default(13)
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
        """Save the sheets and return their paths."""
        pages = [self.rows[i : i + ROWS] for i in range(0, len(self.rows), ROWS)]
        paths = []
        for number, page in enumerate(pages, start=1):
            sheet = Image.new("RGB", (max(row.width for row in page), sum(row.height for row in page)), PAPER)
            y = 0
            for row in page:
                sheet.paste(row, (0, y))
                y += row.height
            paths.append(self.directory / (f"{self.name}.png" if len(pages) == 1 else f"{self.name}_{number}.png"))
            save_image(sheet, paths[-1])
        return paths


def most_detailed_crop(hr: np.ndarray, scale: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the square with the most fine detail, aligned with the LR pixels."""
    luma = to_tensor(hr).mean(dim=1, keepdim=True)
    detail = (luma - F.avg_pool2d(luma, 5, 1, 2, count_include_pad=False)).square()
    height, width = (min(CROP, side) // scale * scale for side in hr.shape[:2])
    energy = F.avg_pool2d(detail, (height, width), scale)[0, 0]
    top, left = divmod(int(torch.argmax(energy)), energy.shape[1])
    return top * scale, left * scale, height, width
