"""The recipes of docs/scale.md: each image once and bit-identical to `upscale`, although processes are killed midway.

They run in processes of their own, with the extras [ray] and [datasets].
"""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fake_hub import WRITER, Hub
from PIL import Image

from srgan_hub import SRGAN

PAGE = Path(__file__).parent.parent / "srgan_hub" / "docs" / "scale.md"
RAY, DATASETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
CLASSES, FILES, PARQUET = re.split(r"^(?=album =|for shard)", RAY, flags=re.MULTILINE)
START_RAY = "import ray; ray.init(num_cpus=3, include_dashboard=False, object_store_memory=2**27)\n"
# Records each image that is upscaled.
RECORD = """
from srgan_hub import Upscaler
original = Upscaler.upscale
def record(self, image, **options):
    with open("calls", "a") as file:
        file.write("x")
    return original(self, image, **options)
Upscaler.upscale = record
"""


@pytest.fixture
def album(tmp_path, monkeypatch) -> Path:
    """24 images in two directories, and a broken one."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "album" / ("summer" if number % 2 else "winter") / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        coarse.resize((50, 40)).save(path)
    (tmp_path / "album" / "winter" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "album"


@contextmanager
def running(code: str, **environ: str) -> Iterator[subprocess.Popen]:
    """Run code in a process group of its own, and kill what is left of it at the end."""
    Path("recipe.py").write_text(code)
    settings = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", **environ}
    with Path("log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "recipe.py"], env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        for pid in [*descendants(process.pid), process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


def finish(process: subprocess.Popen) -> None:
    assert process.wait(300) == 0, Path("log").read_text()[-4000:]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, Path("log").read_text()[-4000:]
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they started."""
    stats = {int(path.parent.name): read_proc(path) for path in Path("/proc").glob("[0-9]*/stat")}
    children = [child for child, stat in stats.items() if stat and int(stat.rpartition(b")")[2].split()[1]) == pid]
    return [*children, *(each for child in children for each in descendants(child))]


def ray_workers(process: subprocess.Popen) -> list[int]:
    """Return the processes that upscale."""
    return [pid for pid in descendants(process.pid) if b"MapWorker" in read_proc(Path(f"/proc/{pid}/cmdline"))]


def read_proc(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.slow
def test_ray_upscales_files_although_a_worker_is_killed(album, bundled_model):
    import pyarrow.parquet

    images = sorted(album.rglob("*.jpg"))
    output = album.parent / "album-x4"
    with running(START_RAY + CLASSES + FILES) as process:
        wait_for(lambda: len(list(output.rglob("[0-9]*.png"))) >= 3, process)
        os.kill(ray_workers(process)[0], signal.SIGKILL)
        assert len(list(output.rglob("[0-9]*.png"))) < 20
        finish(process)
    report = pyarrow.parquet.read_table("report").to_pylist()
    assert sorted(row["image"] for row in report) == [str(path) for path in images]
    assert [Path(row["image"]).name for row in report if row["error"]] == ["broken.jpg"]
    written = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}
    assert written == {
        path.relative_to(album).with_name(f"{path.stem}_x4.png").as_posix() for path in images if path.stem != "broken"
    }
    for path in images[:-1]:
        with Image.open(output / path.parent.name / f"{path.stem}_x4.png") as image:
            assert np.array_equal(image, bundled_model("srgan-x4-photo").upscale(path))

    times = [path.stat().st_mtime_ns for path in sorted(output.rglob("*.png"))]
    with running(START_RAY + CLASSES + FILES) as process:
        finish(process)
    assert times == [path.stat().st_mtime_ns for path in sorted(output.rglob("*.png"))]
    assert len(pyarrow.parquet.read_table("report")) == len(images)


@pytest.mark.slow
def test_ray_upscales_parquet_although_a_worker_and_the_driver_are_killed(album, bundled_model):
    import pyarrow
    import pyarrow.parquet

    images = sorted(album.rglob("*.jpg"))
    Path("images").mkdir()
    for shard in range(2):
        rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}, "label": 7} for path in images[shard::2]]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), f"images/{shard}.parquet")
    Path("upscaled/.1").mkdir(parents=True)
    Path("upscaled/.1/left.parquet").write_bytes(b"of an interrupted run")
    call = "    def __call__(self, row):\n"
    with running(
        START_RAY + CLASSES.replace(call, f"{call}        open('calls', 'a').write('x')\n") + PARQUET
    ) as process:
        wait_for(lambda: Path("calls").exists() and len(Path("calls").read_text()) >= 2, process)
        os.kill(ray_workers(process)[0], signal.SIGKILL)
        wait_for(Path("upscaled/0").exists, process)
    assert not Path("upscaled/1").exists()
    first = {path: path.stat().st_mtime_ns for path in Path("upscaled/0").iterdir()}
    with running(START_RAY + CLASSES + PARQUET) as process:
        finish(process)
    assert first == {path: path.stat().st_mtime_ns for path in Path("upscaled/0").iterdir()}
    assert sorted(path.name for path in Path("upscaled").iterdir()) == ["0", "1"]
    rows = [row for shard in range(2) for row in pyarrow.parquet.read_table(f"upscaled/{shard}").to_pylist()]
    assert sorted(row["image"]["path"] for row in rows) == sorted(path.name for path in images)
    check_rows(rows, images, bundled_model("srgan-x4-photo"))
    assert {row["label"] for row in rows} == {7}


def check_rows(rows: list[dict], images: list[Path], model: SRGAN) -> None:
    """Compare upscaled images, in any order, with those of `upscale`; the broken one has an error."""
    paths = {path.name: path for path in images}
    for row in rows:
        name = row["image"]["path"]
        assert bool(row["error"]) == (name == "broken.jpg")
        if not row["error"]:
            with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                assert np.array_equal(image, model.upscale(paths[name])), name


@pytest.mark.slow
def test_hub_dataset_resumes_from_its_cache_and_is_pushed(album, bundled_model, tmp_path):
    import pyarrow.parquet

    images = sorted(album.rglob("*.jpg"))
    with Hub() as hub:
        environ = hub.environ(tmp_path / "home", WRITER)
        with running(RECORD + DATASETS, **environ) as process:
            wait_for(lambda: len(list(Path("home").rglob("cache-*.arrow"))) >= 2, process)
        assert not hub.repos and len(Path("calls").read_text()) < 24
        Path("calls").unlink()
        with running(RECORD + DATASETS, **environ) as process:
            finish(process)
        assert 0 < len(Path("calls").read_text()) <= 12
        assert not hub.unknown
        files = hub.repos["org/album-x4"].files()
    (name,) = (name for name in files if name.endswith(".parquet"))
    rows = pyarrow.parquet.read_table(io.BytesIO(files[name])).to_pylist()
    assert len(rows) == len(images) and [bool(row["error"]) for row in rows].count(True) == 1
    expected = {bundled_model("srgan-x4-photo").upscale(path).tobytes() for path in images if path.stem != "broken"}
    found = {np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).tobytes() for row in rows if not row["error"]}
    assert found == expected and len(expected) == 24
    assert {row["label"] for row in rows} == {0, 1}
