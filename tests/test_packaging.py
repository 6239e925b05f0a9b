"""Declared dependencies suffice, and lists and versions that are stated twice agree."""

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement
from PIL import Image

from srgan_hub import SRGAN, __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # a dependency of pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_requirements_are_those_of_package_demo_and_training():
    extras = PROJECT["optional-dependencies"]
    declared = [*PROJECT["dependencies"], *extras["app"], *extras["train"]]
    assert sorted((ROOT / "requirements.txt").read_text().split()) == sorted(declared)


def test_changelog_and_citation_name_the_version():
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version {__version__}}}" in (ROOT / "README.md").read_text(encoding="utf-8")


def closure(requirements: list[str]) -> set[str]:
    """Return the names of the distributions that these requirements install on this machine."""
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


def test_upscaling_needs_only_the_declared_packages(tmp_path):
    # Links to what the declared packages install: nothing else can be imported.
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
    run = python("-m", "srgan_hub", "upscale", "a.png", "--dtype", "float32")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "a_x4.png") as result:
        expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(image, dtype="float32")
        assert np.array_equal(np.asarray(result), expected)
