"""The house's floors: a file imports only from floors below its own; the top floor's libraries stay there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "srgan_hub"
# From the ground up. Within a wing (a folder) files import one another; wings of one floor do not.
FLOORS = [
    {"fileio"},
    {"network", "images", "devices", "progress", "rng", "resize", "version"},
    {"backends"},
    {"model_card", "upscaler", "metrics", "perceptual", "degradations"},
    {"hub", "frames"},
    {"model"},
    {"batch", "conversion", "export", "evaluate", "handler"},
    {"training", "demo"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
# What a program that upscales must not pay for: only scripts, the command line and training import these.
TOP_ONLY = {"gradio", "accelerate", "argparse"}
TOP = {"training", "demo", "cli", "__main__"}


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def floor(module: str) -> int:
    wing = module.split(".")[0]
    for number, names in enumerate(FLOORS):
        if wing in names:
            return number
    raise AssertionError(f"srgan_hub/{module} is on no floor: add it to FLOORS")


def imports(path: Path, module: str) -> list[str]:
    """Absolute names of all that a file imports, inside functions too."""
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
    wing = module.split(".")[0]
    for name in imports(modules()[module], module):
        if not name.startswith("srgan_hub"):
            assert wing in TOP or name.split(".")[0] not in TOP_ONLY, name
            continue
        target = [*name.split("."), "__init__"][1]
        target = target if target in {m.split(".")[0] for m in modules()} else "__init__"
        assert target == wing or floor(target) < floor(module), f"{module} imports {name}"


def test_importing_the_package_loads_little():
    code = "import sys, srgan_hub; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert "srgan_hub.model" in loaded
    unwanted = (
        "gradio",
        "accelerate",
        "h5py",
        "torchvision",
        "srgan_hub.training",
        "srgan_hub.metrics",
        "srgan_hub.batch",
    )
    assert not [name for name in loaded if name.startswith(unwanted)]


def test_nothing_loads_pickles():
    for path in [*modules().values(), ROOT / "app.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
