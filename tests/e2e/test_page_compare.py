"""\"Compare models\" tab of the demo's page."""

import re

import pytest
from e2e.page_helpers import DROP, PASTE, PASTE_ADDRESS, button, drop_zone, in_view, serve_addresses, status
from PIL import Image
from playwright.sync_api import expect


def test_compare_models(page, images, instant):
    page.get_by_role("tab", name="Compare models").click()
    expect(page.locator("#compare-viewer")).to_be_hidden()
    page.set_input_files("#compare-image input[type=file]", images / "small.png")
    expect(status(page, "compare")).to_contain_text("small.png")
    page.set_input_files("#ground-truth input[type=file]", images / "other.png")
    expect(drop_zone(page, "ready", "#ground-truth").locator("img")).to_be_visible()
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text(re.compile("160 × 120.*50 × 40"))
    page.get_by_role("button", name="Remove ground truth").click()
    expect(drop_zone(page, "empty", "#ground-truth")).to_be_visible()
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
    page.evaluate(PASTE, [*(images / "small.png").read_bytes()])
    expect(status(page, "compare")).to_contain_text("pasted.png")
    page.set_input_files("#ground-truth input[type=file]", tmp_path / "truth.png")
    expect(drop_zone(page, "ready", "#ground-truth").locator("img")).to_be_visible()
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


def test_comparison_takes_any_photo(page, images, instant):
    page.get_by_role("tab", name="Compare models").click()
    image = page.locator("#compare-image")
    notes = {"16bit.png": "", "stereo.mpo": "", "animation.gif": "The first of 2 frames.", "photo.heic": ""}
    for name, note in {**notes, "pages.tif": "The first of 2 pages."}.items():
        page.set_input_files("#compare-image input[type=file]", images / name)
        expect(image).to_contain_text(name.rpartition(".")[0])
        expect(drop_zone(page, "ready", "#compare-image")).to_contain_text(f"40 × 30 pixels. {note}".strip())
        for edge, pixels in (("naturalWidth", 40), ("naturalHeight", 30)):  # once it is loaded
            expect(image.locator("img")).to_have_js_property(edge, pixels)
    button(page, "compare").click()
    expect(status(page, "compare")).to_have_text("pages.png: 2 models compared.")


@pytest.mark.parametrize("size", ["390x844", "1366x657"])
def test_compared_images_over_the_limit_and_refused_ones(page, images, instant, size):
    width, height = map(int, size.split("x"))
    page.set_viewport_size({"width": width, "height": height})
    page.get_by_role("tab", name="Compare models").click()
    zones = [page.locator(f"#{each} .zone") for each in ("compare-image", "ground-truth")]
    assert all(in_view(each) for each in [*zones, button(page, "compare")])
    for where in ("#compare-image", "#ground-truth"):
        page.set_input_files(f"{where} input[type=file]", images / "truncated.jpg")
        shown = drop_zone(page, "refused", where).get_by_role("alert")
        expect(shown).to_contain_text("its end is missing")
        page.wait_for_timeout(100)  # it scrolls into view
        assert in_view(shown) and "`" not in shown.inner_text()
        page.set_input_files(f"{where} input[type=file]", images / "large.jpg")
        large = drop_zone(page, "large", where)
        expect(large.get_by_role("alert")).to_contain_text("400 × 300 pixels, which is more than 0.07 million.")
        page.wait_for_timeout(100)
        shrink = large.get_by_role("button", name="Shrink to fit")
        assert all(in_view(each) for each in (large.locator("img"), shrink, large.get_by_text("Crop a region")))
        if where == "#compare-image":
            expect(button(page, "compare")).to_be_hidden()
        shrink.click()
        expect(drop_zone(page, "ready", where)).to_contain_text("305 × 229 pixels. Shrunk from 400 × 300.")
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text("The ground truth must have 1220 × 916 pixels")
    page.get_by_role("button", name="Remove ground truth").click()
    button(page, "compare").click()
    expect(status(page, "compare")).to_have_text("large.png: 2 models compared.")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_compared_images_are_dropped_pasted_and_fetched(page, images, instant, monkeypatch):
    serve_addresses(monkeypatch, (images / "other.png").read_bytes())
    page.get_by_role("tab", name="Compare models").click()
    small, address = [*(images / "small.png").read_bytes()], "https://example.org/small.png"
    image, truth = "#compare-image", "#ground-truth"
    for take, argument, where, size in (
        (DROP, [small, "a.png", "#footer"], image, "40 × 30"),
        (PASTE_ADDRESS, address, image, "50 × 40"),
        (PASTE, small, image, "40 × 30"),
        (DROP, [small, "b.png", f"{truth} .zone"], truth, "40 × 30"),
    ):
        page.evaluate(take, argument)
        expect(drop_zone(page, "ready", where)).to_contain_text(f"{size} pixels.")
    expect(drop_zone(page, "ready", image)).to_contain_text("pasted.png")  # not b.png
    page.get_by_role("button", name="Remove ground truth").click()
    page.get_by_label("Ground truth URL").fill(address)
    page.keyboard.press("Enter")
    expect(drop_zone(page, "ready", truth)).to_contain_text("50 × 40 pixels.")
    expect(drop_zone(page, "empty", "#image")).to_be_attached()  # that of the other tab


def test_image_replaced_during_a_comparison_ends_it(page, images, slow):
    page.get_by_role("tab", name="Compare models").click()
    page.set_input_files("#compare-image input[type=file]", images / "small.png")
    expect(status(page, "compare")).to_contain_text("small.png")
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text("Upscaling small.png")
    page.set_input_files("#compare-image input[type=file]", images / "other.png")
    expect(status(page, "compare")).to_have_text("other.png.")
    slow.assert_stopped(page)
    expect(status(page, "compare")).to_have_text("other.png.")
