"""What can be asked for, and the same in code."""

import pytest

from srgan_hub.demo.settings import Settings, to_python


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"size": "8x"}, "Expected a size of 2x, 3x, 4x or a longest side in pixels, got '8x'"),
        ({"size": "-100"}, "Expected a size"),
        ({"size": None}, "Expected a size"),
        ({"detail": -0.1}, "Expected a detail from 0 to 1, got -0.1"),
        ({"detail": "much"}, "Expected a detail from 0 to 1, got 'much'"),
        ({"detail": float("nan")}, "Expected a detail from 0 to 1, got nan"),
        ({"quality": 101}, "Expected a quality from 1 to 100, got 101"),
        ({"kind": "drawing"}, "Expected a kind out of photo, clean, got 'drawing'"),
        ({"format": "GIF"}, "Expected a format out of PNG, JPEG, WebP, got 'GIF'"),
        ({"metadata": "some"}, "Expected a metadata out of no place, all, none, got 'some'"),
    ],
)
def test_what_is_out_of_range_gets_a_sentence(asked, message):
    with pytest.raises(ValueError, match=message):
        Settings(**asked)


def test_python_names_the_weights_and_what_differs():
    code = to_python(Settings("1200", 0.3, "photo", "JPEG", 80, "all"), 'a "quoted" name.jpg')
    assert 'from_pretrained("srgan-x4-photo")' in code
    assert 'upscale("a \\"quoted\\" name.jpg", detail=0.3, size=1200)' in code
    assert "quality=80" in code and "strip" not in code
    assert 'from_pretrained("srresnet-x4")' in to_python(Settings(detail=0.2, kind="clean"), "a.png")
