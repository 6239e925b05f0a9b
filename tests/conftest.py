import os
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from srgan_hub.network.generator import build_generator

# Two processes with several threads each get in each other's way; what tests start has one too.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    # Demos look for a port from there on: two processes that look at once may find the same one.
    os.environ["GRADIO_SERVER_PORT"] = str(7960 + 100 * int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")))
# One backend on every machine, whatever is installed; what tests start has it too. `tests/backends` is about the
# others.
os.environ["SRGAN_BACKEND"] = "torch"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session", autouse=True)
def _uploads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give each process of the suite its own folder of uploads.

    Gradio names them by their content and deletes them when a demo ends: those of the other process's demo, too.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="session", autouse=True)
def _assets(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what backends compile out of the user's own cache."""
    huggingface_hub.constants.HF_ASSETS_CACHE = str(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The folder of benchmark images (Set5, Set14, ...), which are not part of the project."""
    return Path(os.environ["SRGAN_BENCHMARK_DATA"])


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the system's browser."""
    if not CHROMIUM:
        pytest.fail("needs chromium: apt-get install chromium", pytrace=False)
    return CHROMIUM


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs benchmark images where no folder is named; a line at the end says so."""
    if "SRGAN_BENCHMARK_DATA" not in os.environ:
        needy = [item for item in items if "benchmark_data" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=needy)
        items[:] = [item for item in items if item not in needy]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in a line each what the machine lacks and what CI forbids."""
    if "SRGAN_BENCHMARK_DATA" not in os.environ:
        terminalreporter.write_line("benchmark scores are not tested: SRGAN_BENCHMARK_DATA names no folder")
    if not CHROMIUM:
        terminalreporter.write_line("the browser tests fail without chromium: apt-get install chromium")
    if os.environ.get("CI"):
        for report in terminalreporter.stats.get("skipped", []):
            terminalreporter.write_line(f"FAILED {report.nodeid}: skipped, which CI forbids: {report.longrepr}")


@pytest.fixture(params=[False, True], ids=["cpu without bfloat16", "cpu with bfloat16"])
def bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this process takes its CPU for one with bfloat16 in hardware: each test runs on both kinds.

    PyTorch computes in bfloat16 on either, if slowly on one.
    """
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param}, raising=False)
    return request.param


@pytest.fixture(scope="session")
def tiny_generator() -> Callable[..., torch.nn.Sequential]:
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
