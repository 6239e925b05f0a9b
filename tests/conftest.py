import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The folder of benchmark pictures (Set5, Set14, ...), which are not part of the project."""
    folder = os.environ.get("SRGAN_BENCHMARK_DATA")
    if not folder:
        pytest.skip("set SRGAN_BENCHMARK_DATA to a folder with Set5 and Set14")
    return Path(folder)
