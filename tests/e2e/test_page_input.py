"""Choosing images on the demo's page."""

import io
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from e2e.page_helpers import (
    DROP,
    PASTE,
    PASTE_ADDRESS,
    button,
    choose,
    drop_zone,
    finish,
    in_view,
    serve_addresses,
    status,
    upscale,
)
from PIL import Image
from playwright.sync_api import Page, expect

from srgan_hub.demo import service
from srgan_hub.demo.inputs import Prepared


@pytest.mark.parametrize("size", ["390x844", "1366x657", "1440x900"])
def test_refused_files_stay_visible_with_the_reason(page, images, size):
    width, height = map(int, size.split("x"))
    page.set_viewport_size({"width": width, "height": height})
    reasons = {
        "text.png": "is not",
        "empty.png": "is empty",
        "truncated.jpg": "its end is missing",
        "huge.png": "huge.png",
    }
    for name, reason in reasons.items():
        choose(page, images / name)
        shown = drop_zone(page, "refused").get_by_role("alert")
        expect(shown).to_contain_text(reason)
        expect(shown).to_contain_text(name)
        page.wait_for_timeout(100)  # it scrolls into view
        assert in_view(shown) and in_view(drop_zone(page, "refused"))
        assert "/" not in shown.inner_text()  # no path of the server
        assert "`" not in shown.inner_text()  # no argument in Python
        thumbnail = page.locator("#image img")
        expect(thumbnail).to_have_count(int(name in ("truncated.jpg", "huge.png")))  # what the browser can show
        expect(status(page)).to_have_text("Choose an image.")
    upscale(page)
    expect(status(page)).to_contain_text("Choose an image first")


def test_16_bits_are_said(page, images):
    choose(page, images / "16bit.png")
    expect(status(page)).to_contain_text("16bit.png has 16 bits per channel")
    assert page.locator("#image img").evaluate("image => image.naturalWidth") == 40


def test_pasted_images(page, images, instant):
    for name, size in (("small.png", "40 × 30"), ("other.png", "50 × 40")):
        page.evaluate(PASTE, [*(images / name).read_bytes()])
        expect(status(page)).to_contain_text(f"pasted.png: {size} to")
        expect(page.locator("#viewer img")).to_have_count(2)
    expect(status(page)).to_contain_text("pasted.png: 50 × 40 to 200 × 160 in")
    page.evaluate("document.addEventListener('take', event => window.others = event.detail.files)")
    page.get_by_role("tab", name="Batch").click()
    page.evaluate(PASTE, [*(images / "small.png").read_bytes()])
    assert page.evaluate("others.map(file => file.name)") == ["pasted.png"]
    page.get_by_role("tab", name="Upscale").click()
    page.wait_for_timeout(500)
    expect(status(page)).to_contain_text("pasted.png: 50 × 40 to 200 × 160 in")


@pytest.mark.parametrize("way", ["drop", "drop anywhere", "paste", "example", "URL"])
def test_upscales_at_once_after(page, images, instant, monkeypatch, way):
    data = (images / "small.png").read_bytes()
    if way.startswith("drop"):
        page.evaluate(DROP, [[*data], "small.png", "#image .zone" if way == "drop" else "#footer"])
    elif way == "paste":
        page.evaluate(PASTE, [*data])
    elif way == "example":
        page.get_by_role("button", name="Cat").click()
    else:
        serve_addresses(monkeypatch, data)
        page.get_by_label("Image URL").fill("https://example.org/small.png")
        page.get_by_role("button", name="From URL").click()
    expect(page.locator("#viewer img")).to_have_count(2)
    expect(page.locator("#download a")).to_be_visible()
    assert instant.calls == 1


def test_address_pasted_and_refused_ones(page, images, instant, monkeypatch):
    serve_addresses(monkeypatch, (images / "small.png").read_bytes())
    page.get_by_label("Start automatically").uncheck()
    for address, reason in (("http://10.0.0.1/a.png", "not a public address"), ("cat.png", "Enter an address")):
        page.get_by_label("Image URL").fill(address)
        page.keyboard.press("Enter")
        shown = drop_zone(page, "refused").get_by_role("alert")
        expect(shown).to_contain_text(reason)
        assert in_view(shown)
    page.evaluate(PASTE_ADDRESS, "https://example.org/small.png")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120")
    expect(drop_zone(page, "ready").locator("img")).to_be_visible()


