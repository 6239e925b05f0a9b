"""Layout, keyboard and accessibility of the demo's page."""

import re

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from e2e.page_helpers import (
    button,
    cancel,
    choose,
    divider,
    drop_zone,
    in_view,
    progress,
    start,
    status,
    upscale,
    wait_for_first_strip,
)
from e2e.screenshots import choose_batch
from playwright.sync_api import expect

from srgan_hub.demo.tabs.upscale import EXAMPLES


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
    page.set_input_files("#compare-image input[type=file]", images / "large.jpg")
    page.set_input_files("#ground-truth input[type=file]", images / "truncated.jpg")
    expect(drop_zone(page, "large", "#compare-image")).to_be_visible()
    expect(drop_zone(page, "refused", "#ground-truth")).to_be_visible()
    check("compare, too large and refused")
    page.set_input_files("#compare-image input[type=file]", images / "small.png")
    expect(status(page, "compare")).to_contain_text("small.png")
    button(page, "compare").click()
    expect(page.locator("#comparison tbody tr")).to_have_count(2, timeout=30_000)
    check("compare, done")
    page.get_by_role("tab", name="Batch").click()
    check("batch, empty")
    choose_batch(page, [images / "small.png", images / "text.png", images / "large.jpg"])
    expect(status(page, "batch")).to_contain_text("2 images")
    check("batch, chosen")
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


def test_layout_does_not_shift_between_states(page, slow):
    slow.seconds, slow.strips = 0.05, 20
    slow.may_finish.clear()
    choose(page, EXAMPLES / "cat.png")
    boxes, primary = [], []

    def measure() -> None:
        page.evaluate("scrollTo(0, 0)")
        boxes.append(page.locator("#viewer .frame").bounding_box())
        primary.append(page.locator("#upscale-job .bar, #download a").locator("visible=true").bounding_box())

    expect(page.locator("#download")).to_be_hidden()
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
    assert boxes == [boxes[0]] * 3 and primary == [primary[0]] * 3  # the download is where the progress was


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


def test_phone_layout_has_no_gaps_and_covers_nothing(open_page, images, instant):
    page = open_page("phone")

    def gap(above: str, below: str) -> float:
        first, second = (page.locator(each).bounding_box() for each in (above, below))
        return second["y"] - first["y"] - first["height"]

    choose(page, images / "small.png")
    expect(status(page)).to_contain_text("small.png: 40 × 30 to 160 × 120")
    assert gap("#upscale-job p", "#viewer .frame") < 30 and gap("#viewer .frame", "#size legend") < 30
    assert page.locator("#automatic").bounding_box()["height"] <= 48
    upscale(page)
    more = page.locator("#download .more button")
    expect(more).to_have_text(["Upscale this again", "Copy image"])
    for each in more.all():
        assert each.bounding_box()["height"] == 44  # one line
        assert each.evaluate("each => each.scrollWidth <= each.clientWidth")
    page.get_by_label("2x", exact=True).first.tap()
    expect(button(page)).to_have_text("Update")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(300)
    last, update = page.locator("#footer a").last.bounding_box(), button(page).bounding_box()
    assert in_view(button(page)) and last["y"] + last["height"] <= update["y"]
    page.evaluate("scrollTo(0, 0)")  # where it is among the others again
    expect(button(page)).to_have_css("position", "static")
    assert abs(gap("#examples", "#upscale-job button")) < 10
