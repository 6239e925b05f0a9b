"""Images of the demo in each state, in three widths, light and dark, to be looked at.

python tests/screenshots.py FOLDER [--states empty done ...] [--widths 390 ...] [--themes light ...]
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

import app
from srgan_hub.upscaler import Upscaler

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "srgan_hub" / "examples"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOLD = threading.Event()  # runs wait half-way until it is set
STREAM = Upscaler.stream


def held(upscaler: Upscaler, image: np.ndarray, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
    """Upscale as ever, but wait half-way."""
    for number, rows in enumerate(STREAM(upscaler, image, size=size)):
        if number == 2:
            HOLD.wait(60)
        time.sleep(0.02)
        yield rows


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.wait_for_timeout(300)


def choose(page: Page, file: Path, where: str = "#image") -> None:
    page.set_input_files(f"{where} input[type=file]", file)
    expect(page.locator(f"{where} img").first).to_be_visible(timeout=20_000)


def choose_many(page: Page, files: list[Path]) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#images").click()
    chooser.value.set_files(files)


def begin(page: Page, job: str = "#job") -> None:
    page.locator(f"{job} button").click()


def ended(page: Page, job: str = "#job") -> None:
    expect(page.locator(f"{job} button")).not_to_have_text("Cancel", timeout=120_000)
    page.wait_for_timeout(500)


def empty(page: Page) -> None:
    pass


def folded_out(page: Page) -> None:
    page.get_by_label("Longest side").first.click()
    for name in ("More settings", "The same in code"):
        page.get_by_role("button", name=name).first.click()
    page.get_by_label("JPEG", exact=True).click()
    page.wait_for_timeout(500)


def chosen(page: Page) -> None:
    choose(page, EXAMPLES / "cat.png")
    expect(page.locator("#job p")).to_contain_text("226 x 150 to 904 x 600")


def running(page: Page) -> None:
    HOLD.clear()
    chosen(page)
    begin(page)
    expect(page.locator("#job [role=progressbar]")).not_to_have_attribute("aria-valuenow", "0", timeout=20_000)
    page.wait_for_timeout(700)


def done(page: Page) -> None:
    chosen(page)
    begin(page)
    ended(page)


def close_up(page: Page) -> None:
    done(page)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Close-up").click()
    expect(page.locator("#close-up img")).to_have_count(3, timeout=60_000)
    page.wait_for_timeout(500)


def cancelled(page: Page) -> None:
    running(page)
    begin(page)
    HOLD.set()
    expect(page.locator("#job p")).to_have_text("Cancelled.", timeout=20_000)


def failed(page: Page) -> None:
    text = {"name": "text.png", "mimeType": "image/png", "buffer": b"no image"}
    page.set_input_files("#image input[type=file]", [text])
    expect(page.locator("#job p")).to_contain_text("is not an image")


def behind_another(page: Page) -> None:
    """Choose an image, and have another user's at work."""
    other = page.context.new_page()
    other.goto(page.url)
    running(other)
    chosen(page)


def queued(page: Page) -> None:
    behind_another(page)
    begin(page)
    expect(page.locator("#job p")).to_contain_text("ahead of you", timeout=20_000)


def full(page: Page) -> None:
    behind_another(page)
    begin(page)
    expect(page.locator("#job p")).to_contain_text("Busy", timeout=20_000)


def compare_empty(page: Page) -> None:
    tab(page, "Compare")


def compare_done(page: Page) -> None:
    tab(page, "Compare")
    choose(page, EXAMPLES / "cat.png", "#compared")
    begin(page, "#compare-job")
    expect(page.locator("#results img")).to_have_count(2, timeout=120_000)
    ended(page, "#compare-job")


def many_empty(page: Page) -> None:
    tab(page, "Many")


def many_done(page: Page) -> None:
    tab(page, "Many")
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder, "broken.jpg")
        broken.write_bytes((EXAMPLES / "coffee.jpg").read_bytes()[:4000])
        choose_many(page, [EXAMPLES / "cat.png", broken, EXAMPLES / "coffee.jpg"])
        expect(page.locator("#many-job p")).to_contain_text("3 images")
    expect(page.locator("#many-job p")).to_contain_text("3 images")
    begin(page, "#many-job")
    ended(page, "#many-job")


STATES: dict[str, Callable[[Page], None]] = {
    each.__name__: each
    for each in (
        empty, folded_out, chosen, queued, running, done, close_up, cancelled, failed, full,
        compare_empty, compare_done, many_empty, many_done,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--states", nargs="+", choices=STATES, default=[*STATES])
    parser.add_argument("--widths", nargs="+", type=int, default=[390, 820, 1440])
    parser.add_argument("--themes", nargs="+", choices=("light", "dark"), default=["light", "dark"])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    Upscaler.stream = held  # type: ignore[method-assign]
    launch = {"prevent_thread_lock": True, "quiet": True, **app.launch_options(), "mcp_server": False}
    HOLD.set()
    urls = [app.create_demo(queue=length, warm_up=False).launch(**launch)[1] for length in (20, 1)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        page = browser.new_page()
        page.goto(urls[0])
        done(page)  # from now on the page knows how long an image takes
        page.close()
        for state in arguments.states:
            for width in arguments.widths:
                for theme in arguments.themes:
                    HOLD.set()
                    phone = {"has_touch": True, "is_mobile": True} if width < 500 else {}
                    context = browser.new_context(viewport={"width": width, "height": 900}, **phone)
                    page = context.new_page()
                    page.goto(f"{urls[state == 'full']}?__theme={theme}")
                    expect(page.locator("#job button")).to_be_visible(timeout=30_000)
                    STATES[state](page)
                    page.screenshot(path=arguments.folder / f"{state}-{width}-{theme}.png", full_page=True)
                    context.close()
                    HOLD.set()
        browser.close()
    os._exit(0)  # the servers' threads need not end


if __name__ == "__main__":
    main()
