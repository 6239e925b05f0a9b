"""Make the README's figures from images in the public domain: python tests/benchmarks/figures.py"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from srgan_hub import SRGAN

FOLDER = Path(__file__).parent.parent.parent / "srgan_hub" / "examples" / "readme"
CELL, GAP, LINE = 232, 8, 26


def grid(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Lay images out in rows, each with a caption below."""
    width = max(len(row) for row in rows) * (CELL + GAP) - GAP
    sheet = Image.new("RGB", (width, len(rows) * (CELL + LINE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for y, row in enumerate(rows):
        for x, (text, image) in enumerate(row):
            left, top = x * (CELL + GAP), y * (CELL + LINE + GAP)
            sheet.paste(image.resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
            draw.text((left + 2, top + CELL + 3), text, "black", font)
    return sheet


def comparison() -> Image.Image:
    cup, astronaut = Image.fromarray(data.coffee()), Image.fromarray(data.astronaut())
    rows = [
        ("clean photo", cup.crop((180, 60, 412, 292))),
        ("JPEG 75", astronaut.crop((280, 0, 512, 232))),
        ("tiny face, fails", astronaut.crop((175, 60, 275, 160))),
    ]
    models = {name: SRGAN.from_pretrained(name) for name in ("srgan-x4", "srresnet-x4-photo", "srgan-x4-photo")}
    cells = []
    for text, hr in rows:
        lr = hr.resize((hr.width // 4, hr.height // 4), Image.Resampling.BICUBIC)
        if "JPEG" in text:
            lr.save(buffer := io.BytesIO(), "JPEG", quality=75)
            lr = Image.open(buffer)
        row = [(f"{text}: bicubic", lr.resize(hr.size, Image.Resampling.BICUBIC))]
        row += [(name, model.upscale(lr, dtype="float32")) for name, model in models.items()]
        cells.append([*row, ("ground truth", hr)])
    return grid(cells)


def tiled(model: SRGAN, lr: torch.Tensor, halo: int, tile: int = 96) -> torch.Tensor:
    """Upscale tile by tile with a halo that is computed and cropped, as most programs do."""
    height, width = lr.shape[2:]
    sr = torch.empty(1, 3, height * 4, width * 4)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            top, left = max(0, y - halo), max(0, x - halo)
            part = model(lr[:, :, top : y + tile + halo, left : x + tile + halo])
            part = part[:, :, (y - top) * 4 :, (x - left) * 4 :][:, :, : tile * 4, : tile * 4]
            sr[:, :, y * 4 : y * 4 + part.shape[2], x * 4 : x * 4 + part.shape[3]] = part
    return sr


@torch.inference_mode()
def seams() -> Image.Image:
    model = SRGAN.from_pretrained("srgan-x4")
    image = np.asarray(Image.open(FOLDER.parent / "astronaut.png"))
    lr = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]
    whole, strips = (model.upscale(lr, dtype="float32", strip_height=rows) for rows in (lr.shape[2], 16))
    row = []
    for text, sr, reference in [
        ("96-px tiles, no halo", tiled(model, lr, 0), model(lr)),
        ("halo 10", tiled(model, lr, 10), model(lr)),
        ("halo 16", tiled(model, lr, 16), model(lr)),
        ("full-width strips", strips, whole),
    ]:
        error = (sr - reference).abs().amax((0, 1)) * 255
        shown = (error * 32).clamp(0, 255).byte().numpy()
        row.append((f"{text}: {error.max():.3g} of 255", Image.fromarray(shown).convert("RGB")))
        print(row[-1][0])
    return grid([row])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    comparison().save(FOLDER / "comparison.jpg", quality=85, subsampling="4:4:4")
    seams().save(FOLDER / "seams.png", optimize=True)
