"""Run by test_cli_processes.py: interrupts one CLI run per directory, each in a fork, so PyTorch is imported once.

    python cli_worker.py MODEL (DIRECTORY MOMENT SIGNAL)...

upscales a.png of each directory and sends itself the signal while computing or while writing. Prints the exit codes.
"""

import os
import signal
import sys
import time
from typing import Any, BinaryIO

from PIL import Image

from srgan_hub.cli import main
from srgan_hub.upscaler import Upscaler


def interrupt(moment: str, number: int) -> None:
    save = Image.Image.save

    def compute(self: Upscaler, *arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)  # Another thread may receive the signal first.

    def write(self: Image.Image, file: BinaryIO, **options: Any) -> None:
        file.write(b"half an image")
        file.flush()
        os.kill(os.getpid(), number)
        file.seek(0)
        save(self, file, **options)

    if moment == "computing":
        Upscaler._stream_with_recovery = compute  # type: ignore[assignment,method-assign]
    else:
        Image.Image.save = write  # type: ignore[assignment,method-assign]


def run(model: str, directory: str, moment: str, number: int) -> int:
    """Run in a fork; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        os.chdir(directory)
        with open("stderr", "w") as sys.stderr:  # noqa: PTH123  # a target, not a name
            signal.signal(signal.SIGINT, signal.default_int_handler)  # Background jobs ignore it.
            interrupt(moment, number)
            try:
                code = main(["upscale", "a.png", "--model", model])
            except SystemExit as exit:
                code = int(str(exit.code))
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    model, *cases = sys.argv[1:]
    print([run(model, *cases[i : i + 2], int(cases[i + 2])) for i in range(0, len(cases), 3)])
