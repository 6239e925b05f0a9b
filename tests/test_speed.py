"""What was won by fusing and streaming stays won."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.mark.slow
def test_ours_beside_the_plain_network():
    """At least 80% of the ratio that was measured last; both run here and now, so the machine does not matter much."""
    kept = json.loads((BENCHMARKS / "ratios.json").read_text())
    command = [sys.executable, str(BENCHMARKS / "inference.py"), "--json", "--runs", "3", "--only"]
    command += ["pytorch", "srgan_hub", "--size", *map(str, kept["size"])]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for dtype in {*kept["ratios"]} & {*report["ratios"]}:
        expected, got = (each["ratios"][dtype]["pytorch fp32"] for each in (kept, report))
        assert got >= 0.8 * expected, f"{dtype}: {got} times the plain network's speed, it was {expected}"
