"""The before/after viewer and close-ups on the demo's page."""

import pytest
from e2e.page_helpers import at, button, choose, divider, finish, in_view, progress, status
from playwright.sync_api import Page, expect

from srgan_hub.demo import service
from srgan_hub.demo import upscale as upscale_module
from srgan_hub.demo.tabs.upscale import EXAMPLES


def view(page: Page) -> list[float]:
    """Return the zoom factor, and the image's top-left corner in frame widths and heights."""
    return page.locator("#viewer .half img").first.evaluate(
        "image => { const frame = image.closest('.frame').getBoundingClientRect();"
        "const box = image.getBoundingClientRect(); return [box.width / frame.width,"
        "(box.left - frame.left) / frame.width, (box.top - frame.top) / frame.height]"
        ".map(number => Math.round(number * 100) / 100 + 0); }"
    )


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
def test_zoomed_in_drags_pan_except_on_the_divider(open_page, instant, device):
    page = open_page(device)
    frame = finish(page, EXAMPLES / "cat.png")
    page.wait_for_timeout(400)  # it scrolls into view
    session = page.context.new_cdp_session(page)

    def drag(*xs: float, y: float = 0.7) -> None:
        points = [at(frame, x, y) for x in xs]
        if device == "desktop":
            page.mouse.move(*points[0])
            page.mouse.down()
            for point in points[1:]:
                page.mouse.move(*point, steps=3)
            page.mouse.up()
            return
        for number, (left, top) in enumerate(points):
            kind = "touchMove" if number else "touchStart"
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": left, "y": top}]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    drag(0.9, 0.8, 0.6)  # fitted: anywhere
    assert divider(page) == pytest.approx(60, abs=1) and view(page) == [1, 0, 0]
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Zoom in").click()
    before = view(page)
    drag(0.6, 0.5, 0.4, y=0.2)  # the divider
    assert divider(page) == pytest.approx(40, abs=1) and view(page) == before
    drag(0.8, 0.75, 0.7)  # elsewhere
    assert divider(page) == pytest.approx(40, abs=1)
    assert view(page)[0] == before[0] and view(page)[1] == pytest.approx(before[1] - 0.1, abs=0.02)
    page.wait_for_timeout(500)  # no double click
    (page.mouse.click if device == "desktop" else page.touchscreen.tap)(*at(frame, 0.25, 0.5))
    assert divider(page) == pytest.approx(25, abs=1)
    before = view(page)
    page.get_by_role("slider", name="bicubic").press("ArrowRight")
    assert divider(page) == pytest.approx(25.5, abs=1) and view(page) == before
    frame.press("ArrowLeft")
    assert divider(page) == pytest.approx(25.5, abs=1) and view(page)[1] == pytest.approx(before[1] + 0.1, abs=0.02)
    page.locator("#viewer summary").click()
    help = page.get_by_text("Zoomed in: drag the divider to move it, drag elsewhere to pan.")
    assert in_view(help)


def test_close_ups_show_transparency_on_a_checkerboard(page, images, instant):
    finish(page, images / "alpha.png")
    page.get_by_role("button", name="Close-up").click()
    shown = page.locator("#close-up img")
    expect(shown).to_have_count(3)
    for image in shown.all():
        assert "conic-gradient" in image.evaluate("image => getComputedStyle(image).backgroundImage")
        alpha = image.evaluate(
            "async image => { const bitmap = await createImageBitmap(image);"
            "const context = new OffscreenCanvas(1, 1).getContext('2d'); context.drawImage(bitmap, 0, 0);"
            "return context.getImageData(0, 0, 1, 1).data[3]; }"
        )
        assert 0 < alpha < 255
