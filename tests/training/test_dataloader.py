import hashlib
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import train_accelerate
from srgan_hub.degradations import make_degradation
from srgan_hub.training import dataloader, div2k
from srgan_hub.training.arguments import TrainConfig, parse_args, resolve_args
from srgan_hub.training.dataloader import (
    StepBatchSampler,
    check_overlap,
    make_batches,
    make_train_degradation,
    make_validation,
    prepare_data,
)
from srgan_hub.training.dataset import PreparedImages, RandomCropDataset, Source, build_shards


def make_config(*argv: object) -> TrainConfig:
    words = [str(word) for word in argv]
    return resolve_args(parse_args([*([] if "--output-dir" in words else ["--output-dir", "out"]), *words]))


def prepare(*argv: object) -> tuple[list[Source], list[Path]]:
    return prepare_data(make_config("--hr-crop", 32, *argv), Accelerator(cpu=True))


def draw_images(directory: Path, *sizes: int, seed: int = 0) -> Path:
    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i, size in enumerate(sizes):
        Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(directory / f"{i}.png")
    return directory


# --- Batches


def test_batches_of_all_ranks_use_each_sample_once_and_follow_from_the_position():
    flags = ["--train-data", "a", "--batch-size", 2, "--gradient-accumulation-steps", 3, "--max-train-steps", 4]
    config = make_config(*flags)
    both = [list(StepBatchSampler(config, 0, 0, rank, 2)) for rank in (0, 1)]
    assert sorted(i for batch in both[0] + both[1] for i in batch) == list(range(4 * 3 * 2 * 2))
    assert list(StepBatchSampler(config, 2, 24, 1, 2)) == both[1][2 * 3 :]
    # After two steps of two processes, one process continues behind their last sample.
    alone = [i for batch in StepBatchSampler(config, 2, 24, 0, 1) for i in batch]
    assert alone == list(range(24, 24 + 2 * 3 * 2))


@pytest.fixture(params=["bicubic", "gaussian", "real-world"])
def built(request, tmp_path):
    """A run with an unusual seed, before its first step."""
    words = ["--train-data", draw_images(tmp_path / "train", 48, 64), "--output-dir", tmp_path / "out"]
    words += ["--hr-crop", 32, "--batch-size", 3, "--channels", 4, "--num-blocks", 1, "--seed", 7]
    words += ["--degradation", request.param, "--max-train-steps", 2, "--report-to", "none"]
    return train_accelerate.build(make_config(*words), None)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_crops_and_their_degradation(built, workers):
    object.__setattr__(built.config, "dataloader_num_workers", workers)
    config, degrade = built.config, make_degradation(built.config.degradation, scale=4)
    batches = list(make_batches(built, 0, 0))
    assert len(batches) == 2
    for number, (lr, hr) in enumerate(batches):
        indices = range(3 * number, 3 * number + 3)
        crops = torch.stack([built.crops[i] for i in indices])
        assert torch.equal(hr, crops.float() / 255) and torch.equal(lr, degrade(crops, indices, config.seed))
        assert hr.is_contiguous(memory_format=torch.channels_last) and hr.dtype == lr.dtype == torch.float32
    ((lr, _),) = make_batches(built, 1, 3)
    assert torch.equal(lr, batches[1][0])


# --- Preparation


def test_div2k_is_downloaded_and_prepared_once_for_all_runs(tmp_path, monkeypatch):
    downloads = []

    def download(output: Path, archive: div2k.Archive, *, url: str | None) -> Path:
        if not (output / archive.name).is_dir():
            downloads.append((archive.name, url))
            draw_images(output / archive.name, 64, 70)
        return output / archive.name

    for module in (dataloader, div2k):
        monkeypatch.setattr(module, "download", download)
    monkeypatch.setattr(div2k, "build_shards", lambda *args, **options: build_shards(*args, min_size=32))
    shared = tmp_path / "shared"
    flags = ["--train-data", "div2k", "--val-data", "div2k", "--data-dir", shared, "--div2k-url", "http://mirror"]
    first, second = (prepare(*flags) for _ in range(2))
    assert first[0][0].hr.directory == second[0][0].hr.directory == shared / "div2k"
    assert first[1] == second[1] == sorted(shared.rglob("DIV2K_valid*/*.png")) and len(first[1]) == 2
    assert downloads == [("DIV2K_train_HR", "http://mirror"), ("DIV2K_valid_HR", "http://mirror")]
    assert not Path("out").exists()


