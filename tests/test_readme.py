"""The README's Python runs as pasted, and what it points to is there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from srgan_hub.hub import bundled_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_snippets_run_as_pasted(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) >= 2
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(snippets)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "cat_x4.png") as result:
        assert result.size == (904, 600)
    shapes = re.findall(r"\((\d+), 904, 3\)", run.stdout)
    assert sum(map(int, shapes)) == 600


def test_the_exported_model_runs_in_another_program(tmp_path):
    export, use = re.search(r'&& (python -m srgan_hub export .*)\n(python -c ".*")\n', README).groups()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    for line in (export, use):
        command = [sys.executable, *shlex.split(line)[1:]]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(1, 3, 120, 160)"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_links_lead_to_files(target):
    assert (ROOT / target).is_file()


def test_space_front_matter_names_the_app():
    front = README.split("---")[1]
    for line in ("sdk: gradio", "app_file: app.py", "license: apache-2.0"):
        assert line in front
    metadata = yaml.safe_load(front)
    assert len(metadata["short_description"]) <= 60
    assert metadata["python_version"] in ("3.10", "3.12")  # those of ZeroGPU
    # They come with the package, so that nothing is to be preloaded from the Hub.
    assert (
        sorted(name.split("/")[1] for name in metadata["models"]) == bundled_names() and "preload_from_hub" not in front
    )
    assert (ROOT / metadata["thumbnail"].partition("/resolve/main/")[2]).is_file()
    wanted = re.search(r"gradio>=([\d.]+),<(\d+)", (ROOT / "requirements.txt").read_text())
    version = re.search(r"sdk_version: (\d+)\.(\d+)", front)
    assert tuple(map(int, version.groups())) >= tuple(map(int, wanted[1].split(".")))
    assert int(version[1]) < int(wanted[2])


def test_the_two_commands_are_the_ones_that_ci_runs():
    assert "pip install -r requirements.txt && python app.py" in README
    command = 'pip install -e ".[test]" && pytest -n 2 --dist worksteal\n'
    assert command in README and command in (ROOT / ".ci" / "run").read_text()


def test_the_workflow_runs_the_gate_on_the_lowest_and_the_highest_python():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: bash .ci/run" in workflow and '["3.10", "3.13"]' in workflow


def test_the_first_screen_says_what_sets_the_package_apart_and_how_to_install_it():
    opening = README.split("# srgan-hub\n")[1].split("\n## ")[0]
    for words in ("ordinary processor", "no seams", "pip install .", "comparison.jpg"):
        assert words in opening
