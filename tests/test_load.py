"""Load test of the demo: 50 concurrent clients for two minutes."""

import io
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import httpx
from PIL import Image

import app
from srgan_hub import SRGAN

pytestmark = pytest.mark.slow
ROOT = Path(app.__file__).parent
CLIENTS, SECONDS, KEPT = 50, 120, 150
SERVER = f"""
import sys, app
demo = app.create_demo(queue=20, kept={KEPT})
_, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{{**app.launch_options(), "mcp_server": False}})
print(url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, int, Path]]:
    """The demo in a separate process: its URL, process id and file directory."""
    files = tmp_path / "files"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_TEMP_DIR": str(files), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().strip(), process.pid, files
    process.kill()
    process.wait()


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_clients_get_their_own_results_and_files_are_deleted(server, tmp_path):
    url, pid, files = server
    model = SRGAN.from_pretrained("srgan-x4-photo")
    outcomes: Counter[str] = Counter()
    memory: dict[int, float] = {}
    lock = threading.Lock()
    end = time.monotonic() + SECONDS

    def note(outcome: str) -> None:
        with lock:
            outcomes[outcome] += 1
            runs = outcomes["right"] + outcomes["wrong"]
            if runs in (20, 200) and runs not in memory:
                memory[runs] = resident(pid)

    config = httpx.get(f"{url}config").json()
    (function,) = [each["id"] for each in config["dependencies"] if each["api_name"] == "upscale"]

    def visit(number: int) -> None:
        draw = random.Random(number)
        size = draw.choice([(30, 20), (60, 40), (48, 64)])
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, "PNG")
        with Image.open(buffer) as opened:
            expected = np.asarray(model.upscale(opened)).astype(int)
        sessions = (f"{number}-{page}" for page in itertools.count())
        session = next(sessions)
        with httpx.Client(base_url=f"{url}gradio_api/", timeout=180) as client:
            while time.monotonic() < end:
                what = "leave" if number % 3 == 0 else draw.choice(["stay"] * 5 + ["rubbish"])
                content = draw.randbytes(500) if what == "rubbish" else buffer.getvalue()
                (path,) = client.post("upload", files={"files": (f"{what}.png", content)}).json()
                image = {"path": path, "meta": {"_type": "gradio.FileData"}}
                data = [image, "4x", 1, "photo", "PNG", 90, "no place"]
                join = {"data": data, "fn_index": function, "session_hash": session}
                client.post("queue/join", json=join).raise_for_status()
                last = time.monotonic() + draw.uniform(0, 2) if what == "leave" else end + 300
                output = None
                with client.stream("GET", "queue/data", params={"session_hash": session}) as stream:
                    for line in stream.iter_lines():
                        message = json.loads(line[6:]) if line.startswith("data: ") else {}
                        if message.get("msg") == "process_completed":
                            output = message["output"]
                            break
                        if time.monotonic() > last:
                            break
                if output is None:
                    note("left")
                    session = next(sessions)  # as after closing and reopening the page
                elif error := output.get("error"):
                    known = {"Busy": "busy", "rubbish.png is not an image": "refused"}
                    note(next((name for text, name in known.items() if text in error), f"error: {error}"))
                    time.sleep(draw.uniform(1, 5))
                else:
                    file, width, height, _ = output["data"]
                    with Image.open(io.BytesIO(client.get(file["url"]).content)) as opened:
                        same = opened.size == (width, height) == expected.shape[1::-1] and (
                            np.abs(np.asarray(opened).astype(int) - expected).max() <= 1
                        )
                    note("right" if same else "wrong")

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(outcomes, memory)
    assert set(outcomes) <= {"right", "left", "busy", "refused"}, outcomes
    assert outcomes["right"] >= 200 and outcomes["left"] >= 50 and outcomes["refused"] and outcomes["busy"]
    assert memory[200] <= 1.1 * memory[20], memory
    deadline = time.monotonic() + 4 * KEPT
    examples = 3  # Gradio's copies, which stay
    while time.monotonic() < deadline:
        left = [path for path in files.rglob("*") if path.is_file()]
        if len(left) <= examples:
            break
        time.sleep(2)
    assert len(left) <= examples, left[:10]
    assert not [path for path in tmp_path.glob("tmp*") if path.is_dir() and any(path.rglob("image*"))]
