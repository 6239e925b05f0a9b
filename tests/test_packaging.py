"""What is installed: the few packages that upscaling needs, and the lists that must agree."""

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement
from PIL import Image

from srgan_hub import SRGAN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it there

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_requirements_are_those_of_the_package_the_demo_and_the_training():
    extras = PROJECT["optional-dependencies"]
    declared = [*PROJECT["dependencies"], *extras["app"], *extras["train"]]
    assert sorted((ROOT / "requirements.txt").read_text().split()) == sorted(declared)


def closure(requirements: list[str]) -> set[str]:
    """Return the names of the distributions that these requirements bring along on this machine."""
    names: set[str] = set()
    queue = [(Requirement(line), "") for line in requirements]
    seen = set()
    while queue:
        requirement, extra = queue.pop()
        if (requirement.marker and not requirement.marker.evaluate({"extra": extra})) or str(requirement) in seen:
            continue
        seen.add(str(requirement))
        names.add(requirement.name)
        lines = [Requirement(line) for line in distribution(requirement.name).requires or []]
        queue += [(line, wanted) for line in lines for wanted in ("", *requirement.extras)]
    return names


def test_an_image_is_upscaled_with_the_declared_packages_alone(tmp_path):
    # A folder of links to what the declared packages brought: what nobody declared cannot be imported.
    site = tmp_path / "site"
    site.mkdir()
    (site / "srgan_hub").symlink_to(ROOT / "srgan_hub")
    for name in closure(PROJECT["dependencies"]):
        for file in distribution(name).files:
            top = file.parts[0]
            if top != ".." and top != "__pycache__" and not (site / top).exists():
                (site / top).symlink_to(distribution(name).locate_file(top))
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        # -S: without the site-packages of this interpreter.
        return subprocess.run(
            [sys.executable, "-S", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )

    for absent in ("gradio", "accelerate", "torchvision", "pytest", "h5py"):
        assert f"No module named '{absent}'" in python("-c", f"import {absent}").stderr
    run = python("-m", "srgan_hub", "upscale", "a.png", "--dtype", "fp32")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "a_x4.png") as result:
        expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(image, dtype="fp32")
        assert np.array_equal(np.asarray(result), expected)
