"""Jobs of the demo without its UI."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.demo import queue
from srgan_hub.demo.queue import Client, Queued, QueueFullError
from srgan_hub.demo.service import Cancelled, Service, format_place, user_message
from srgan_hub.demo.settings import Settings
from srgan_hub.demo.upscale import Completed, UpscaleProgress
from srgan_hub.hub import bundled_models
from srgan_hub.images.errors import DamagedImageError, ImageError, TruncatedImageError
from srgan_hub.upscaler import Upscaler

ANN, BEN = Client("ann", "1.1.1.1"), Client("ben", "2.2.2.2")


@pytest.fixture(autouse=True)
def _instant(monkeypatch) -> None:
    """Repeat pixels in place of the network, in ten strips, and report queue positions without delay."""

    def stream(self, image: np.ndarray, **_: object) -> Iterator[np.ndarray]:
        yield from np.array_split(image.repeat(4, 0).repeat(4, 1), 10)

    monkeypatch.setattr(Upscaler, "stream", stream)
    monkeypatch.setattr(queue, "UPDATE_SECONDS", 0.01)


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in ("a", "b", "c")]
    for number, path in enumerate(paths):
        Image.new("RGB", (12, 10), (50 * number, 9, 9)).save(path)
    return paths


@pytest.fixture
def directory(tmp_path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def test_clients_are_served_in_order(paths, directory):
    service = Service()
    first = service.upscale(paths[0], Settings(), directory, ANN)
    second = service.upscale(paths[1], Settings(), directory, BEN)
    assert isinstance(next(first), UpscaleProgress)
    assert next(second) == Queued(1)
    assert isinstance([*first][-1], Completed)
    *_, completed = second
    assert isinstance(completed, Completed) and completed.image.getpixel((0, 0)) == (50, 9, 9)


def test_cancelled_job_ends_with_its_reason_and_leaves_no_file(paths, directory):
    service = Service()
    steps = service.upscale(paths[0], Settings(), directory, ANN)
    next(steps)
    service.queue.jobs[0].cancel_reason = "reason"
    assert [*steps] == [Cancelled("reason")]
    assert not service.queue.jobs and not list(directory.iterdir())


def test_abandoned_job_leaves_the_queue(paths, directory):
    service = Service(queue_size=1)
    steps = service.upscale(paths[0], Settings(), directory, ANN)
    next(steps)
    with pytest.raises(QueueFullError):
        next(service.upscale(paths[1], Settings(), directory, BEN))
    steps.close()
    assert isinstance([*service.upscale(paths[1], Settings(), directory, BEN)][-1], Completed)


def test_cancelled_batch_keeps_what_is_done(paths, directory):
    service = Service()
    states = []
    for items in service.batch(paths, Settings(), directory, ANN):
        states.append([item.state for item in items])
        if states[-1] == ["done", "running", "queued"]:
            service.queue.jobs[0].cancel_reason = "reason"
    assert states[0] == ["queued"] * 3 and states[-1] == ["done", "cancelled", "cancelled"]
    with zipfile.ZipFile(directory / "results.zip") as archive:
        assert archive.namelist() == ["a_x4.png"]
    assert items[0].file.name == "a_x4.png" and items[0].file.is_file()


def test_failed_batch_leaves_no_archive(tmp_path, directory):
    (tmp_path / "text.png").write_text("not an image")
    *_, items = Service().batch([tmp_path / "text.png"], Settings(), directory, ANN)
    assert [item.state for item in items] == ["failed"]
    assert not (directory / "results.zip").exists()


def test_waiting_jobs_add_up_the_times_of_those_ahead(paths, directory):
    service = Service()
    service.eta.update(120, 20)
    jobs = [service.upscale(path, Settings(), directory, Client(path.stem, path.stem)) for path in paths]
    next(jobs[0])
    for job, ahead in zip(jobs[1:], (1, 2), strict=True):
        place = next(job)
        assert place.ahead == ahead and place.seconds == pytest.approx(20 * ahead, abs=1)
    assert format_place(place) == "In queue: 2 jobs ahead, about 40 s"


def test_files_are_previewed_with_a_thumbnail_or_the_reason(paths, directory, tmp_path):
    Image.new("RGB", (1200, 1000)).save(tmp_path / "large.tif")
    Image.new("I;16", (60, 40)).save(tmp_path / "deep.tif")
    Image.new("L", (6, 4)).save(tmp_path / "two.gif", save_all=True, append_images=[Image.new("L", (6, 4), 9)])
    (tmp_path / "text.png").write_text("not an image")
    service = Service(max_pixels=1_000_000)
    names = ("a.png", "deep.tif", "two.gif", "large.tif", "text.png")
    items = [service.preview(tmp_path / name, directory) for name in names]
    assert [item.state for item in items] == ["ready", "ready", "ready", "large", "failed"]
    assert [item.thumbnail[:15] for item in items] == ["data:image/jpeg"] * 4 + [""]
    assert [item.file for item in items[:2]] == [tmp_path / "a.png", tmp_path / "deep.tif"]
    assert items[0].text == "12 × 10 pixels." and items[2].text == "6 × 4 pixels. The first of 2 frames."
    assert items[3].text == "1200 × 1000 pixels, which is more than 1 million." and "/" not in items[4].text
    shrunk = service.preview(tmp_path / "large.tif", directory, shrink=True)
    assert (shrunk.name, shrunk.state, shrunk.width, shrunk.height) == ("large.png", "ready", 1095, 912)
    *_, done = service.batch([items[2].file, shrunk.file], Settings(), tmp_path, ANN)
    assert [(item.state, item.width, item.height) for item in done] == [("done", 24, 16), ("done", 4380, 3648)]


@pytest.mark.parametrize(
    ("error", "for_page", "for_api"),
    [
        (
            TruncatedImageError("Cannot decode '/tmp/x/a.jpg': the file is truncated; `allow_truncated` reads it."),
            "a.jpg is damaged: its end is missing. Please save or download it again.",
            "Cannot decode 'a.jpg': the file is truncated; `allow_truncated` reads it.",
        ),
        (
            DamagedImageError("Cannot decode '/tmp/x/a.jpg': the file is corrupt or truncated (bad)."),
            "a.jpg is damaged: it cannot be read. Please save or download it again.",
            "Cannot decode 'a.jpg': the file is corrupt or truncated (bad).",
        ),
        (
            ImageError("'/tmp/x/a.jpg' has 9 x 9 pixels; the limit is 1 million (`max_pixels`)."),
            "'a.jpg' has 9 x 9 pixels; the limit is 1 million.",
            "'a.jpg' has 9 x 9 pixels; the limit is 1 million (`max_pixels`).",
        ),
        (ValueError("`size` must be one of 2x, got 9."), "size must be one of 2x, got 9.", None),
    ],
)
def test_messages_of_the_page_name_no_arguments(error, for_page, for_api):
    assert user_message(error, Path("a.jpg")) == for_page
    assert user_message(error, Path("a.jpg"), api=True) == (for_api or str(error))


def test_other_jobs_run_between_the_images_of_a_batch(paths, directory, tmp_path):
    service = Service()
    batch = service.batch(paths, Settings(), directory, ANN)
    next(batch)
    (tmp_path / "other").mkdir()
    single = service.upscale(paths[0], Settings(), tmp_path / "other", BEN)
    while next(batch)[0].state != "running":
        pass
    assert next(single) == Queued(1)
    assert [item.state for item in next(batch)] == ["done", "queued", "queued"]
    assert isinstance(next(single), UpscaleProgress)
    first, second = [item.text for item in next(batch)][1:]
    assert "1 job ahead" in first and not second
    single.close()
    assert [item.state for item in [*batch][-1]] == ["done"] * 3


def test_added_models_are_compared_and_no_others(paths, tmp_path):
    own = str(tmp_path / "own")
    SRGAN(channels=4, num_blocks=1).save_pretrained(own)
    with pytest.raises(ValueError, match=r"not available.*srgan-x4"):
        Service().compare(paths[0], ["srgan-x4", own], None, ANN)
    steps = Service([own]).compare(paths[0], [own, "srgan-x4"], None, ANN)
    results = [step for step in steps if not isinstance(step, float)]
    assert [result.model for result in results] == [own, "srgan-x4"]
    assert not any(result.scores for result in results)


@pytest.mark.parametrize("models", [[], ["srgan-x4"], ["srgan-x4"] * 3, bundled_models()])
def test_two_or_three_models_are_compared(paths, models):
    with pytest.raises(ValueError, match=f"two or three models, got {len(set(models))}"):
        Service().compare(paths[0], models, None, ANN)
