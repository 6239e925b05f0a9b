"""The demo's page in a real browser."""

import io
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from e2e.screenshots import choose_batch
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page, expect

import app
from srgan_hub import SRGAN
from srgan_hub.demo import fetch, service
from srgan_hub.demo.inputs import Prepared
from srgan_hub.demo.tabs.upscale import EXAMPLES, list_examples
from srgan_hub.upscaler import Upscaler

expect.set_options(timeout=20_000)  # the machine may be busy
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def contexts(browser) -> Iterator[dict[str, BrowserContext]]:
    """Browser contexts shared by all tests, for their cache of Gradio's scripts."""
    options = {"desktop": {"viewport": {"width": 1200, "height": 900}}, "phone": PHONE}
    contexts = {name: browser.new_context(**each) for name, each in options.items()}
    yield contexts
    for context in contexts.values():
        context.close()


@pytest.fixture
def open_page(contexts, url) -> Iterator[Callable[..., Page]]:
    """Open the page in a new session; at the end check for script errors and requests to other servers."""
    pages, requests, errors = [], [], []

    def open_page(device: str = "desktop", at: str = url) -> Page:
        page = contexts[device].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{at}?__theme=light")
        button(page).wait_for()
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not [each for each in requests if not each.startswith(("http://127.0.0.1:", "data:", "blob:"))]
    assert not errors


@pytest.fixture
def page(open_page) -> Page:
    return open_page()


class SlowGenerator:
    """Repeats pixels in place of a network, in `strips` strips of `seconds` each."""

    def __init__(self) -> None:
        self.calls, self.done = 0, 0
        self.seconds, self.strips = 0.1, 100
        self.may_finish = threading.Event()
        self.may_finish.set()

    def stream(self, upscaler: object, image: np.ndarray) -> Iterator[np.ndarray]:
        self.calls += 1
        for number, rows in enumerate(np.array_split(image.repeat(4, 0).repeat(4, 1), self.strips)):
            time.sleep(self.seconds)
            if number == self.strips - 1:
                self.may_finish.wait(30)
            self.done += 1
            yield rows

    def assert_stopped(self, page: Page, milliseconds: int = 300) -> None:
        done = self.done
        page.wait_for_timeout(milliseconds)
        assert self.done == done < self.strips


@pytest.fixture
def slow(monkeypatch) -> SlowGenerator:
    slow = SlowGenerator()
    monkeypatch.setattr(Upscaler, "stream", lambda *args, **_: slow.stream(*args))
    return slow


@pytest.fixture
def instant(slow) -> SlowGenerator:
    slow.seconds = 0
    return slow


def button(page: Page, tab: str = "upscale") -> Locator:
    return page.locator(f"#{tab}-job button")


def status(page: Page, tab: str = "upscale") -> Locator:
    return page.locator(f"#{tab}-job p")


def progress(page: Page) -> Locator:
    return page.get_by_role("progressbar")


def wait_for_first_strip(page: Page) -> None:
    expect(progress(page)).to_have_attribute("aria-valuenow", re.compile("[1-9]"), timeout=10_000)


def drop_zone(page: Page, state: str) -> Locator:
    return page.locator(f"#image [data-state={state}]")


def choose(page: Page, file: Path, name: str | None = None) -> None:
    """Choose an image, without starting its job."""
    page.get_by_label("Start automatically").uncheck()
    page.set_input_files("#image input[type=file]", file)
    expect(page.locator("#image p").first).to_contain_text(name or file.name)
    expect(drop_zone(page, "busy")).to_have_count(0)


def upscale(page: Page) -> None:
    expect(button(page)).to_have_text("Upscale")
    button(page).click()


def start(page: Page, file: Path) -> None:
    choose(page, file)
    upscale(page)
    wait_for_first_strip(page)


def finish(page: Page, file: Path) -> Locator:
    """Upscale an image and return the frame with its result."""
    choose(page, file)
    upscale(page)
    expect(status(page)).to_contain_text(f"{file.name}: ")
    expect(page.locator("#viewer img")).to_have_count(2, timeout=60_000)
    return page.locator("#viewer .frame")


