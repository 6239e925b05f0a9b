"""Settings on the demo's page."""

import re
import time

import pytest
from e2e.page_helpers import at, button, choose, finish, in_view, start, status, upscale
from playwright.sync_api import expect

from srgan_hub.demo.tabs.upscale import EXAMPLES


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
    expect(page.get_by_label("Remove GPS")).to_be_checked()
    quality = page.get_by_label("Quality").first
    expect(quality).to_be_hidden()
    page.get_by_label("WebP", exact=True).first.click()
    expect(quality).to_be_visible()


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
