import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from srgan_hub.network.generator import build_generator


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The folder of benchmark pictures (Set5, Set14, ...), which are not part of the project."""
    folder = os.environ.get("SRGAN_BENCHMARK_DATA")
    if not folder:
        pytest.skip("set SRGAN_BENCHMARK_DATA to a folder with Set5 and Set14")
    return Path(folder)


@pytest.fixture(scope="session")
def lively() -> Callable[..., torch.nn.Sequential]:
    """Build a tiny generator in evaluation mode whose every number matters: no zero biases, no fresh batch norms."""

    def build(seed: int = 0, **options: object) -> torch.nn.Sequential:
        network = build_generator(**{"channels": 4, "num_blocks": 2, **options})  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed)
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
            if name.endswith("running_var"):
                value.copy_(value.abs() + 0.5)
        return network.eval()

    return build


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing is skipped silently: a skipped test fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("CI"):
        for report in terminalreporter.stats.get("skipped", []):
            terminalreporter.write_line(f"FAILED {report.nodeid}: skipped, which CI forbids: {report.longrepr}")
