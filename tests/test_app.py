"""The demo as programs meet it: through gradio_client, MCP and plain HTTP. See test_page.py for the browser."""

import ast
import asyncio
import base64
import functools
import io
import json
import os
import re
import runpy
import subprocess
import sys
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import httpx
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from malformed_files import png_header
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

import app
from srgan_hub import SRGAN
from srgan_hub.demo import service
from srgan_hub.demo import upscale as upscale_module
from srgan_hub.demo.settings import Settings, to_curl, to_python
from srgan_hub.demo.tabs.upscale import EXAMPLES
from srgan_hub.evaluate.evaluate import evaluate
from srgan_hub.upscaler import Upscaler


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The demo, with limits that small images can reach."""
    demo = app.create_demo(max_pixels=70_000, warm_up=False)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
    yield address
    demo.close()


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder with good and bad files."""
    folder = tmp_path_factory.mktemp("images")
    with Image.open(EXAMPLES / "cat.png") as cat:
        cat = cat.crop((60, 40, 100, 70))
    cat.save(folder / "small.png")
    cat.convert("L").save(folder / "gray.png")
    cat.putalpha(cat.convert("L"))
    cat.save(folder / "clear.png")
    cat.crop((0, 0, 1, 1)).convert("RGB").save(folder / "one.png")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8825)[1] = "N"
    cat.convert("RGB").save(folder / "placed.jpg", exif=exif, quality=95)
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_header(20_000, 20_000))
    (folder / "cut.jpg").write_bytes((EXAMPLES / "coffee.jpg").read_bytes()[:5000])
    return folder


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", ["small.png", "gray.png", "clear.png", "one.png"])
@pytest.mark.parametrize(
    ("kind", "detail", "model", "mixed"),
    [
        ("photo", 1, "srgan-x4-photo", None),
        ("photo", 0, "srresnet-x4-photo", None),
        ("photo", 0.3, "srgan-x4-photo", 0.3),
        ("clean", 0.4, "srresnet-x4", None),
        ("clean", 0.5, "srgan-x4", None),
    ],
)
def test_upscale_gives_what_the_package_gives(client, images, name, kind, detail, model, mixed):
    file, width, height, seconds = client.predict(
        handle_file(images / name), detail=detail, kind=kind, api_name="/upscale"
    )
    expected = SRGAN.from_pretrained(model).upscale(images / name, detail=mixed)
    with Image.open(file) as result:
        assert result.format == "PNG" and result.mode == expected.mode
    assert np.abs(pixels(file) - np.asarray(expected)).max() <= 1
    assert Path(file).name == f"{Path(name).stem}_x4.png"
    assert (width, height) == expected.size and 0 < seconds < 60


@pytest.mark.parametrize(
    ("size", "expected", "name"), [("2x", (80, 60), "x2"), ("3x", (120, 90), "x3"), ("100", (100, 75), "100x75")]
)
def test_a_size_is_the_whole_result_reduced_by_the_packages_bicubic(client, images, size, expected, name):
    file, width, height, _ = client.predict(handle_file(images / "small.png"), size=size, api_name="/upscale")
    assert (width, height) == expected and Path(file).name == f"small_{name}.png"
    wish = size if size.endswith("x") else int(size)
    whole = SRGAN.from_pretrained("srgan-x4-photo").upscale(images / "small.png", size=wish)
    assert np.abs(pixels(file) - np.asarray(whole)).max() <= 1


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("WebP", ".webp")])
def test_formats_and_their_quality(client, images, kind, suffix):
    sizes = []
    for quality in (20, 95):
        file, *_ = client.predict(handle_file(images / "small.png"), format=kind, quality=quality, api_name="/upscale")
        with Image.open(file) as result:
            assert result.format.lower() == kind.lower() and Path(file).suffix == suffix
        sizes.append(Path(file).stat().st_size)
    assert sizes[0] * 2 < sizes[1]
    lossless, *_ = client.predict(handle_file(images / "small.png"), api_name="/upscale")
    assert np.abs(pixels(file) - pixels(lossless)).mean() < 3


