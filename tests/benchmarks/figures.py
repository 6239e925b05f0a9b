"""Make the README's two figures from images in the public domain: python tests/benchmarks/figures.py"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from srgan_hub import SRGAN

FOLDER = Path(__file__).parent.parent.parent / "srgan_hub" / "examples" / "readme"
CELL, GAP, LINE = 232, 8, 26


def grid(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Lay images out in rows, each with a line of text below."""
    width = max(len(row) for row in rows) * (CELL + GAP) - GAP
    sheet = Image.new("RGB", (width, len(rows) * (CELL + LINE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for y, row in enumerate(rows):
        for x, (text, image) in enumerate(row):
            left, top = x * (CELL + GAP), y * (CELL + LINE + GAP)
            kernel = Image.Resampling.NEAREST if image.width < 64 else Image.Resampling.LANCZOS
            sheet.paste(image.resize((CELL, CELL), kernel), (left, top))
            draw.text((left + 2, top + CELL + 3), text, "black", font)
    return sheet


def comparison() -> Image.Image:
    cat, face, coffee = (Image.fromarray(image()) for image in (data.chelsea, data.astronaut, data.coffee))
    cat, face, coffee = cat.crop((40, 60, 272, 292)), face.crop((175, 60, 275, 160)), coffee.crop((200, 20, 316, 136))
    rows = [
        ("an ordinary JPEG", Image.open(FOLDER.parent / "coffee.jpg").crop((100, 10, 158, 68)), coffee),
        ("a clean photograph", cat.resize((58, 58), Image.Resampling.BICUBIC), cat),
        ("a tiny face, which fails", face.resize((25, 25), Image.Resampling.BICUBIC), face),
    ]
    models = {
        "srgan-x4": SRGAN.from_pretrained("srgan-x4"),
        "faithful": SRGAN.from_pretrained("srresnet-x4-photo"),
        "crisp": SRGAN.from_pretrained("srgan-x4-photo"),
    }
    cells = []
    for text, lr, original in rows:
        row = [(f"{text}: bicubic", lr.resize((4 * lr.width, 4 * lr.height), Image.Resampling.BICUBIC))]
        row += [(name, model.upscale(lr)) for name, model in models.items()]
        cells.append([*row, ("original", original)])
    return grid(cells)


def tiled(model: SRGAN, lr: torch.Tensor, halo: int, tile: int = 96) -> torch.Tensor:
    """Upscale as other programs do: tile by tile, each with a halo that is computed and cut off."""
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
    lr = torch.from_numpy(np.asarray(Image.open(FOLDER.parent / "astronaut.png")) / np.float32(255)).permute(2, 0, 1)[
        None
    ]
    fused = model.upscaler(dtype="fp32", strip_height=lr.shape[2])
    row = []
    for text, sr, whole in [
        ("96-px tiles, no halo", tiled(model, lr, 0), model(lr)),
        ("halo 10", tiled(model, lr, 10), model(lr)),
        ("halo 16", tiled(model, lr, 16), model(lr)),
        ("full-width strips", model.upscaler(dtype="fp32", strip_height=16).upscale(lr), fused.upscale(lr)),
    ]:
        error = (sr - whole).abs().amax((0, 1)) * 255
        shown = (error * 32).clamp(0, 255).byte().numpy()
        row.append((f"{text}: {error.max():.3g} levels", Image.fromarray(shown).convert("RGB")))
        print(row[-1][0])
    return grid([row])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    comparison().save(FOLDER / "comparison.jpg", quality=90, subsampling="4:4:4")
    seams().save(FOLDER / "seams.png", optimize=True)
