import hashlib
import json
import logging
import os
import pickle
import signal
from collections import Counter

import encoded_png
import numpy as np
import pytest
import torch
from interrupted_runs import run_forked
from PIL import Image
from safetensors import safe_open
from torch.utils.data import DataLoader

from srgan_hub.images.tensors import TensorImage
from srgan_hub.resize import resize
from srgan_hub.training import dataset
from srgan_hub.training.dataset import (
    PreparedImages,
    RandomCropDataset,
    Source,
    TrainingPairs,
    build_shards,
    read_index,
)
from srgan_hub.training.sources import ImageFolder


def unique_pixels(height, width, red):
    """An image whose green channel is the row and whose blue channel is the column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([np.full_like(rows, red), rows, columns], axis=2)


@pytest.fixture
def photos(tmp_path):
    directory = tmp_path / "photos"
    (directory / "sub").mkdir(parents=True)
    for name, size, red in [("b.png", (40, 30), 1), ("a.PNG", (24, 50), 2), ("sub/c.png", (33, 33), 3)]:
        Image.fromarray(unique_pixels(*size, red)).save(directory / name)
    return directory


@pytest.fixture
def shards(photos, tmp_path):
    return build_shards(photos, tmp_path / "shards", min_size=16)


def make_crops(directory, originals=None, **options):
    return RandomCropDataset([Source(PreparedImages(directory, originals))], **options)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_shards_equal_the_decoded_images(photos, shards):
    index = read_index(shards)
    assert [(p["name"], p["height"], p["width"]) for p in index["images"]] == [
        ("a.PNG", 24, 50),
        ("b.png", 40, 30),
        ("sub/c.png", 33, 33),
    ]
    for entry in index["images"]:
        with safe_open(shards / entry["shard"], framework="numpy") as file:
            assert np.array_equal(file.get_tensor(entry["name"]), np.asarray(Image.open(photos / entry["name"])))
        assert entry["sha256"] == hashlib.sha256((photos / entry["name"]).read_bytes()).hexdigest()
    assert sorted(path.name for path in shards.iterdir()) == ["index.json", "shard-00000.safetensors"]


def test_shards_have_a_maximum_size(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "HEADER_BYTES", 0)
    monkeypatch.setattr(dataset, "SHARD_BYTES", 3 * (24 * 50 + 40 * 30))
    index = read_index(build_shards(photos, tmp_path / "shards", min_size=16))
    assert [p["shard"][6:11] for p in index["images"]] == ["00000", "00000", "00001"]
    monkeypatch.setattr(dataset, "SHARD_BYTES", 3 * 33 * 33 + 1)
    index = read_index(build_shards(photos, tmp_path / "others", min_size=16))
    assert [p["name"] for p in index["images"]] == ["sub/c.png"]
    assert ["the limit is 0.00109 million" in entry["reason"] for entry in index["skipped"]] == [True, True]


def test_exif_orientation_is_applied_and_gray_becomes_rgb(tmp_path):
    directory = tmp_path / "photos"
    directory.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees
    pixels = unique_pixels(20, 30, 7)
    Image.fromarray(pixels).save(directory / "turned.png", exif=exif)
    Image.fromarray(pixels[..., 2]).save(directory / "gray.png")
    shards = build_shards(directory, tmp_path / "shards", min_size=16)
    with safe_open(shards / "shard-00000.safetensors", framework="numpy") as file:
        assert np.array_equal(file.get_tensor("turned.png"), np.rot90(pixels, -1))
        assert np.array_equal(file.get_tensor("gray.png"), np.repeat(pixels[..., 2:], 3, axis=2))


def test_unusable_images_are_skipped_with_a_warning(photos, tmp_path, caplog):
    Image.fromarray(unique_pixels(15, 40, 0)).save(photos / "small.png")
    (photos / "broken.jpg").write_bytes(b"not an image")
    (photos / "cut.png").write_bytes((photos / "b.png").read_bytes()[:60])
    Image.fromarray(np.full((30, 30), 0.5, np.float32)).save(photos / "float.tif")
    Image.new("1", (20_000, 10_000)).save(photos / "large.png")
    frames = [Image.fromarray(unique_pixels(30, 30, red)) for red in (0, 200)]
    frames[0].save(photos / "moving.webp", save_all=True, append_images=frames[1:])
    (photos / "notes.txt").write_text("ignored")
    (photos / "._b.png").write_bytes(b"hidden")
    with caplog.at_level(logging.WARNING):
        index = read_index(build_shards(photos, tmp_path / "shards", min_size=16))
    names = ["broken.jpg", "cut.png", "float.tif", "large.png", "moving.webp", "small.png"]
    assert [entry["name"] for entry in index["skipped"]] == names
    assert "40x15 is smaller than 16" in index["skipped"][-1]["reason"] and "20000 x 10000" in caplog.text
    assert [sum(f"{name}'" in message for message in caplog.messages) for name in names] == [1] * len(names)
    assert len(index["images"]) == 3


def test_odd_images_are_read_as_inference_reads_them_with_a_warning(tmp_path, caplog):
    directory = tmp_path / "photos"
    directory.mkdir()
    random = np.random.default_rng(0)
    colors = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    alpha = np.full((20, 20, 1), 255, np.uint8)
    alpha[5:9, 5:9] = 0
    alpha[0, 0] = 9
    deep = random.integers(0, 2**16, (20, 20), dtype=np.uint16)
    deep_rgb = random.integers(0, 2**16, (20, 20, 3), dtype=np.uint16)
    Image.fromarray(deep).save(directory / "deep.png")
    (directory / "deep-rgb.png").write_bytes(encoded_png.png(deep_rgb, encoded_png.RGB, 16))
    Image.fromarray(np.dstack([colors, alpha])).save(directory / "hole.png")
    Image.fromarray(np.dstack([colors, np.full_like(alpha, 100)])).save(directory / "half.png")
    Image.fromarray(np.dstack([colors[..., 0], alpha])).save(directory / "gray-hole.png")
    with caplog.at_level(logging.WARNING):
        shards = PreparedImages(build_shards(directory, tmp_path / "shards", min_size=16))
    read = {image["name"]: shards.read(number, 0, 0, 20) for number, image in enumerate(shards.images)}
    rounded = np.round(deep / 257).astype(np.uint8)
    assert np.array_equal(read["deep.png"], np.repeat(rounded[..., None], 3, axis=2))
    assert np.array_equal(read["deep-rgb.png"], np.round(deep_rgb / 257))
    assert np.array_equal(read["half.png"], colors)
    seen = TensorImage(np.dstack([colors, alpha]), 4)
    assert np.array_equal(read["hole.png"], seen.lr[0, :3].permute(1, 2, 0).numpy())
    assert not np.array_equal(read["hole.png"], colors)
    seen = TensorImage(np.dstack([colors[..., 0], alpha]), 4)
    assert np.array_equal(read["gray-hole.png"], seen.lr[0, :1].expand(3, 20, 20).permute(1, 2, 0).numpy())
    warned = {name: [m for m in caplog.messages if f"/{name}'" in m] for name in read}
    assert {name: len(messages) for name, messages in warned.items()} == {
        "deep.png": 1, "deep-rgb.png": 1, "hole.png": 1, "half.png": 0, "gray-hole.png": 1
    }  # fmt: skip
    assert "16 bits" in warned["deep.png"][0] and "transparent" in warned["hole.png"][0]


def test_images_that_are_not_stored_give_the_same_crops(photos, shards, tmp_path):
    Image.fromarray(unique_pixels(15, 40, 0)).save(photos / "small.png")
    index = build_shards(photos, tmp_path / "index", min_size=16, store=False)
    assert [path.name for path in index.iterdir()] == ["index.json"]
    decoded = make_crops(index, originals=ImageFolder(photos), size=12, seed=5)
    assert decoded.fingerprint() == make_crops(shards, size=12, seed=5).fingerprint()
    stored = make_crops(shards, size=12, seed=5)
    assert all(torch.equal(decoded[i], stored[i]) for i in range(20))
    with pytest.raises(ValueError, match="only the index"):
        PreparedImages(index)
    # Shards of the same images are built on request.
    assert len(list(build_shards(photos, index, min_size=16).iterdir())) == 2


def test_weights_multiply_the_probability_of_each_image(tmp_path):
    sources = []
    for number, (count, weight) in enumerate([(4, 1.0), (1, 3.0), (2, 0.5)]):
        directory = tmp_path / str(number)
        directory.mkdir()
        for i in range(count):
            Image.fromarray(unique_pixels(16, 16, 10 * number + i)).save(directory / f"{i}.png")
        shards = PreparedImages(build_shards(directory, tmp_path / f"shards-{number}", min_size=8))
        sources.append(Source(shards, weight=weight))
    crops = RandomCropDataset(sources, size=8, seed=1)
    assert crops.num_images == 7
    counts = Counter(int(crops[i][0, 0, 0]) for i in range(1600))
    expected = {0: 200, 1: 200, 2: 200, 3: 200, 10: 600, 20: 100, 21: 100}
    assert counts.keys() == expected.keys()
    assert all(abs(counts[red] - count) < 4 * count**0.5 for red, count in expected.items())
    equal = RandomCropDataset([source._replace(weight=1.0) for source in sources], size=8, seed=1)
    assert equal.fingerprint() != crops.fingerprint()


def test_paired_crops_are_aligned(tmp_path):
    """The LR images are HR images of which every second row and column is left out."""
    for name in ("hr", "lr"):
        (tmp_path / name / "sub").mkdir(parents=True)
    for name, size, red in [("a.png", (41, 30), 1), ("sub/b.png", (24, 51), 2)]:
        pixels = unique_pixels(*size, red)
        Image.fromarray(pixels).save(tmp_path / "hr" / name)
        low = pixels[: size[0] // 2 * 2 : 2, : size[1] // 2 * 2 : 2]
        Image.fromarray(low).save(tmp_path / "lr" / name.replace("b.png", "bx2.png"))
    hr, lr = (
        PreparedImages(build_shards(tmp_path / name, tmp_path / f"{name}-shards", min_size=8)) for name in ("hr", "lr")
    )
    crops = RandomCropDataset([Source(hr, lr)], size=12, seed=5, scale=2)
    low, high = TrainingPairs(crops, None, 5)[range(200)]
    assert low.shape == (200, 3, 6, 6) and low.dtype == torch.float32 and high.dtype == torch.uint8
    levels = low.mul(255).round().int()
    # The LR pixel is one of the four HR pixels that it covers, that with the smallest coordinates.
    blocks = high.int().unfold(2, 2, 2).unfold(3, 2, 2)
    assert torch.equal(levels, blocks.amin((4, 5)))
    corners = {tuple(pair[1:].amin((1, 2)).tolist()) for pair in high}
    assert len(corners) > 100 and all(y % 2 == x % 2 == 0 for y, x in corners)
    unpaired = RandomCropDataset([Source(hr)], size=12, seed=5, scale=2)
    assert unpaired.fingerprint() != crops.fingerprint()


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (["a.png", "c.png"], 12, r"'b\.png' where --train-lr-data has 'c\.png'"),
        (["a.png"], 12, r"'b\.png' where --train-lr-data has no image"),
        (["a.png", "b.png"], 13, r"'a\.png' .* 12x12, got 13x13 for 24x25"),
    ],
)
def test_pairs_that_do_not_match_are_named(tmp_path, names, size, message):
    for directory, files, sides in (("hr", ["a.png", "b.png"], (25, 24)), ("lr", names, (size, size))):
        (tmp_path / directory).mkdir()
        for name in files:
            Image.fromarray(unique_pixels(*sides, 1)).save(tmp_path / directory / name)
    hr, lr = (
        PreparedImages(build_shards(tmp_path / name, tmp_path / f"{name}-shards", min_size=8)) for name in ("hr", "lr")
    )
    with pytest.raises(ValueError, match=message):
        RandomCropDataset([Source(hr, lr)], size=12, seed=5, scale=2)


def test_too_few_images_raise_and_leave_nothing(photos, tmp_path):
    with pytest.raises(ValueError, match=r"0 usable images of 3(.|\n)*24 is smaller than 64"):
        build_shards(photos, tmp_path / "shards", min_size=64)
    with pytest.raises(ValueError, match=r"3 usable .* at least 4"):
        build_shards(photos, tmp_path / "shards", min_size=16, min_images=4)
    with pytest.raises(ValueError, match="not a directory"):
        build_shards(photos / "none", tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_shards_are_rebuilt_only_after_a_change(photos, shards):
    before = contents(shards), {path: path.stat().st_mtime_ns for path in shards.iterdir()}
    build_shards(photos, shards, min_size=16)
    assert before == (contents(shards), {path: path.stat().st_mtime_ns for path in shards.iterdir()})
    Image.fromarray(unique_pixels(24, 50, 9)).save(photos / "a.PNG")
    build_shards(photos, shards, min_size=16)
    with safe_open(shards / "shard-00000.safetensors", framework="numpy") as file:
        assert file.get_tensor("a.PNG")[0, 0, 0] == 9
    assert len(read_index(build_shards(photos, shards, min_size=30))["images"]) == 2
    (photos / "a.PNG").unlink()
    assert read_index(build_shards(photos, shards, min_size=30))["sources"].keys() == {"b.png", "sub/c.png"}


def test_other_files_are_never_replaced(photos):
    with pytest.raises(ValueError, match=r"no readable index\.json"):
        build_shards(photos, photos, min_size=16)
    assert (photos / "b.png").exists()


def build_and_die(photos, output):
    def kill(done, total):
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    build_shards(photos, output, min_size=16, progress=kill)


def test_sigkill_leaves_no_output(photos, tmp_path):
    assert run_forked((build_and_die, photos, tmp_path / "shards")) == [-signal.SIGKILL]
    assert not (tmp_path / "shards").exists()
    shards = build_shards(photos, tmp_path / "shards", min_size=16)
    assert len(read_index(shards)["images"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "shards"]


def test_progress_counts_images(photos, tmp_path):
    calls = []
    build_shards(photos, tmp_path / "shards", min_size=16, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_crops_are_image_regions_in_all_eight_orientations(shards):
    crops = make_crops(shards, size=12, seed=5)
    sizes = {2: (24, 50), 1: (40, 30), 3: (33, 33)}
    seen, orientations = Counter(), Counter()
    corners = {red: set() for red in sizes}
    for i in range(1000):
        red, rows, columns = crops[i].int()
        number = int(red[0, 0])
        assert (red == number).all()
        top, left = int(rows.min()), int(columns.min())
        # The change of row and column from one pixel of the crop to the next is its orientation.
        down = rows[1, 0] - rows[0, 0], columns[1, 0] - columns[0, 0]
        right = rows[0, 1] - rows[0, 0], columns[0, 1] - columns[0, 0]
        y, x = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
        assert torch.equal(rows, rows[0, 0] + y * down[0] + x * right[0])
        assert torch.equal(columns, columns[0, 0] + y * down[1] + x * right[1])
        assert rows.max() == top + 11 and columns.max() == left + 11
        seen[number] += 1
        orientations[int(down[0]), int(down[1]), int(right[0]), int(right[1])] += 1
        corners[number].add((top, left))
    assert all(count > 275 for count in seen.values())
    assert len(orientations) == 8 and min(orientations.values()) > 90
    for number, (height, width) in sizes.items():
        tops, lefts = zip(*corners[number], strict=True)
        assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, height - 12, 0, width - 12)


def test_crops_depend_only_on_seed_and_index(shards):
    first, again, other = (make_crops(shards, size=12, seed=seed) for seed in (5, 5, 6))
    forward = [first[i] for i in range(20)]
    backward = [again[i] for i in reversed(range(20))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert sum(torch.equal(other[i], forward[i]) for i in range(20)) < 5
    assert len({crop.numpy().tobytes() for crop in forward}) > 15
    # Fixed: every machine and version draws the same crop.
    assert forward[3][:, 0, 0].tolist() == [3, 20, 26]


def test_dataloader_workers_return_the_same_crops(shards):
    crops = make_crops(shards, size=12, seed=5)
    expected = torch.stack([crops[i] for i in range(16)])  # opens the files before the workers fork
    loader = DataLoader(crops, batch_size=4, sampler=range(16), num_workers=2)
    assert torch.equal(torch.cat(list(loader)), expected)
    assert torch.equal(pickle.loads(pickle.dumps(crops))[7], expected[7])


def test_downscale_prob_downscales_larger_windows(shards):
    plain, mixed, all_downscaled = (
        make_crops(shards, size=12, seed=5, downscale_prob=probability) for probability in (0.0, 0.5, 1.0)
    )
    # Neighboring pixels differ by 1 in a plain crop and by up to 2 in a downscaled one.
    steps = [(mixed[i][1:, 6, 6].int() - mixed[i][1:, 5, 5].int()).abs().max().item() for i in range(300)]
    same = sum(torch.equal(plain[i], mixed[i]) for i in range(300))
    assert 120 < same < 190
    assert max(steps) == 2
    spans = [crop[1].int().max() - crop[1].int().min() for crop in (all_downscaled[i] for i in range(200))]
    assert min(spans) < 13 and max(spans) > 20


def test_downscaled_crop_equals_bicubic(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "a.png")
    shards = build_shards(photos, tmp_path / "shards", min_size=8)
    crops = make_crops(shards, size=8, seed=1, downscale_prob=1.0)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    full = resize(image, (8, 8), round_to_uint8=True)[0].mul(255).round().byte()
    turned = [torch.rot90(full, k, (1, 2)) for k in range(4)]
    turned += [each.flip(1) for each in turned]
    # Windows of 16 pixels have factors near a half: about one in fifteen.
    found = sum(any(torch.equal(crops[i], each) for each in turned) for i in range(100))
    assert 2 <= found <= 15


def test_crop_larger_than_an_image_raises(shards, tmp_path):
    with pytest.raises(ValueError, match=r"2 of 3 .*a\.PNG \(50x24\)"):
        make_crops(shards, size=32, seed=0)
    with pytest.raises(ValueError, match=r"no readable index\.json"):
        make_crops(tmp_path, size=32, seed=0)
    (shards / "index.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="another version"):
        make_crops(shards, size=12, seed=0)
