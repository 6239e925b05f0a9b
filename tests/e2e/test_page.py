"""The demo's page in a real browser."""

import io
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from e2e.screenshots import choose_batch
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page, expect

import app
from srgan_hub import SRGAN
from srgan_hub.demo import fetch, service
from srgan_hub.demo import upscale as upscale_module
from srgan_hub.demo.inputs import Prepared
from srgan_hub.demo.tabs import upscale as upscale_tab
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
        page.locator("#viewer .frame").wait_for()
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        if page.url.startswith("http"):
            page.evaluate("localStorage.clear()")  # the history of results
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
        page.wait_for_timeout(1000 * self.seconds)  # a strip ends behind its cancelled job
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
    return page.locator("#viewer .half img").first.evaluate(
        "image => { const frame = image.closest('.frame').getBoundingClientRect();"
        "const box = image.getBoundingClientRect(); return [box.width / frame.width,"
        "(box.left - frame.left) / frame.width, (box.top - frame.top) / frame.height]"
        ".map(number => Math.round(number * 100) / 100 + 0); }"
    )


def divider(page: Page) -> float:
    """Return the position of the divider in percent, as it is drawn."""
    clip = page.locator("#viewer .half").first.evaluate("half => getComputedStyle(half).clipPath")
    return float(re.fullmatch(r"inset\(0px 0px 0px ([\d.]+)%\)", clip)[1])


def at(locator: Locator, x: float, y: float) -> tuple[float, float]:
    """Return the position on the screen of a point in fractions of an element."""
    box = locator.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


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

    touch("touchStart", (0.3, 0.6))
    for x in (0.35, 0.4, 0.45, 0.5):
        touch("touchMove", (x, 0.6))
    touch("touchEnd")
    assert view(page) == pytest.approx([1.5, -0.05, -0.25], abs=0.03)
    assert divider(page) == 50
    page.get_by_role("button", name="fit").tap()
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
    button(page).scroll_into_view_if_needed()
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
        expect(page.locator("#viewer .half img")).to_have_count(2 if done else 0)
        expect(page.locator("#download a")).to_have_count(1 if done else 0)


def test_cancel_and_examples_answer_at_once_during_a_slow_strip(page, images, slow):
    slow.seconds = 4
    seconds: dict[str, list[float]] = {"cancel": [], "example": []}
    choose(page, images / "small.png")
    for turn in range(2):
        upscale(page)
        expect(status(page)).to_contain_text("Upscaling small.png")
        page.wait_for_timeout(400)
        calls, clicked = slow.calls, time.monotonic()
        button(page).click()
        page.wait_for_function("document.querySelector('#upscale-job p').innerText === 'Cancelled.'")
        seconds["cancel"].append(time.monotonic() - clicked)
        assert in_view(status(page))
        page.wait_for_timeout(400)
        upscale(page)  # waits for the end of the strip
        expect(status(page)).to_contain_text("Starting")
        assert slow.calls == calls == turn * 2 + 1
        expect(status(page)).to_contain_text("Upscaling small.png")
        page.wait_for_timeout(400)
        clicked = time.monotonic()
        page.get_by_role("button", name="Cat").click()
        page.wait_for_function("document.querySelector('#upscale-job p').innerText.includes('cat.png: 226')")
        expect(page.locator("#image img")).to_be_visible()
        seconds["example"].append(time.monotonic() - clicked)
        choose(page, images / "small.png")
    assert {name: min(each) < 0.5 for name, each in seconds.items()} == {"cancel": True, "example": True}, seconds


def test_removed_image_does_not_come_back(page, images, slow):
    slow.seconds = 0.5
    for milliseconds in (0, 30, 100):
        start(page, images / "small.png")
        page.wait_for_function("!document.querySelector('[data-settling]')")
        page.evaluate(
            """milliseconds => {
                document.querySelector('#upscale-job button').click();
                setTimeout(() => document.querySelector('[aria-label="Remove image"]').click(), milliseconds);
            }""",
            milliseconds,
        )
        expect(status(page)).to_contain_text("Choose an image.")
        page.wait_for_timeout(1200)
        expect(status(page)).to_contain_text("Choose an image.")
        expect(page.locator("#image img")).to_have_count(0)
        expect(page.locator("#viewer img")).to_have_attribute("alt", "cat.png: preview")  # as at the start


