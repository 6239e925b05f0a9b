import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.publish import EXAMPLE

# Several threads in each of two processes slow each other down; subprocesses inherit the setting.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    # Where demos start to look for a port: two processes that look at the same time may find the same one.
    os.environ["GRADIO_SERVER_PORT"] = str(7960 + 100 * int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")))
# One backend on every machine, inherited by subprocesses; `tests/backends` tests the others.
os.environ["SRGAN_BACKEND"] = "torch"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session", autouse=True)
def _uploads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use a separate upload directory per process.

    Gradio names uploads by content and deletes them when a demo ends, including those of another process's demo.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="session", autouse=True)
def _assets(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep compiled models out of the user's cache."""
    huggingface_hub.constants.HF_ASSETS_CACHE = str(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The directory of benchmark images (Set5, Set14, ...), which are not part of the project."""
    return Path(os.environ["SRGAN_BENCHMARK_DATA"])


@pytest.fixture(scope="session")
def bundled_model() -> Callable[[str], SRGAN]:
    """Load a bundled model once per session; tests must not modify it."""
    return functools.cache(SRGAN.from_pretrained)


@pytest.fixture(scope="session")
def cat_image() -> np.ndarray:
    """The example image, (H, W, 3) uint8."""
    with Image.open(EXAMPLE) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the system's browser."""
    if not CHROMIUM:
        pytest.fail("needs chromium: apt-get install chromium", pytrace=False)
    return CHROMIUM


@pytest.fixture(scope="session")
def exiftool() -> Callable[[Path], dict[str, object]]:
    """Read all metadata of a file, by group and name such as "EXIF:Orientation", as exiftool does."""
    _require("exiftool", "libimage-exiftool-perl")

    def read(path: Path) -> dict[str, object]:
        command = ["exiftool", "-json", "-n", "-a", "-G1", "-ee", "-api", "LargeFileSupport=1", str(path)]
        (tags,) = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return tags

    return read


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The path of the ffmpeg command."""
    return _require("ffmpeg", "ffmpeg")


def _require(command: str, package: str) -> str:
    path = shutil.which(command)
    if not path:
        pytest.skip(f"needs {command}: apt-get install {package}")
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that need benchmark images if there are none; the terminal summary reports it."""
    if "SRGAN_BENCHMARK_DATA" not in os.environ:
        deselected = [item for item in items if "benchmark_data" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report what the machine lacks, and skipped tests in CI."""
    if "SRGAN_BENCHMARK_DATA" not in os.environ:
        terminalreporter.write_line("benchmark scores are not tested: SRGAN_BENCHMARK_DATA is not set")
    if not CHROMIUM:
        terminalreporter.write_line("the browser tests fail without chromium: apt-get install chromium")
    if os.environ.get("CI"):
        for report in terminalreporter.stats.get("skipped", []):
            terminalreporter.write_line(f"FAILED {report.nodeid}: skipped, which CI forbids: {report.longrepr}")


@pytest.fixture(params=[False, True], ids=["cpu without bfloat16", "cpu with bfloat16"])
def bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test twice: as on a CPU without bfloat16 in hardware, and as on one with it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param}, raising=False)
    return request.param


@pytest.fixture(scope="session")
def tiny_generator() -> Callable[..., torch.nn.Sequential]:
    """Build a tiny generator in evaluation mode with random biases and batch norm statistics, so each value matters."""

    def build(seed: int = 0, **options: object) -> torch.nn.Sequential:
        network = SRGAN(**{"channels": 4, "num_blocks": 2, **options}).generator  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed)
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
            if name.endswith("running_var"):
                value.copy_(value.abs() + 0.5)
        return network.eval()

    return build


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run in CI if a test is skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
