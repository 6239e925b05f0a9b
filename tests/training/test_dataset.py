import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.utils.data import DataLoader

from srgan_hub.resize import resize
from srgan_hub.training import dataset
from srgan_hub.training.dataset import RandomCropDataset, build_shards, read_index


def unique_pixels(height, width, red):
    """An image whose every pixel says where it is: green is the row, blue the column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([np.full_like(rows, red), rows, columns], axis=2)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name, size, red in [("b.png", (40, 30), 1), ("a.PNG", (24, 50), 2), ("sub/c.png", (33, 33), 3)]:
        Image.fromarray(unique_pixels(*size, red)).save(folder / name)
    return folder


@pytest.fixture
def shards(photos, tmp_path):
    return build_shards(photos, tmp_path / "shards", minimum_size=16)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_the_pixels(photos, shards):
    index = read_index(shards)
    assert [(p["name"], p["height"], p["width"]) for p in index["images"]] == [
        ("a.PNG", 24, 50),
        ("b.png", 40, 30),
        ("sub/c.png", 33, 33),
    ]
    for entry in index["images"]:
        with safe_open(shards / entry["shard"], framework="numpy") as file:
            assert np.array_equal(file.get_tensor(entry["name"]), np.asarray(Image.open(photos / entry["name"])))
    assert sorted(path.name for path in shards.iterdir()) == ["index.json", "shard-00000.safetensors"]


def test_index_names_the_hash(photos, shards):
    entry = read_index(shards)["images"][1]
    assert entry["sha256"] == hashlib.sha256((photos / "b.png").read_bytes()).hexdigest()


def test_shards_are_cut_at_their_limit(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "HEADER_BYTES", 0)
    monkeypatch.setattr(dataset, "SHARD_BYTES", 3 * (24 * 50 + 40 * 30))
    index = read_index(build_shards(photos, tmp_path / "shards", minimum_size=16))
    assert [p["shard"][6:11] for p in index["images"]] == ["00000", "00000", "00001"]
    monkeypatch.setattr(dataset, "SHARD_BYTES", 3 * 33 * 33 + 1)
    index = read_index(build_shards(photos, tmp_path / "others", minimum_size=16))
    assert [p["name"] for p in index["images"]] == ["sub/c.png"]
    assert ["too large" in entry["reason"] for entry in index["left_out"]] == [True, True]


def test_orientation_is_applied_and_gray_becomes_rgb(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    pixels = unique_pixels(20, 30, 7)
    Image.fromarray(pixels).save(folder / "turned.png", exif=exif)
    Image.fromarray(pixels[..., 2]).save(folder / "gray.png")
    shards = build_shards(folder, tmp_path / "shards", minimum_size=16)
    with safe_open(shards / "shard-00000.safetensors", framework="numpy") as file:
        assert np.array_equal(file.get_tensor("turned.png"), np.rot90(pixels, -1))
        assert np.array_equal(file.get_tensor("gray.png"), np.repeat(pixels[..., 2:], 3, axis=2))


def test_unusable_images_are_named_and_left_out(photos, tmp_path, caplog):
    Image.fromarray(unique_pixels(15, 40, 0)).save(photos / "small.png")
    (photos / "broken.jpg").write_bytes(b"not an image")
    (photos / "cut.png").write_bytes((photos / "b.png").read_bytes()[:60])
    Image.fromarray(np.full((30, 30), 40000, np.uint16)).save(photos / "deep.png")
    (photos / "notes.txt").write_text("not looked at")
    (photos / "._b.png").write_bytes(b"hidden, not looked at")
    with caplog.at_level(logging.WARNING):
        index = read_index(build_shards(photos, tmp_path / "shards", minimum_size=16))
    assert [entry["name"] for entry in index["left_out"]] == ["broken.jpg", "cut.png", "deep.png", "small.png"]
    assert "40x15 is smaller than 16" in index["left_out"][3]["reason"]
    assert all(f"{name}:" in caplog.text for name in ("broken.jpg", "cut.png", "deep.png", "small.png"))
    assert len(index["images"]) == 3


def test_too_few_images_fail_and_leave_nothing(photos, tmp_path):
    with pytest.raises(ValueError, match=r"at least 1 usable images .* got 0 of 3(.|\n)*24 is smaller than 64"):
        build_shards(photos, tmp_path / "shards", minimum_size=64)
    with pytest.raises(ValueError, match="at least 4 usable"):
        build_shards(photos, tmp_path / "shards", minimum_size=16, min_images=4)
    with pytest.raises(ValueError, match="not a folder"):
        build_shards(photos / "none", tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_preparing_again_does_nothing_until_something_changes(photos, shards):
    before = contents(shards), {path: path.stat().st_mtime_ns for path in shards.iterdir()}
    build_shards(photos, shards, minimum_size=16)
    assert before == (contents(shards), {path: path.stat().st_mtime_ns for path in shards.iterdir()})
    Image.fromarray(unique_pixels(24, 50, 9)).save(photos / "a.PNG")
    build_shards(photos, shards, minimum_size=16)
    with safe_open(shards / "shard-00000.safetensors", framework="numpy") as file:
        assert file.get_tensor("a.PNG")[0, 0, 0] == 9
    assert len(read_index(build_shards(photos, shards, minimum_size=30))["images"]) == 2
    (photos / "a.PNG").unlink()
    assert read_index(build_shards(photos, shards, minimum_size=30))["sources"].keys() == {"b.png", "sub/c.png"}


def test_other_files_are_never_replaced(photos):
    with pytest.raises(ValueError, match=r"no readable index\.json"):
        build_shards(photos, photos, minimum_size=16)
    assert (photos / "b.png").exists()


def _killed_prepare(photos, output):
    def stop(what, done, total):
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    build_shards(photos, output, minimum_size=16, progress=stop)


def test_a_killed_prepare_leaves_no_output(photos, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_killed_prepare, args=(photos, tmp_path / "shards"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "shards").exists()
    shards = build_shards(photos, tmp_path / "shards", minimum_size=16)
    assert len(read_index(shards)["images"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "shards"]


def test_progress_counts_all_images(photos, tmp_path):
    calls = []
    build_shards(photos, tmp_path / "shards", minimum_size=16, progress=lambda *call: calls.append(call))
    assert calls == [("images", 1, 3), ("images", 2, 3), ("images", 3, 3)]


def test_crops_lie_in_the_images_in_all_eight_orientations(shards):
    crops = RandomCropDataset(shards, size=12, seed=5)
    sizes = {2: (24, 50), 1: (40, 30), 3: (33, 33)}
    seen, orientations = Counter(), Counter()
    corners = {red: set() for red in sizes}
    for i in range(2000):
        red, rows, columns = crops[i].int()
        number = int(red[0, 0])
        assert (red == number).all()
        top, left = int(rows.min()), int(columns.min())
        # How the image's row and column change from one pixel of the crop to the next says how it was turned.
        down = rows[1, 0] - rows[0, 0], columns[1, 0] - columns[0, 0]
        right = rows[0, 1] - rows[0, 0], columns[0, 1] - columns[0, 0]
        y, x = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
        assert torch.equal(rows, rows[0, 0] + y * down[0] + x * right[0])
        assert torch.equal(columns, columns[0, 0] + y * down[1] + x * right[1])
        assert rows.max() == top + 11 and columns.max() == left + 11
        seen[number] += 1
        orientations[int(down[0]), int(down[1]), int(right[0]), int(right[1])] += 1
        corners[number].add((top, left))
    assert all(count > 550 for count in seen.values())
    assert len(orientations) == 8 and min(orientations.values()) > 180
    for number, (height, width) in sizes.items():
        tops, lefts = zip(*corners[number], strict=True)
        assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, height - 12, 0, width - 12)


def test_crops_depend_on_seed_and_index_alone(shards):
    first, again, other = (RandomCropDataset(shards, size=12, seed=seed) for seed in (5, 5, 6))
    forward = [first[i] for i in range(20)]
    backward = [again[i] for i in reversed(range(20))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert sum(torch.equal(other[i], forward[i]) for i in range(20)) < 5
    assert len({crop.numpy().tobytes() for crop in forward}) > 15
    # A value that must never change: other machines and versions draw the same crop.
    assert forward[3][:, 0, 0].tolist() == [3, 20, 26]


def test_crops_are_the_same_from_workers(shards):
    crops = RandomCropDataset(shards, size=12, seed=5)
    expected = torch.stack([crops[i] for i in range(16)])  # opened here, before the workers are made
    loader = DataLoader(crops, batch_size=4, sampler=range(16), num_workers=2)
    assert torch.equal(torch.cat(list(loader)), expected)
    assert torch.equal(pickle.loads(pickle.dumps(crops))[7], expected[7])


def test_a_share_is_shrunk_from_larger_windows(shards):
    plain, shrunk = (
        RandomCropDataset(shards, size=12, seed=5),
        RandomCropDataset(shards, size=12, seed=5, downscale_prob=0.5),
    )
    # Neighbours differ by 1 in a plain crop and by 1 / factor, up to 2, in a shrunk one.
    steps = [(shrunk[i][1:, 6, 6].int() - shrunk[i][1:, 5, 5].int()).abs().max().item() for i in range(300)]
    same = sum(torch.equal(plain[i], shrunk[i]) for i in range(300))
    assert 120 < same < 190
    assert max(steps) == 2
    everything = RandomCropDataset(shards, size=12, seed=5, downscale_prob=1.0)
    spans = [crop[1].int().max() - crop[1].int().min() for crop in (everything[i] for i in range(200))]
    assert min(spans) < 13 and max(spans) > 20


def test_a_shrunk_crop_is_the_windows_bicubic(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    crops = RandomCropDataset(
        build_shards(folder, tmp_path / "shards", minimum_size=8), size=8, seed=1, downscale_prob=1.0
    )
    whole = (
        resize(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, (8, 8), round_to_uint8=True)[0].mul(255).round()
    )
    turned = [t for k in range(4) for t in (torch.rot90(whole, k, (1, 2)), torch.rot90(whole, k, (1, 2)).flip(1))]
    # Windows of 16 are the factors near a half: about one in fifteen.
    found = sum(any(torch.equal(crops[i], t.byte()) for t in turned) for i in range(200))
    assert 4 <= found <= 30


def test_a_crop_larger_than_an_image_is_refused(shards, tmp_path):
    with pytest.raises(ValueError, match=r"at least 32 pixels a side, but 2 of 3 .* such as a\.PNG \(24x50\)"):
        RandomCropDataset(shards, size=32, seed=0)
    with pytest.raises(ValueError, match=r"no readable index\.json"):
        RandomCropDataset(tmp_path, size=32, seed=0)
    (shards / "index.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="another version"):
        RandomCropDataset(shards, size=12, seed=0)