def test_waiting_time_and_title(open_page, images, slow):
    slow.seconds, slow.strips = 0, 4
    page = open_page()
    finish(page, images / "small.png")
    expect(page).to_have_title("Done - SRGAN Image Upscaler")
    slow.may_finish.clear()
    upscale(page)
    expect(page).to_have_title("75 % - SRGAN Image Upscaler")
    second = open_page()
    choose(second, images / "small.png")
    expect(second).to_have_title("SRGAN Image Upscaler")
    upscale(second)
    expect(status(second)).to_contain_text(re.compile(r"1 job ahead, (about \d|less than 1) s"))
    slow.may_finish.set()
    expect(page).to_have_title("Done - SRGAN Image Upscaler")
    expect(second).to_have_title("Done - SRGAN Image Upscaler")
    slow.may_finish.clear()
    upscale(page)
    expect(page).to_have_title("75 % - SRGAN Image Upscaler")
    cancel(page)
    slow.may_finish.set()
    expect(page).to_have_title("SRGAN Image Upscaler")


def test_upscale_again_copy_and_history(open_page, contexts, images, instant):
    contexts["desktop"].grant_permissions(["clipboard-read", "clipboard-write"])
    page = open_page()
    finish(page, images / "small.png")
    page.get_by_role("button", name="Copy image").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    size = """async () => {
        const [item] = await navigator.clipboard.read();
        const image = await createImageBitmap(await item.getType('image/png'));
        return [image.width, image.height];
    }"""
    assert page.evaluate(size) == [160, 120]
    page.get_by_role("button", name="Upscale this again").click()
    expect(status(page)).to_contain_text("small_x4.png: 160 × 120 to 640 × 480 in")
    expect(page.locator("#download a")).to_have_attribute("download", "small_x4_x4.png")
    expect(page.get_by_role("button", name="Upscale this again")).to_have_count(0)  # beyond the limit
    history = page.locator("#history button")
    expect(history).to_have_count(2)
    page.reload()
    expect(history).to_have_count(2)
    for thumbnail in page.locator("#history img").all():
        assert thumbnail.evaluate("image => image.naturalWidth") == 96
    history.nth(1).scroll_into_view_if_needed()
    assert in_view(history.nth(1))
    history.nth(1).click()
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120 in")
    expect(page.locator("#viewer img")).to_have_count(2)
    expect(page.locator("#image img")).to_be_visible()
    with page.expect_download() as download:
        page.locator("#download a").click()
    file = download.value.path()
    with Image.open(file) as result:
        assert result.size == (160, 120)
    for name in ("other.png", "gray.png", "alpha.png", "one.png", "16bit.png", "gps.jpg"):
        finish(page, images / name)
    expect(history).to_have_count(6)
    deleted = page.evaluate("JSON.parse(localStorage.getItem('srgan-results'))[2].file.path")
    Path(deleted).unlink()
    page.reload()
    expect(history).to_have_count(5)


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
    expect(page.locator("#viewer .half")).to_have_count(0)
    expect(page.locator("#download button")).to_be_disabled()
    upscale(page)
    expect(page.locator("#viewer img")).to_have_count(2)

    def fail(upscaler, image, size):
        raise RuntimeError("internal")

    monkeypatch.setattr(Upscaler, "stream", fail)
    upscale(page)
    expect(status(page)).to_have_attribute("role", "alert")
    expect(status(page)).to_contain_text("Something went wrong while upscaling cat.png")
    expect(page.locator("#viewer .half")).to_have_count(0)
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
    page.get_by_label("JPEG", exact=True).first.click()
    page.locator("#size input[type=text]").fill("12.7")
    expect(page.locator("#size .error")).to_be_visible()
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
    page.locator("#detail input[type=range]").press("ArrowLeft")
    expect(page.get_by_text("Detail 0.95", exact=True)).to_be_visible()
    check("detail previewed")
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
    expect(page.locator("#comparison tbody tr")).to_have_count(2, timeout=30_000)
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
    for name in ("small.png: After: srgan-x4-photo", "small.png: Before: bicubic"):
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
    assert divider(page) == 0
    for name in ("Zoom out", "zoom to 100 %", "Zoom in", "Close-up", "Full screen"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#viewer summary")).to_be_focused()


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
    shown = [image.bounding_box()["width"] for image in page.locator("#viewer .half img").all()]
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
    page.get_by_role("button", name="fit").click()
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
    page.keyboard.down("Shift")
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    page.keyboard.up("Shift")
    assert divider(page) == 50
    shown = page.locator("#close-up img")
    expect(shown).to_have_count(3, timeout=30_000)
    assert [image.get_attribute("alt").split()[0] for image in shown.all()] == ["Bicubic", "Faithful", "Sharp"]
    for image in shown.all():
        assert image.evaluate("image => image.getBoundingClientRect().width / image.naturalWidth") > 1
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
        boxes.append([page.locator(each).first.bounding_box() for each in ("#viewer .frame", "#download .action")])

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


@pytest.fixture
def warm_url(instant) -> Iterator[str]:
    """The URL of a demo with upscaled examples."""
    demo = app.create_demo()
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{**app.launch_options(), "mcp_server": False})
    yield url
    demo.close()