@pytest.mark.parametrize(
    ("metadata", "maker", "place"), [("all", "Maker", "N"), ("none", None, None), (None, "Maker", None)]
)
def test_metadata_is_kept_as_asked_and_the_place_is_not_by_default(client, images, metadata, maker, place):
    asked = {"metadata": metadata} if metadata else {}
    file, *_ = client.predict(handle_file(images / "placed.jpg"), format="JPEG", **asked, api_name="/upscale")
    with Image.open(file) as result:
        exif = result.getexif()
        assert (exif.get(0x010F), exif.get_ifd(0x8825).get(1)) == (maker, place)


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("text.png", {}, "text.png is not an image"),
        ("empty.png", {}, "empty.png is empty"),
        ("cut.jpg", {}, "cut.jpg is broken or cut short"),
        ("huge.png", {}, "huge.png has 20000 x 20000 pixels; the limit is 0.07 million"),
        (None, {}, "Upload an image first"),
        ("small.png", {"size": "5x"}, "Expected a size of 2x, 3x, 4x or a longest side in pixels, got '5x'"),
        ("small.png", {"size": "161"}, "161"),
        ("small.png", {"size": "0"}, "Expected a size"),
        ("small.png", {"detail": 1.5}, "Expected a detail from 0 to 1, got 1.5"),
        ("small.png", {"quality": 0}, "Expected a quality from 1 to 100, got 0"),
        ("small.png", {"kind": "other"}, "Expected a kind out of photo, clean"),
        ("clear.png", {"format": "JPEG"}, "JPEG cannot hold transparency"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(client, images, name, asked, message):
    with pytest.raises(AppError, match=message) as error:
        client.predict(handle_file(images / name) if name else None, **asked, api_name="/upscale")
    assert "/" not in str(error.value)  # no path of the server


def test_parameters_and_results_are_named_typed_and_described(client, url):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert sorted(endpoints) == ["/batch", "/compare", "/upscale"]
    upscale = endpoints["/upscale"]
    assert {each["parameter_name"]: each["python_type"]["type"] for each in upscale["parameters"]} == {
        "image": "filepath",
        "size": "str",
        "detail": "float",
        "kind": "Literal['photo', 'clean']",
        "format": "Literal['PNG', 'JPEG', 'WebP']",
        "quality": "float",
        "metadata": "Literal['no place', 'all', 'none']",
    }
    assert [each["label"] for each in upscale["returns"]] == ["file", "width", "height", "seconds"]
    assert [each["label"] for each in endpoints["/batch"]["returns"]] == ["file", "images"]
    assert [each["label"] for each in endpoints["/compare"]["returns"]] == ["files", "scores", "protocol"]


def test_batch_names_the_bad_and_zips_the_good(client, images):
    names = ["small.png", "text.png", "gray.png", "small.png"]
    archive, told = client.predict([handle_file(images / name) for name in names], api_name="/batch")
    assert [(each["name"], each["state"]) for each in told] == [
        ("small.png", "done"),
        ("text.png", "failed"),
        ("gray.png", "done"),
        ("small.png", "done"),
    ]
    assert told[1]["text"].startswith("text.png is not an image")
    assert (told[0]["width"], told[0]["height"]) == (160, 120)
    with zipfile.ZipFile(archive) as content:
        assert content.testzip() is None
        assert content.namelist() == ["small_x4.png", "gray_x4.png", "small_x4 (1).png"]
        for name in content.namelist():
            with content.open(name) as file, Image.open(file) as result:
                source = images / f"{name.split('_')[0]}.png"
                expected = SRGAN.from_pretrained("srgan-x4-photo").upscale(source)
                assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize(
    ("count", "message"), [(0, "Choose images first"), (4, "Expected at most 3 images at once, got 4")]
)
def test_a_batch_of_none_and_of_too_many(client, images, monkeypatch, count, message):
    monkeypatch.setattr(service, "MANY", 3)
    with pytest.raises(AppError, match=message):
        client.predict([handle_file(images / "one.png")] * count, api_name="/batch")


def test_compare_scores_as_evaluate_does(bfloat16, client, images, tmp_path):
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
    report = evaluate(models, data=tmp_path / "hr", lr=tmp_path / "lr")
    for file, told, name in zip(files, scores, models, strict=True):
        expected = SRGAN.from_pretrained(name).upscale(tmp_path / "lr/cat.png", dtype="fp32")
        assert np.abs(pixels(file) - np.asarray(expected)).max() <= 1
        row = next(row for row in report.rows if row.name == name)
        for score in ("psnr_y", "ssim_y", "lr_consistency"):
            assert told[score] == pytest.approx(row.images["cat"][score], rel=1e-3)
    assert "on Y" in protocol and "4 pixels shaved" in protocol
    _, scores, _ = client.predict(handle_file(tmp_path / "lr/cat.png"), models, None, api_name="/compare")
    assert set(scores[0]) == {"model", "seconds", "lr_consistency"}


@pytest.mark.parametrize(
    ("models", "truth", "message"),
    [
        (["srgan-x4", "someone/else"], None, "someone/else"),
        (["srgan-x4"], None, "Choose two or 3 models, got 1"),
        (
            ["srgan-x4", "srresnet-x4"],
            "gray.png",
            "Expected a ground truth of 160 x 120 pixels, 4 times small.png, got 40 x 30",
        ),
    ],
)
def test_what_cannot_be_compared_gets_a_sentence(client, images, models, truth, message):
    with pytest.raises(AppError, match=message):
        truth = handle_file(images / truth) if truth else None
        client.predict(handle_file(images / "small.png"), models, truth, api_name="/compare")


def test_health_needs_no_queue(url):
    assert httpx.get(f"{url}health").json() == {"status": "ok"}


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
def upload(url, images) -> Path:
    with (images / "small.png").open("rb") as file:
        return Path(httpx.post(f"{url}gradio_api/upload", files={"files": file}).json()[0])


# What /upscale takes beside the image.
SETTINGS = ["4x", 1, "photo", "PNG", 90, "no place"]


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


def _functions_of_files(url: str, payload: dict) -> Iterator[tuple[int, list]]:
    """The demo's functions that take files, by number, each with this payload and otherwise its defaults."""
    config = httpx.get(f"{url}config").json()
    components = {each["id"]: each for each in config["components"]}
    for function in config["dependencies"]:
        kinds = [components[each]["type"] for each in function["inputs"]]
        if {"image", "file"} & set(kinds):
            values = {"image": payload, "file": [payload]}
            pairs = zip(function["inputs"], kinds, strict=True)
            yield function["id"], [values.get(kind, components[each]["props"].get("value")) for each, kind in pairs]


@pytest.mark.parametrize("kind", _payloads(Path("/a"), Path("/b/c")))
def test_only_uploads_are_read(url, images, upload, tmp_path, monkeypatch, kind):
    (tmp_path / "private.png").write_bytes((images / "small.png").read_bytes())
    payload = _payloads(tmp_path, upload)[kind]
    read = []
    monkeypatch.setattr(upscale_module.decode, "load_raster", lambda path, **_: read.append(path))
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", lambda *args, **_: read.append(args))
    OPENED.clear()
    assert "Upload an image first" in _by_name(url, "upscale", [payload, *SETTINGS])
    functions = list(_functions_of_files(url, payload))
    # One image: the run, a new image, each of seven settings; the close-up; compare, many; three for programs.
    assert len(functions) >= 15
    refusals = []
    # All of them for one payload of those that other code may take for a file; each other payload by one of them.
    for number, data in functions if kind == "right meta" else functions[:1]:
        last = next(each for each in _by_number(url, number, data) if each["msg"] == "process_completed")
        refusals.append(json.dumps(last["output"]))
    refused = "Choose an image|Choose images|Upload an image first|null"
    assert all(re.search(refused, refusal) for refusal in refusals), refusals
    assert not read
    assert not [path for path in OPENED if path.startswith((str(tmp_path), "/dev/zero"))]


def test_an_upload_is_read_by_the_same_ways(url, upload):
    payload = {"path": str(upload), "meta": {"_type": "gradio.FileData"}}
    assert "event: complete" in _by_name(url, "upscale", [payload, *SETTINGS])


def test_an_address_of_an_upload_is_that_upload(url, upload):
    """As Gradio's tool that uploads for agents gives it."""
    payload = {"path": f"{url}gradio_api/file={upload}", "meta": {"_type": "gradio.FileData"}}
    assert "event: complete" in _by_name(url, "upscale", [payload, *SETTINGS])


def test_gradio_serves_no_file_from_outside(url, images, tmp_path):
    (tmp_path / "private.png").write_bytes((images / "small.png").read_bytes())
    for path in (tmp_path / "private.png", Path(app.__file__), "/etc/passwd", f"{get_upload_folder()}/../private.png"):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404)


