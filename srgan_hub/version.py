"""Which code this is."""

import functools
import shutil
import subprocess
from pathlib import Path

__version__ = "0.1.0"


@functools.cache
def code_version() -> str:
    """Name the package's version and, in a git checkout of it, the commit: "srgan-hub 0.1.0, commit 063f5da"."""
    top = Path(__file__).parents[1]
    # Only our own checkout counts: an environment inside somebody's repository must not name that one's commit.
    if not (top / ".git").exists() or not shutil.which("git"):
        return f"srgan-hub {__version__}"
    command = ["git", "-C", str(top), "describe", "--always", "--exclude=*", "--dirty=, changed since"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"srgan-hub {__version__}" + (f", commit {done.stdout.strip()}" if done.returncode == 0 else "")
