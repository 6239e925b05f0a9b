"""The demo's API through gradio_client, MCP and plain HTTP."""

import ast
import asyncio
import base64
import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

import app
from srgan_hub import SRGAN
from srgan_hub.demo import service
from srgan_hub.demo.settings import Settings, to_curl, to_python
from srgan_hub.demo.tabs.upscale import EXAMPLES
from srgan_hub.evaluate.evaluate import evaluate
from srgan_hub.upscaler import Upscaler


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False)


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("name", "preset", "detail", "model", "options"),
    [
        ("small.png", "photo", 1, "srgan-x4-photo", {}),
        ("gray.png", "photo", 1, "srgan-x4-photo", {}),
        ("alpha.png", "photo", 0.3, "srgan-x4-photo", {"detail": 0.3}),
        ("one.png", "photo", 0, "srresnet-x4-photo", {}),
        ("gray.png", "clean", 0.4, "srresnet-x4", {}),
        ("alpha.png", "clean", 0.5, "srgan-x4", {}),
        ("alpha.png", "texture", 1, "srgan-x4-photo", {"wrap": "xy"}),
        ("small.png", "panorama", 0, "srresnet-x4-photo", {"wrap": "x"}),
    ],
)
def test_upscale_equals_the_package(client, images, name, preset, detail, model, options):
    file, width, height, seconds = client.predict(
        handle_file(images / name), detail=detail, preset=preset, api_name="/upscale"
    )
    expected = SRGAN.from_pretrained(model).upscale(images / name, **options)
    with Image.open(file) as result:
        assert result.format == "PNG" and result.mode == expected.mode
    assert np.abs(pixels(file) - np.asarray(expected)).max() <= 1
    assert Path(file).name == f"{Path(name).stem}_x4.png"
    assert (width, height) == expected.size and 0 < seconds < 60


@pytest.mark.parametrize(
    ("size", "expected", "suffix"), [("2x", (80, 60), "x2"), ("3x", (120, 90), "x3"), ("100", (100, 75), "100")]
)
def test_sizes_equal_the_package(client, images, size, expected, suffix):
    file, width, height, _ = client.predict(handle_file(images / "small.png"), size=size, api_name="/upscale")
    assert (width, height) == expected and Path(file).name == f"small_{suffix}.png"
    target_size = size if size.endswith("x") else int(size)
    result = SRGAN.from_pretrained("srgan-x4-photo").upscale(images / "small.png", size=target_size)
    assert np.abs(pixels(file) - np.asarray(result)).max() <= 1


@pytest.mark.parametrize(("format", "suffix"), [("JPEG", ".jpg"), ("WebP", ".webp")])
def test_formats_and_quality(client, images, format, suffix):
    sizes = []
    for quality in (20, 95):
        file, *_ = client.predict(
            handle_file(images / "small.png"), format=format, quality=quality, api_name="/upscale"
        )
        with Image.open(file) as result:
            assert result.format.lower() == format.lower() and Path(file).suffix == suffix
        sizes.append(Path(file).stat().st_size)
    assert sizes[0] * 2 < sizes[1]
    lossless, *_ = client.predict(handle_file(images / "small.png"), api_name="/upscale")
    assert np.abs(pixels(file) - pixels(lossless)).mean() < 3


@pytest.mark.parametrize(
    ("strip_metadata", "maker", "gps"), [("none", "Maker", "N"), ("all", None, None), (None, "Maker", None)]
)
def test_metadata_is_stripped_as_asked_and_gps_by_default(client, images, strip_metadata, maker, gps):
    options = {"strip_metadata": strip_metadata} if strip_metadata else {}
    file, *_ = client.predict(handle_file(images / "gps.jpg"), format="JPEG", **options, api_name="/upscale")
    with Image.open(file) as result:
        exif = result.getexif()
        assert (exif.get(0x010F), exif.get_ifd(0x8825).get(1)) == (maker, gps)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("text.png", {}, "text.png"),
        ("empty.png", {}, "empty"),
        ("truncated.jpg", {}, "truncated"),
        ("huge.png", {}, "2000"),
        (None, {}, "Upload the image first"),
        ("small.png", {"size": "5x"}, "'5x'"),
        ("small.png", {"size": "161"}, "161"),
        ("small.png", {"size": "0"}, "`size`"),
        ("small.png", {"detail": 1.5}, "`detail`.*1.5"),
        ("small.png", {"quality": 0}, "`quality`.*0"),
        ("small.png", {"preset": "other"}, "`preset`.*'other'"),
        ("alpha.png", {"format": "JPEG"}, "transparency"),
    ],
)
def test_invalid_requests_get_a_message_without_server_paths(client, images, name, options, message):
    with pytest.raises(AppError, match=message) as error:
        client.predict(handle_file(images / name) if name else None, **options, api_name="/upscale")
    assert "/" not in str(error.value)


