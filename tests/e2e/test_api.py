"""The demo's API through gradio_client, MCP and plain HTTP."""

import asyncio
import base64
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest
import safehttpx
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

import app
from srgan_hub import SRGAN
from srgan_hub.demo import fetch, queue, service, uploads
from srgan_hub.demo.settings import Settings, to_curl, to_python
from srgan_hub.demo.tabs.upscale import EXAMPLES, list_examples
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


def test_batch_has_all_settings_and_no_archive_if_everything_failed(client, images):
    archive, states = client.predict(
        [handle_file(images / "gps.jpg")], "2x", 0.5, "photo", "JPEG", 40, "all", api_name="/batch"
    )
    with zipfile.ZipFile(archive) as content, content.open("gps_x2.jpg") as file, Image.open(file) as result:
        assert result.size == (80, 60) and not result.getexif() and result.quantization[0][0] > 10
    archive, states = client.predict([handle_file(images / "text.png")], api_name="/batch")
    assert archive is None and [each["state"] for each in states] == ["failed"]
    assert states[0].keys() == {"name", "state", "text", "width", "height", "seconds"}


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
    _, scores, protocol = client.predict(handle_file(tmp_path / "lr/cat.png"), models, None, api_name="/compare")
    assert set(scores[0]) == {"model", "seconds"} and not protocol


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


META = {"meta": {"_type": "gradio.FileData"}}


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
        inputs = [components[each] for each in function["inputs"]]
        values = [_with_file(each["type"], each["props"], payload) for each in inputs]
        if any(value is not None for value in values):
            yield (
                function["id"],
                [
                    each["props"].get("value") if value is None else value
                    for each, value in zip(inputs, values, strict=True)
                ],
            )


def _with_file(type: str, props: dict, payload: dict) -> Any:
    """Return the value with this payload as file of a component, None if it has no file."""
    if "file_key" in props.get("props", {}):
        return {**props["value"], "state": "ready", props["props"]["file_key"]: payload}
    if props.get("elem_id") == "gallery":
        return [{"upload": payload, "file": payload}]
    return {"image": payload, "file": [payload]}.get(type)


@pytest.mark.parametrize("kind", _payloads(Path("/a"), Path("/b/c")))
def test_only_uploads_are_read(url, images, upload, tmp_path, monkeypatch, kind):
    (tmp_path / "private.png").write_bytes((images / "small.png").read_bytes())
    payload = _payloads(tmp_path, upload)[kind]
    reads = []
    monkeypatch.setattr("srgan_hub.demo.upscale.load_raster", lambda path, **_: reads.append(path))
    monkeypatch.setattr("srgan_hub.demo.inputs.open_image", lambda path, **_: reads.append(path))
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", lambda *args, **_: reads.append(args))
    OPENED.clear()
    assert "Upload the image first" in _call_upscale(url, payload)
    functions = list(_file_functions(url, payload))
    # Upscale tab: run, code, four changes of the image, each of six settings, close-up; compare; batch; endpoints.
    assert len(functions) >= 17
    # Every function for the payload that passes Gradio's own check of `meta`, one function for the others.
    for index, data in functions if kind == "right meta" else functions[:1]:
        last = next(each for each in _call_by_index(url, index, data) if each["msg"] == "process_completed")
        assert re.search(
            "Choose an image|Choose images|Upload the image|Pass files that were uploaded|null",
            json.dumps(last["output"]),
        ), last
    assert not [each for each in reads if each != list_examples()[0]]  # shown without an image
    assert not [path for path in OPENED if path.startswith((str(tmp_path), "/dev/zero"))]


RANDOM_VALUES = [
    None, True, -1, 0, 2.5, 1e308, 10**30, "", "4x", "9" * 5_000, "../../etc/passwd", "/etc/passwd", [], ["4x"], {},
    {"path": "/etc/passwd"}, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, [[{}]], "srgan-x4",
]  # fmt: skip