def test_any_failure_is_a_sentence(client, images, monkeypatch):
    def broken(self, image, size=None):
        raise RuntimeError("/secret/place")

    monkeypatch.setattr(Upscaler, "stream", broken)
    with pytest.raises(AppError, match=r"small\.png cannot be upscaled: the server failed \(RuntimeError\)") as error:
        client.predict(handle_file(images / "small.png"), api_name="/upscale")
    assert "secret" not in str(error.value)


def test_nothing_is_written_beside_the_app():
    assert not Path(app.__file__).with_suffix(".pyi").exists()


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings("100", 0.3, "photo", "JPEG", 70, "no place"),
        Settings("2x", 0.2, "clean", "WebP", 50, "none"),
    ],
)
def test_the_programs_that_the_page_shows_make_the_same_file(url, client, images, tmp_path, settings):
    image = images / "placed.jpg"
    expected, *_ = client.predict(handle_file(image), *vars(settings).values(), api_name="/upscale")
    environment = {**os.environ, "PYTHONPATH": str(Path(app.__file__).parent), "HF_HUB_OFFLINE": "1"}
    run = functools.partial(subprocess.run, env=environment, capture_output=True, text=True, check=True, timeout=300)
    run([sys.executable, "-c", to_python(settings, str(image))], cwd=tmp_path)
    (made,) = tmp_path.glob("large.*")
    if settings.format == "PNG":
        assert np.abs(pixels(made) - pixels(expected)).max() <= 1
    else:
        assert made.read_bytes() == Path(expected).read_bytes()
    answer = run(["bash", "-c", to_curl(settings, str(image), url)], cwd=tmp_path).stdout
    (last,) = re.findall(r"event: complete\ndata: (.*)", answer)
    file, width, height, _ = json.loads(last)
    with Image.open(expected) as result:
        assert result.size == (width, height)
    assert httpx.get(file["url"]).content == Path(expected).read_bytes()