def test_unusable_validation_images_are_left_out_with_a_warning(tmp_path, caplog):
    train, valid = draw_images(tmp_path / "train", 40), draw_images(tmp_path / "valid", 64, 63, 80)
    (valid / "2.png").write_bytes((valid / "2.png").read_bytes()[:2000])
    (valid / "deep.png").write_bytes((valid / "0.png").read_bytes())
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(valid / "deep.png")
    flags = ["--train-data", train, "--val-data", valid, "--output-dir", tmp_path / "out"]
    sources, images = prepare(*flags)
    assert [source.hr.directory for source in sources] == [tmp_path / "out" / "data"]
    assert images == [valid / "0.png", valid / "deep.png"]
    text = {name: "".join(m for m in caplog.messages if f"{name}'" in m) for name in ("1.png", "2.png", "deep.png")}
    assert "64x64" in text["1.png"] and "truncated" in text["2.png"] and "16 bits" in text["deep.png"]
    shutil.rmtree(train)  # shards may be given in place of images
    ((shards, lr, weight),), images = prepare("--train-data", f"{tmp_path / 'out' / 'data'}=2")
    assert (shards.directory, lr, weight, images) == (tmp_path / "out" / "data", None, 2, [])
    for path in images:
        path.unlink()
    (valid / "0.png").unlink()
    (valid / "deep.png").unlink()
    with pytest.raises(ValueError, match="at least 64x64"):
        prepare("--train-data", tmp_path / "out" / "data", "--val-data", valid)


