"""Helpers of the tests of the demo's page in a real browser."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from playwright.sync_api import Locator, Page, expect

from srgan_hub.demo import fetch

expect.set_options(timeout=20_000)  # the machine may be busy


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


def button(page: Page, tab: str = "upscale") -> Locator:
    return page.locator(f"#{tab}-job button")


def status(page: Page, tab: str = "upscale") -> Locator:
    return page.locator(f"#{tab}-job p")


def progress(page: Page) -> Locator:
    return page.get_by_role("progressbar")


def wait_for_first_strip(page: Page) -> None:
    expect(progress(page)).to_have_attribute("aria-valuenow", re.compile("[1-9]"), timeout=10_000)


def drop_zone(page: Page, state: str, where: str = "#image") -> Locator:
    return page.locator(f"{where} [data-state={state}]")


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
        "return box.height > 0 && box.top > -1 && box.bottom < innerHeight + 1 && box.right <= innerWidth; }"
    )


def divider(page: Page) -> float:
    """Return the position of the divider in percent, as it is drawn."""
    clip = page.locator("#viewer .half").first.evaluate("half => getComputedStyle(half).clipPath")
    return float(re.fullmatch(r"inset\(0px 0px 0px ([\d.]+)%\)", clip)[1])


def at(locator: Locator, x: float, y: float) -> tuple[float, float]:
    """Return the position on the screen of a point in fractions of an element."""
    box = locator.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


PASTE = """bytes => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], 'pasted.png', {type: 'image/png'}));
    document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}));
}"""


PASTE_ADDRESS = """address => {
    const data = new DataTransfer();
    data.setData('text/plain', address);
    document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}));
}"""


DROP = """([bytes, name, at]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name));
    for (const type of ['dragover', 'drop']) {
        const event = new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector(at).dispatchEvent(event);
    }
}"""


def serve_addresses(monkeypatch, data: bytes) -> None:
    """Answer all public addresses with these bytes."""

    async def download(url: str, max_bytes: int) -> tuple[bytes, str]:
        if "example.org" not in url:
            raise ValueError(f"'{url}' cannot be fetched: not a public address.")
        return data, "small.png"

    monkeypatch.setattr(fetch, "_download", download)