def test_remove_clears_the_image(page, images, instant):
    finish(page, images / "small.png")
    page.get_by_label("Remove image").click()
    expect(drop_zone(page, "empty")).to_be_visible()
    expect(status(page)).to_have_text("Choose an image.")
    expect(page.locator("#image img")).to_have_count(0)
    expect(page.locator("#viewer img")).to_have_attribute("alt", "cat.png: preview")  # as at the start
    upscale(page)
    expect(status(page)).to_contain_text("Choose an image first")


def test_what_is_chosen_last_stays(page, images, instant, monkeypatch):
    prepare, may_continue = service.prepare, threading.Event()

    def prepare_slowly(path: Path, directory: Path, **options: object) -> Prepared:
        if path.name == "small.png":
            may_continue.wait(20)
        return prepare(path, directory, **options)

    monkeypatch.setattr(service, "prepare", prepare_slowly)
    for replace in ("Cat", "Remove image"):
        with page.expect_request(re.compile("upload")):
            page.set_input_files("#image input[type=file]", images / "small.png")
        page.wait_for_timeout(500)
        page.get_by_role("button", name=replace).click()
        expect(drop_zone(page, "ready" if replace == "Cat" else "empty")).to_be_visible()
        may_continue.set()
        page.wait_for_timeout(1000)
        expect(drop_zone(page, "ready" if replace == "Cat" else "empty")).to_be_visible()
        expect(status(page)).to_contain_text("cat.png" if replace == "Cat" else "Choose an image.")
        may_continue.clear()


@pytest.mark.parametrize("size", ["390x844", "1366x657", "1440x900"])
def test_large_image_is_shrunk_in_two_interactions(page, images, instant, size):
    width, height = map(int, size.split("x"))
    page.set_viewport_size({"width": width, "height": height})
    page.set_input_files("#image input[type=file]", images / "large.jpg")
    large = drop_zone(page, "large")
    expect(large.get_by_role("alert")).to_contain_text("400 × 300 pixels, which is more than 0.07 million.")
    expect(large.locator("img")).to_be_visible()
    page.wait_for_timeout(100)  # it scrolls into view
    for name in ("Crop a region", "Shrink to fit"):
        assert in_view(page.get_by_role("button", name=name))
    assert in_view(large.locator("img")) and in_view(large.get_by_role("alert"))
    expect(button(page)).to_be_hidden()
    page.get_by_label("3x", exact=True).first.click()
    page.get_by_label("4x", exact=True).first.click()
    page.wait_for_timeout(300)
    expect(button(page)).to_be_hidden()
    page.get_by_role("button", name="Shrink to fit").click()
    expect(status(page)).to_contain_text("large.png: 305 × 229 to 1220 × 916 in")
    expect(page.locator("#image")).to_contain_text("Shrunk from 400 × 300.")
    expect(page.locator("#viewer img")).to_have_count(2)


def region(page: Page) -> list[int]:
    """Return the width and height that are said for the region."""
    return [int(number) for number in re.findall(r"\d+", page.locator("#image .region").inner_text())[:2]]


