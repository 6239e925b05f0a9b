"""ZeroGPU lends a GPU to the one function that needs it, if `spaces` is installed."""

import subprocess
import sys
from pathlib import Path

from srgan_hub.demo import presets, spaces

ROOT = Path(__file__).parent.parent.parent
FAKE_SPACES = """
import sys
assert "torch" not in sys.modules, "spaces must be imported before torch"
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
import sys, tempfile
sys.path[:0] = sys.argv[1:]
from pathlib import Path
import app
import spaces
from PIL import Image
from srgan_hub.demo import presets
from srgan_hub.demo.close_up import close_up
from srgan_hub.demo.eta import EtaEstimator
from srgan_hub.demo.settings import Settings
from srgan_hub.demo.upscale import upscale
app.create_demo(warm_up=False)
assert presets.load_upscaler.cache_info().currsize == 2, "both models of the default preset are loaded at start"
directory = Path(tempfile.mkdtemp())
Image.open("srgan_hub/examples/cat.png").crop((60, 40, 100, 70)).save(directory / "small.png")
*_, completed = upscale(directory / "small.png", Settings(), directory, max_pixels=10**6, eta=EtaEstimator())
assert completed.image.size == (160, 120)
close_up(completed.source, "photo", 0.5, 0.5)
print(spaces.calls)
"""


def test_gpu_seconds_depend_on_the_image_size(tmp_path):
    (tmp_path / "spaces.py").write_text(FAKE_SPACES)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(ROOT)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert run.stdout.strip() == "[('stream', 15), ('stream', 15), ('stream', 15)]"


def test_without_spaces_functions_are_not_wrapped():
    assert not spaces.ZERO_GPU and presets.stream.__module__ == "srgan_hub.demo.presets"