def cancel(page: Page) -> None:
    button(page).click()
    expect(status(page)).to_have_text("Cancelled.")


def in_view(locator: Locator) -> bool:
    return locator.evaluate(
        "element => { const box = element.getBoundingClientRect();"
        "return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight && box.right <= innerWidth; }"
    )


def view(page: Page) -> list[float]:
    """Return the zoom factor, and the image's top-left corner in frame widths and heights."""
    return page.locator("#viewer img").first.evaluate(
        "image => { const {a, e, f} = new DOMMatrix(getComputedStyle(image).transform);"
        "return [a, e / image.offsetWidth, f / image.offsetHeight]; }"
    )


def test_upload_upscale_compare_download_full_screen(page, images, tmp_path):
    expect(page.locator("#download button")).to_be_disabled()
    finish(page, images / "small.png")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120 in")
    shown = page.locator("#viewer img")
    assert [image.evaluate("image => image.naturalWidth") for image in shown.all()] == [160, 160]
    expect(page.locator("a[download]")).to_have_count(1)
    assert page.get_by_role("button", name="download").count() == 0
    with page.expect_download() as download:
        page.locator("#download a").click()
    assert download.value.suggested_filename == "small_x4.png"
    download.value.save_as(tmp_path / "output.png")
    with Image.open(tmp_path / "output.png") as result:
        expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(images / "small.png")
        assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement !== null")
    expect(shown.first).to_be_in_viewport()
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement === null")


def test_example_and_upload_after_it(page, images, instant):
    page.get_by_role("button", name="Cat").click()
    expect(page.locator("#viewer img")).to_have_count(2)
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 904 × 600")
    finish(page, images / "small.png")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120")


def test_phone_shows_progress_and_result_and_pans_and_pinches(open_page, slow):
    page = open_page("phone")
    slow.strips = 15
    choose(page, EXAMPLES / "cat.png")
    button(page).tap()
    expect(progress(page)).to_be_visible(timeout=1000)
    assert in_view(progress(page)) and in_view(button(page)) and in_view(status(page))
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 904 × 600 in ", timeout=30_000)
    page.wait_for_timeout(500)
    frame = page.locator("#viewer .frame")
    assert in_view(frame)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(page.get_by_role("tab")).to_have_count(3)  # none in Gradio's overflow menu

    page.get_by_role("button", name="Zoom in").tap()
    box = frame.bounding_box()
    session = page.context.new_cdp_session(page)

    def touch(event: str, *points: tuple[float, float]) -> None:
        at = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": finger}
            for finger, (x, y) in enumerate(points)
        ]
        session.send("Input.dispatchTouchEvent", {"type": event, "touchPoints": at})

    touch("touchStart", (0.3, 0.5))
    for x in (0.35, 0.4, 0.45, 0.5):
        touch("touchMove", (x, 0.5))
    touch("touchEnd")
    assert view(page) == pytest.approx([1.5, -0.05, -0.25], abs=0.03)
    page.get_by_role("button", name="Fit").tap()
    touch("touchStart", (0.2, 0.3))
    touch("touchStart", (0.2, 0.3), (0.3, 0.3))
    for x in (0.35, 0.4, 0.45, 0.5):
        touch("touchMove", (0.2, 0.3), (x, 0.3))
    touch("touchEnd")
    assert 2.5 < view(page)[0] < 5
    expect(page.locator("#close-up img")).to_have_count(0)  # neither was a click


def test_queue_position_progress_and_leaving(open_page, images, slow):
    slow.seconds = 0.3  # no job may end before it is cancelled
    first, second, third = pages = [open_page() for _ in range(3)]
    for number, page in enumerate(pages):
        choose(page, images / "small.png")
        upscale(page)
        if number:
            expect(status(page)).to_contain_text(re.compile(rf"\b{number} jobs? ahead"))
        else:
            wait_for_first_strip(page)
    second.goto("about:blank")
    expect(status(third)).to_contain_text("1 job ahead")
    cancel(third)
    upscale(third)
    expect(status(third)).to_contain_text("1 job ahead")
    cancel(first)
    expect(status(third)).to_contain_text("Upscaling small.png to 160 × 120")
    wait_for_first_strip(third)
    cancel(third)
    assert slow.calls == 2


