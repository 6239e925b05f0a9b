"""Take screenshots of the demo in every state, at three sizes, light and dark.

python tests/e2e/screenshots.py DIRECTORY [--states empty result ...] [--sizes 390x844 ...] [--themes light ...]
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["SRGAN_BACKEND"] = "torch"  # computes small images in several strips
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

import app
from srgan_hub.demo.tabs.upscale import EXAMPLES
from srgan_hub.upscaler import Upscaler

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RELEASE = threading.Event()  # jobs pause half-way until it is set
STREAM = Upscaler.stream


def paused_stream(upscaler: Upscaler, image: np.ndarray, **options: Any) -> Iterator[np.ndarray]:
    """Upscale, but pause half-way."""
    for number, rows in enumerate(STREAM(upscaler, image, **options)):
        if number == 2:
            RELEASE.wait(60)
        time.sleep(0.02)
        yield rows


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.wait_for_timeout(300)


def choose(page: Page, file: Path, where: str = "#image") -> None:
    page.set_input_files(f"{where} input[type=file]", file)
    expect(page.locator(f"{where} img").first).to_be_visible(timeout=20_000)


def choose_batch(page: Page, files: list[Path]) -> None:
    count = page.locator("#gallery li").count()
    page.set_input_files("#batch-drop input[type=file]", files)
    expect(page.locator("#gallery li")).to_have_count(count + len(files))
    expect(page.get_by_text("Uploading", exact=True)).to_have_count(0, timeout=20_000)


def click_job(page: Page, tab: str = "upscale") -> None:
    page.locator(f"#{tab}-job button").click()


def wait_for_end(page: Page, tab: str = "upscale") -> None:
    expect(page.locator(f"#{tab}-job button")).not_to_have_text("Cancel", timeout=120_000)
    page.wait_for_timeout(500)


def status(page: Page, text: str, tab: str = "upscale") -> None:
    expect(page.locator(f"#{tab}-job p")).to_contain_text(text, timeout=20_000)


def empty(page: Page) -> None:
    pass


def expanded(page: Page) -> None:
    page.get_by_label("Longest edge").first.click()
    for name in ("More settings", "Use in code"):
        page.get_by_role("button", name=name).first.click()
    page.get_by_label("JPEG", exact=True).first.click()
    page.wait_for_timeout(500)


def chosen(page: Page) -> None:
    page.get_by_label("Start automatically").uncheck()
    choose(page, EXAMPLES / "cat.png")
    status(page, "226 × 150 to 904 × 600")


def running(page: Page) -> None:
    RELEASE.clear()
    chosen(page)
    click_job(page)
    expect(page.locator("#upscale-job [role=progressbar]")).not_to_have_attribute("aria-valuenow", "0", timeout=20_000)
    page.wait_for_timeout(700)


def result(page: Page) -> None:
    chosen(page)
    click_job(page)
    wait_for_end(page)


def close_up(page: Page) -> None:
    result(page)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Close-up").click()
    expect(page.locator("#close-up img")).to_have_count(3, timeout=60_000)
    page.wait_for_timeout(500)


def cancelled(page: Page) -> None:
    running(page)
    click_job(page)
    RELEASE.set()
    status(page, "Cancelled.")


def changed(page: Page) -> None:
    result(page)
    page.get_by_label("2x", exact=True).first.click()
    expect(page.locator("#upscale-job button")).to_have_text("Update")


def refused(page: Page) -> None:
    data = (EXAMPLES / "coffee.jpg").read_bytes()[:5000]
    page.set_input_files("#image input[type=file]", [{"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": data}])
    expect(page.locator("#image [role=alert]")).to_contain_text("photo.jpg", timeout=20_000)


def too_large(page: Page) -> None:
    buffer = io.BytesIO()
    with Image.open(EXAMPLES / "coffee.jpg") as coffee:
        coffee.resize((4000, 3000)).save(buffer, "JPEG")
    data = buffer.getvalue()
    page.set_input_files("#image input[type=file]", [{"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": data}])
    expect(page.get_by_role("button", name="Crop a region")).to_be_visible(timeout=20_000)


def cropping(page: Page) -> None:
    too_large(page)
    page.get_by_role("button", name="Crop a region").click()


def wrong_size(page: Page) -> None:
    chosen(page)
    page.get_by_label("Longest edge", exact=True).first.click()
    page.locator("#size input[type=text]").fill("12.7")


def behind_another(page: Page) -> None:
    """Choose an image while another client's job runs."""
    other = page.context.new_page()
    other.goto(page.url)
    running(other)
    chosen(page)
    click_job(page)


