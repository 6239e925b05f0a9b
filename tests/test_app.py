"""The demo as programs meet it: through gradio_client and plain HTTP. See test_page.py for the browser."""

import json
import os
import runpy
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import httpx
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from srgan_hub import SRGAN

EXAMPLES = Path(app.EXAMPLES)


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """The demo, with limits that small pictures can reach."""
    demo = app.create_demo(max_pixels=70_000, slider_side=512)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder with good and bad files."""
    from pictures.test_files import png_header

    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(EXAMPLES / "cat.png") as cat:
        cat = cat.crop((60, 40, 100, 70))
    cat.save(folder / "small.png")
    cat.convert("L").save(folder / "gray.png")
    cat.putalpha(cat.convert("L"))
    cat.save(folder / "clear.png")
    cat.crop((0, 0, 1, 1)).convert("RGB").save(folder / "one.png")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(folder / "deep.png")
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_header(20_000, 20_000))
    (folder / "cut.jpg").write_bytes((EXAMPLES / "coffee.jpg").read_bytes()[:5000])
    return folder


@pytest.mark.parametrize("name", ["small.png", "gray.png", "clear.png", "one.png"])
@pytest.mark.parametrize("model", ["srgan-x4-photo", "srresnet-x4"])
def test_endpoint_gives_what_the_package_gives(client, pictures, name, model):
    slider, download, job = client.predict(handle_file(pictures / name), model, api_name="/upscale")
    expected = SRGAN.from_pretrained(model).upscale(pictures / name)
    with Image.open(download) as result:
        assert result.format == "PNG" and result.mode == expected.mode
        assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1
    assert Path(download).name == f"{Path(name).stem}_x4.png"
    with Image.open(pictures / name) as image, Image.open(slider[0]) as bicubic, Image.open(slider[1]) as shown:
        assert bicubic.size == shown.size == expected.size and shown.format == "PNG"
        assert np.array_equal(np.asarray(bicubic), np.asarray(image.resize(expected.size, Image.Resampling.BICUBIC)))
    assert job["state"] == "done" and job["share"] is None
    label = "Photo SRGAN" if model == "srgan-x4-photo" else "Paper's SRResNet"
    assert f"{name} with {label}: " in job["text"]
    assert f"→ {expected.width} x {expected.height} pixels in" in job["text"]


def test_slider_is_capped_and_says_so_while_the_download_is_whole(client):
    slider, download, job = client.predict(handle_file(EXAMPLES / "cat.png"), "srgan-x4", api_name="/upscale")
    for path in slider:
        with Image.open(path) as image:
            assert image.size == (512, 340)
    with Image.open(download) as result:
        assert result.size == (904, 600)
    assert "shows it at 512 x 340, the download is full size" in job["text"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.png", "text.png is not a picture"),
        ("empty.png", "empty.png is empty"),
        ("cut.jpg", "cut.jpg is broken or cut short"),
        ("huge.png", "huge.png has 20000 x 20000 pixels; the limit is 0.07 million"),
        (None, "Choose a picture first"),
    ],
)
def test_bad_uploads_get_a_sentence(client, pictures, name, message):
    with pytest.raises(AppError, match=message) as error:
        client.predict(handle_file(pictures / name) if name else None, "srgan-x4", api_name="/upscale")
    assert "/" not in str(error.value)  # no path of the server


def test_a_model_that_is_not_offered_is_refused(client, pictures):
    with pytest.raises(AppError, match="not in the list of choices"):
        client.predict(handle_file(pictures / "small.png"), "../../etc", api_name="/upscale")


def test_progress_comes_band_by_band(client):
    job = client.submit(handle_file(EXAMPLES / "cat.png"), "srresnet-x4", api_name="/upscale")
    job.result(timeout=120)
    shares = [value["share"] for _, _, value in job.outputs() if value["state"] == "running"]
    assert len(shares) >= 4 and shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1


def test_the_demo_is_made_of_what_it_is_given():
    demo = app.create_demo({"One": "srgan-x4"}, max_pixels=3_000_000)
    radio = next(block for block in demo.blocks.values() if isinstance(block, gr.Radio))
    assert radio.choices == [("One", "srgan-x4")]
    texts = [block.value for block in demo.blocks.values() if isinstance(block, gr.Markdown)]
    assert any("up to 3 megapixels and 50 MB" in text for text in texts)


OPENED: deque[str] = deque(maxlen=10_000)
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event in ("open", "os.listdir") else None)


def _payloads(outside: Path, upload: Path) -> dict[str, dict]:
    meta = {"_type": "gradio.FileData"}
    return {
        "no meta": {"path": f"{outside}/private.png"},
        "empty meta": {"path": f"{outside}/private.png", "meta": {}},
        "wrong meta": {"path": f"{outside}/private.png", "meta": "gradio.FileData"},
        "right meta": {"path": f"{outside}/private.png", "meta": meta},
        "folder": {"path": str(outside), "meta": meta},
        "missing": {"path": f"{outside}/missing.png", "meta": meta},
        "device": {"path": "/dev/zero", "meta": meta},
        "address": {"path": "http://127.0.0.1:9/private.png", "url": "http://127.0.0.1:9/private.png", "meta": meta},
        "parent": {
            "path": f"{upload.parent}/../{os.path.relpath(outside, upload.parent.parent)}/private.png",
            "meta": meta,
        },
        "no path": {"meta": meta},
        "long": {"path": f"{get_upload_folder()}/{'a' * 5000}.png", "meta": meta},
        "nul": {"path": f"{get_upload_folder()}/a\0.png", "meta": meta},
    }


@pytest.fixture(scope="module")
def upload(url, pictures) -> Path:
    with (pictures / "small.png").open("rb") as file:
        return Path(httpx.post(f"{url}gradio_api/upload", files={"files": file}).json()[0])


def _by_name(url: str, name: str, data: list) -> str:
    event = httpx.post(f"{url}gradio_api/call/{name}", json={"data": data}).json()["event_id"]
    return httpx.get(f"{url}gradio_api/call/{name}/{event}", timeout=60).text


def _by_number(url: str, number: int, data: list) -> list[dict]:
    """Join the queue as the page does, and return what comes until the end."""
    session = os.urandom(8).hex()
    body = {"data": data, "fn_index": number, "session_hash": session}
    httpx.post(f"{url}gradio_api/queue/join", json=body).raise_for_status()
    lines = httpx.get(f"{url}gradio_api/queue/data", params={"session_hash": session}, timeout=60).text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize("kind", _payloads(Path("/a"), Path("/b/c")))
def test_only_uploads_are_read(url, pictures, upload, tmp_path, monkeypatch, kind):
    (tmp_path / "private.png").write_bytes((pictures / "small.png").read_bytes())
    payload = _payloads(tmp_path, upload)[kind]
    read = []
    monkeypatch.setattr(app.files, "read", lambda path, **_: read.append(path))
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", lambda *args, **_: read.append(args))
    OPENED.clear()
    refusal = "Choose a picture first: upload one or click an example."
    assert refusal in _by_name(url, "upscale", [payload, "srgan-x4"])
    functions = [each for each in httpx.get(f"{url}config").json()["dependencies"] if each["inputs"]]
    assert len(functions) >= 2  # this one, and that which looks at a new picture
    for function in functions:
        data = [payload, "srgan-x4"][: len(function["inputs"])]
        last = next(each for each in _by_number(url, function["id"], data) if each["msg"] == "process_completed")
        if function["api_name"] == "upscale":
            assert last["output"]["error"] == refusal
        else:
            assert last["output"]["data"][-1]["text"] == "Choose a picture."
    assert not read
    assert not [path for path in OPENED if path.startswith((str(tmp_path), "/dev/zero"))]


def test_an_upload_is_read_by_the_same_ways(url, upload):
    payload = {"path": str(upload), "meta": {"_type": "gradio.FileData"}}
    assert "event: complete" in _by_name(url, "upscale", [payload, "srgan-x4"])


def test_gradio_serves_no_file_from_outside(url, pictures, tmp_path):
    (tmp_path / "private.png").write_bytes((pictures / "small.png").read_bytes())
    for path in (tmp_path / "private.png", Path(app.__file__), "/etc/passwd", f"{get_upload_folder()}/../private.png"):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404)


def test_any_failure_is_a_sentence(client, pictures, monkeypatch):
    def broken(self, picture):
        raise RuntimeError("/secret/place")

    monkeypatch.setattr(app.Upscaler, "stream", broken)
    with pytest.raises(AppError, match=r"small\.png cannot be enlarged: the server failed \(RuntimeError\)") as error:
        client.predict(handle_file(pictures / "small.png"), "srgan-x4", api_name="/upscale")
    assert "secret" not in str(error.value)


def test_what_reading_loses_is_said(client, pictures):
    _, _, job = client.predict(handle_file(pictures / "deep.png"), "srgan-x4", api_name="/upscale")
    assert job["text"].endswith("deep.png has 16 bits per channel and is read with 8.")


def test_notes_of_one_reader_are_not_shown_to_another(pictures):
    with ThreadPoolExecutor(2) as pool:
        notes = list(pool.map(lambda name: app._read(pictures / name, 10**6)[1], ["deep.png", "small.png"] * 20))
    assert all(bool(note) == (number % 2 == 0) for number, note in enumerate(notes))


def test_the_line_keeps_its_order_and_its_length(monkeypatch):
    monkeypatch.setattr(app, "LONGEST_LINE", 3)
    line = app.Line()
    with line.place("a") as first, line.place("b") as second, line.place("c") as third:
        assert [line.ahead(job) for job in (first, second, third)] == [0, 1, 2]
        with pytest.raises(ValueError, match=r"Busy: 3 pictures are waiting\. Try again in a minute"), line.place("d"):
            pass
        assert not line.stop("d", "Cancelled.") and not (first.stopped or second.stopped or third.stopped)
    with line.place("a") as job:
        stopped = threading.Thread(target=line.stop, args=("a", "Cancelled."))
        stopped.start()
        while not job.stopped:
            pass
        assert stopped.is_alive()  # until the job is out of the line
    stopped.join(5)
    assert not stopped.is_alive()


def test_the_size_limit_is_pillows_too(monkeypatch):
    """For what a header doesn't tell: a picture inside another."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    launched = []
    monkeypatch.setattr(gr.Blocks, "launch", lambda self, **options: launched.append(options))
    runpy.run_path(app.__file__, run_name="__main__")
    assert app.MAX_PIXELS == Image.MAX_IMAGE_PIXELS and launched


def test_nothing_is_written_beside_the_app():
    assert not Path(app.__file__).with_suffix(".pyi").exists()
