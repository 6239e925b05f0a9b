"""Upscaling on the demo's page: jobs, results and examples."""

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from e2e.page_helpers import (
    button,
    cancel,
    choose,
    divider,
    finish,
    in_view,
    progress,
    start,
    status,
    upscale,
    wait_for_first_strip,
)
from PIL import Image
from playwright.sync_api import expect

import app
from srgan_hub import SRGAN
from srgan_hub.demo.tabs import upscale as upscale_tab
from srgan_hub.demo.tabs.upscale import list_examples
from srgan_hub.upscaler import Upscaler


def test_upload_upscale_compare_download_full_screen(page, images, tmp_path):
    expect(page.locator("#download")).to_be_hidden()
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
        assert page.locator("#viewer button:disabled, .placeholder:visible").count() == 0
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


def test_warmed_up_examples_show_their_result_at_once(open_page, images, instant):
    demo = app.create_demo()
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{**app.launch_options(), "mcp_server": False})
    page = open_page(at=url)
    for path in list_examples():
        page.wait_for_timeout(300)
        page.locator("#examples").get_by_role("button", name=path.stem.capitalize()).click()
        expect(page.locator("#viewer img")).to_have_count(2)
        expect(status(page)).to_contain_text(f"{path.name}: ")
        expect(page.locator("#download a")).to_have_attribute("download", f"{path.stem}_x4.png")
    history = page.locator("#history button")
    expect(history).to_have_count(len(list_examples()))
    history.last.click()
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 904 × 600 in")
    expect(page.locator("#download a")).to_have_attribute("download", "cat_x4.png")
    page.get_by_label("2x", exact=True).first.click()
    page.get_by_label("Start automatically").uncheck()
    page.locator("#examples").get_by_role("button", name="Cat").click()
    expect(status(page)).to_contain_text("cat.png: 226 × 150 to 452 × 300")
    expect(page.locator("#viewer .half")).to_have_count(0)
    assert instant.calls == len(list_examples()) + 5  # previews of details
    choose(page, images / "small.png")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 80 × 60")
    demo.close()


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
        page.wait_for_timeout(100)  # the current strip ends
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
    expect(page.locator("#download")).to_be_hidden()
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
