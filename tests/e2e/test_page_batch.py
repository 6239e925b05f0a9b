"""\"Batch\" tab of the demo's page."""

import re
import zipfile

import pillow_heif
import pytest
from e2e.page_helpers import PASTE_ADDRESS, button, in_view, serve_addresses, status
from e2e.screenshots import choose_batch
from PIL import Image
from playwright.sync_api import expect


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


@pytest.mark.parametrize("size", ["390x844", "1366x657"])
def test_batch_shrinks_images_over_the_limit(page, images, instant, monkeypatch, tmp_path, size):
    width, height = map(int, size.split("x"))
    page.set_viewport_size({"width": width, "height": height})
    serve_addresses(monkeypatch, (images / "other.png").read_bytes())
    page.get_by_role("tab", name="Batch").click()
    items = page.locator("#gallery li")
    choose_batch(page, [images / "large.jpg"])
    expect(items).to_have_class(["large"])
    expect(items).to_contain_text("400 × 300 pixels, which is more than 0.07 million.")
    shrink = page.get_by_role("button", name="Shrink large.jpg to fit")
    expect(status(page, "batch")).to_be_hidden()
    expect(page.locator(".action.primary:visible")).to_have_text(["Shrink to fit"])
    shrink.scroll_into_view_if_needed()
    assert in_view(items) and in_view(shrink) and in_view(items.locator("img"))
    for name in ("second.jpg", "third.jpg"):
        (tmp_path / name).write_bytes((images / "large.jpg").read_bytes())
    choose_batch(page, [tmp_path / "second.jpg", tmp_path / "third.jpg", images / "photo.heic"])
    choose_batch(page, [images / "animation.gif"])
    page.evaluate(PASTE_ADDRESS, "https://example.org/small.png")
    sizes = ["400 × 300"] * 3 + ["40 × 30 pixels.", "40 × 30 pixels. The first of 2 frames.", "50 × 40 pixels."]
    expect(items).to_contain_text(sizes)
    expect(status(page, "batch")).to_contain_text(re.compile(r"^3 images.*\. 3 images too large\.$"))
    shrink.click()
    expect(items).to_contain_text(["305 × 229 pixels. Shrunk from 400 × 300.", *sizes[1:]])
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("4 of 4 done. 2 images too large.")
    expect(items).to_have_class(["done", "large", "large", "done", "done", "done"])
    expect(items).to_contain_text(["1220 × 916", "400 × 300", "400 × 300", "160 × 120", "160 × 120", "200 × 160"])
    page.get_by_role("button", name="Shrink all to fit").click()
    for number in range(3):
        expect(items.nth(number)).to_contain_text("Shrunk from" if number else "1220 × 916")
    button(page, "batch").click()
    expect(status(page, "batch")).to_have_text("6 of 6 done.")
    expect(items.nth(2)).to_contain_text("third.png1220 × 916")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
