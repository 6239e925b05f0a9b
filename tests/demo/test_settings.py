"""Settings and generated snippets. tests/e2e/test_api.py runs the snippets."""

import pytest

from srgan_hub.demo.settings import Settings, to_python


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "8x"}, "`size`.*'8x'"),
        ({"size": "-100"}, "`size`.*'-100'"),
        ({"size": None}, "`size`.*None"),
        ({"detail": -0.1}, "`detail`.*-0.1"),
        ({"detail": "much"}, "`detail`.*'much'"),
        ({"detail": float("nan")}, "`detail`.*nan"),
        ({"quality": 101}, "`quality`.*101"),
        ({"preset": "drawing"}, "`preset`.*photo, clean, texture, panorama.*'drawing'"),
        ({"format": "GIF"}, "`format`.*PNG, JPEG, WebP.*'GIF'"),
        ({"strip_metadata": "some"}, "`strip_metadata`.*gps, none, all.*'some'"),
    ],
)
def test_invalid_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)


def test_snippet_has_model_and_changed_settings():
    code = to_python(Settings("1200", 0.3, "photo", "JPEG", 80, "none"), 'a "quoted" name.jpg')
    assert 'from_pretrained("srgan-x4-photo")' in code
    assert 'upscale("a \\"quoted\\" name.jpg", size=1200, detail=0.3)' in code
    assert "quality=80" in code and "strip_metadata" not in code
    assert 'from_pretrained("srresnet-x4")' in to_python(Settings(detail=0.2, preset="clean"), "a.png")
    assert 'upscale("a.png", size="4x", wrap="xy")' in to_python(Settings(preset="texture"), "a.png")
