"""The wheel contains everything the package needs: built, installed and used outside the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from srgan_hub import SRGAN, __version__

ROOT = Path(__file__).parent.parent


def test_wheel_upscales_outside_the_checkout(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"srgan_hub-{__version__}-")
    assert wheel.stat().st_size < 28e6  # four models of 6 MB each
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")

    def run(*command: str | Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = (
        "import srgan_hub; print(srgan_hub.__file__); srgan_hub.SRGAN(channels=2, num_blocks=1).save_pretrained('new')"
    )
    assert run("-c", code).startswith(str(site))
    assert "# " in (tmp_path / "new" / "README.md").read_text()  # the model card template is part of the wheel
    assert (site / "srgan_hub" / "demo" / "static" / "viewer.js").is_file()
    run(site / "bin" / "srgan-hub", "upscale", "a.png", "--dtype", "float32")
    with Image.open(tmp_path / "a_x4.png") as result:
        expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(image, dtype="float32")
        assert np.array_equal(np.asarray(result), expected)
    assert {path.name for path in site.glob("srgan_hub/docs/*.md")} == {
        path.name for path in ROOT.glob("srgan_hub/docs/*.md")
    }
    licenses = site.glob("srgan_hub-*.dist-info/licenses/*")
    assert {path.name for path in licenses} == {"LICENSE", "NOTICE"}