@pytest.mark.parametrize("size", [(390, 844), (1366, 657), (1440, 900)])
def test_page_opens_with_an_upscaled_example(browser, contexts, warm_url, size):
    context = contexts["phone" if size[0] < 500 else "desktop"]
    for _ in range(2):  # the first time without the browser's cache
        page = context.new_page()
        page.set_viewport_size({"width": size[0], "height": size[1]})
        start = time.perf_counter()
        page.goto(warm_url)
        page.wait_for_function(
            "(shown => shown.length === 2 && shown.every(image => image.complete && image.naturalWidth === 904))"
            "([...document.querySelectorAll('#viewer .half img')])"
        )
        seconds = time.perf_counter() - start
        frame = page.locator("#viewer .frame")
        assert in_view(frame) and divider(page) == 50
        assert in_view(page.locator("#image .zone")) and in_view(page.locator("#download a"))
        expect(page.locator(".action.primary:visible")).to_have_text([re.compile("Download PNG")])
        page.wait_for_function("document.querySelector('[data-tool=actual]').textContent !== '100 %'")
        for label in ("Before: bicubic", "After: srgan-x4-photo"):
            assert in_view(page.locator("#viewer .label", has_text=label))
        assert page.locator("#viewer [data-tool]:visible, #download a:visible").count() == 6
        assert page.locator("#viewer button:disabled, #download button:disabled, .placeholder:visible").count() == 0
        help = page.get_by_text("Double-click")
        expect(help).to_be_hidden()
        page.locator("summary[aria-label=Help]").click()
        assert in_view(help)
        page.close()
    assert seconds < 3


def test_page_shows_an_example_that_was_upscaled_after_the_start(open_page, instant, monkeypatch):
    """ZeroGPU has no GPU at the start."""
    monkeypatch.setattr(upscale_tab, "ZERO_GPU", True)
    instant.may_finish.clear()
    demo = app.create_demo()
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{**app.launch_options(), "mcp_server": False})
    page = open_page(at=url)
    expect(page.locator("#viewer img")).to_have_attribute("alt", "cat.png: preview")
    instant.may_finish.set()
    deadline = time.monotonic() + 20
    while instant.calls < 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    page.reload()
    expect(page.locator("#viewer .half img")).to_have_count(2)
    expect(page.locator("#download a")).to_have_attribute("download", "cat_x4.png")
    demo.close()


