"""The wheel carries all that the package needs: built, installed elsewhere, used away from the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from srgan_hub import SRGAN

ROOT = Path(__file__).parent.parent


def test_wheel_upscales_elsewhere(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 28e6  # four models of 6 MB
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    code = (
        "import srgan_hub; from srgan_hub import SRGAN; print(srgan_hub.__file__);"
        "SRGAN(channels=2, num_blocks=1).save_pretrained('new');"
        "from srgan_hub.cli import main; raise SystemExit(main(['upscale', 'a.png', '--dtype', 'fp32']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(tmp_path / "site"))
    assert "# " in (tmp_path / "new" / "README.md").read_text()  # the card's template is in the wheel too
    with Image.open(tmp_path / "a_x4.png") as result:
        expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(image, dtype="fp32")
        assert np.array_equal(np.asarray(result), expected)
    licenses = list((tmp_path / "site").glob("srgan_hub-*.dist-info/licenses/*"))
    assert {path.name for path in licenses} == {"LICENSE", "NOTICE"}
