"""The demo's page as its users meet it, in a real browser."""

import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from axe_playwright_python.sync_playwright import Axe
from malformed_files import png_header
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from screenshots import CHROMIUM_FLAGS, choose_many

import app
from srgan_hub import SRGAN
from srgan_hub.demo import service
from srgan_hub.demo.tabs.upscale import EXAMPLES, example_paths
from srgan_hub.upscaler import Upscaler

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
expect.set_options(timeout=20_000)  # a machine may be busy
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The demo, with limits that small images can reach."""
    demo = app.create_demo(max_pixels=300_000, warm_up=False)
    options = {**app.launch_options(), "mcp_server": False}
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **options)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder with good and bad files."""
    folder = tmp_path_factory.mktemp("images")
    with Image.open(EXAMPLES / "cat.png") as cat:
        cat.crop((60, 40, 100, 70)).save(folder / "small.png")
        cat.crop((0, 0, 50, 40)).save(folder / "other.png")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(folder / "deep.png")
    (folder / "text.png").write_text("no image")
    (folder / "huge.png").write_bytes(png_header(2_000, 2_000))
    (folder / "cut.jpg").write_bytes((EXAMPLES / "coffee.jpg").read_bytes()[:5000])
    return folder


@pytest.fixture(scope="module")
def browser(chromium) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*CHROMIUM_FLAGS, *CAMERA])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def contexts(browser) -> dict[str, BrowserContext]:
    """The browser as computer and as phone, whose caches all users share: they would take their time to fill."""
    kinds = {"computer": {"viewport": {"width": 1200, "height": 900}}, "phone": PHONE}
    return {kind: browser.new_context(**options) for kind, options in kinds.items()}


@pytest.fixture
def visit(browser, contexts, url) -> Iterator[Callable[..., Page]]:
    """Open the page as one more user; at the end check that nothing was asked from elsewhere or went wrong."""
    pages, asked, errors = [], [], []

    def visit(kind: str = "computer", at: str = url) -> Page:
        context = browser.new_context() if pages else contexts[kind]  # a window of its own, or it would sleep
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{at}?__theme=light")
        button(page).wait_for()
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    ours = ("http://127.0.0.1:", "data:", "blob:")
    assert not [address for address in asked if not address.startswith(ours)], "must work offline"
    assert not errors


@pytest.fixture
def page(visit) -> Page:
    return visit()


class Slow:
    """A generator that takes its time instead of computing, and counts what it does."""

    def __init__(self) -> None:
        self.calls, self.strips = 0, 0
        self.pace, self.parts = 0.1, 100
        self.last = threading.Event()  # the last strip waits for it
        self.last.set()

    def stream(self, upscaler: object, image: np.ndarray, size: object) -> Iterator[np.ndarray]:
        self.calls += 1
        for number, rows in enumerate(np.array_split(image.repeat(4, 0).repeat(4, 1), self.parts)):
            time.sleep(self.pace)
            if number == self.parts - 1:
                self.last.wait(30)
            self.strips += 1
            yield rows