def test_invalid_calls_get_one_sentence_without_server_paths(url, upload, caplog):
    """300 random calls, of the wrong number of values too: each ends before any work, and says why."""
    rng = random.Random(0)
    image = {"path": str(upload), "meta": {"_type": "gradio.FileData"}}
    valid = {
        "upscale": [image, *vars(Settings()).values()],
        "batch": [[image], *vars(Settings()).values()],
        "compare": [image, ["srgan-x4", "srresnet-x4"], None],
    }
    answers = []
    with httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(300):
            name, data = rng.choice([*valid.items()])
            data = list(data)
            data[rng.randrange(len(data))] = rng.choice(RANDOM_VALUES)
            data = data[: rng.choice([*range(len(data)), *[None] * 20])] + rng.choice([[], [], [], [1]])
            event = http.post(f"gradio_api/call/{name}", json={"data": data}).json()["event_id"]
            answers.append((name, data, http.get(f"gradio_api/call/{name}/{event}").text))
    refused = [(name, data, text) for name, data, text in answers if "event: error" in text]
    assert len(refused) > 200
    for name, data, text in refused:
        message = json.loads(text.rpartition("data: ")[2])["error"]
        assert message and len(message) < 400 and "Something went wrong" not in message, (name, data, message)
        assert "event: generating" not in text, (name, data)
    for name, data, text in answers:  # results are served from the upload folder
        answer = text.replace(str(get_upload_folder()), "")
        assert not re.search(r"/(tmp|root|home|usr|work)/|Traceback", answer), (name, data, text)


class Site(BaseHTTPRequestHandler):
    """A web server with an image, redirects, a large file and a slow answer."""

    image: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        redirects = {"moved.png": "small%20cat.png", "inside.png": "http://127.0.0.1/x.png", "loop.png": "loop.png"}
        self.send_response(302 if name in redirects else 404 if name == "gone.png" else 200)
        if name in redirects:
            self.send_header("Location", redirects[name])
        self.end_headers()
        with suppress(OSError):  # of a client that has gone
            if name == "slow.png":
                time.sleep(2)
            for _ in range(100 if name == "large.png" else 1):
                self.wfile.write(self.image if name == "small%20cat.png" else bytes(1_000))

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(images, monkeypatch) -> Iterator[str]:
    """The server's address, whose host name counts as a public one."""
    validate = safehttpx.async_validate_url

    async def validate_url(host: str) -> str:
        return "127.0.0.1" if host == "example.test" else await validate(host)

    monkeypatch.setattr(safehttpx, "async_validate_url", validate_url)
    Site.image = (images / "small.png").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://example.test:{server.server_port}/"
    server.shutdown()


def test_images_at_public_addresses_are_fetched(client, site, images):
    for name in ("small%20cat.png", "moved.png"):
        file, width, height, _ = client.predict({"path": site + name, **META}, "2x", api_name="/upscale")
        assert (width, height) == (80, 60) and Path(file).name == "small cat_x2.png"
    _, states = client.predict([{"path": f"{site}small%20cat.png", **META}], api_name="/batch")
    assert [each["state"] for each in states] == ["done"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{site}inside.png", "not a public address"),
        ("{site}loop.png", "more than 5 redirects"),
        ("{site}large.png", "larger than 0.05 MB"),
        ("{site}slow.png", "no answer within 1 seconds"),
        ("{site}gone.png", "status 404"),
        ("http://127.0.0.1:9/a.png", "not a public address"),
        ("http://[::1]/a.png", "not a public address"),
        ("http://localhost/a.png", "not a public address"),
        ("http://10.0.0.1/a.png", "not a public address"),
        ("http://169.254.169.254/latest/meta-data", "not a public address"),
        ("http://2130706433/a.png", "not a public address"),
        ("http:///a.png", "cannot be fetched"),
        ("file:///etc/passwd", "not an http or https address"),
        ("ftp://example.test/a.png", "not an http or https address"),
        ("http://example.test:99999/a.png", "cannot be fetched"),
    ],
)
def test_other_addresses_are_refused(url, site, monkeypatch, address, message):
    if "slow" in address:
        monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(uploads, "MAX_FILE_MB", 0.05)
    assert message in _call_upscale(url, {"path": address.format(site=site), **META})