def test_region_is_cropped_by_pointer_and_keyboard(page, images, instant):
    with Image.open(images / "large.jpg") as large:
        pixels = np.asarray(large).astype(int)
    finish(page, images / "small.png")  # for the estimate
    page.set_input_files("#image input[type=file]", images / "large.jpg")
    page.get_by_role("button", name="Crop a region").click()
    expect(page.locator("#image .region")).to_contain_text(re.compile(r"305 × 22\d pixels, (less than|about) "))
    frame = page.locator("#image .crop")
    expect(frame).to_be_focused()
    page.wait_for_timeout(300)
    box = page.locator("#image img").bounding_box()

    def drag(*points: tuple[float, float]) -> None:
        for number, (x, y) in enumerate(points):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if not number:
                page.mouse.down()
        page.mouse.up()

    drag((0.02, 0.02), (0.27, 0.52))  # a new region
    assert region(page) == pytest.approx([100, 150], abs=2)
    drag((0.27, 0.52), (1, 1))  # its corner: never more than the limit
    width, height = region(page)
    assert width * height <= 70_000 and height < 300 and width > 200
    for _ in range(60):
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Shift+ArrowUp")
    assert region(page) == [16, 16]
    for key in ["Shift+ArrowRight"] * 4 + ["Shift+ArrowDown"] * 2 + ["ArrowRight"] * 50 + ["ArrowDown"] * 2:
        page.keyboard.press(key)
    width, height = region(page)
    assert [width, height] == [40, 28]
    assert "40 × 28" in frame.get_attribute("aria-label")
    page.get_by_role("button", name="Back").click()
    expect(frame).to_be_hidden()
    page.get_by_role("button", name="Crop a region").click()
    for _ in range(60):
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Shift+ArrowUp")
    for key in ("ArrowRight", "ArrowDown"):
        for _ in range(60):
            page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("large.png: 16 × 16 to")
    expect(page.locator("#image")).to_contain_text("Cropped from 400 × 300.")
    file = page.locator("#image img").get_attribute("src")
    with Image.open(io.BytesIO(page.request.get(file).body())) as preview:
        assert np.abs(np.asarray(preview).astype(int) - pixels[-16:, -16:]).mean() < 8


def test_region_is_dragged_by_touch(open_page, images):
    page = open_page("phone")
    page.set_input_files("#image input[type=file]", images / "large.jpg")
    page.get_by_role("button", name="Crop a region").tap()
    page.wait_for_timeout(300)
    before, box = region(page), page.locator("#image [data-corner=se]").bounding_box()
    session = page.context.new_cdp_session(page)
    x, y = box["x"] + 22, box["y"] + 22
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 6):
        point = {"x": x - 10 * step, "y": y - 10 * step}
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    after = region(page)
    assert after[0] < before[0] - 30 and after[1] < before[1] - 30
    for name in ("Use this region", "Back"):
        assert in_view(page.get_by_role("button", name=name))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("16bit.png", ""), ("photo.heic", ""), ("stereo.mpo", ""), ("animation.gif", "The first of 2 frames."),
        ("pages.tif", "The first of 2 pages."), ("gray16.tif", ""), ("rotated.jpg", ""),
    ],
)  # fmt: skip
def test_any_photo_is_shown_and_upscaled(page, images, instant, name, note):
    page.set_input_files("#image input[type=file]", images / name)
    expect(page.locator("#viewer img")).to_have_count(2)
    shown = page.locator("#image img")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [40, 30]
    expect(page.locator("#image")).to_contain_text(f"40 × 30 pixels. {note}".strip())


def test_metadata_is_kept_when_shrunk(page, images, instant, tmp_path):
    page.set_input_files("#image input[type=file]", images / "large.jpg")
    page.get_by_role("button", name="Shrink to fit").click()
    with page.expect_download() as download:
        page.locator("#download a").click()
    download.value.save_as(tmp_path / "output.png")
    with Image.open(tmp_path / "output.png") as output:
        assert output.getexif()[0x010F] == "Maker"


def test_file_names_are_escaped(page, images, monkeypatch):
    """Gradio sanitizes the names of uploads; this is the second line of defense."""
    name = "<img src=x onerror=document.title=1>.png"
    prepare = service.prepare

    def prepare_renamed(path: Path, directory: Path, **options: object) -> Prepared:
        path = path.rename(directory / name)
        return prepare(path, directory, **options)

    monkeypatch.setattr(service, "prepare", prepare_renamed)
    choose(page, images / "small.png", name)
    expect(status(page)).to_contain_text(f"{name}: 40 × 30")
    expect(page.locator("#upscale-job img, [src=x]")).to_have_count(0)