@pytest.fixture
def slow(monkeypatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(Upscaler, "stream", lambda *args, size=None: slow.stream(*args, size))
    return slow


def button(page: Page) -> Locator:
    return page.locator("#job button")


def status(page: Page) -> Locator:
    return page.locator("#job p")


def progress(page: Page) -> Locator:
    return page.get_by_role("progressbar")


def under_way(page: Page) -> None:
    """Wait until the first rows are done."""
    expect(progress(page)).to_have_attribute("aria-valuenow", re.compile("[1-9]"), timeout=10_000)


def choose(page: Page, file: Path) -> None:
    if page.locator("#image img").count():
        page.get_by_label("Remove Image").click()
        expect(status(page)).to_have_text("Choose an image.")
    page.set_input_files("#image input[type=file]", file)
    expect(status(page)).to_contain_text(file.name)


def upscale(page: Page) -> None:
    expect(button(page)).to_have_text("Upscale")
    button(page).click()


def in_view(locator: Locator) -> bool:
    return locator.evaluate(
        "element => { const box = element.getBoundingClientRect();"
        "return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight && box.right <= innerWidth; }"
    )


def test_upload_upscale_compare_download(page, images, tmp_path):
    expect(page.locator("#download button")).to_be_disabled()
    choose(page, images / "small.png")
    upscale(page)
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in", timeout=60_000)
    shown = page.locator("#viewer img")
    expect(shown).to_have_count(2)
    assert [image.evaluate("image => image.naturalWidth") for image in shown.all()] == [160, 160]
    with page.expect_download() as download:
        page.locator("#download a").click()
    assert download.value.suggested_filename == "small_x4.png"
    download.value.save_as(tmp_path / "got.png")
    with Image.open(tmp_path / "got.png") as result:
        expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(images / "small.png")
        assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1


def test_there_is_one_download_and_full_screen(page, images):
    choose(page, images / "small.png")
    upscale(page)
    expect(page.locator("a[download]")).to_have_count(1, timeout=60_000)
    assert page.get_by_role("button", name="download").count() == 0
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement !== null")
    expect(page.locator("#viewer img").first).to_be_in_viewport()
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement === null")


def test_every_example_gives_its_result_and_uploads_work_after(page, images, slow):
    slow.pace = 0
    for path in example_paths():
        page.get_by_role("button", name=path.stem.capitalize()).click()
        expect(status(page)).to_contain_text(f"{path.name}: ")
        upscale(page)
        expect(status(page)).to_contain_text(" pixels in ", timeout=60_000)
        expect(page.locator("#viewer img")).to_have_count(2)
    assert slow.calls == len(example_paths()) >= 3
    choose(page, images / "small.png")
    upscale(page)
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120", timeout=30_000)


def test_on_a_phone_progress_and_result_are_in_view(visit, slow):
    page = visit("phone")
    slow.pace, slow.parts = 0.1, 20
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    choose(page, EXAMPLES / "cat.png")
    button(page).tap()
    expect(progress(page)).to_be_visible(timeout=1000)
    assert in_view(progress(page)) and in_view(button(page)) and in_view(status(page))
    expect(status(page)).to_contain_text("cat.png: 226 x 150 to 904 x 600 pixels in ", timeout=30_000)
    page.wait_for_timeout(500)
    assert in_view(page.locator("#viewer .frame"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_waiting_see_how_many_are_ahead_and_then_progress(visit, images, slow):
    slow.pace = 0.2  # a run must not end before it is cancelled
    first, second, third = pages = [visit() for _ in range(3)]
    for page in pages:
        choose(page, images / "small.png")
        upscale(page)
        expect(status(page)).to_contain_text("small.png")
        if page is first:
            under_way(page)
    expect(status(second)).to_have_text("small.png: 1 ahead of you.")
    expect(status(third)).to_have_text("small.png: 2 ahead of you.")
    expect(button(third)).to_have_text("Cancel")
    button(first).click()
    expect(status(first)).to_have_text("Cancelled.")
    expect(status(third)).to_have_text("small.png: 1 ahead of you.")
    expect(status(second)).to_contain_text("Upscaling small.png to 160 x 120")
    under_way(second)
    button(third).click()
    expect(status(third)).to_have_text("Cancelled.")
    button(second).click()
    expect(status(second)).to_have_text("Cancelled.")
    assert slow.calls == 2


def test_a_double_click_makes_one_run(page, images, slow):
    choose(page, images / "small.png")
    box = button(page).bounding_box()
    page.mouse.click(box["x"] + 50, box["y"] + 20)
    page.wait_for_timeout(150)
    page.mouse.click(box["x"] + 50, box["y"] + 20)
    under_way(page)
    page.wait_for_timeout(500)
    expect(button(page)).to_have_text("Cancel")
    button(page).focus()
    assert slow.calls == 1
    button(page).click()
    expect(status(page)).to_have_text("Cancelled.")
    expect(button(page)).to_be_focused()
    assert slow.calls == 1 and slow.strips < slow.parts


def test_cancel_leaves_no_percentage(page, images, slow):
    slow.pace = 0.02
    choose(page, images / "small.png")
    for turn in range(4):
        upscale(page)
        expect(button(page)).to_have_text("Cancel")
        page.wait_for_timeout(42 * turn)
        button(page).click()
        expect(status(page)).to_have_text("Cancelled.")
        expect(progress(page)).to_be_hidden()
        stopped = slow.strips
        page.wait_for_timeout(100)
        assert status(page).inner_text() == "Cancelled." and "%" not in page.locator("#job").inner_text()
        assert slow.strips == stopped and slow.calls == turn + 1


def test_cancel_at_the_end_gives_a_result_or_none(page, images, slow):
    slow.pace, slow.parts = 0, 5
    choose(page, images / "small.png")
    for turn in range(4):
        slow.last.clear()
        upscale(page)
        under_way(page)
        page.wait_for_function("!document.querySelector('#job [data-settling]')")
        threading.Timer(0.018 * turn, slow.last.set).start()  # the run ends about when the click comes
        page.evaluate("document.querySelector('#job button').click()")
        expect(progress(page)).to_be_hidden()
        page.wait_for_timeout(50)
        done = status(page).inner_text() != "Cancelled."
        expect(page.locator("#viewer img")).to_have_count(2 if done else 0)
        expect(page.locator("#download a")).to_have_count(1 if done else 0)


def test_settings_after_a_result_leave_it(page, images, slow):
    slow.pace = 0
    choose(page, images / "small.png")
    upscale(page)
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in ")
    for size, expected in (("2x", "80 x 60"), ("3x", "120 x 90"), ("4x", "160 x 120")) * 3:
        page.get_by_label(size, exact=True).first.click()
        time = r"(under a second|about \d+ seconds?)"  # the machine's
        expect(status(page)).to_contain_text(re.compile(rf"small\.png: 40 x 30 to {expected}, {time}\."))
    expect(page.locator("#viewer img")).to_have_count(2)
    expect(page.locator("#download a")).to_have_count(1)


def test_a_new_image_takes_the_place_of_a_run(page, images, slow):
    choose(page, images / "small.png")
    upscale(page)
    under_way(page)
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("The run before was stopped. cat.png: 226 x 150 to 904 x 600")
    stopped = slow.strips
    page.wait_for_timeout(400)
    assert slow.strips == stopped and slow.calls == 1
    expect(status(page)).to_contain_text("The run before was stopped. cat.png: 226 x 150 to 904 x 600")
    expect(button(page)).to_have_text("Upscale")


def test_the_code_can_be_looked_at_while_a_run_goes_on(page, images, slow):
    choose(page, images / "small.png")
    upscale(page)
    under_way(page)
    page.get_by_role("button", name="The same in code").click()
    expect(page.locator("#code")).to_contain_text('upscale("small.png", size="4x")')
    strips = slow.strips
    page.wait_for_timeout(500)
    assert slow.strips > strips
    button(page).click()
    expect(status(page)).to_have_text("Cancelled.")


def test_another_setting_stops_a_run(page, images, slow):
    choose(page, images / "small.png")
    upscale(page)
    under_way(page)
    page.get_by_label("2x", exact=True).first.click()
    expect(status(page)).to_have_text("Stopped: another setting was chosen.")
    expect(button(page)).to_have_text("Upscale")
    stopped = slow.strips
    page.wait_for_timeout(300)
    assert slow.strips == stopped and slow.calls == 1


def test_a_reload_ends_the_run_and_starts_clean(page, visit, images, slow):
    choose(page, images / "small.png")
    upscale(page)
    under_way(page)
    page.reload()
    expect(status(page)).to_have_text("Choose an image.")
    expect(button(page)).to_have_text("Upscale")
    page.wait_for_timeout(500)
    stopped = slow.strips
    page.wait_for_timeout(500)
    assert slow.strips == stopped < slow.parts
    slow.pace = 0
    choose(page, images / "small.png")  # the line is free
    upscale(page)
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in ")


def test_a_user_who_leaves_the_line_is_not_waited_for(visit, images, slow):
    slow.pace = 0.2  # a run must not end before it is cancelled
    first, second, third = (visit() for _ in range(3))
    for number, page in enumerate((first, second, third)):
        choose(page, images / "small.png")
        upscale(page)
        expect(status(page)).to_contain_text(
            f"small.png: {number} ahead" if number else "Upscaling small.png to 160 x 120"
        )
    second.goto("about:blank")
    expect(status(third)).to_have_text("small.png: 1 ahead of you.")
    for page in (third, first):
        button(page).click()
        expect(status(page)).to_have_text("Cancelled.")


def test_nothing_old_stays(page, images, slow, monkeypatch):
    slow.pace = 0
    choose(page, images / "small.png")
    upscale(page)
    expect(page.locator("#download a")).to_have_attribute("download", "small_x4.png")
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("cat.png: 226 x 150 to 904 x 600")
    expect(page.locator("#viewer img")).to_have_count(0)
    expect(page.locator("#download a")).to_have_count(0)
    expect(page.locator("#download button")).to_be_disabled()
    upscale(page)
    expect(page.locator("#viewer img")).to_have_count(2)

    def fail(upscaler, image, size):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Upscaler, "stream", fail)
    upscale(page)
    expect(status(page)).to_have_text("cat.png cannot be upscaled: the server failed (RuntimeError).")
    expect(status(page)).to_have_attribute("role", "alert")
    expect(page.locator("#viewer img")).to_have_count(0)
    expect(page.locator("#download a")).to_have_count(0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.png", "text.png is not an image"),
        ("cut.jpg", "cut.jpg is broken or cut short"),
        ("huge.png", "huge.png has 2000 x 2000 pixels; the limit is 0.3 million"),
    ],
)
def test_a_bad_file_is_refused_when_it_is_chosen(page, images, name, message):
    choose(page, images / name)
    expect(status(page)).to_contain_text(message)
    assert "/" not in status(page).inner_text().replace("cut short", "")
    expect(page.locator("#image img")).to_have_count(0)
    page.wait_for_timeout(1000)
    expect(status(page)).to_contain_text(message)
    expect(status(page)).to_have_class("failed")
    upscale(page)
    expect(status(page)).to_have_text("Choose an image first: upload one or click an example.")


def test_lost_depth_is_said_when_the_image_is_chosen(page, images):
    choose(page, images / "deep.png")
    expect(status(page)).to_contain_text("deep.png has 16 bits per channel and is read with 8.")


def test_axe_finds_nothing(page, images, slow):
    slow.pace = 0.05
    page.add_style_tag(content="*, *::before, *::after {transition: none !important; animation: none !important}")
    found = {}

    def look(state: str) -> None:
        for theme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
            found[state, theme] = [
                (each["impact"], each["id"], [node["html"][:200] for node in each["nodes"]])
                for each in Axe().run(page, options=options).response["violations"]
            ]

    look("empty")
    page.get_by_label("Longest side").first.click()
    page.get_by_role("button", name="More settings").first.click()
    page.get_by_role("button", name="The same in code").click()
    page.get_by_label("JPEG", exact=True).click()
    look("unfolded")
    page.get_by_label("4x", exact=True).first.click()
    choose(page, images / "small.png")
    look("chosen")
    upscale(page)
    under_way(page)
    look("running")
    button(page).click()
    expect(status(page)).to_have_text("Cancelled.")
    look("cancelled")
    slow.pace = 0
    upscale(page)
    expect(status(page)).to_contain_text("pixels in ")
    look("done")
    page.get_by_role("button", name="Close-up").click()
    expect(page.locator("#close-up img")).to_have_count(3, timeout=30_000)
    look("close-up")
    choose(page, images / "text.png")
    look("failed")
    page.get_by_role("tab", name="Compare").click()
    look("compare, empty")
    page.set_input_files("#compared input[type=file]", images / "small.png")
    expect(page.locator("#compare-job p")).to_contain_text("small.png")
    page.locator("#compare-job button").click()
    expect(page.locator("#results img")).to_have_count(2, timeout=30_000)
    expect(page.locator("#compare-job p")).to_contain_text("by 2 models")
    look("compare, done")
    page.get_by_role("tab", name="Many").click()
    look("many, empty")
    choose_many(page, [images / "small.png", images / "text.png"])
    expect(page.locator("#many-job p")).to_contain_text("2 images")
    look("many, chosen")
    page.locator("#many-job button").click()
    expect(page.locator("#many-job p")).to_have_text("1 of 2 are done, 1 failed.", timeout=30_000)
    look("many, done")
    assert found == {state: [] for state in found}


def test_names_roles_and_sizes(page, images, slow):
    choose(page, images / "small.png")
    expect(page.locator("#image img")).to_have_attribute("alt", "The image that you chose")
    upscale(page)
    expect(status(page)).to_have_attribute("role", "status")
    under_way(page)
    expect(page.get_by_role("progressbar", name="Progress")).to_be_visible()
    for name, value in (("aria-valuemin", "0"), ("aria-valuemax", "100")):
        expect(progress(page)).to_have_attribute(name, value)
    slow.pace = 0
    for name in ("small.png: the result", "small.png: upscaled with bicubic"):
        expect(page.get_by_role("img", name=name)).to_be_visible()
    small = page.evaluate(
        "[...document.querySelectorAll('button, a, label:has(input), #viewer input')]"
        ".filter(e => e.offsetParent && e.tabIndex >= (e.matches('label') ? -1 : 0))"
        ".map(e => [e.outerHTML, e.getBoundingClientRect()])"
        ".filter(([_, box]) => box.width < 44 || box.height < 44).map(([html]) => html)"
    )
    assert not small


def test_everything_by_keyboard(page, images, slow):
    slow.pace = 0
    choose(page, images / "small.png")
    button(page).focus()
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in ")
    expect(button(page)).to_be_focused()
    handle = page.get_by_role("slider", name="How much of the bicubic image is shown")
    top = page.locator("#viewer .half")
    for _ in range(20):
        page.keyboard.press("Tab")
        if handle.evaluate("element => element === document.activeElement"):
            break
    expect(handle).to_be_focused()
    before = top.evaluate("image => getComputedStyle(image).clipPath")
    page.keyboard.press("Home")
    assert handle.input_value() == "0"
    after = top.evaluate("image => getComputedStyle(image).clipPath")
    assert before != after and "100%" in after, after
    for name in ("Zoom out", "Zoom in", "Fit", "Close-up", "Full screen"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#download a")).to_be_focused()


def test_the_handle_can_be_dragged(page, images, slow):
    slow.pace = 0
    choose(page, images / "small.png")
    upscale(page)
    expect(page.locator("#viewer img").first).to_have_js_property("complete", True)
    page.wait_for_timeout(300)  # it comes into view
    handle = page.get_by_role("slider", name="bicubic")
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 100, box["y"] + 60, steps=5)
    page.mouse.up()
    assert 0 < float(handle.input_value()) < 40


def done(page: Page, images: Path, slow: Slow) -> Locator:
    """Upscale an image and return the frame that shows it."""
    slow.pace = 0
    choose(page, images / "small.png")
    upscale(page)
    expect(status(page)).to_contain_text("pixels in ")
    frame = page.locator("#viewer .frame")
    frame.scroll_into_view_if_needed()
    page.wait_for_timeout(400)
    return frame


def view(page: Page) -> list[float]:
    """Return zoom, and where the image's top left corner is, in frames."""
    return page.locator("#viewer img").first.evaluate(
        "image => { const {a, e, f} = new DOMMatrix(getComputedStyle(image).transform);"
        "return [a, e / image.offsetWidth, f / image.offsetHeight]; }"
    )


def test_zoom_by_buttons_keys_and_wheel(page, images, slow):
    frame = done(page, images, slow)
    assert view(page) == [1, 0, 0]
    page.get_by_role("button", name="Zoom in").click()
    assert view(page) == pytest.approx([1.5, -0.25, -0.25], abs=0.01)
    shown = [image.bounding_box()["width"] for image in page.locator("#viewer img").all()]
    assert shown == pytest.approx([frame.bounding_box()["width"] * 1.5] * 2, rel=0.01)
    frame.focus()
    page.keyboard.press("+")
    assert view(page)[0] == pytest.approx(2.25)
    page.keyboard.press("ArrowRight")
    assert view(page) == pytest.approx([2.25, -0.725, -0.625], abs=0.01)
    page.keyboard.press("0")
    assert view(page) == [1, 0, 0]
    box = frame.bounding_box()
    page.mouse.move(box["x"] + 12, box["y"] + 12)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(200)
    zoom, x, y = view(page)
    assert zoom == pytest.approx(1.002**300, rel=0.01) and x > -0.05 and y > -0.05  # what is under the pointer stays
    page.get_by_role("button", name="Fit").click()
    button(page).focus()
    page.mouse.wheel(0, -300)  # the page scrolls
    page.wait_for_timeout(200)
    assert view(page) == [1, 0, 0]


def test_pan_by_dragging_and_pinch(visit, images, slow):
    page = visit("phone")
    frame = done(page, images, slow)
    page.get_by_role("button", name="Zoom in").tap()
    box = frame.bounding_box()
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        places = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": i}
            for i, (x, y) in enumerate(points)
        ]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    send("touchStart", (0.3, 0.5))
    for x in (0.35, 0.4, 0.45, 0.5):
        send("touchMove", (x, 0.5))
    send("touchEnd")
    assert view(page) == pytest.approx([1.5, -0.05, -0.25], abs=0.03)
    page.get_by_role("button", name="Fit").tap()
    send("touchStart", (0.2, 0.3))
    send("touchStart", (0.2, 0.3), (0.3, 0.3))
    for x in (0.35, 0.4, 0.45, 0.5):
        send("touchMove", (0.2, 0.3), (x, 0.3))
    send("touchEnd")
    assert 2.5 < view(page)[0] < 5
    expect(page.locator("#close-up img")).to_have_count(0)  # neither was a click