def test_double_click_starts_one_job(page, images, slow):
    choose(page, images / "small.png")
    box = button(page).bounding_box()
    for _ in range(2):
        page.mouse.click(box["x"] + 50, box["y"] + 20)
        page.wait_for_timeout(150)
    wait_for_first_strip(page)
    page.wait_for_timeout(400)
    expect(button(page)).to_have_text("Cancel")
    button(page).focus()
    cancel(page)
    expect(button(page)).to_be_focused()
    assert slow.calls == 1 and slow.done < slow.strips


def test_cancel_hides_progress_and_stops_the_job(page, images, slow):
    slow.seconds = 0.02
    choose(page, images / "small.png")
    for turn in range(4):
        upscale(page)
        expect(button(page)).to_have_text("Cancel")
        page.wait_for_timeout(42 * turn)
        cancel(page)
        expect(progress(page)).to_be_hidden()
        stopped = slow.done
        page.wait_for_timeout(100)
        assert status(page).inner_text() == "Cancelled." and "%" not in page.locator("#upscale-job").inner_text()
        assert slow.done == stopped and slow.calls == turn + 1


def test_cancel_at_the_end_gives_a_complete_result_or_none(page, images, instant):
    instant.strips = 5
    choose(page, images / "small.png")
    for turn in range(4):
        instant.may_finish.clear()
        upscale(page)
        wait_for_first_strip(page)
        page.wait_for_function("!document.querySelector('[data-settling]')")
        threading.Timer(0.018 * turn, instant.may_finish.set).start()  # the job ends at about the time of the click
        page.evaluate("document.querySelector('#upscale-job button').click()")
        expect(progress(page)).to_be_hidden()
        page.wait_for_timeout(50)
        done = status(page).inner_text() != "Cancelled."
        expect(page.locator("#viewer img")).to_have_count(2 if done else 0)
        expect(page.locator("#download a")).to_have_count(1 if done else 0)


def test_settings_changed_after_a_result_keep_it(page, images, instant):
    finish(page, images / "small.png")
    for size, expected in (("2x", "80 × 60"), ("3x", "120 × 90"), ("4x", "160 × 120")) * 2:
        page.get_by_label(size, exact=True).first.click()
        duration = r"(less than 1|about \d+) s"
        expect(status(page)).to_contain_text(re.compile(rf"small\.png: 40 × 30 to {expected}, {duration}"))
        expect(button(page)).to_have_text("Update")
    expect(page.locator("#viewer img")).to_have_count(2)
    expect(page.locator("#download a")).to_have_count(1)
    button(page).click()
    expect(button(page)).to_have_text("Upscale")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120 in")


def test_update_is_in_view_on_a_phone(open_page, images, instant):
    page = open_page("phone")
    finish(page, images / "small.png")
    page.get_by_label("2x", exact=True).first.tap()
    expect(button(page)).to_have_text("Update")
    page.wait_for_timeout(300)
    assert in_view(button(page)) and in_view(page.get_by_label("2x", exact=True).first)
    button(page).tap()
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120 in")


def test_new_image_cancels_the_job(page, images, slow):
    start(page, images / "small.png")
    page.get_by_role("button", name="Cat").click()
    for _ in range(2):
        expect(status(page)).to_have_text(re.compile(r"Previous job cancelled\. cat\.png: 226 × 150 to 904 × 600"))
        slow.assert_stopped(page)
    assert slow.calls == 1
    expect(button(page)).to_have_text("Upscale")


def test_new_image_during_a_job_starts_once(page, images, slow):
    page.set_input_files("#image input[type=file]", images / "small.png")
    wait_for_first_strip(page)
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("Upscaling cat.png to 904 × 600")
    wait_for_first_strip(page)
    page.wait_for_timeout(1000)
    assert slow.calls == 2
    expect(status(page)).to_contain_text("Upscaling cat.png to 904 × 600")