def test_dial_previews_the_region_around_the_click(open_page, warm_url, instant):
    page = open_page(at=warm_url)
    frame = page.locator("#viewer .frame")
    page.wait_for_function("document.querySelector('.view').dataset.point")
    page.mouse.click(*at(frame, 0.25, 0.75))
    slider = page.locator("#detail input[type=range]")
    slider.scroll_into_view_if_needed()
    for end in ("Faithful", "Sharp"):
        ends = slider.evaluate("e => [...e.parentElement.children].map(c => getComputedStyle(c, '::after').content)")
        assert f'"{end}"' in ends
    x, y, width, height = (slider.bounding_box()[each] for each in ("x", "y", "width", "height"))
    page.mouse.move(x + 0.5 * width, y + height / 2)
    page.mouse.down()
    start = time.perf_counter()
    preview = page.locator(".detail-preview img")
    expect(page.get_by_text("Detail 0.5", exact=True)).to_be_visible(timeout=1000)
    assert in_view(preview) and preview.evaluate("image => image.naturalWidth") == 200
    assert in_view(page.locator("#detail input[type=range]"))
    for amount in (0, 0.25, 0.75, 1):
        page.mouse.move(x + amount * width + (amount == 0) - (amount == 1), y + height / 2)
        expect(page.get_by_text(f"Detail {amount}", exact=True)).to_be_visible(timeout=1000)
    assert time.perf_counter() - start < 3
    box, mark = frame.bounding_box(), page.locator("#viewer .mark").bounding_box()
    assert (mark["x"] + mark["width"] / 2 - box["x"]) / box["width"] == pytest.approx(0.25, abs=0.02)
    assert mark["width"] / box["width"] == pytest.approx(200 / 904, abs=0.02)
    calls = instant.calls
    page.mouse.move(x + 0.75 * width, y + height / 2)
    expect(page.get_by_text("Detail 0.75", exact=True)).to_be_visible()
    page.mouse.up()
    page.wait_for_timeout(200)
    assert instant.calls == calls  # the browser had it
    page.mouse.click(*at(page.locator("#header"), 0.9, 0.5))
    expect(preview).to_be_hidden()


def test_click_drag_hold_and_double_click_in_the_viewer(page, images, instant):
    frame = finish(page, images / "other.png")
    page.wait_for_timeout(400)  # it scrolls into view
    page.mouse.click(*at(frame, 0.2, 0.8))
    assert divider(page) == pytest.approx(20, abs=1)
    page.wait_for_timeout(500)
    page.mouse.move(*at(frame, 0.9, 0.1))
    page.mouse.down()
    page.mouse.move(*at(frame, 0.7, 0.2), steps=4)
    page.mouse.up()
    assert divider(page) == pytest.approx(70, abs=1)
    before = page.locator("#viewer .half").nth(1)
    page.mouse.down()
    expect(page.locator("#viewer [data-held] .half").nth(1)).to_have_css("clip-path", "none", timeout=1000)
    expect(page.locator("#viewer .label").nth(1)).to_be_hidden()
    page.mouse.up()
    expect(before).not_to_have_css("clip-path", "none")
    assert divider(page) == pytest.approx(70, abs=1) and view(page) == [1, 0, 0]
    page.mouse.dblclick(*at(frame, 0.5, 0.5))
    assert view(page)[0] == 2  # the frame shows more than 100 %
    page.mouse.dblclick(*at(frame, 0.5, 0.5))
    assert view(page) == [1, 0, 0]


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_double_click_shows_the_full_result_at_100_percent(open_page, instant, monkeypatch, device):
    monkeypatch.setattr(upscale_module, "VIEWER_EDGE", 800)
    page = open_page(device)
    frame = finish(page, EXAMPLES / "cat.png")
    page.wait_for_timeout(400)  # it scrolls into view
    shown = page.locator("#viewer .half img")
    assert [image.evaluate("image => image.naturalWidth") for image in shown.all()] == [800, 800]
    point = at(frame, 0.3, 0.4)
    if device == "phone":
        for _ in range(2):
            page.touchscreen.tap(*point)
    else:
        page.mouse.dblclick(*point)
    expect(page.locator("[data-tool=actual]")).to_have_text("100 %")
    assert shown.first.bounding_box()["width"] == pytest.approx(904, abs=1)
    page.wait_for_function("document.querySelector('#viewer .half img').naturalWidth === 904")
    assert shown.first.get_attribute("src") == page.locator("#download a").get_attribute("href")
    image = shown.first.bounding_box()
    assert [
        (each - image[axis]) / image[size] for each, axis, size in zip(point, "xy", ("width", "height"), strict=True)
    ] == (pytest.approx((0.3, 0.4), abs=0.01))  # the point stays