def test_a_close_up_of_the_place_that_is_picked(page, images, slow, monkeypatch):
    picked = []
    real = service.close_up
    monkeypatch.setattr(service, "close_up", lambda *args: picked.append(args[1:]) or real(*args))
    frame = done(page, images, slow)
    box = frame.bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    shown = page.locator("#close-up img")
    expect(shown).to_have_count(3, timeout=30_000)
    assert [each.get_attribute("alt") for each in shown.all()] == [
        f"{name} close-up" for name in ("Bicubic", "Faithful", "Crisp")
    ]
    for each in shown.all():
        assert each.evaluate("image => image.getBoundingClientRect().width / image.naturalWidth") == pytest.approx(2)
    frame.focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_timeout(1500)
    assert picked[0][0] == "photo" and picked[0][1:] == pytest.approx((0.9, 0.2), abs=0.02)
    assert picked[1][1:] == pytest.approx(((0.5 - -0.15) / 1.5, 0.5), abs=0.02)


def test_the_frame_has_its_size_from_the_first_moment_and_nothing_jumps(page, images, slow):
    slow.pace, slow.parts = 0.05, 20
    choose(page, EXAMPLES / "cat.png")
    places = []

    def measure() -> None:
        page.evaluate("scrollTo(0, 0)")
        places.append([page.locator(each).bounding_box() for each in ("#viewer .frame", "#download", "#code")])

    measure()
    upscale(page)
    expect(page.locator("#viewer img")).to_have_count(1, timeout=2000)
    first = page.locator("#viewer img").get_attribute("src")
    measure()
    under_way(page)
    measure()
    expect(status(page)).to_contain_text(re.compile("second(s)? left"))
    expect(page.locator("#viewer img")).to_have_count(2, timeout=30_000)
    page.wait_for_timeout(500)
    measure()
    assert places == [places[0]] * 4
    assert first.startswith("data:image/jpeg")