def test_code_follows_settings_and_leaves_the_job_alone(page, images, slow, url):
    code = page.locator("#snippets")
    start(page, images / "small.png")
    page.get_by_role("button", name="Use in code").click()
    expect(code).to_contain_text('upscale("small.png", size="4x")')
    expect(code).to_contain_text('SRGAN.from_pretrained("srgan-x4-photo")')
    expect(code).to_contain_text(f"API={url}gradio_api")
    done = slow.done
    page.wait_for_timeout(300)
    assert slow.done > done
    page.get_by_label("2x", exact=True).first.click()
    expect(status(page)).to_have_text("Cancelled: settings changed.")
    expect(button(page)).to_have_text("Upscale")
    expect(code).to_contain_text('size="2x"')
    slow.assert_stopped(page)


def test_reload_cancels_the_job_and_frees_the_queue(page, images, slow):
    start(page, images / "small.png")
    page.reload()
    expect(status(page)).to_have_text("Choose an image.")
    expect(button(page)).to_have_text("Upscale")
    page.wait_for_timeout(500)
    slow.assert_stopped(page)
    slow.seconds = 0
    finish(page, images / "small.png")


def test_new_image_and_failure_remove_the_previous_result(page, images, instant, monkeypatch):
    finish(page, images / "small.png")
    expect(page.locator("#download a")).to_have_attribute("download", "small_x4.png")
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 904 × 600")
    expect(page.locator("#viewer img")).to_have_count(0)
    expect(page.locator("#download button")).to_be_disabled()
    upscale(page)
    expect(page.locator("#viewer img")).to_have_count(2)

    def fail(upscaler, image, size):
        raise RuntimeError("internal")

    monkeypatch.setattr(Upscaler, "stream", fail)
    upscale(page)
    expect(status(page)).to_have_attribute("role", "alert")
    expect(status(page)).to_contain_text("Something went wrong while upscaling cat.png")
    expect(page.locator("#viewer img")).to_have_count(0)
    expect(page.locator("#download a")).to_have_count(0)


@pytest.mark.parametrize("size", ["390x844", "1366x657", "1440x900"])
def test_refused_files_stay_visible_with_the_reason(page, images, size):
    width, height = map(int, size.split("x"))
    page.set_viewport_size({"width": width, "height": height})
    reasons = {"text.png": "is not", "empty.png": "is empty", "truncated.jpg": "truncated", "huge.png": "huge.png"}
    for name, reason in reasons.items():
        choose(page, images / name)
        shown = drop_zone(page, "refused").get_by_role("alert")
        expect(shown).to_contain_text(reason)
        expect(shown).to_contain_text(name)
        page.wait_for_timeout(100)  # it scrolls into view
        assert in_view(shown) and in_view(drop_zone(page, "refused"))
        assert "/" not in shown.inner_text()  # no path of the server
        thumbnail = page.locator("#image img")
        expect(thumbnail).to_have_count(int(name in ("truncated.jpg", "huge.png")))  # what the browser can show
        expect(status(page)).to_have_text("Choose an image.")
    upscale(page)
    expect(status(page)).to_contain_text("Choose an image first")


def test_16_bits_are_said(page, images):
    choose(page, images / "16bit.png")
    expect(status(page)).to_contain_text("16bit.png has 16 bits per channel")
    assert page.locator("#image img").evaluate("image => image.naturalWidth") == 40