def test_full_screen_fills_the_screen_with_close_up_and_says_how_to_leave(page, images, instant):
    finish(page, images / "small.png")
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement !== null")
    frame = page.locator("#viewer .frame")
    page.wait_for_function("document.querySelector('#viewer .frame').clientHeight > 0.85 * innerHeight")
    assert frame.bounding_box()["width"] > 0.95 * page.viewport_size["width"]
    leave = page.get_by_role("button", name="Exit full screen (Esc)")
    assert in_view(leave)
    page.get_by_role("button", name="Close-up").click()
    expect(page.locator("#close-up img")).to_have_count(3)
    expect(page.locator("#viewer .mark")).to_be_visible()
    page.wait_for_timeout(300)
    for each in ("#close-up .close-ups", "#close-up button", "#viewer .mark", "#viewer .frame"):
        assert in_view(page.locator(each))
    leave.click()
    page.wait_for_function("document.fullscreenElement === null")
    expect(leave).to_be_hidden()


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_close_up_works_at_once_lies_in_view_and_marks_its_place(open_page, images, slow, device):
    page = open_page(device)
    slow.seconds = 0
    finish(page, EXAMPLES / "cat.png")
    slow.seconds = 0.01
    text = page.evaluate(
        "async () => { document.querySelector('[data-tool=closeUp]').click();"
        "await new Promise(resolve => setTimeout(resolve, 100));"
        "return document.querySelector('#close-up').innerText; }"
    )
    assert "working" in text
    shown = page.locator("#close-up figure")
    expect(shown).to_have_count(3)
    page.wait_for_timeout(700)
    assert in_view(shown.first)
    second = shown.nth(1).bounding_box()
    assert second["x"] + 20 < page.viewport_size["width"]  # it can be seen that there is more
    box, mark = (page.locator(f"#viewer .{each}").bounding_box() for each in ("frame", "mark"))
    assert (mark["x"] - box["x"]) / box["width"] == pytest.approx((226 - 50) / 2 / 226, abs=0.02)
    page.locator("#close-up button").click()
    expect(page.locator("#close-up figure, #viewer .mark:visible")).to_have_count(0)


def test_transparency_is_seen_on_a_checkerboard(page, images, instant):
    finish(page, images / "alpha.png")
    for image in page.locator("#viewer .half img").all():
        assert "conic-gradient" in image.evaluate("image => getComputedStyle(image).backgroundImage")
    alpha = page.evaluate(
        "async () => { const bitmap = await createImageBitmap(document.querySelector('#viewer .half img'));"
        "const context = new OffscreenCanvas(1, 1).getContext('2d'); context.drawImage(bitmap, 0, 0);"
        "return context.getImageData(0, 0, 1, 1).data[3]; }"
    )
    assert 0 < alpha < 255


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_alignment_and_one_primary_action(open_page, images, instant, device):
    page = open_page(device)
    left = page.locator("h1").bounding_box()["x"]
    labels = [page.get_by_role("tab", name="Upscale"), page.locator("#footer a").first, page.locator("#footer p")]
    for each in labels:
        text = each.evaluate(
            "each => { const range = document.createRange(); range.selectNodeContents(each);"
            "return range.getBoundingClientRect().x; }"
        )
        assert text == pytest.approx(left, abs=1)
    tab = page.get_by_role("tab", selected=True)
    assert "inset" in tab.evaluate("tab => getComputedStyle(tab).boxShadow")
    assert tab.evaluate("tab => tab.parentElement.getBoundingClientRect().bottom >= tab.getBoundingClientRect().bottom")
    primary = page.locator(".action.primary:visible")
    choose(page, images / "small.png")
    expect(primary).to_have_text(["Upscale"])
    expect(page.locator("#upscale-job [role=progressbar]")).to_be_hidden()
    job = page.locator("#upscale-job").bounding_box()
    text = status(page).bounding_box()
    assert job["y"] + job["height"] - text["y"] - text["height"] < 20  # no void
    upscale(page)
    expect(primary).to_have_text([re.compile("Download PNG")])
    tops = {each.bounding_box()["y"] for each in page.locator("#viewer .tools button").all()}
    assert len(tops) == 1  # none wraps
    page.get_by_role("tab", name="Compare models").click()
    page.set_input_files("#compare-image input[type=file]", images / "small.png")
    expect(status(page, "compare")).to_contain_text("small.png")
    expect(primary).to_have_text(["Compare"])
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text("2 models")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    page.get_by_role("tab", name="Batch").click()
    expect(primary).to_have_text(["Upscale all"])
    choose_batch(page, [images / "small.png"])
    button(page, "batch").click()
    expect(primary).to_have_text([re.compile("Download 1 image as ZIP")])
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


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
    page.get_by_label("Longest edge", exact=True).first.click()
    number, error = page.locator("#size input[type=text]"), page.locator("#size .error")
    expect(number).to_have_value("160")
    expect(page.locator("#size .limit")).to_have_text("at most 160")
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
    expect(page.locator("#size .limit")).to_have_text("at most 904")
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
    expect(page.locator("#viewer .half")).to_have_count(0)
    assert instant.calls == len(list_examples()) + 5  # previews of details
    choose(page, images / "small.png")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 80 × 60")
    demo.close()