def test_an_image_that_is_pasted_anywhere(page, images, slow):
    slow.pace = 0
    paste = """bytes => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'pasted.png', {type: 'image/png'}));
        document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}));
    }"""
    for name, size in (("small.png", "40 x 30"), ("other.png", "50 x 40")):
        page.evaluate(paste, [*(images / name).read_bytes()])
        expect(status(page)).to_contain_text(f"pasted.png: {size} to")
    upscale(page)
    expect(status(page)).to_contain_text("pasted.png: 50 x 40 to 200 x 160 pixels in")
    page.get_by_role("tab", name="Many").click()
    page.evaluate(paste, [*(images / "small.png").read_bytes()])
    page.get_by_role("tab", name="One").click()
    page.wait_for_timeout(500)
    expect(status(page)).to_contain_text("pasted.png: 50 x 40 to 200 x 160 pixels in")


def test_an_image_from_the_camera(page):
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#image video')?.videoWidth > 0")
    page.wait_for_timeout(500)
    page.get_by_label("capture photo").click()
    expect(status(page)).to_contain_text("image.png has 1920 x 1440 pixels", timeout=20_000)


def test_an_examples_result_is_there_at_once(visit, images, slow):
    slow.pace = 0
    demo = app.create_demo()
    options = {**app.launch_options(), "mcp_server": False}
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **options)
    page = visit(at=address)
    for path in example_paths():
        page.wait_for_timeout(500)
        page.get_by_role("button", name=path.stem.capitalize()).click()
        expect(page.locator("#viewer img")).to_have_count(2)
        expect(status(page)).to_contain_text(f"{path.name}: ")
        expect(page.locator("#download a")).to_have_attribute("download", f"{path.stem}_x4.png")
    calls = slow.calls
    page.get_by_label("2x", exact=True).first.click()
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("cat.png: 226 x 150 to 452 x 300")
    expect(page.locator("#viewer img")).to_have_count(0)
    assert slow.calls == calls == len(example_paths())
    page.get_by_label("Remove Image").click()
    expect(status(page)).to_have_text("Choose an image.")
    choose(page, images / "small.png")
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 80 x 60")
    demo.close()