@pytest.mark.parametrize(
    "address", ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/a.png", "cat.png", ["a"], None]
)
def test_page_fetches_only_public_addresses(url, address):
    components = httpx.get(f"{url}config").json()["components"]
    component = next(each["id"] for each in components if each["props"].get("elem_id") == "image")
    body = {"component_id": component, "fn_name": "fetch_image", "data": address, "session_hash": "a"}
    answer = httpx.post(f"{url}gradio_api/component_server", json=body).json()
    assert [*answer] == ["error"] and answer["error"]


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
            assert "$" not in json.dumps([tool.inputSchema for tool in tools.values()])
            small, other = (
                f"data:image/png;base64,{base64.b64encode((images / name).read_bytes()).decode()}"
                for name in ("small.png", "other.png")
            )

            async def call(name: str, **arguments: object) -> tuple[list[Image.Image], list[str], dict]:
                """Return a tool's images, its links, and its other values."""
                *files, values = (answer := await session.call_tool(name, arguments)).content
                assert not answer.isError, answer
                found = [each.data for each in files if each.type == "image"]
                links = [each.text.removeprefix("Image URL: ") for each in files if each.type == "text"]
                assert all(link.startswith(url) for link in links)
                return (
                    [Image.open(io.BytesIO(base64.b64decode(each))) for each in found],
                    links,
                    json.loads(values.text),
                )

            (result,), (link,), values = await call("upscale", image=small, size="2x", detail=0)
            assert (values["width"], values["height"]) == (80, 60) and values.keys() == {"width", "height", "seconds"}
            expected = SRGAN.from_pretrained("srresnet-x4-photo").upscale(images / "small.png", size="2x")
            assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1
            assert np.array_equal(Image.open(io.BytesIO(httpx.get(link).content)), result)
            (), (link,), values = await call("batch", images=[small, other], size="2x")
            assert [each["state"] for each in values["images"]] == ["done", "done"]
            with zipfile.ZipFile(io.BytesIO(httpx.get(link).content)) as archive:
                assert len(archive.namelist()) == 2
            outputs, links, values = await call("compare", image=small, models=["srgan-x4", "srresnet-x4"])
            assert [each.size for each in outputs] == [(160, 120)] * 2 and len(links) == 2
            assert [each["model"] for each in values["scores"]] == ["srgan-x4", "srresnet-x4"]
            for name, arguments, message in (
                ("upscale", {"image": "http://127.0.0.1:9/private.png"}, "not a public address"),
                ("upscale", {"image": small, "size": "9x"}, "`size`"),
                ("batch", {"images": small}, "not of type 'array'"),
                ("compare", {"image": small, "models": ["srgan-x4"]}, "two or three models"),
            ):
                refused = await session.call_tool(name, arguments)
                assert refused.isError and message in refused.content[0].text

    asyncio.run(use_tools())


@pytest.mark.parametrize("end", ["disconnected", "result not fetched"])
def test_job_ends_without_its_client_and_health_responds_meanwhile(url, client, images, upload, monkeypatch, end):
    strips = []

    def slow(self, image, **_):
        for _ in range(400):
            time.sleep(0.05)
            strips.append(1)
            yield np.zeros((1, 160, 3), np.uint8)

    monkeypatch.setattr(Upscaler, "stream", slow)
    if end == "disconnected":
        job = client.submit(handle_file(images / "small.png"), api_name="/upscale")
    else:
        monkeypatch.setattr(queue, "ABANDONED_SECONDS", 0.5)
        data = [{"path": str(upload), **META}, *vars(Settings()).values()]
        httpx.post(f"{url}gradio_api/call/upscale", json={"data": data}).raise_for_status()
    while not strips:
        time.sleep(0.05)
    assert httpx.get(f"{url}health", timeout=60).json() == {"status": "ok"} and len(strips) < 400
    if end == "disconnected":
        job.cancel()
    before = 0
    while len(strips) > before:
        before = len(strips)
        time.sleep(1)
    assert before < 400