def test_agents_use_it_by_mcp(url, images):
    async def use() -> None:
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert sorted(tools) == ["batch", "compare", "upscale"]
            upscale = tools["upscale"]
            assert upscale.description.startswith("Upscale an image up to four times.")
            described = {name: each.get("description", "") for name, each in upscale.inputSchema["properties"].items()}
            assert list(described) == ["image", "size", "detail", "kind", "format", "quality", "metadata"]
            assert described["detail"].startswith("From 0, faithful and calm")
            data = base64.b64encode((images / "small.png").read_bytes()).decode()
            answer = await session.call_tool(
                "upscale", {"image": f"data:image/png;base64,{data}", "size": "2x", "detail": 0}
            )
            (answer,) = answer.content
            file, width, height, _ = ast.literal_eval(answer.text)
            assert (width, height) == (80, 60)
            with Image.open(io.BytesIO(httpx.get(file["url"]).content)) as result:
                expected = SRGAN.from_pretrained("srresnet-x4-photo").upscale(images / "small.png", size="2x")
                assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= 1
            refused = await session.call_tool("upscale", {"image": "http://127.0.0.1:9/private.png"})
            assert refused.isError and "Upload an image first" in refused.content[0].text
            refused = await session.call_tool("upscale", {"image": f"data:image/png;base64,{data}", "size": "9x"})
            assert refused.isError and "Expected a size of 2x, 3x, 4x" in refused.content[0].text

    asyncio.run(use())


def test_options_come_from_the_command_line_or_the_environment(monkeypatch):
    made = []
    monkeypatch.setattr(app, "create_demo", lambda *args, **options: made.append((args, options)) or gr.Blocks())
    monkeypatch.setattr(gr.Blocks, "launch", lambda self, **options: made.append(options))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    app.main([])
    (((models,), options), launched) = made
    assert (models, options) == ([], {"max_pixels": app.MAX_PIXELS, "concurrency": 1, "queue": 20})
    assert (launched["server_name"], launched["server_port"], launched["share"]) == (None, None, False)
    assert app.MAX_PIXELS == Image.MAX_IMAGE_PIXELS  # for what a header doesn't tell: an image inside another
    flags = "--host 0.0.0.0 --port 8000 --share --models a/b,c/d --max-pixels 99 --concurrency 3 --queue 7 --theme soft"
    variables = {
        "HOST": "0.0.0.0", "PORT": "8000", "SHARE": "1", "MODELS": "a/b,c/d",
        "MAX_PIXELS": "99", "CONCURRENCY": "3", "QUEUE": "7", "THEME": "soft",
    }  # fmt: skip
    for argv in (flags.split(), []):
        made.clear()
        app.main(argv)
        (((models,), options), launched) = made
        assert models == ["a/b", "c/d"] and options == {"max_pixels": 99, "concurrency": 3, "queue": 7}
        chosen = {name: launched[name] for name in ("server_name", "server_port", "share", "theme")}
        assert chosen == {"server_name": "0.0.0.0", "server_port": 8000, "share": True, "theme": "soft"}
        assert Image.MAX_IMAGE_PIXELS == 99
        for name, value in variables.items():
            monkeypatch.setenv(f"SRGAN_{name}", value)


@pytest.mark.parametrize("argv", [["--port", "many"], ["--queue", "0"], ["--concurrency", "-1"], ["--max-pixels", "0"]])
def test_options_out_of_range_are_refused(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        app.main(argv)
    assert stopped.value.code == 2 and argv[0] in capsys.readouterr().err


def test_the_app_is_started_as_a_script(monkeypatch):
    launched = []
    monkeypatch.setattr(gr.Blocks, "launch", lambda self, **options: launched.append(options))
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    runpy.run_path(app.__file__, run_name="__main__")
    assert launched[0]["max_file_size"] == "50mb" and launched[0]["mcp_server"] is True


def test_health_is_told_while_a_run_goes_on_and_one_who_leaves_ends_it(url, client, images, monkeypatch):
    strips = []

    def slow(self, image, size=None):
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
