"""What the demo does for its users, without its page."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.demo.service import Cancelled, Client, Queued, Service
from srgan_hub.demo.settings import Settings
from srgan_hub.demo.upscale import Completed, Progress
from srgan_hub.hub import bundled_models
from srgan_hub.upscaler import Upscaler

ANN, BEN = Client("ann", "1.1.1.1"), Client("ben", "2.2.2.2")


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Repeat pixels in place of the network, in ten strips."""

    def stream(self, image: np.ndarray, size: object = None) -> Iterator[np.ndarray]:
        yield from np.array_split(image.repeat(4, 0).repeat(4, 1), 10)

    monkeypatch.setattr(Upscaler, "stream", stream)


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    made = [tmp_path / f"{name}.png" for name in ("a", "b", "c")]
    for number, path in enumerate(made):
        Image.new("RGB", (12, 10), (50 * number, 9, 9)).save(path)
    return made


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def test_users_are_served_one_after_the_other(paths, folder):
    service = Service()
    first = service.upscale(paths[0], Settings(), folder, ANN)
    second = service.upscale(paths[1], Settings(), folder, BEN)
    assert isinstance(next(first), Progress)
    assert next(second) == Queued(1)
    assert isinstance([*first][-1], Completed)
    *_, done = second
    assert isinstance(done, Completed) and done.image.getpixel((0, 0)) == (50, 9, 9)


def test_whoever_stops_is_told_before_the_next_ones_turn(paths, folder):
    service = Service()
    run = service.upscale(paths[0], Settings(), folder, ANN)
    next(run)
    service.queue._jobs[0].stopped = "Cancelled."
    assert [*run] == [Cancelled("Cancelled.")]
    assert not service.queue._jobs and not list(folder.iterdir())


def test_a_run_that_is_left_frees_its_place(paths, folder):
    service = Service(queue=1)
    run = service.upscale(paths[0], Settings(), folder, ANN)
    next(run)
    with pytest.raises(ValueError, match="Busy"):
        next(service.upscale(paths[1], Settings(), folder, BEN))
    run.close()
    assert isinstance([*service.upscale(paths[1], Settings(), folder, BEN)][-1], Completed)


def test_many_keep_what_is_done_when_they_are_cancelled(paths, folder):
    service = Service()
    seen = []
    for entries in service.batch(paths, Settings(), folder, ANN):
        seen.append([entry.state for entry in entries])
        if seen[-1] == ["done", "running", "waiting"]:
            service.queue._jobs[0].stopped = "Cancelled."
    assert seen[0] == ["waiting"] * 3 and seen[-1] == ["done", "cancelled", "cancelled"]
    with zipfile.ZipFile(folder / "results.zip") as archive:
        assert archive.namelist() == ["a_x4.png"]
    assert [path.name for path in folder.iterdir()] == ["results.zip"]


def test_others_come_between_the_images_of_many(paths, folder, tmp_path):
    service = Service()
    many = service.batch(paths, Settings(), folder, ANN)
    next(many)
    (tmp_path / "other").mkdir()
    one = service.upscale(paths[0], Settings(), tmp_path / "other", BEN)
    while next(many)[0].state != "running":
        pass
    assert next(one) == Queued(1)
    states = [entry.state for entry in next(many)]
    assert states == ["done", "waiting", "waiting"]
    assert isinstance(next(one), Progress)
    assert [entry.text for entry in next(many)][1:] == ["1 ahead of you", ""]
    one.close()
    assert [entry.state for entry in [*many][-1]] == ["done"] * 3


def test_a_model_out_of_the_allow_list_is_compared_and_no_other(paths, tmp_path):
    own = str(tmp_path / "own")
    SRGAN(channels=4, num_blocks=1).save_pretrained(own)
    with pytest.raises(ValueError, match="is not offered here; there are: srgan-x4"):
        Service().compare(paths[0], ["srgan-x4", own], None, ANN)
    steps = Service([own]).compare(paths[0], [own, "srgan-x4"], None, ANN)
    results = [step for step in steps if not isinstance(step, float)]
    assert [result.model for result in results] == [own, "srgan-x4"]
    assert all(set(result.scores) == {"lr_consistency"} for result in results)


@pytest.mark.parametrize("models", [[], ["srgan-x4"], ["srgan-x4"] * 3, bundled_models()])
def test_two_or_three_models_are_compared(paths, models):
    with pytest.raises(ValueError, match=f"Choose two or 3 models, got {len(set(models))}"):
        Service().compare(paths[0], models, None, ANN)
