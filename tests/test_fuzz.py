"""Broken files of each kind are upscaled or refused in a sentence: no other error, no hang, no flood, no noise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("count", [150, pytest.param(3_000, marks=pytest.mark.slow)])
def test_broken_files(tmp_path, count):
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    run = subprocess.run(
        [sys.executable, TESTS / "fuzz_worker.py", tmp_path, str(count)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