def test_settings_appear_when_needed_and_size_limit_is_shown(page, images):
    expect(page.get_by_label("4x", exact=True).first).to_be_checked()
    number = page.locator("#size input[type=text]")
    for hidden in (number, page.get_by_text("Image type").first, page.get_by_text("Metadata").first):
        expect(hidden).to_be_hidden()
    choose(page, images / "small.png")
    page.get_by_label("Longest edge", exact=True).first.click()
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
        page.get_by_role("link", name="Download 2 images as ZIP").click()
    download.value.save_as(tmp_path / "results.zip")
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert archive.namelist() == ["small_x4.png", "other_x4.png"]
        single = archive.read("other_x4.png")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download other_x4.png").click()
    assert download.value.suggested_filename == "other_x4.png" and download.value.path().read_bytes() == single
    instant.seconds = 0.02
    button(page, "batch").click()
    expect(button(page, "batch")).to_have_text("Cancel")
    page.wait_for_timeout(600)
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("0 of 3 done.", timeout=30_000)


def test_batch_drop_zone_adds_shows_thumbnails_and_removes(page, images, instant, tmp_path):
    with Image.open(images / "small.png") as image:
        image.convert("RGB").save(tmp_path / "photo.tif")
        pillow_heif.from_pillow(image.convert("RGB")).save(tmp_path / "photo.heic")
    page.get_by_role("tab", name="Batch").click()
    zone = page.get_by_text("Drop images, paste, or click")
    assert in_view(zone)
    data = page.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'dropped.png', {type: 'image/png'}));
            return data;
        }""",
        [*(images / "other.png").read_bytes()],
    )
    zone.dispatch_event("drop", {"dataTransfer": data})
    expect(page.locator("#gallery li")).to_contain_text(["dropped.png50 × 40"])
    choose_batch(page, [tmp_path / "photo.tif", tmp_path / "photo.heic", images / "huge.png"])
    items = page.locator("#gallery li")
    expect(items).to_contain_text(["dropped.png", "photo.tif", "photo.heic", "huge.png"])
    for item in items.all()[:3]:
        thumbnail = item.locator("img")
        assert in_view(thumbnail) and thumbnail.evaluate("image => image.naturalWidth") >= 40
    expect(items.nth(3)).to_have_class("failed")
    page.get_by_role("button", name="Remove huge.png").click()
    page.get_by_role("button", name="Remove dropped.png").click()
    expect(items).to_contain_text(["photo.tif", "photo.heic"])
    expect(status(page, "batch")).to_contain_text("2 images")
    assert instant.calls == 0
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("2 of 2 done.")
    page.get_by_role("button", name="Remove photo.tif").click()
    expect(status(page, "batch")).to_contain_text("1 image")
    expect(page.get_by_role("link", name="ZIP")).to_have_count(0)


def test_batch_has_all_settings_and_failed_ones_give_no_zip(page, images, instant, tmp_path):
    page.get_by_role("tab", name="Batch").click()
    choose_batch(page, [images / "gps.jpg"])
    page.get_by_label("Longest edge", exact=True).locator("visible=true").click()
    longest = page.locator(".edge input[type=text]").locator("visible=true")
    longest.fill("100")
    longest.press("Tab")
    page.get_by_role("button", name="More settings").locator("visible=true").click()
    page.get_by_label("JPEG", exact=True).locator("visible=true").click()
    expect(page.get_by_label("Quality").locator("visible=true").first).to_be_visible()
    page.get_by_label("Remove all").locator("visible=true").click()
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("1 of 1 done.")
    expect(page.get_by_role("link", name="Download 1 image as ZIP")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download gps_100.jpg").click()
    with Image.open(download.value.path()) as result:
        assert result.format == "JPEG" and not result.getexif()
    page.get_by_role("button", name="Remove gps.jpg").click()
    choose_batch(page, [images / "text.png"])
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("0 of 1 done, 1 failed.")
    expect(page.get_by_role("link", name="ZIP")).to_have_count(0)


def test_compare_models(page, images, instant):
    page.get_by_role("tab", name="Compare models").click()
    expect(page.locator("#compare-viewer")).to_be_hidden()
    page.set_input_files("#compare-image input[type=file]", images / "small.png")
    expect(status(page, "compare")).to_contain_text("small.png")
    page.set_input_files("#ground-truth input[type=file]", images / "other.png")
    expect(page.locator("#ground-truth img")).to_be_visible()
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text(re.compile("160 × 120.*50 × 40"))
    page.locator("#ground-truth").get_by_label("Remove Image").click()
    page.get_by_label("Photo, faithful").click()
    page.get_by_label("Clean, sharp").click()
    page.get_by_label("Photo, faithful").click()
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text("3 models", timeout=30_000)
    rows = page.locator("#comparison tbody tr")
    expect(rows).to_contain_text(["Photo, sharp", "Clean, sharp", "Photo, faithful"])  # in the order of the choice
    expect(page.locator("#comparison")).not_to_contain_text("PSNR")
    viewer = page.locator("#compare-viewer")
    assert in_view(viewer.locator(".frame"))
    shown = viewer.locator("img")
    expect(shown).to_have_count(2)
    left, right = page.get_by_label("Left"), page.get_by_label("Right")
    choices = ["Original", "Bicubic", "Photo, sharp", "Clean, sharp", "Photo, faithful"]
    assert left.locator("option").all_inner_texts() == choices == right.locator("option").all_inner_texts()
    assert (left.input_value(), right.input_value()) == ("Photo, sharp", "Photo, faithful")
    left.select_option("Original")
    right.select_option("Bicubic")
    for label, width in (("Original", 40), ("Bicubic", 160)):
        expect(viewer.get_by_text(label, exact=True)).to_be_visible()
        image = viewer.get_by_role("img", name=label)
        page.wait_for_function("([image, width]) => image.naturalWidth === width", arg=[image.element_handle(), width])
    viewer.get_by_role("button", name="Zoom in").click()
    width = viewer.locator(".frame").bounding_box()["width"]
    assert [image.bounding_box()["width"] / width for image in shown.all()] == pytest.approx([1.5] * 2, rel=0.01)
    expect(viewer.get_by_role("button", name="Close-up")).to_be_hidden()  # it works in the other tab
    with page.expect_download() as download:
        page.get_by_role("link", name="Download Clean, sharp").click()
    assert download.value.suggested_filename == "srgan-x4.png"


def test_scores_have_an_explanation_and_need_a_ground_truth(page, images, instant, tmp_path):
    with Image.open(images / "small.png") as image:
        image.resize((160, 120)).save(tmp_path / "truth.png")
    page.get_by_role("tab", name="Compare models").click()
    page.evaluate(  # as for files that are dropped or pasted
        """bytes => {
            const file = new File([new Uint8Array(bytes)], 'small.png', {type: 'image/png'});
            document.dispatchEvent(new CustomEvent('files', {detail: {files: [file]}}));
        }""",
        [*(images / "small.png").read_bytes()],
    )
    expect(status(page, "compare")).to_contain_text("small.png")
    page.set_input_files("#ground-truth input[type=file]", tmp_path / "truth.png")
    expect(page.locator("#ground-truth img")).to_be_visible()
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text("2 models", timeout=30_000)
    expect(page.locator("#comparison th[scope=col]")).to_have_text(["Model", "Time", "PSNR", "SSIM", "LR consistency"])
    expect(page.locator("#comparison tbody tr").first).to_contain_text(re.compile(r"\d\d\.\d\d\s*0\.\d{4}"))
    explanations = page.locator("#comparison li")
    expect(explanations).to_have_count(3)
    assert all(each.evaluate("each => each.offsetHeight < 40") for each in explanations.all())  # one line
    expect(page.locator("#comparison")).to_contain_text("4 pixels cropped from each border")
    page.get_by_label("Right").select_option("Ground truth")
    expect(page.locator("#compare-viewer").get_by_role("img", name="Ground truth")).to_be_visible()


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
