"""The demo's page as its visitors meet it, in a real browser."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from screenshots import CHROMIUM_FLAGS

import app
from srgan_hub import SRGAN
from srgan_hub.demo.one_picture import EXAMPLES, example_paths
from srgan_hub.upscaler import Upscaler

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The demo, with limits that small pictures can reach."""
    demo = app.create_demo(max_pixels=300_000, warm_up=False)
    options = {**app.launch_options(), "mcp_server": False}
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **options)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder with good and bad files."""
    from pictures.test_files import png_header

    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(EXAMPLES / "cat.png") as cat:
        cat.crop((60, 40, 100, 70)).save(folder / "small.png")
        cat.crop((0, 0, 50, 40)).save(folder / "other.png")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(folder / "deep.png")
    (folder / "text.png").write_text("no picture")
    (folder / "huge.png").write_bytes(png_header(2_000, 2_000))
    (folder / "cut.jpg").write_bytes((EXAMPLES / "coffee.jpg").read_bytes()[:5000])
    return folder


@pytest.fixture(scope="module")
def browser(chromium) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, url) -> Iterator[Callable[..., Page]]:
    """Open the page as one more visitor; at the end check that nothing was asked from elsewhere or went wrong."""
    pages, asked, errors = [], [], []

    def visit(theme: str = "light", **options: object) -> Page:
        page = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options}).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}?__theme={theme}")
        expect(button(page)).to_be_visible(timeout=30_000)
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.context.close()
    assert not [address for address in asked if not address.startswith((url, "data:", "blob:"))], "must work offline"
    assert not errors


@pytest.fixture
def page(visit) -> Page:
    return visit()


class Slow:
    """A generator that takes its time instead of computing, and counts what it does."""

    def __init__(self) -> None:
        self.calls, self.bands = 0, 0
        self.pace, self.parts = 0.1, 100
        self.last = threading.Event()  # the last band waits for it
        self.last.set()

    def stream(self, upscaler: object, picture: np.ndarray, size: object) -> Iterator[np.ndarray]:
        self.calls += 1
        for number, rows in enumerate(np.array_split(picture.repeat(4, 0).repeat(4, 1), self.parts)):
            time.sleep(self.pace)
            if number == self.parts - 1:
                self.last.wait(30)
            self.bands += 1
            yield rows


@pytest.fixture
def slow(monkeypatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(Upscaler, "stream", lambda *args, size: slow.stream(*args, size))
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
    if page.locator("#picture img").count():
        page.get_by_label("Remove Image").click()
        expect(status(page)).to_have_text("Choose a picture.")
    page.set_input_files("#picture input[type=file]", file)
    expect(status(page)).to_contain_text(file.name)


def upscale(page: Page) -> None:
    expect(button(page)).to_have_text("Upscale")
    button(page).click()


def in_view(locator: Locator) -> bool:
    return locator.evaluate(
        "element => { const box = element.getBoundingClientRect();"
        "return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight && box.right <= innerWidth; }"
    )


def test_upload_upscale_compare_download(page, pictures, tmp_path):
    expect(page.locator("#download button")).to_be_disabled()
    choose(page, pictures / "small.png")
    upscale(page)
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in", timeout=60_000)
    images = page.locator("#viewer img")
    expect(images).to_have_count(2)
    assert [image.evaluate("image => image.naturalWidth") for image in images.all()] == [160, 160]
    with page.expect_download() as download:
        page.locator("#download a").click()
    assert download.value.suggested_filename == "small_x4.png"
    download.value.save_as(tmp_path / "got.png")
    with Image.open(tmp_path / "got.png") as result:
        expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(pictures / "small.png")
        assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1


def test_there_is_one_download_and_full_screen(page, pictures):
    choose(page, pictures / "small.png")
    upscale(page)
    expect(page.locator("a[download]")).to_have_count(1, timeout=60_000)
    assert page.get_by_role("button", name="download").count() == 0
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement !== null")
    expect(page.locator("#viewer img").first).to_be_in_viewport()
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement === null")


def test_every_example_gives_its_result_and_uploads_work_after(page, pictures, slow):
    slow.pace = 0
    for path in example_paths():
        page.get_by_role("button", name=path.stem.capitalize()).click()
        expect(status(page)).to_contain_text(f"{path.name}: ")
        upscale(page)
        expect(status(page)).to_contain_text(" pixels in ", timeout=60_000)
        expect(page.locator("#viewer img")).to_have_count(2)
    assert slow.calls == len(example_paths()) >= 3
    choose(page, pictures / "small.png")
    upscale(page)
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120", timeout=30_000)


def test_on_a_phone_progress_and_result_are_in_view(visit, slow):
    page = visit(**PHONE)
    slow.pace, slow.parts = 0.1, 20
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    choose(page, EXAMPLES / "cat.png")
    button(page).tap()
    expect(progress(page)).to_be_visible(timeout=1000)
    assert in_view(progress(page)) and in_view(button(page)) and in_view(status(page))
    expect(status(page)).to_contain_text("cat.png: 226 x 150 to 904 x 600 pixels in ", timeout=30_000)
    page.wait_for_timeout(500)
    assert in_view(page.locator("#viewer .frame"))
    bottom = page.locator("#download").bounding_box()
    assert page.locator("#examples").bounding_box()["y"] >= bottom["y"] + bottom["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_waiting_see_how_many_are_ahead_and_then_progress(visit, pictures, slow):
    slow.pace = 0.05
    first, second, third = pages = [visit() for _ in range(3)]
    for page in pages:
        choose(page, pictures / "small.png")
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
    expect(status(second)).to_contain_text("Enlarging small.png to 160 x 120")
    under_way(second)
    button(third).click()
    expect(status(third)).to_have_text("Cancelled.")
    button(second).click()
    expect(status(second)).to_have_text("Cancelled.")
    assert slow.calls == 2


def test_a_double_click_makes_one_run(page, pictures, slow):
    choose(page, pictures / "small.png")
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
    assert slow.calls == 1 and slow.bands < slow.parts


def test_cancel_leaves_no_percentage_twenty_times(page, pictures, slow):
    slow.pace = 0.02
    choose(page, pictures / "small.png")
    for turn in range(20):
        upscale(page)
        expect(button(page)).to_have_text("Cancel")
        page.wait_for_timeout(7 * turn)
        button(page).click()
        expect(status(page)).to_have_text("Cancelled.")
        expect(progress(page)).to_be_hidden()
        stopped = slow.bands
        page.wait_for_timeout(100)
        assert status(page).inner_text() == "Cancelled." and "%" not in page.locator("#job").inner_text()
        assert slow.bands == stopped and slow.calls == turn + 1


def test_cancel_at_the_end_gives_a_result_or_none_twenty_times(page, pictures, slow):
    slow.pace, slow.parts = 0, 5
    choose(page, pictures / "small.png")
    for turn in range(20):
        slow.last.clear()
        upscale(page)
        under_way(page)
        page.wait_for_function("!document.querySelector('#job [data-settling]')")
        threading.Timer(0.003 * turn, slow.last.set).start()  # the run ends about when the click comes
        page.evaluate("document.querySelector('#job button').click()")
        expect(progress(page)).to_be_hidden()
        page.wait_for_timeout(50)
        done = status(page).inner_text() != "Cancelled."
        expect(page.locator("#viewer img")).to_have_count(2 if done else 0)
        expect(page.locator("#download a")).to_have_count(1 if done else 0)


def test_settings_after_a_result_leave_it(page, pictures, slow):
    slow.pace = 0
    choose(page, pictures / "small.png")
    upscale(page)
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in ")
    for size, expected in (("2x", "80 x 60"), ("3x", "120 x 90"), ("4x", "160 x 120")) * 3:
        page.get_by_label(size, exact=True).first.click()
        expect(status(page)).to_contain_text(f"small.png: 40 x 30 to {expected}, under a second.")
    expect(page.locator("#viewer img")).to_have_count(2)
    expect(page.locator("#download a")).to_have_count(1)


def test_a_new_picture_takes_the_place_of_a_run(page, pictures, slow):
    choose(page, pictures / "small.png")
    upscale(page)
    under_way(page)
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("The run before was stopped. cat.png: 226 x 150 to 904 x 600")
    stopped = slow.bands
    page.wait_for_timeout(400)
    assert slow.bands == stopped and slow.calls == 1
    expect(status(page)).to_contain_text("The run before was stopped. cat.png: 226 x 150 to 904 x 600")
    expect(button(page)).to_have_text("Upscale")


def test_another_setting_stops_a_run(page, pictures, slow):
    choose(page, pictures / "small.png")
    upscale(page)
    under_way(page)
    page.get_by_label("2x", exact=True).first.click()
    expect(status(page)).to_have_text("Stopped: another setting was chosen.")
    expect(button(page)).to_have_text("Upscale")
    stopped = slow.bands
    page.wait_for_timeout(300)
    assert slow.bands == stopped and slow.calls == 1


def test_a_reload_ends_the_run_and_starts_clean(page, visit, pictures, slow):
    choose(page, pictures / "small.png")
    upscale(page)
    under_way(page)
    page.reload()
    expect(status(page)).to_have_text("Choose a picture.")
    expect(button(page)).to_have_text("Upscale")
    page.wait_for_timeout(500)
    stopped = slow.bands
    page.wait_for_timeout(500)
    assert slow.bands == stopped < slow.parts
    slow.pace = 0
    choose(page, pictures / "small.png")  # the line is free
    upscale(page)
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in ")


def test_a_visitor_who_leaves_the_line_is_not_waited_for(visit, pictures, slow):
    slow.pace = 0.05
    first, second, third = (visit() for _ in range(3))
    for number, page in enumerate((first, second, third)):
        choose(page, pictures / "small.png")
        upscale(page)
        expect(status(page)).to_contain_text(
            f"small.png: {number} ahead" if number else "Enlarging small.png to 160 x 120"
        )
    second.goto("about:blank")
    expect(status(third)).to_have_text("small.png: 1 ahead of you.")
    for page in (third, first):
        button(page).click()
        expect(status(page)).to_have_text("Cancelled.")


def test_nothing_old_stays(page, pictures, slow, monkeypatch):
    slow.pace = 0
    choose(page, pictures / "small.png")
    upscale(page)
    expect(page.locator("#download a")).to_have_attribute("download", "small_x4.png")
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("cat.png: 226 x 150 to 904 x 600")
    expect(page.locator("#viewer img")).to_have_count(0)
    expect(page.locator("#download a")).to_have_count(0)
    expect(page.locator("#download button")).to_be_disabled()
    upscale(page)
    expect(page.locator("#viewer img")).to_have_count(2)

    def fail(upscaler, picture, size):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Upscaler, "stream", fail)
    upscale(page)
    expect(status(page)).to_have_text("cat.png cannot be enlarged: the server failed (RuntimeError).")
    expect(status(page)).to_have_attribute("role", "alert")
    expect(page.locator("#viewer img")).to_have_count(0)
    expect(page.locator("#download a")).to_have_count(0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.png", "text.png is not a picture"),
        ("cut.jpg", "cut.jpg is broken or cut short"),
        ("huge.png", "huge.png has 2000 x 2000 pixels; the limit is 0.3 million"),
    ],
)
def test_a_bad_file_is_refused_when_it_is_chosen(page, pictures, name, message):
    choose(page, pictures / name)
    expect(status(page)).to_contain_text(message)
    assert "/" not in status(page).inner_text().replace("cut short", "")
    expect(page.locator("#picture img")).to_have_count(0)
    page.wait_for_timeout(1000)
    expect(status(page)).to_contain_text(message)
    expect(status(page)).to_have_class("failed")
    upscale(page)
    expect(status(page)).to_have_text("Choose a picture first: upload one or click an example.")


def test_lost_depth_is_said_when_the_picture_is_chosen(page, pictures):
    choose(page, pictures / "deep.png")
    expect(status(page)).to_contain_text("deep.png has 16 bits per channel and is read with 8.")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(visit, pictures, slow, theme):
    page = visit(theme)
    slow.pace = 0.05
    found = {}

    def look(state: str) -> None:
        page.wait_for_timeout(300)  # transitions of colours
        found[state] = [(each["impact"], each["id"]) for each in Axe().run(page).response["violations"]]

    look("empty")
    choose(page, pictures / "small.png")
    look("chosen")
    upscale(page)
    under_way(page)
    look("running")
    slow.pace = 0
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in ")
    look("done")
    choose(page, pictures / "text.png")
    look("failed")
    assert found == {state: [] for state in ("empty", "chosen", "running", "done", "failed")}


def test_names_roles_and_sizes(page, pictures, slow):
    choose(page, pictures / "small.png")
    expect(page.locator("#picture img")).to_have_attribute("alt", "The picture that you chose")
    upscale(page)
    expect(status(page)).to_have_attribute("role", "status")
    under_way(page)
    expect(page.get_by_role("progressbar", name="Progress")).to_be_visible()
    for name, value in (("aria-valuemin", "0"), ("aria-valuemax", "100")):
        expect(progress(page)).to_have_attribute(name, value)
    slow.pace = 0
    for name in ("small.png: the result", "small.png: enlarged with bicubic, for comparison"):
        expect(page.get_by_role("img", name=name)).to_be_visible()
    small = page.evaluate(
        "[...document.querySelectorAll('button, a, label:has(input), #viewer input')].filter(e => e.offsetParent)"
        ".map(e => [e.outerHTML, e.getBoundingClientRect()])"
        ".filter(([_, box]) => box.width < 44 || box.height < 44).map(([html]) => html)"
    )
    assert not small


def test_everything_by_keyboard(page, pictures, slow):
    slow.pace = 0
    choose(page, pictures / "small.png")
    button(page).focus()
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("small.png: 40 x 30 to 160 x 120 pixels in ")
    expect(button(page)).to_be_focused()
    handle = page.get_by_role("slider", name="How much of the bicubic picture is shown")
    top = page.locator("#viewer img").nth(1)
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
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Full screen")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#download a")).to_be_focused()


def test_the_handle_can_be_dragged(page, pictures, slow):
    slow.pace = 0
    choose(page, pictures / "small.png")
    upscale(page)
    expect(page.locator("#viewer img").first).to_have_js_property("complete", True)
    page.wait_for_timeout(300)  # it comes into view
    handle = page.get_by_role("slider")
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 100, box["y"] + 60, steps=5)
    page.mouse.up()
    assert 0 < float(handle.input_value()) < 25