def test_axe_finds_no_violations(page, images, slow):
    slow.seconds = 0.5
    page.add_style_tag(content="*, *::before, *::after {transition: none !important; animation: none !important}")
    page.evaluate(AXE_SCRIPT)
    found = {}

    def check(state: str) -> None:
        for theme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
            violations = page.evaluate(
                "options => axe.run(document, options).then(results => results.violations)",
                {**options, "resultTypes": ["violations"]},
            )
            found[state, theme] = [
                (each["impact"], each["id"], [node["html"][:200] for node in each["nodes"]]) for each in violations
            ]

    page.get_by_label("Longest edge").first.click()
    page.get_by_role("button", name="More settings").first.click()
    page.get_by_role("button", name="Use in code").click()
    page.get_by_label("JPEG", exact=True).click()
    page.get_by_label("Longest edge in pixels").fill("12.7")
    expect(page.locator("#edge-error")).to_be_visible()
    check("empty, all expanded")
    page.get_by_label("4x", exact=True).first.click()
    start(page, images / "small.png")
    check("running")
    cancel(page)
    slow.seconds = 0
    upscale(page)
    expect(page.locator("#viewer img")).to_have_count(2)
    page.get_by_role("button", name="Close-up").click()
    expect(page.locator("#close-up img")).to_have_count(3, timeout=30_000)
    check("result and close-up")
    choose(page, images / "truncated.jpg")
    check("refused")
    page.set_input_files("#image input[type=file]", images / "large.jpg")
    expect(drop_zone(page, "large")).to_be_visible()
    check("too large")
    page.get_by_role("button", name="Crop a region").click()
    check("cropping")
    page.get_by_role("button", name="Back").click()
    page.get_by_role("tab", name="Compare models").click()
    check("compare, empty")
    page.set_input_files("#compare-image input[type=file]", images / "small.png")
    expect(status(page, "compare")).to_contain_text("small.png")
    button(page, "compare").click()
    expect(page.locator("#comparison img")).to_have_count(2, timeout=30_000)
    check("compare, done")
    page.get_by_role("tab", name="Batch").click()
    check("batch, empty")
    choose_batch(page, [images / "small.png", images / "text.png"])
    expect(status(page, "batch")).to_contain_text("2 images")
    button(page, "batch").click()
    expect(status(page, "batch")).to_contain_text("1 failed", timeout=30_000)
    check("batch, done")
    assert found == {state: [] for state in found}


def test_names_roles_and_touch_targets(page, images, slow):
    start(page, images / "small.png")
    expect(page.locator("#image img")).to_have_attribute("alt", "Input image")
    expect(status(page)).to_have_attribute("role", "status")
    expect(page.get_by_role("progressbar", name="Progress")).to_be_visible()
    for name, value in (("aria-valuemin", "0"), ("aria-valuemax", "100")):
        expect(progress(page)).to_have_attribute(name, value)
    slow.seconds = 0
    for name in ("small.png: upscaled", "small.png: bicubic"):
        expect(page.get_by_role("img", name=name)).to_be_visible()
    small = page.evaluate(
        "[...document.querySelectorAll('button, a, label:has(input), #viewer input')]"
        ".filter(e => e.offsetParent && e.tabIndex >= (e.matches('label') ? -1 : 0))"
        ".map(e => [e.outerHTML, e.getBoundingClientRect()])"
        ".filter(([_, box]) => box.width < 44 || box.height < 44).map(([html]) => html)"
    )
    assert not small