def queued(page: Page) -> None:
    behind_another(page)
    status(page, "ahead")


def queue_full(page: Page) -> None:
    behind_another(page)
    status(page, "queue is full")


def history(page: Page) -> None:
    result(page)
    page.get_by_role("button", name="Coffee").click()
    status(page, "coffee.jpg")
    click_job(page)
    wait_for_end(page)
    expect(page.locator("#history button")).to_have_count(2)


def compare_empty(page: Page) -> None:
    open_tab(page, "Compare models")


def compare_result(page: Page) -> None:
    open_tab(page, "Compare models")
    choose(page, EXAMPLES / "cat.png", "#compare-image")
    click_job(page, "compare")
    expect(page.locator("#comparison tbody tr")).to_have_count(2, timeout=120_000)
    wait_for_end(page, "compare")


def compare_scores(page: Page) -> None:
    open_tab(page, "Compare models")
    choose(page, EXAMPLES / "cat.png", "#compare-image")
    with tempfile.TemporaryDirectory() as directory:
        truth = Path(directory, "truth.png")
        with Image.open(EXAMPLES / "cat.png") as image:
            image.resize((904, 600)).save(truth)
        choose(page, truth, "#ground-truth")
    click_job(page, "compare")
    wait_for_end(page, "compare")


def batch_empty(page: Page) -> None:
    open_tab(page, "Batch")


def batch_chosen(page: Page) -> None:
    open_tab(page, "Batch")
    with tempfile.TemporaryDirectory() as directory:
        truncated = Path(directory, "truncated.jpg")
        truncated.write_bytes((EXAMPLES / "coffee.jpg").read_bytes()[:4000])
        choose_batch(page, [EXAMPLES / "cat.png", truncated, EXAMPLES / "coffee.jpg"])
        status(page, "3 images", "batch")


def batch_result(page: Page) -> None:
    batch_chosen(page)
    click_job(page, "batch")
    wait_for_end(page, "batch")


STATES: dict[str, Callable[[Page], None]] = {
    each.__name__: each
    for each in (
        empty, expanded, chosen, queued, running, result, close_up, changed, cancelled, refused, too_large, cropping,
        wrong_size, queue_full, history, compare_empty, compare_result, compare_scores, batch_empty, batch_chosen,
        batch_result,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--states", nargs="+", choices=STATES, default=[*STATES])
    parser.add_argument("--sizes", nargs="+", default=["390x844", "1366x768", "1440x900"])
    parser.add_argument("--themes", nargs="+", choices=("light", "dark"), default=["light", "dark"])
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    Upscaler.stream = paused_stream  # type: ignore[method-assign]
    launch = {"prevent_thread_lock": True, "quiet": True, **app.launch_options(), "mcp_server": False}
    RELEASE.set()
    urls = [app.create_demo(queue_size=size, warm_up=False).launch(**launch)[1] for size in (20, 1)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        page = browser.new_page()
        page.goto(urls[0])
        result(page)  # calibrates the time estimates
        page.close()
        for state in args.states:
            RELEASE.set()
            context = browser.new_context(has_touch=True)
            page = context.new_page()
            page.goto(f"{urls[state == 'queue_full']}?__theme=light")
            expect(page.locator("#upscale-job button")).to_be_visible(timeout=30_000)
            STATES[state](page)
            for size in args.sizes:
                width, height = map(int, size.split("x"))
                page.set_viewport_size({"width": width, "height": height})
                for theme in args.themes:
                    page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
                    page.wait_for_timeout(300)  # transitions
                    page.screenshot(path=args.directory / f"{state}-{size}-{theme}.png", full_page=True)
            context.close()
            RELEASE.set()
        browser.close()
    os._exit(0)  # without waiting for the servers' threads


if __name__ == "__main__":
    main()
