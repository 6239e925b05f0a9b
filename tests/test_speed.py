import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.mark.slow
def test_speedup_over_the_plain_network_is_kept():
    """Both run on this machine; the ratio must be at least 80% of the one recorded with these vector instructions."""
    recorded = json.loads((BENCHMARKS / "ratios.json").read_text())[torch.backends.cpu.get_cpu_capability()]
    command = [sys.executable, str(BENCHMARKS / "inference.py"), "--json", "--runs", "3", "--only"]
    command += ["pytorch", "srgan_hub", "--size", *map(str, recorded["size"])]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for dtype in {*recorded["ratios"]} & {*report["ratios"]}:
        expected, got = (each["ratios"][dtype]["pytorch fp32"] for each in (recorded, report))
        assert got >= 0.8 * expected, f"{dtype}: {got} times the plain network's speed, it was {expected}"