def test_several_directories_have_weights_and_index_only_data(tmp_path):
    first, second = draw_images(tmp_path / "a=3", 40), draw_images(tmp_path / "b", 40, 50, seed=1)
    flags = ["--train-data", first, f"{second}=0.5", "--output-dir", tmp_path / "out", "--no-shards"]
    sources, _ = prepare(*flags)
    assert [(len(each.hr.images), each.weight) for each in sources] == [(1, 1.0), (2, 0.5)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data", "data-1"}
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    crops = RandomCropDataset(sources, size=40, seed=0)
    with Image.open(first / "0.png") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert any(torch.equal(crops[i].sort()[0], pixels.sort()[0]) for i in range(30))


def test_div2k_layout_is_used_as_its_splits_say(tmp_path):
    root = tmp_path / "DIV2K"
    draw_images(root / "DIV2K_train_HR", 64, 80)
    draw_images(root / "DIV2K_valid_HR", 96, seed=1)
    low = draw_images(root / "DIV2K_train_LR_bicubic" / "X4", 16, 20)
    for path in low.iterdir():
        path.rename(path.with_stem(f"{path.stem}x4"))
    flags = ["--train-data", root, "--val-data", root, "--output-dir", tmp_path / "out"]
    (source,), images = prepare(*flags)
    assert [image["height"] for image in source.hr.images] == [64, 80] and source.lr is None
    assert images == [root / "DIV2K_valid_HR" / "0.png"]
    (source,), _ = prepare(*flags, "--train-lr-data", root)
    assert [image["name"] for image in source.lr.images] == ["0x4.png", "1x4.png"]
    RandomCropDataset([source], size=32, seed=0, scale=4)


def test_images_for_training_and_validation_are_refused(tmp_path):
    train, valid = draw_images(tmp_path / "train", 64, 65, 66, 67, 68), draw_images(tmp_path / "valid", 64, seed=1)
    for name in "01234":
        shutil.copy(train / f"{name}.png", valid / f"copy-{name}.png")
    sources, images = prepare("--train-data", train, "--val-data", valid, "--output-dir", tmp_path / "out")
    crops = RandomCropDataset(sources, size=32, seed=0)
    with pytest.raises(ValueError, match=r"'0\.png', '1\.png', '2\.png' and 2 others"):
        check_overlap(crops, images)
    check_overlap(crops, [valid / "0.png"])


def test_validation_pairs_are_given_or_degraded(tmp_path):
    valid, low = draw_images(tmp_path / "valid", 64), draw_images(tmp_path / "low", 16, seed=3)
    config = make_config("--train-data", "a", "--val-data", valid, "--val-lr-data", low)
    pair = make_validation(config, [valid / "0.png"], make_train_degradation(config))[0]
    with Image.open(low / "0.png") as image:
        assert np.array_equal(pair.lr, np.asarray(image))
    config = make_config("--train-data", "a", "--val-data", valid, "--degradation", "real-world", "--clean-prob", 0)
    degrade = make_train_degradation(config)
    pair = make_validation(config, [valid / "0.png"], degrade)[0]
    hr = torch.from_numpy(pair.hr.copy()).permute(2, 0, 1)[None]
    assert np.array_equal(pair.lr, degrade(hr, [0], 0)[0].permute(1, 2, 0).mul(255).round().byte().numpy())


# --- Data sets of the Hub


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Let `datasets` work offline, with a cache of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write_parquet(images: Path, directory: Path) -> None:
    """Write a data set with a column "picture" as the Hub stores it."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    features = datasets.Features({"number": datasets.Value("int64"), "picture": datasets.Image()})
    rows = [
        {"number": number, "picture": {"bytes": path.read_bytes(), "path": None}}
        for number, path in enumerate(sorted(images.iterdir()))
    ]
    directory.mkdir()
    table = pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)
    pyarrow.parquet.write_table(table, directory / "train.parquet")


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("kind", ["imagefolder", "parquet"])
def test_hub_data_sets_give_the_same_crops_as_their_files(tmp_path, hub_cache, kind, store):
    images = draw_images(tmp_path / "images", 40, 50, 60)
    flags = ["--output-dir", tmp_path / "hub", "--hr-crop", 32, "--image-column"]
    if kind == "parquet":
        write_parquet(images, tmp_path / "set")
        flags += ["picture", "--dataset-name", tmp_path / "set"]
    else:
        flags += ["image", "--dataset-name", images]
    (source,), _ = prepare(*flags, "--shards" if store else "--no-shards")
    crops = RandomCropDataset([source], size=32, seed=0)
    direct = PreparedImages(build_shards(images, tmp_path / "direct", min_size=32))
    expected = RandomCropDataset([Source(direct)], size=32, seed=0)
    assert [image["name"] for image in source.hr.images] == ["00000000", "00000001", "00000002"]
    assert [image["sha256"] for image in source.hr.images] == [
        hashlib.sha256((images / f"{i}.png").read_bytes()).hexdigest() for i in range(3)
    ]
    unpickled = pickle.loads(pickle.dumps(crops))  # as in workers of some systems
    assert all(torch.equal(each[i], expected[i]) for i in range(12) for each in (crops, unpickled))
    assert bool(list((tmp_path / "hub").rglob("*.safetensors"))) == store
    # They are decoded once.
    before = (tmp_path / "hub" / "data" / "index.json").stat().st_mtime_ns
    prepare(*flags, "--shards" if store else "--no-shards")
    assert (tmp_path / "hub" / "data" / "index.json").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "hub" / "data" / "index.json").read_text())["sources"]["fingerprint"]


def test_hub_data_set_without_the_column_or_library_is_named(tmp_path, hub_cache, monkeypatch):
    write_parquet(draw_images(tmp_path / "images", 40), tmp_path / "set")
    with pytest.raises(ValueError, match=r"--image-column 'image' .*'.*set'; its columns of images are: picture"):
        prepare("--dataset-name", tmp_path / "set")
    with pytest.raises(OSError, match="nowhere"):
        prepare("--dataset-name", "org/nowhere")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"srgan-hub\[datasets\]"):
        prepare("--dataset-name", tmp_path / "set")


# --- Flags


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--train-data or --dataset-name is required"),
        (["--train-data", "a=0"], "--train-data a=0: expected a positive number"),
        (["--train-data", "a=x"], "--train-data a=x: expected a positive number"),
        (["--train-data", "a", "b", "--train-lr-data", "c"], "as many directories"),
        (["--train-data", "a", "--train-lr-data", "c", "--degradation", "gaussian"], "excludes --degradation"),
        (["--train-data", "a", "--train-lr-data", "c", "--downscale-prob", 0.5], "--downscale-prob"),
        (["--dataset-name", "a", "--train-lr-data", "c"], "as many directories"),
        (["--train-data", "a", "--noise", 1, 2], "--noise requires --degradation real-world, got bicubic"),
        (["--train-data", "a", "--degradation", "gaussian", "--clean-prob", 0], "--clean-prob requires"),
        (["--train-data", "a", "--val-lr-data", "c"], "--val-lr-data requires --val-data"),
    ],
)
def test_contradicting_flags_are_refused(argv, message):
    with pytest.raises(ValueError) as caught:
        make_config(*argv)
    assert message in str(caught.value)


def test_degradation_flags_are_its_parameters():
    flags = ["--train-data", "a", "--degradation", "real-world", "--sigma", 1, 2, "--noise", 0, 3]
    flags += ["--jpeg-quality", 50, 90, "--clean-prob", 0, "--second-order-prob", 0.5]
    degradation = make_train_degradation(make_config(*flags))
    assert degradation == make_degradation(
        "real-world", scale=4, sigma=(1, 2), noise=(0, 3), jpeg_quality=(50, 90), clean_prob=0, second_order_prob=0.5
    )
    defaults = make_train_degradation(make_config(*flags[:4]))
    assert defaults == make_degradation("real-world", scale=4)