def test_endpoints_are_named_and_typed(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert sorted(endpoints) == ["/batch", "/compare", "/upscale"]
    parameters = endpoints["/upscale"]["parameters"]
    assert {each["parameter_name"]: each["python_type"]["type"] for each in parameters} == {
        "image": "filepath",
        "size": "str",
        "detail": "float",
        "preset": "Literal['photo', 'clean', 'texture', 'panorama']",
        "format": "Literal['PNG', 'JPEG', 'WebP']",
        "quality": "float",
        "strip_metadata": "Literal['gps', 'none', 'all']",
    }
    returns = {name: [each["label"] for each in endpoint["returns"]] for name, endpoint in endpoints.items()}
    assert returns == {
        "/upscale": ["file", "width", "height", "seconds"],
        "/batch": ["file", "images"],
        "/compare": ["files", "scores", "protocol"],
    }


def test_batch_reports_failures_and_zips_the_rest(client, images):
    names = ["small.png", "text.png", "gray.png", "small.png"]
    archive, states = client.predict([handle_file(images / name) for name in names], api_name="/batch")
    assert [(each["name"], each["state"]) for each in states] == [
        ("small.png", "done"),
        ("text.png", "failed"),
        ("gray.png", "done"),
        ("small.png", "done"),
    ]
    assert "text.png" in states[1]["text"]
    assert (states[0]["width"], states[0]["height"]) == (160, 120)
    with zipfile.ZipFile(archive) as content:
        assert content.testzip() is None
        assert content.namelist() == ["small_x4.png", "gray_x4.png", "small_x4 (1).png"]
        for name in content.namelist():
            with content.open(name) as file, Image.open(file) as result:
                source = images / f"{name.split('_')[0]}.png"
                expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(source)
                assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize(("count", "message"), [(0, "Choose images first"), (4, "at most 3 images, got 4")])
def test_batch_limits(client, images, monkeypatch, count, message):
    monkeypatch.setattr(service, "MAX_BATCH_FILES", 3)
    with pytest.raises(AppError, match=message):
        client.predict([handle_file(images / "one.png")] * count, api_name="/batch")


def test_compare_scores_equal_evaluate_in_float32(client, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    (tmp_path / "hr").mkdir()
    (tmp_path / "lr").mkdir()
    with Image.open(EXAMPLES / "cat.png") as cat:
        hr = cat.convert("RGB").crop((0, 0, 160, 120))
        hr.save(tmp_path / "hr/cat.png")
        hr.resize((40, 30), Image.Resampling.BICUBIC).save(tmp_path / "lr/cat.png")
    models = ["srgan-x4", "srresnet-x4-photo"]
    files, scores, protocol = client.predict(
        handle_file(tmp_path / "lr/cat.png"), models, handle_file(tmp_path / "hr/cat.png"), api_name="/compare"
    )
    names = ("psnr_y", "ssim_y", "lr_consistency")
    report = evaluate(models, data=tmp_path / "hr", lr=tmp_path / "lr", metrics=names)
    for file, row, name in zip(files, scores, models, strict=True):
        expected = SRGAN.from_pretrained(name).upscale(tmp_path / "lr/cat.png", dtype="float32")
        assert np.abs(pixels(file) - np.asarray(expected)).max() <= 1
        evaluated = next(each for each in report.rows if each.name == name)
        for score in names:
            assert row[score] == pytest.approx(evaluated.images["cat"][score], rel=1e-3)
    assert "on Y" in protocol and "4 pixels cropped" in protocol
    _, scores, _ = client.predict(handle_file(tmp_path / "lr/cat.png"), models, None, api_name="/compare")
    assert set(scores[0]) == {"model", "seconds", "lr_consistency"}


@pytest.mark.parametrize(
    ("models", "ground_truth", "message"),
    [
        (["srgan-x4", "someone/else"], None, "someone/else"),
        (["srgan-x4"], None, "two or three models, got 1"),
        (["srgan-x4", "srresnet-x4"], "gray.png", "160 × 120.*40 × 30"),
    ],
)
def test_invalid_comparisons_get_a_message(client, images, models, ground_truth, message):
    with pytest.raises(AppError, match=message):
        ground_truth = handle_file(images / ground_truth) if ground_truth else None
        client.predict(handle_file(images / "small.png"), models, ground_truth, api_name="/compare")


OPENED: deque[str] = deque(maxlen=10_000)
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event in ("open", "os.listdir") else None)


def _payloads(outside: Path, upload: Path) -> dict[str, dict]:
    meta = {"_type": "gradio.FileData"}
    private = f"{outside}/private.png"
    return {
        "no meta": {"path": private},
        "empty meta": {"path": private, "meta": {}},
        "wrong meta": {"path": private, "meta": "gradio.FileData"},
        "right meta": {"path": private, "meta": meta},
        "directory": {"path": str(outside), "meta": meta},
        "missing": {"path": f"{outside}/missing.png", "meta": meta},
        "device": {"path": "/dev/zero", "meta": meta},
        "url": {"path": "http://127.0.0.1:9/private.png", "url": "http://127.0.0.1:9/private.png", "meta": meta},
        "parent": {
            "path": f"{upload.parent}/../{os.path.relpath(outside, upload.parent.parent)}/private.png",
            "meta": meta,
        },
        "no path": {"meta": meta},
        "long": {"path": f"{get_upload_folder()}/{'a' * 5000}.png", "meta": meta},
        "nul": {"path": f"{get_upload_folder()}/a\0.png", "meta": meta},
    }


@pytest.fixture(scope="module")
def upload(url, images) -> Path:
    with (images / "small.png").open("rb") as file:
        return Path(httpx.post(f"{url}gradio_api/upload", files={"files": file}).json()[0])


def _call_upscale(url: str, payload: dict) -> str:
    data = [payload, *vars(Settings()).values()]
    event = httpx.post(f"{url}gradio_api/call/upscale", json={"data": data}).json()["event_id"]
    return httpx.get(f"{url}gradio_api/call/upscale/{event}", timeout=60).text


def _call_by_index(url: str, index: int, data: list) -> list[dict]:
    """Join the queue as the page does, and return all messages."""
    session = os.urandom(8).hex()
    body = {"data": data, "fn_index": index, "session_hash": session}
    httpx.post(f"{url}gradio_api/queue/join", json=body).raise_for_status()
    lines = httpx.get(f"{url}gradio_api/queue/data", params={"session_hash": session}, timeout=60).text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


def _file_functions(url: str, payload: dict) -> Iterator[tuple[int, list]]:
    """Yield the index of each function with file inputs, and its inputs: this payload and defaults."""
    config = httpx.get(f"{url}config").json()
    components = {each["id"]: each for each in config["components"]}
    for function in config["dependencies"]:
        types = [components[each]["type"] for each in function["inputs"]]
        if {"image", "file"} & set(types):
            values = {"image": payload, "file": [payload]}
            pairs = zip(function["inputs"], types, strict=True)
            yield function["id"], [values.get(type, components[each]["props"].get("value")) for each, type in pairs]


@pytest.mark.parametrize("kind", _payloads(Path("/a"), Path("/b/c")))
def test_only_uploads_are_read(url, images, upload, tmp_path, monkeypatch, kind):
    (tmp_path / "private.png").write_bytes((images / "small.png").read_bytes())
    payload = _payloads(tmp_path, upload)[kind]
    reads = []
    monkeypatch.setattr("srgan_hub.demo.upscale.load_raster", lambda path, **_: reads.append(path))
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", lambda *args, **_: reads.append(args))
    OPENED.clear()
    assert "Upload the image first" in _call_upscale(url, payload)
    functions = list(_file_functions(url, payload))
    # Upscale tab: run, code, new image, each of seven settings, close-up; compare; batch; three endpoints.
    assert len(functions) >= 15
    # Every function for the payload that passes Gradio's own check of `meta`, one function for the others.
    for index, data in functions if kind == "right meta" else functions[:1]:
        last = next(each for each in _call_by_index(url, index, data) if each["msg"] == "process_completed")
        assert re.search("Choose an image|Choose images|Upload the image|null", json.dumps(last["output"])), last
    assert not reads
    assert not [path for path in OPENED if path.startswith((str(tmp_path), "/dev/zero"))]


def test_uploads_are_read_by_path_and_by_url(url, upload):
    for path in (str(upload), f"{url}gradio_api/file={upload}"):  # the latter is what Gradio's MCP upload returns
        assert "event: complete" in _call_upscale(url, {"path": path, "meta": {"_type": "gradio.FileData"}})


def test_gradio_serves_no_other_files(url, images, tmp_path):
    (tmp_path / "private.png").write_bytes((images / "small.png").read_bytes())
    for path in (tmp_path / "private.png", Path(app.__file__), "/etc/passwd", f"{get_upload_folder()}/../private.png"):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404)
    assert not Path(app.__file__).with_suffix(".pyi").exists()  # Gradio writes stubs next to some modules