def test_keyboard_reaches_everything(page, images, instant):
    choose(page, images / "small.png")
    button(page).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer img")).to_have_count(2)
    expect(button(page)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#download a")).to_be_focused()
    handle = page.get_by_role("slider", name="bicubic")
    for _ in range(20):
        page.keyboard.press("Tab")
        if handle.evaluate("element => element === document.activeElement"):
            break
    expect(handle).to_be_focused()
    page.keyboard.press("Home")
    assert handle.input_value() == "0"
    assert "100%" in page.locator("#viewer .half").evaluate("half => getComputedStyle(half).clipPath")
    for name in ("Zoom out", "Zoom in", "Fit", "Close-up", "Full screen"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()


def test_divider_drags_and_buttons_keys_and_wheel_zoom(page, images, instant):
    frame = finish(page, images / "small.png")
    page.wait_for_timeout(400)  # it scrolls into view
    handle = page.get_by_role("slider", name="bicubic")
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 100, box["y"] + 60, steps=5)
    page.mouse.up()
    assert 0 < float(handle.input_value()) < 40

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
    assert zoom == pytest.approx(1.002**300, rel=0.01) and x > -0.05 and y > -0.05  # the point under the pointer stays
    page.get_by_role("button", name="Fit").click()
    button(page).focus()
    page.mouse.wheel(0, -300)  # scrolls the page
    page.wait_for_timeout(200)
    assert view(page) == [1, 0, 0]


def test_close_up_shows_the_picked_region(page, images, instant, monkeypatch):
    picked = []
    close_up = service.close_up
    monkeypatch.setattr(service, "close_up", lambda *args: picked.append(args[1:]) or close_up(*args))
    frame = finish(page, images / "small.png")
    page.wait_for_timeout(400)  # it scrolls into view
    box = frame.bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    shown = page.locator("#close-up img")
    expect(shown).to_have_count(3, timeout=30_000)
    assert [image.get_attribute("alt").split()[0] for image in shown.all()] == ["Bicubic", "Faithful", "Sharp"]
    for image in shown.all():
        assert image.evaluate("image => image.getBoundingClientRect().width / image.naturalWidth") == pytest.approx(2)
    frame.focus()
    for key in ("+", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    page.wait_for_timeout(1000)
    assert picked[0][0] == "photo" and picked[0][1:] == pytest.approx((0.9, 0.2), abs=0.02)
    assert picked[1][1:] == pytest.approx(((0.5 - -0.15) / 1.5, 0.5), abs=0.02)


def test_layout_does_not_shift_between_states(page, slow):
    slow.seconds, slow.strips = 0.05, 20
    slow.may_finish.clear()
    choose(page, EXAMPLES / "cat.png")
    boxes = []

    def measure() -> None:
        page.evaluate("scrollTo(0, 0)")
        boxes.append([page.locator(each).bounding_box() for each in ("#viewer .frame", "#download", "#close-up")])

    measure()
    upscale(page)
    expect(page.locator("#viewer img")).to_have_count(1, timeout=2000)
    assert page.locator("#viewer img").get_attribute("src").startswith("data:image/jpeg")
    measure()
    wait_for_first_strip(page)
    measure()
    expect(status(page)).to_contain_text(re.compile(r"\d s left"))
    slow.may_finish.set()
    expect(page.locator("#viewer img")).to_have_count(2, timeout=30_000)
    page.wait_for_timeout(500)
    measure()
    assert boxes == [boxes[0]] * 4


PASTE = """bytes => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], 'pasted.png', {type: 'image/png'}));
    document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}));
}"""


def test_pasted_images(page, images, instant):
    for name, size in (("small.png", "40 × 30"), ("other.png", "50 × 40")):
        page.evaluate(PASTE, [*(images / name).read_bytes()])
        expect(status(page)).to_contain_text(f"pasted.png: {size} to")
        expect(page.locator("#viewer img")).to_have_count(2)
    expect(status(page)).to_contain_text("pasted.png: 50 × 40 to 200 × 160 in")
    page.evaluate("document.addEventListener('files', event => window.others = event.detail.files)")
    page.get_by_role("tab", name="Batch").click()
    page.evaluate(PASTE, [*(images / "small.png").read_bytes()])
    assert page.evaluate("others.map(file => file.name)") == ["pasted.png"]
    page.get_by_role("tab", name="Upscale").click()
    page.wait_for_timeout(500)
    expect(status(page)).to_contain_text("pasted.png: 50 × 40 to 200 × 160 in")


DROP = """([bytes, name, at]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name));
    for (const type of ['dragover', 'drop']) {
        const event = new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector(at).dispatchEvent(event);
    }
}"""


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


def serve_addresses(monkeypatch, data: bytes) -> None:
    """Answer all public addresses with these bytes."""

    async def download(url: str, max_bytes: int) -> tuple[bytes, str]:
        if "example.org" not in url:
            raise ValueError(f"'{url}' cannot be fetched: not a public address.")
        return data, "small.png"

    monkeypatch.setattr(fetch, "_download", download)


def test_address_pasted_and_refused_ones(page, images, instant, monkeypatch):
    serve_addresses(monkeypatch, (images / "small.png").read_bytes())
    page.get_by_label("Start automatically").uncheck()
    for address, reason in (("http://10.0.0.1/a.png", "not a public address"), ("cat.png", "Enter an address")):
        page.get_by_label("Image URL").fill(address)
        page.keyboard.press("Enter")
        shown = drop_zone(page, "refused").get_by_role("alert")
        expect(shown).to_contain_text(reason)
        assert in_view(shown)
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.setData('text/plain', 'https://example.org/small.png');
            document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}));
        }"""
    )
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120")
    expect(drop_zone(page, "ready").locator("img")).to_be_visible()


def test_remove_clears_the_image(page, images, instant):
    finish(page, images / "small.png")
    page.get_by_label("Remove image").click()
    expect(drop_zone(page, "empty")).to_be_visible()
    expect(status(page)).to_have_text("Choose an image.")
    expect(page.locator("#viewer img, #image img")).to_have_count(0)
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


@pytest.mark.parametrize("size", ["390x844", "1366x657"])
def test_primary_action_is_in_the_first_screen(page, images, instant, size):
    width, height = map(int, size.split("x"))
    page.set_viewport_size({"width": width, "height": height})
    primary = page.locator("#input .primary:visible")
    assert in_view(button(page)) and in_view(page.locator("#image .zone"))
    choose(page, images / "small.png")
    page.evaluate("scrollTo(0, 0)")
    expect(primary).to_have_text("Upscale")
    assert in_view(primary)
    upscale(page)
    expect(primary).to_have_text(re.compile("Download PNG"))
    page.wait_for_timeout(300)
    assert in_view(primary)  # wherever the result has scrolled to
    page.evaluate("scrollTo(0, 0)")
    assert in_view(primary) and in_view(button(page))


def test_longest_edge_default_limit_and_errors(page, images, instant):
    choose(page, images / "small.png")
    page.get_by_label("Longest edge", exact=True).click()
    number, error = page.get_by_label("Longest edge in pixels"), page.locator("#edge-error")
    expect(number).to_have_value("160")
    expect(page.locator("#edge-limit")).to_have_text("at most 160")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120")
    for wrong in ("12.7", "161", "0", "", "x", "-5"):
        number.fill(wrong)
        number.press("Tab")
        expect(error).to_have_text("Enter a whole number of pixels from 1 to 160.")
        assert number.input_value() == wrong
        assert "1px" in number.evaluate("e => getComputedStyle(e).border")
        assert abs(error.bounding_box()["y"] - number.bounding_box()["y"]) < 60
        expect(status(page)).to_contain_text("160 × 120")
    upscale(page)
    expect(status(page)).to_contain_text("longest edge in pixels, got '-5'")
    number.fill("100")
    number.press("Enter")
    expect(error).to_be_hidden()
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 100 × 75")
    choose(page, EXAMPLES / "cat.png")
    expect(page.locator("#edge-limit")).to_have_text("at most 904")
    expect(number).to_have_value("100")


FOCUSED = """(() => {
    const focused = document.activeElement, shown = focused.type === 'radio' ? focused.nextElementSibling : focused;
    return [focused.type, focused.value, getComputedStyle(shown).outlineStyle];
})()"""


def test_choices_are_one_tab_stop_and_focus_is_visible(page):
    page.get_by_role("button", name="More settings").first.click()
    page.get_by_label("4x", exact=True).first.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("3x", exact=True).first).to_be_checked()
    expect(page.get_by_label("3x", exact=True).first).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("2x", exact=True).first).to_be_focused()
    focused = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focused.append(page.evaluate(FOCUSED))
    radios = [value for kind, value, _ in focused if kind == "radio"]
    assert radios == ["photo", "PNG", "gps"]
    sliders = [outline for kind, _, outline in focused if kind == "range"]
    assert sliders and set(sliders) == {"solid"}
    assert all(outline == "solid" for kind, _, outline in focused if kind == "radio")


def test_warmed_up_examples_show_their_result_at_once(open_page, images, instant):
    demo = app.create_demo()
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{**app.launch_options(), "mcp_server": False})
    page = open_page(at=url)
    for path in list_examples():
        page.wait_for_timeout(300)
        page.get_by_role("button", name=path.stem.capitalize()).click()
        expect(page.locator("#viewer img")).to_have_count(2)
        expect(status(page)).to_contain_text(f"{path.name}: ")
        expect(page.locator("#download a")).to_have_attribute("download", f"{path.stem}_x4.png")
    page.get_by_label("2x", exact=True).first.click()
    page.get_by_label("Start automatically").uncheck()
    page.get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 452 × 300")
    expect(page.locator("#viewer img")).to_have_count(0)
    assert instant.calls == len(list_examples())
    choose(page, images / "small.png")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 80 × 60")
    demo.close()


def test_settings_appear_when_needed_and_size_limit_is_shown(page, images):
    expect(page.get_by_label("4x", exact=True).first).to_be_checked()
    number = page.get_by_label("Longest edge in pixels")
    for hidden in (number, page.get_by_text("Image type").first, page.get_by_text("Metadata").first):
        expect(hidden).to_be_hidden()
    choose(page, images / "small.png")
    page.get_by_label("Longest edge", exact=True).click()
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120")
    number.fill("100")
    number.press("Tab")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 100 × 75")
    page.get_by_role("button", name="More settings").first.click()
    expect(page.get_by_text("JPEG artifacts").first).to_be_visible()
    expect(page.get_by_label("Keep, except GPS location")).to_be_checked()
    quality = page.get_by_label("Quality").first
    expect(quality).to_be_hidden()
    page.get_by_label("WebP", exact=True).first.click()
    expect(quality).to_be_visible()


def test_batch(page, images, instant, tmp_path):
    page.get_by_role("tab", name="Batch").click()
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("Choose images first.")
    choose_batch(page, [images / name for name in ("small.png", "text.png", "other.png")])
    expect(status(page, "batch")).to_contain_text("3 images")
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("2 of 3 done, 1 failed.", timeout=30_000)
    items = page.locator("#gallery li")
    expect(items).to_have_count(3)
    expect(items.nth(0)).to_contain_text("160 × 120")
    expect(items.nth(1)).to_contain_text("text.png")
    assert [item.locator("img").count() for item in items.all()] == [1, 0, 1]
    with page.expect_download() as download:
        page.locator("#batch-download a").click()
    download.value.save_as(tmp_path / "results.zip")
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert archive.namelist() == ["small_x4.png", "other_x4.png"]
    instant.seconds = 0.02
    button(page, "batch").click()
    expect(button(page, "batch")).to_have_text("Cancel")
    page.wait_for_timeout(600)
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("0 of 3 done.", timeout=30_000)


def test_compare_models(page, images, instant):
    page.get_by_role("tab", name="Compare models").click()
    page.set_input_files("#compare-image input[type=file]", images / "small.png")
    expect(status(page, "compare")).to_contain_text("small.png")
    page.set_input_files("#ground-truth input[type=file]", images / "other.png")
    expect(page.locator("#ground-truth img")).to_be_visible()
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text(re.compile("160 × 120.*50 × 40"))
    page.locator("#ground-truth").get_by_label("Remove Image").click()
    page.get_by_label("srgan-x4", exact=True).click()
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text("3 models", timeout=30_000)
    figures = page.locator("#comparison figure")
    expect(figures).to_have_count(3)
    expect(figures.nth(0)).to_contain_text(re.compile(r"LR.consistency.*: \d"))
    expect(page.locator("#comparison")).to_contain_text("4 pixels cropped from each border")


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


def test_footer_links_to_license_model_cards_and_api(page, url):
    footer = page.get_by_role("navigation", name="More")
    license = footer.get_by_role("link", name="License").get_attribute("href")
    assert "Apache License" in page.request.get(f"{url}{license}").text()
    footer.get_by_role("link", name="srgan-x4-photo", exact=True).click()
    expect(page.locator(".card h2", has_text="Training")).to_be_visible()
    assert "weights_sha256" not in page.inner_text("body")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("link", name="SRGAN Image Upscaler").click()
    footer.get_by_role("link", name="API").click()
    expect(page.locator(".api-docs")).to_contain_text("/upscale", timeout=15_000)
