"""The demo as its users meet it: through gradio_client, and in a real browser."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

import app
from srgan_hub import SRGAN

EXAMPLES = Path(app.EXAMPLES)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """The demo, with limits that small pictures can reach."""
    demo = app.create_demo(max_pixels=70_000, slider_side=512)
    _, address, _ = demo.launch(
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        theme=app.THEME,
        css=app.CSS,
        max_file_size=app.MAX_FILE_SIZE,
    )
    yield address
    demo.close()


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder with good and bad files."""
    from pictures.test_files import png_header

    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(EXAMPLES / "cat.png") as cat:
        cat = cat.crop((60, 40, 100, 70))
    cat.save(folder / "small.png")
    cat.convert("L").save(folder / "gray.png")
    cat.putalpha(cat.convert("L"))
    cat.save(folder / "clear.png")
    cat.crop((0, 0, 1, 1)).convert("RGB").save(folder / "one.png")
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_header(20_000, 20_000))
    (folder / "cut.jpg").write_bytes((EXAMPLES / "coffee.jpg").read_bytes()[:5000])
    return folder


@pytest.mark.parametrize("name", ["small.png", "gray.png", "clear.png", "one.png"])
@pytest.mark.parametrize("model", ["srgan-x4", "srresnet-x4"])
def test_endpoint_gives_what_the_package_gives(client, pictures, name, model):
    slider, download, text = client.predict(handle_file(pictures / name), model, api_name="/upscale")
    expected = SRGAN.from_pretrained(model).upscale(pictures / name)
    with Image.open(download) as result:
        assert result.format == "PNG" and result.mode == expected.mode
        assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1
    assert Path(download).name == f"{Path(name).stem}_x4.png"
    with Image.open(pictures / name) as image, Image.open(slider[0]) as bicubic, Image.open(slider[1]) as shown:
        assert bicubic.size == shown.size == expected.size and shown.format == "PNG"
        assert np.array_equal(np.asarray(bicubic), np.asarray(image.resize(expected.size, Image.Resampling.BICUBIC)))
    assert f"<b>{expected.width} x {expected.height}</b>" in text


def test_slider_is_capped_and_says_so_while_the_download_is_whole(client):
    slider, download, text = client.predict(handle_file(EXAMPLES / "cat.png"), "srgan-x4", api_name="/upscale")
    for path in slider:
        with Image.open(path) as image:
            assert image.size == (512, 340)
    with Image.open(download) as result:
        assert result.size == (904, 600)
    assert "shows it at 512 x 340, the download is full size" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.png", "text.png is not a picture"),
        ("empty.png", "empty.png is empty"),
        ("cut.jpg", "cut.jpg is broken or cut short"),
        ("huge.png", "huge.png has far too many pixels; the limit is 0.07 million"),
        (None, "Choose a picture first"),
    ],
)
def test_bad_uploads_get_a_sentence(client, pictures, name, message):
    with pytest.raises(AppError, match=message) as error:
        client.predict(handle_file(pictures / name) if name else None, "srgan-x4", api_name="/upscale")
    assert "/" not in str(error.value)  # no path of the server


def test_a_model_that_is_not_offered_is_refused(client, pictures):
    with pytest.raises(AppError, match="not in the list of choices"):
        client.predict(handle_file(pictures / "small.png"), "../../etc", api_name="/upscale")


def test_progress_comes_band_by_band(client):
    job = client.submit(handle_file(EXAMPLES / "cat.png"), "srresnet-x4", api_name="/upscale")
    job.result(timeout=120)
    shares = [float(text.split("width: ")[1].split("%")[0]) for _, _, text in job.outputs() if "width: " in text]
    assert len(shares) >= 4 and shares == sorted(shares) and shares[0] == 0 and shares[-1] == 100


def test_the_demo_is_made_of_what_it_is_given():
    demo = app.create_demo({"One": "srgan-x4"}, max_pixels=3_000_000)
    radio = next(block for block in demo.blocks.values() if isinstance(block, gr.Radio))
    assert radio.choices == [("One", "srgan-x4")]
    texts = [block.value for block in demo.blocks.values() if isinstance(block, gr.Markdown)]
    assert any("up to 3 megapixels and 50 MB" in text for text in texts)


@pytest.fixture
def page(url) -> Iterator[Page]:
    assert CHROMIUM, "the browser tests need chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.wait_for_selector("#run")
        yield page
        browser.close()
        elsewhere = [address for address in asked if not address.startswith((url, "data:", "blob:"))]
        assert not elsewhere, "the page must work offline"


def test_browser_upload_upscale_compare_download(page, pictures, tmp_path):
    expect(page.locator("#download")).to_be_disabled()
    page.set_input_files("#picture input[type=file]", pictures / "small.png")
    expect(page.locator("#picture img")).to_be_visible()
    page.click("#run")
    expect(page.locator("#status")).to_contain_text("160 x 120", timeout=60_000)
    images = page.locator("#slider img")
    expect(images).to_have_count(2)
    assert [image.evaluate("image => image.naturalWidth") for image in images.all()] == [160, 160]

    # Drag the handle from the middle to the left: more of the result shows.
    handle = page.locator("#slider .handle, #slider [role=slider], #slider .inner, #slider .outer").first
    before = handle.bounding_box()
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.down()
    page.mouse.move(before["x"] - 150, before["y"] + 20, steps=5)
    page.mouse.up()
    assert handle.bounding_box()["x"] < before["x"] - 100

    expect(page.locator("#download")).to_be_enabled()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "small_x4.png"
    download.value.save_as(tmp_path / "got.png")
    with Image.open(tmp_path / "got.png") as result:
        expected = SRGAN.from_pretrained("srgan-x4").upscale(pictures / "small.png")
        assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1


def test_browser_cancel_stops_within_a_band(page, monkeypatch):
    """Bands are slowed down, so that there is something to cancel, and counted."""
    done = []
    stream = app.Upscaler.stream

    def slow(self, picture):
        for rows in stream(self, picture):
            done.append(time.perf_counter())
            time.sleep(0.5)
            yield rows

    monkeypatch.setattr(app, "BAND_PIXELS", 500)
    monkeypatch.setattr(app.Upscaler, "stream", slow)
    page.set_input_files("#picture input[type=file]", EXAMPLES / "cat.png")
    expect(page.locator("#picture img")).to_be_visible()
    page.click("#run")
    expect(page.locator("#status .bar")).to_be_visible(timeout=60_000)
    deadline = time.monotonic() + 60
    while len(done) < 2 and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    page.click("#cancel")
    expect(page.locator("#status")).to_contain_text("Cancelled", timeout=10_000)
    stopped = len(done)
    page.wait_for_timeout(2500)
    assert stopped >= 2 and len(done) <= stopped + 1
    expect(page.locator("#slider img")).to_have_count(0)


def test_browser_shows_what_is_wrong(page, pictures):
    page.set_input_files("#picture input[type=file]", pictures / "text.png")
    page.wait_for_timeout(500)
    page.click("#run")
    expect(page.get_by_text("text.png is not a picture")).to_be_visible(timeout=30_000)


def test_browser_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in ("#run", "#cancel", "#download"):
        box = page.locator(button).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
