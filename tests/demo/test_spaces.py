"""ZeroGPU lends a GPU to the one function that needs it, where `spaces` is installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FAKE = """
import sys
assert "torch" not in sys.modules, "spaces must come before torch"
calls = []
def GPU(*, duration):
    def decorate(function):
        def run(*args):
            calls.append((function.__name__, duration(*args)))
            yield from function(*args)
        return run
    return decorate
"""
PROGRAM = """
import tempfile
from pathlib import Path
import app
import spaces
from PIL import Image
from srgan_hub.demo import presets
from srgan_hub.demo.upscale import close_up, upscale
from srgan_hub.demo.settings import Settings
from srgan_hub.demo.eta import EtaEstimator
app.create_demo(warm_up=False)
assert presets.find_upscaler.cache_info().currsize == 2, "both ends of the dial are loaded with the module"
folder = Path(tempfile.mkdtemp())
Image.open("srgan_hub/examples/cat.png").crop((60, 40, 100, 70)).save(folder / "small.png")
*_, done = upscale(folder / "small.png", Settings(), folder, max_pixels=10**6, speed=EtaEstimator())
assert done.image.size == (160, 120)
close_up(done.source, "photo", 0.5, 0.5)
print(spaces.calls)
"""


def run(program: str, *path: str) -> str:
    code = f"import sys; sys.path[:0] = {[*path, str(ROOT)]!r}\n{program}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_a_gpu_is_asked_for_by_the_images_size(tmp_path):
    (tmp_path / "spaces.py").write_text(FAKE)
    assert run(PROGRAM, str(tmp_path)).strip() == "[('stream', 15), ('stream', 15), ('stream', 15)]"


def test_without_spaces_nothing_is_there():
    program = "from srgan_hub.demo import presets, spaces; print(spaces.ZERO_GPU, presets.stream.__module__)"
    assert run(program).strip() == "False srgan_hub.demo.presets"