def test_unexpected_errors_are_not_disclosed(client, images, monkeypatch):
    def fail(self, image, **_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(Upscaler, "stream", fail)
    with pytest.raises(AppError, match=r"Something went wrong while upscaling small\.png") as error:
        client.predict(handle_file(images / "small.png"), api_name="/upscale")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings("100", 0.3, "photo", "JPEG", 70, "gps"),
        Settings("2x", 0.2, "clean", "WebP", 50, "all"),
        Settings("3x", 1, "photo", "JPEG", 70, "none"),
    ],
)
def test_generated_snippets_write_the_same_file(url, client, images, tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    image = images / "gps.jpg"
    expected, *_ = client.predict(handle_file(image), *vars(settings).values(), api_name="/upscale")
    program = to_python(settings, str(image))
    assert re.findall(r"import.*", program) == ["import SRGAN, save_image"]
    exec(compile(program, "snippet.py", "exec"), {})
    (result,) = tmp_path.glob("upscaled.*")
    if settings.format == "PNG":
        assert np.abs(pixels(result) - pixels(expected)).max() <= 1
    else:
        assert result.read_bytes() == Path(expected).read_bytes()
    command = ["bash", "-c", to_curl(settings, str(image), url)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    (last,) = re.findall(r"event: complete\ndata: (.*)", answer)
    file, width, height, _ = json.loads(last)
    with Image.open(expected) as output:
        assert output.size == (width, height)
    assert httpx.get(file["url"]).content == Path(expected).read_bytes()


def test_mcp_tools(url, images):
    async def use_tools() -> None:
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert sorted(tools) == ["batch", "compare", "upscale"]
            tool = tools["upscale"]
            assert tool.description.startswith("Upscale an image up to 4x.")
            described = {name: each.get("description", "") for name, each in tool.inputSchema["properties"].items()}
            assert list(described) == ["image", *vars(Settings())]
            assert described["detail"].startswith("From 0 (faithful")
            image = f"data:image/png;base64,{base64.b64encode((images / 'small.png').read_bytes()).decode()}"
            answer = await session.call_tool("upscale", {"image": image, "size": "2x", "detail": 0})
            file, width, height, _ = ast.literal_eval(answer.content[0].text)
            assert (width, height) == (80, 60)
            with Image.open(io.BytesIO(httpx.get(file["url"]).content)) as result:
                expected = SRGAN.from_pretrained("srresnet-x4-photo").upscale(images / "small.png", size="2x")
                assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1
            for arguments, message in (
                ({"image": "http://127.0.0.1:9/private.png"}, "Upload the image first"),
                ({"image": image, "size": "9x"}, "`size`"),
            ):
                refused = await session.call_tool("upscale", arguments)
                assert refused.isError and message in refused.content[0].text

    asyncio.run(use_tools())


def test_health_responds_during_a_job_and_disconnecting_ends_the_job(url, client, images, monkeypatch):
    strips = []

    def slow(self, image, **_):
        for _ in range(400):
            time.sleep(0.05)
            strips.append(1)
            yield np.zeros((1, 160, 3), np.uint8)

    monkeypatch.setattr(Upscaler, "stream", slow)
    job = client.submit(handle_file(images / "small.png"), api_name="/upscale")
    while not strips:
        time.sleep(0.05)
    assert httpx.get(f"{url}health", timeout=60).json() == {"status": "ok"} and len(strips) < 400
    job.cancel()
    before = 0
    while len(strips) > before:
        before = len(strips)
        time.sleep(1)
    assert before < 400
