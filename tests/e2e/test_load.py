"""Load test: 50 clients for two minutes get their own results, and leave neither memory nor files behind."""

import io
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from e2e.server_process import serve
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.demo.settings import Settings

pytestmark = pytest.mark.slow
CLIENTS, SECONDS, RETENTION_SECONDS = 50, 120, 150


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, int, Path]]:
    """The demo in a process of its own: its URL, process id and directory of files."""
    with serve(tmp_path, queue_size=20, retention_seconds=RETENTION_SECONDS) as (url, pid):
        yield url, pid, tmp_path / "files"


def resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_many_clients_get_their_results_and_nothing_is_left(server, tmp_path):
    url, pid, files = server
    model = SRGAN.from_pretrained("srgan-x4-photo")
    outcomes: Counter[str] = Counter()
    memory: dict[int, float] = {}
    lock = threading.Lock()
    end = time.monotonic() + SECONDS

    def record(outcome: str) -> None:
        with lock:
            outcomes[outcome] += 1
            jobs = outcomes["correct"] + outcomes["wrong"]
            if jobs in (20, 200) and jobs not in memory:
                memory[jobs] = resident_megabytes(pid)

    config = httpx.get(f"{url}config").json()
    (function,) = [each["id"] for each in config["dependencies"] if each["api_name"] == "upscale"]

    def run_client(number: int) -> None:
        rng = random.Random(number)
        size = rng.choice([(30, 20), (60, 40), (48, 64)])
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, "PNG")
        with Image.open(buffer) as image:
            expected = np.asarray(model.upscale(image)).astype(int)
        sessions = (f"{number}-{page}" for page in itertools.count())
        session = next(sessions)
        with httpx.Client(base_url=f"{url}gradio_api/", timeout=180) as client:
            while time.monotonic() < end:
                action = "leave" if number % 3 == 0 else rng.choice(["stay"] * 5 + ["garbage"])
                content = rng.randbytes(500) if action == "garbage" else buffer.getvalue()
                (path,) = client.post("upload", files={"files": (f"{action}.png", content)}).json()
                data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, *vars(Settings()).values()]
                join = {"data": data, "fn_index": function, "session_hash": session}
                client.post("queue/join", json=join).raise_for_status()
                last = time.monotonic() + rng.uniform(0, 2) if action == "leave" else end + 300
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
                    record("left")
                    session = next(sessions)  # as if the page were closed and opened again
                elif error := output.get("error"):
                    known = {"queue is full": "busy", "garbage.png": "refused"}
                    record(next((name for text, name in known.items() if text in error), f"error: {error}"))
                    time.sleep(rng.uniform(1, 5))
                else:
                    file, width, height, _ = output["data"]
                    with Image.open(io.BytesIO(client.get(file["url"]).content)) as image:
                        correct = image.size == (width, height) == expected.shape[1::-1] and (
                            np.abs(np.asarray(image).astype(int) - expected).max() <= 1
                        )
                    record("correct" if correct else "wrong")

    threads = [threading.Thread(target=run_client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(outcomes, memory)
    assert set(outcomes) <= {"correct", "left", "busy", "refused"}, outcomes
    assert outcomes["correct"] >= 200 and outcomes["left"] >= 50 and outcomes["refused"] and outcomes["busy"]
    assert memory[200] <= 1.1 * memory[20], memory
    deadline = time.monotonic() + 4 * RETENTION_SECONDS
    examples = 5  # Gradio's copies, and the two images with which the page opens
    while time.monotonic() < deadline:
        left = [path for path in files.rglob("*") if path.is_file()]
        if len(left) <= examples:
            break
        time.sleep(2)
    assert len(left) <= examples, left[:10]
    results = [path for name in ("stay", "leave", "garbage") for path in tmp_path.rglob(f"{name}*")]
    assert not results, results[:10]