def test_only_size_and_detail_are_seen_at_first(page):
    expect(page.get_by_label("4x", exact=True).first).to_be_checked()
    expect(page.get_by_label("Longest side in pixels")).to_be_hidden()
    for hidden in ("Image kind", "Metadata"):
        expect(page.get_by_text(hidden).first).to_be_hidden()
    page.get_by_label("Longest side", exact=True).click()
    expect(page.get_by_label("Longest side in pixels")).to_be_visible()
    page.get_by_role("button", name="More settings").first.click()
    expect(page.get_by_text("Noise and JPEG blocks are taken away.").first).to_be_visible()
    expect(page.get_by_text("The place is removed unless you keep it.")).to_be_visible()
    expect(page.get_by_label("Keep, but for the place (GPS)")).to_be_checked()
    expect(page.get_by_label("Quality").first).to_be_hidden()
    page.get_by_label("WebP", exact=True).first.click()
    expect(page.get_by_label("Quality").first).to_be_visible()


def test_a_size_beyond_the_limit_is_said_at_once(page, images):
    choose(page, images / "small.png")
    page.get_by_label("Longest side", exact=True).click()
    expect(status(page)).to_contain_text("1600x1200 exceeds the maximum 160x120")
    number = page.get_by_label("Longest side in pixels")
    number.fill("100")
    number.press("Tab")
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 100 x 75")


