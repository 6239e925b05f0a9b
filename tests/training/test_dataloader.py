import shutil
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

from srgan_hub.training import dataloader, div2k
from srgan_hub.training.arguments import TrainConfig, parse_args, resolve_args
from srgan_hub.training.dataloader import StepBatchSampler, prepare_data
from srgan_hub.training.dataset import build_shards


def make_config(*argv: object) -> TrainConfig:
    return resolve_args(parse_args([str(word) for word in ("--output-dir", "out", *argv)]))


def test_batches_of_all_ranks_use_each_sample_once_and_follow_from_the_step():
    flags = ["--train-data", "a", "--batch-size", 2, "--gradient-accumulation-steps", 3, "--max-train-steps", 4]
    config = make_config(*flags)
    both = [list(StepBatchSampler(config, 0, rank, 2)) for rank in (0, 1)]
    assert sorted(i for batch in both[0] + both[1] for i in batch) == list(range(4 * 3 * 2 * 2))
    assert list(StepBatchSampler(config, 2, 1, 2)) == both[1][2 * 3 :]


def draw_images(directory: Path, *sizes: int) -> Path:
    directory.mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.fromarray(np.full((size, size, 3), i, np.uint8)).save(directory / f"{i}.png")
    return directory


def test_div2k_is_downloaded_and_prepared_once_for_all_runs(tmp_path, monkeypatch):
    downloads = []

    def download(output: Path, archive: div2k.Archive, **_: object) -> Path:
        if not (output / archive.name).is_dir():
            downloads.append(archive.name)
            draw_images(output / archive.name, 64, 70)
        return output / archive.name

    for module in (dataloader, div2k):
        monkeypatch.setattr(module, "download", download)
    monkeypatch.setattr(div2k, "build_shards", lambda *args, **options: build_shards(*args, min_size=32))
    flags = ["--train-data", "div2k", "--val-data", "div2k", "--data-dir", tmp_path / "shared"]
    first, second = (prepare_data(make_config(*flags), Accelerator(cpu=True)) for _ in range(2))
    assert first == second == (tmp_path / "shared" / "div2k", sorted((tmp_path / "shared").rglob("DIV2K_valid*/*.png")))
    assert len(first[1]) == 2 and (first[0] / "index.json").is_file()
    assert downloads == ["DIV2K_train_HR", "DIV2K_valid_HR"]
    assert not Path("out").exists()


def test_small_validation_images_are_skipped(tmp_path, caplog):
    train, valid = draw_images(tmp_path / "train", 40), draw_images(tmp_path / "valid", 64, 63)
    flags = ["--train-data", train, "--val-data", valid, "--hr-crop", 32, "--output-dir", tmp_path / "out"]
    shards, images = prepare_data(make_config(*flags), Accelerator(cpu=True))
    assert (shards, images) == (tmp_path / "out" / "data", [valid / "0.png"])
    assert "1.png" in caplog.text and "64x64" in caplog.text
    shutil.rmtree(train)  # shards may be given in place of images
    assert prepare_data(make_config("--train-data", shards), Accelerator(cpu=True)) == (shards, [])
    (valid / "0.png").unlink()
    with pytest.raises(ValueError, match="at least 64x64"):
        prepare_data(make_config(*flags, "--train-data", shards), Accelerator(cpu=True))
