"""Package version and the git commit it was built from."""

import functools
import shutil
import subprocess
from pathlib import Path

__version__ = "1.0.0"
PROGRAM = "srgan-hub"


@functools.cache
def code_version() -> str:
    """Return the package version and, in a git checkout, the commit: "srgan-hub 1.0.0, commit 063f5da"."""
    root = Path(__file__).parents[1]
    # Only this project's own checkout: a virtual environment inside another repository must not report its commit.
    if not (root / ".git").exists() or not shutil.which("git"):
        return f"{PROGRAM} {__version__}"
    command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{PROGRAM} {__version__}" + (f", commit {result.stdout.strip()}" if result.returncode == 0 else "")
