"""What a visitor does in the first minute: look at the result that is there, and upscale a photo of a phone."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from e2e.page_helpers import DROP, drop_zone, finish, in_view, status
from e2e.server_process import serve
from PIL import Image
from playwright.sync_api import Page, expect

import app
from srgan_hub.demo.service import Service
from srgan_hub.demo.upscale import LoadedImage
from srgan_hub.upscaler import Upscaler

# Counts what a person does: drops, clicks and keys.
COUNTER = """() => {
    window.interactions = 0;
    for (const type of ['drop', 'click', 'keydown']) addEventListener(type, () => interactions += 1, true);
}"""


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A JPEG of 12 megapixels as a phone stores it: sideways, with its orientation in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    blocks = np.random.default_rng(0).integers(0, 256, (63, 84, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(blocks).resize((4032, 3024), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def drop(page: Page, data: bytes, name: str) -> None:
    page.evaluate(COUNTER)
    page.evaluate(DROP, [[*data], name, "body"])


@pytest.mark.parametrize("size", [(390, 844), (1366, 657), (1440, 900)])
@pytest.mark.parametrize("way", ["Shrink to fit", "Crop a region"])
def test_photo_of_a_phone_takes_three_interactions(open_page, instant, photo, size, way):
    page = open_page("phone" if size[0] < 500 else "desktop")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    drop(page, photo, "photo.jpg")
    large = drop_zone(page, "large")
    expect(large.get_by_role("alert")).to_contain_text("3024 × 4032 pixels, which is more than")
    page.wait_for_timeout(200)  # it scrolls into view
    assert in_view(large.locator("img")) and in_view(large.get_by_role("alert"))
    assert in_view(page.get_by_role("button", name=way))
    page.get_by_role("button", name=way).click()
    if way == "Crop a region":
        page.wait_for_timeout(200)
        assert in_view(page.locator("#image .crop")) and in_view(page.get_by_role("button", name="Use this region"))
        page.get_by_role("button", name="Use this region").click()
    expect(status(page)).to_contain_text("photo.png: 229 × 305 to 916 × 1220 in")
    expect(page.locator("#viewer .half img")).to_have_count(2)
    page.wait_for_timeout(300)
    assert in_view(page.locator("#viewer .frame"))
    assert page.evaluate("interactions") == 2 + (way == "Crop a region")


@pytest.mark.parametrize("size", [(390, 844), (1366, 657), (1440, 900)])
def test_small_jpeg_takes_one_drop(open_page, images, instant, size):
    page = open_page("phone" if size[0] < 500 else "desktop")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    drop(page, (images / "gps.jpg").read_bytes(), "gps.jpg")
    expect(status(page)).to_contain_text("gps.jpg: 40 × 30 to 160 × 120 in")
    expect(page.locator("#viewer .half img")).to_have_count(2)
    page.wait_for_timeout(300)
    assert in_view(page.locator("#viewer .frame")) and in_view(page.locator("#download a"))
    assert page.evaluate("interactions") == 1


def test_settings_changed_just_before_another_image_leave_its_status(page, images, instant, monkeypatch):
    finish(page, images / "small.png")
    load, may_continue, loading = Service.load, threading.Event(), threading.Event()

    def load_slowly(service: Service, path: Path) -> LoadedImage:
        if path.name == "small.png":
            loading.set()
            may_continue.wait(20)
        return load(service, path)

    monkeypatch.setattr(Service, "load", load_slowly)
    page.get_by_label("2x", exact=True).first.click()
    assert loading.wait(20)
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 452 × 300")
    may_continue.set()
    page.wait_for_timeout(1000)
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 452 × 300")
    page.get_by_label("3x", exact=True).first.click()  # settings of this image
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 678 × 450")


def test_dialed_detail_does_not_wait_for_the_warm_up(open_page, monkeypatch):
    may_finish, waiting = threading.Event(), threading.Event()

    def stream(upscaler: object, image: np.ndarray, **_: object) -> Iterator[np.ndarray]:
        if image.shape[:2] == (200, 300):  # the second example
            waiting.set()
            may_finish.wait(60)
        yield image.repeat(4, 0).repeat(4, 1)

    monkeypatch.setattr(Upscaler, "stream", stream)
    demo = app.create_demo()
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{**app.launch_options(), "mcp_server": False})
    page = open_page(at=url)
    assert waiting.wait(60)
    slider = page.locator("#detail input[type=range]")
    slider.focus()
    slider.press("ArrowLeft")
    expect(page.get_by_text("Detail 0.95", exact=True)).to_be_visible()  # before the warm-up may finish
    may_finish.set()
    demo.close()


@pytest.mark.slow
def test_times_with_the_network(browser, photo, images, tmp_path):
    """Measure with the default backend and limits, as a visitor would with a watch."""
    with serve(tmp_path, backend="auto") as (url, _):
        context = browser.new_context(viewport={"width": 1366, "height": 657})
        seconds = {"first result": _time_first_result(context.new_page, url)}
        print(seconds)
        page = context.new_page()
        page.goto(url)
        page.locator("#viewer .frame").wait_for()
        for name, data in (("small", (images / "gps.jpg").read_bytes()), ("photo", photo)):
            start = time.perf_counter()
            drop(page, data, f"{name}.jpg")
            if name == "photo":
                page.get_by_role("button", name="Shrink to fit").click()
            expect(page.locator("#download a")).to_have_attribute("download", f"{name}_x4.png", timeout=900_000)
            expect(page.locator("#viewer .half img")).to_have_count(2)
            seconds[name] = time.perf_counter() - start
            print(seconds)
        context.close()
    assert seconds["first result"] < 3 and seconds["small"] < 5


def _time_first_result(new_page: Callable[[], Page], url: str) -> float:
    """Return the time from navigation to a visible result, with the server and the browser's cache warm."""
    for _ in range(3):
        page = new_page()
        start = time.perf_counter()
        page.goto(url)
        page.wait_for_function(
            "(shown => shown.length === 2 && shown.every(image => image.complete && image.naturalWidth === 904))"
            "([...document.querySelectorAll('#viewer .half img')])"
        )
        seconds = time.perf_counter() - start
        assert in_view(page.locator("#viewer .frame"))
        page.close()
    return seconds
