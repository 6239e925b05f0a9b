"""Malformed files of every format are upscaled, or rejected with a message: no other error, no hang, bounded memory."""

import faulthandler
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_worker import MEMORY, check, fuzz

TESTS = Path(__file__).parent


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
def test_malformed_files_are_upscaled_or_rejected(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_AS)

    def check_with_limits(upscaler, path):
        if path.name.startswith("mutated"):  # the others load libraries
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
        # Native code can be interrupted only by ending the process.
        faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
        try:
            return check(upscaler, path)
        finally:
            faulthandler.cancel_dump_traceback_later()
            resource.setrlimit(resource.RLIMIT_AS, limits)

    assert list(fuzz(tmp_path, 40, check_with_limits)) == []


@pytest.mark.slow
def test_3000_malformed_files_in_forks(tmp_path):
    run = subprocess.run(
        [sys.executable, TESTS / "fuzz_worker.py", tmp_path, "3000"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )
    assert (run.returncode, run.stdout) == (0, "")