def test_the_code_follows_the_settings(page, images, url):
    page.get_by_role("button", name="The same in code").click()
    expect(page.locator("#code")).to_contain_text('SRGAN.from_pretrained("srgan-x4-photo")')
    expect(page.locator("#code")).to_contain_text(f"API={url}gradio_api")
    page.get_by_label("2x", exact=True).first.click()
    expect(page.locator("#code")).to_contain_text('size="2x"')
    expect(page.locator("#code")).to_contain_text(f"API={url}gradio_api")


def test_many_images(page, images, slow, tmp_path):
    slow.pace = 0
    page.get_by_role("tab", name="Many").click()
    job = page.locator("#many-job")
    job.locator("button").click()
    expect(job.locator("p")).to_have_text("Choose images first.")
    files = [images / name for name in ("small.png", "text.png", "other.png")]
    choose_many(page, files)
    expect(job.locator("p")).to_contain_text("3 images")
    job.locator("button").click()
    expect(job.locator("p")).to_have_text("2 of 3 are done, 1 failed.", timeout=30_000)
    entries = page.locator("#gallery li")
    expect(entries).to_have_count(3)
    expect(entries.nth(0)).to_contain_text("160 x 120 pixels in")
    expect(entries.nth(1)).to_contain_text("text.png is not an image")
    assert [entry.locator("img").count() for entry in entries.all()] == [1, 0, 1]
    with page.expect_download() as download:
        page.locator("#zip a").click()
    download.value.save_as(tmp_path / "results.zip")
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert archive.namelist() == ["small_x4.png", "other_x4.png"]
    slow.pace = 0.02
    job.locator("button").click()
    expect(job.locator("button")).to_have_text("Cancel")
    page.wait_for_timeout(600)
    job.locator("button").click()
    expect(job.locator("p")).to_have_text("0 of 3 are done.", timeout=30_000)


