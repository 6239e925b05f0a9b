"""Package version and the git commit it was built from."""

import functools
import shutil
import subprocess
from pathlib import Path

__version__ = "0.1.0"


@functools.cache
def code_version() -> str:
    """Return the version and, in a git checkout, the commit: "srgan-hub 0.1.0, commit 063f5da"."""
    top = Path(__file__).parents[1]
    # Not the commit of another repository that the environment is in.
    if not (top / ".git").exists() or not shutil.which("git"):
        return f"srgan-hub {__version__}"
    command = ["git", "-C", str(top), "describe", "--always", "--exclude=*", "--dirty=, changed since"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"srgan-hub {__version__}" + (f", commit {done.stdout.strip()}" if done.returncode == 0 else "")
