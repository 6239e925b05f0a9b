"""\"Compare models\" tab of the demo's page."""

import re

import pytest
from e2e.page_helpers import PASTE, button, in_view, status
from PIL import Image
from playwright.sync_api import expect


def test_compare_models(page, images, instant):
    page.get_by_role("tab", name="Compare models").click()
    expect(page.locator("#compare-viewer")).to_be_hidden()
    page.set_input_files("#compare-image input[type=file]", images / "small.png")
    expect(status(page, "compare")).to_contain_text("small.png")
    page.set_input_files("#ground-truth input[type=file]", images / "other.png")
    expect(page.locator("#ground-truth img")).to_be_visible()
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text(re.compile("160 × 120.*50 × 40"))
    page.get_by_role("button", name="Remove ground truth").click()
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
    page.set_input_files("#ground-truth input[type=file]", images / "other.png")
    expect(page.locator("#ground-truth img")).to_be_visible()
    button(page, "compare").click()
    expect(status(page, "compare")).to_contain_text(re.compile("160 × 120.*50 × 40"))
    page.get_by_role("button", name="Remove ground truth").click()
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