def test_models_are_compared(page, images, slow):
    slow.pace = 0
    page.get_by_role("tab", name="Compare").click()
    job = page.locator("#compare-job")
    page.set_input_files("#compared input[type=file]", images / "small.png")
    expect(job.locator("p")).to_contain_text("small.png")
    page.set_input_files("#truth input[type=file]", images / "other.png")
    expect(page.locator("#truth img")).to_be_visible()
    job.locator("button").click()
    expect(job.locator("p")).to_contain_text(
        "Expected a ground truth of 160 x 120 pixels, 4 times small.png, got 50 x 40"
    )
    page.locator("#truth").get_by_label("Remove Image").click()
    page.get_by_label("srgan-x4", exact=True).click()
    job.locator("button").click()
    expect(job.locator("p")).to_have_text("small.png by 3 models.", timeout=30_000)
    figures = page.locator("#results figure")
    expect(figures).to_have_count(3)
    expect(figures.nth(0)).to_contain_text("LR consistency, 8-bit values: ")
    expect(page.locator("#results")).to_contain_text("4 pixels shaved from each border")


def test_a_name_is_never_markup(page, images, slow, monkeypatch):
    """Gradio cleans the names of uploads; should it not do so one day, they are still text."""
    name = "<img src=x onerror=document.title=1>"
    read = service.read
    monkeypatch.setattr(service, "read", lambda path, **options: replace(read(path, **options), name=f"{name}.png"))
    slow.pace = 0
    page.set_input_files("#image input[type=file]", images / "small.png")
    expect(status(page)).to_contain_text(f"{name}.png: 40 x 30")
    expect(page.locator("#job img, #viewer [src=x]")).to_have_count(0)


def test_the_foot_leads_to_license_cards_and_api(page, url):
    foot = page.get_by_role("navigation", name="More")
    for name, text in (("License", "Apache License"), ("Card of srgan-x4-photo", "library_name: srgan-hub")):
        address = foot.get_by_role("link", name=name, exact=True).get_attribute("href")
        assert text in page.request.get(f"{url}{address}").text()
    assert page.request.get(f"{url}about/..%2fapp.py").status == 404
    foot.get_by_role("link", name="API").click()
    expect(page.locator(".api-docs")).to_contain_text("/upscale", timeout=15_000)
