"""Layers of the package: a module imports only from lower layers; heavy libraries stay in the top ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "srgan_hub"
# From the bottom. Modules of one package import one another; packages and modules of one layer do not.
LAYERS = [
    {"fileio", "devices", "rng", "resize", "version", "progress"},
    {"network", "images"},
    {"backends"},
    {"model_card", "upscaler", "metrics", "perceptual", "degradations"},
    {"hub", "frames", "plan"},
    {"publish"},
    {"model"},
    {"batch", "conversion", "export", "evaluate", "handler"},
    {"training", "demo"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
# Imported by scripts, the command line and training only: programs that upscale should not load them.
HEAVY = {"gradio", "accelerate", "argparse"}
TOP = {"training", "demo", "cli", "__main__"}


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if module.split(".")[0] in names:
            return number
    raise AssertionError(f"srgan_hub/{module} is in no layer: add it to LAYERS")


def imports(path: Path, module: str) -> list[str]:
    """Absolute names of all imports of a file, including those inside functions."""
    found = []
    package = ["srgan_hub", *module.split(".")][:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            found += [f"{name}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_down(module):
    top_level = module.split(".")[0]
    for name in imports(modules()[module], module):
        if not name.startswith("srgan_hub"):
            assert top_level in TOP or name.split(".")[0] not in HEAVY, name
            continue
        target = [*name.split("."), "__init__"][1]
        target = target if target in {m.split(".")[0] for m in modules()} else "__init__"
        assert target == top_level or layer(target) < layer(module), f"{module} imports {name}"


def test_importing_the_package_loads_no_heavy_modules():
    code = "import sys, srgan_hub; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert "srgan_hub.model" in loaded
    heavy = {"accelerate", "av", "gradio", "h5py", "onnx", "openvino", "tifffile", "torchvision"}
    top = ("srgan_hub.training", "srgan_hub.demo", "srgan_hub.metrics")
    assert not [name for name in loaded if name.split(".")[0] in heavy or name.startswith(top)]


def test_nothing_loads_pickles():
    for path in [*modules().values(), ROOT / "app.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
