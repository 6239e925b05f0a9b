"""One demo server and one browser for the tests of the page and the API in a process."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from e2e.screenshots import CHROMIUM_FLAGS
from malformed_files import png_header
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import app
from srgan_hub.demo import service
from srgan_hub.demo.queue import JobQueue
from srgan_hub.demo.tabs.upscale import EXAMPLES

FLAGS = [
    *CHROMIUM_FLAGS,
    # Several pages are open at once.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]


QUEUES: list[JobQueue] = []
DEMOS: list[gr.Blocks] = []


class TrackedQueue(JobQueue):
    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        QUEUES.append(self)


def create_tracked_demo(*args: Any, **options: Any) -> gr.Blocks:
    DEMOS.append(create_demo(*args, **options))
    return DEMOS[-1]


create_demo = app.create_demo
app.create_demo = create_tracked_demo
service.JobQueue = TrackedQueue  # type: ignore[misc]


def is_computing() -> bool:
    """Return whether a demo has events that wait or run, jobs, or examples that it upscales."""
    events = any(len(demo._queue) or demo._queue.get_active_worker_count() for demo in DEMOS)
    return events or any(queue.jobs for queue in QUEUES) or any(t.name == "warm-up" for t in threading.enumerate())


@pytest.fixture(autouse=True)
def _finished_jobs(monkeypatch) -> Iterator[None]:
    """Wait for what demos still compute, while the test's replacements of the network are in place."""
    yield
    deadline = time.monotonic() + 60
    while is_computing():
        assert time.monotonic() < deadline, "a demo still computes"
        time.sleep(0.05)
    for queue in QUEUES:
        queue._threads.submit(int).result(30)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The demo's URL; its pixel limit is low enough for small files to exceed it."""
    demo = app.create_demo(max_pixels=70_000, warm_up=False)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
    yield url
    demo.close()


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A directory of valid and malformed image files."""
    directory = tmp_path_factory.mktemp("images")
    with Image.open(EXAMPLES / "cat.png") as cat:
        cat.crop((0, 0, 50, 40)).save(directory / "other.png")
        cat = cat.crop((60, 40, 100, 70))
    cat.save(directory / "small.png")
    cat.convert("L").save(directory / "gray.png")
    cat.putalpha(cat.convert("L"))
    cat.save(directory / "alpha.png")
    cat.crop((0, 0, 1, 1)).convert("RGB").save(directory / "one.png")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(directory / "16bit.png")
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8825)[1] = "N"
    cat.convert("RGB").save(directory / "gps.jpg", exif=exif, quality=95)
    rgb = cat.convert("RGB")
    rgb.resize((400, 300)).save(directory / "large.jpg", exif=exif, quality=95)
    rgb.save(directory / "stereo.mpo", save_all=True, append_images=[rgb])
    rgb.save(directory / "animation.gif", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)])
    rgb.save(directory / "pages.tif", save_all=True, append_images=[rgb.resize((20, 20))])
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(directory / "gray16.tif")
    exif[0x0112] = 6
    rgb.transpose(Image.Transpose.ROTATE_90).save(directory / "rotated.jpg", exif=exif)
    pillow_heif.from_pillow(rgb).save(directory / "photo.heic")
    (directory / "text.png").write_text("not an image")
    (directory / "empty.png").write_bytes(b"")
    (directory / "huge.png").write_bytes(png_header(2_000, 2_000))
    (directory / "truncated.jpg").write_bytes((EXAMPLES / "coffee.jpg").read_bytes()[:5000])
    return directory


@pytest.fixture(scope="module")  # its event loop would disturb later modules
def browser(chromium) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()
