import errno
import hashlib
import io
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from huggingface_hub import file_download
from PIL import Image

from srgan_hub.training import div2k
from srgan_hub.training.dataset import read_index
from srgan_hub.training.div2k import Archive, download, find_split, prepare_div2k


def png(seed, size=32):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def archive_of(name, content, images):
    return Archive(name, len(content), hashlib.sha256(content).hexdigest(), images)


class Server(ThreadingHTTPServer):
    """Serves `files`, records the requested ranges, and closes the connection after `max_bytes`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.max_bytes = None
        self.ranges = []
        self.supports_ranges = True
        self.unavailable = 0  # number of requests to answer with 503
        self.shift = 0  # bytes by which a range starts too late
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        content = self.server.files.get(self.path[1:])
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if content is None:
            self.send_error(404)
            return
        if self.server.unavailable:
            self.server.unavailable -= 1
            self.send_error(503)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.supports_ranges else 0
        start += self.server.shift * bool(start)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = None if self.server.max_bytes is None else start + self.server.max_bytes
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr(div2k, "URL", server.url)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def train(server):
    content = make_zip({"train/": b"", "train/0001.png": png(1), "train/0002.png": png(2)})
    server.files["train.zip"] = content
    return archive_of("train", content, 2)


def names(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


@pytest.fixture(autouse=True)
def small_chunks_without_delay(monkeypatch):
    monkeypatch.setattr(file_download.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)


def test_archive_is_downloaded_and_unpacked_once(server, train, tmp_path):
    for _ in range(2):
        assert download(tmp_path, train) == tmp_path / "train"
    assert names(tmp_path) == ["train", "train/0001.png", "train/0002.png"]
    assert (tmp_path / "train/0002.png").read_bytes() == png(2)
    assert server.ranges == [None]


def test_interrupted_transfer_resumes(server, train, tmp_path):
    server.max_bytes = 3000
    download(tmp_path, train)
    assert train.size > 6000
    assert server.ranges == [None, *(f"bytes={start}-" for start in range(3000, train.size, 3000))]
    assert (tmp_path / "train/0001.png").read_bytes() == png(1)


def test_next_call_resumes_a_partial_file(server, train, tmp_path):
    (tmp_path / "train.zip.part").write_bytes(server.files["train.zip"][:1234])
    download(tmp_path, train)
    assert server.ranges == ["bytes=1234-"]
    assert (tmp_path / "train/0001.png").read_bytes() == png(1)


def test_unreachable_server_is_reported_and_the_partial_file_kept(server, train, tmp_path):
    (tmp_path / "train.zip.part").write_bytes(server.files["train.zip"][:1234])
    server.max_bytes = 0
    with pytest.raises(ConnectionError, match=r"train\.zip: .* byte 1,234 of .* to resume"):
        download(tmp_path, train)
    assert (tmp_path / "train.zip.part").stat().st_size == 1234
    del server.files["train.zip"]
    with pytest.raises(ConnectionError, match="404"):
        download(tmp_path, train)


def test_unavailable_server_is_asked_again(server, train, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(div2k, "WAITS", (1, 2, 3))
    waits = []
    monkeypatch.setattr(div2k.time, "sleep", waits.append)
    server.unavailable = 3
    download(tmp_path, train)
    assert (tmp_path / "train/0001.png").read_bytes() == png(1)
    assert waits == [1, 2, 3] and "503" in caplog.text
    server.unavailable = 4
    with pytest.raises(ConnectionError, match="503"):
        download(tmp_path / "again", train)
    assert waits == [1, 2, 3] * 2


def test_mirror_is_used_instead_of_the_original(server, train, tmp_path, monkeypatch):
    monkeypatch.setattr(div2k, "URL", "http://127.0.0.1:9/none")
    for name in ("mirror/train.zip", "other/train.zip"):
        server.files[name] = server.files["train.zip"]
    del server.files["train.zip"]
    for number, address in enumerate((f"{server.url}/mirror", f"{server.url}/other/")):
        assert names(download(tmp_path / str(number), train, url=address)) == ["0001.png", "0002.png"]


def test_range_that_was_not_requested_is_never_unpacked(server, train, tmp_path):
    (tmp_path / "train.zip.part").write_bytes(server.files["train.zip"][:1234])
    server.shift = -100  # the server sends the last 100 bytes again
    with pytest.raises(ValueError, match=train.sha256):
        download(tmp_path, train)
    assert names(tmp_path) == []
    (tmp_path / "train.zip.part").write_bytes(server.files["train.zip"][:1234])
    server.shift = 100  # it leaves out 100 bytes, and ends early
    with pytest.raises((ValueError, ConnectionError)):
        download(tmp_path, train)
    assert not (tmp_path / "train").exists()


def test_layout_of_div2k_is_recognized(tmp_path):
    assert find_split(tmp_path, "train") == tmp_path
    for name in ("DIV2K_valid_HR", "DIV2K_train_LR_bicubic/X4"):
        (tmp_path / name).mkdir(parents=True)
    assert find_split(tmp_path, "valid") == tmp_path  # other files of the same names
    (tmp_path / "DIV2K_train_HR").mkdir()
    assert find_split(tmp_path, "train") == tmp_path / "DIV2K_train_HR"
    assert find_split(tmp_path, "valid") == tmp_path / "DIV2K_valid_HR"
    assert find_split(tmp_path, "X4") == tmp_path / "DIV2K_train_LR_bicubic" / "X4"
    assert find_split(tmp_path, "X2") == tmp_path


def test_server_without_ranges_restarts_the_transfer(server, train, tmp_path):
    (tmp_path / "train.zip.part").write_bytes(b"x" * 1234)
    server.supports_ranges = False
    download(tmp_path, train)
    assert (tmp_path / "train/0001.png").read_bytes() == png(1)


@pytest.mark.parametrize("change", [lambda content: content + b"more", lambda content: content[:-1] + b"x"])
def test_archive_of_other_size_or_hash_is_deleted(server, train, tmp_path, change):
    server.files["train.zip"] = change(server.files["train.zip"])
    with pytest.raises(ValueError, match=train.sha256):
        download(tmp_path, train)
    assert names(tmp_path) == []


def corrupt_zip():
    content = bytearray(make_zip({"train/0001.png": png(1), "train/0002.png": png(2)}))
    content[100] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (corrupt_zip(), "corrupt .*CRC"),
        (b"no zip at all", "corrupt"),
        (make_zip({"train/0001.png": png(1)}), "1 images, expected 2"),
        (make_zip({"train/0001.png": png(1), "../0002.png": png(2)}), r"'\.\./0002\.png'"),
        (make_zip({"train/0001.png": png(1), "train/../../0002.png": png(2)}), r"'train/\.\./"),
        (make_zip({"train/0001.png": png(1), "/0002.png": png(2)}), "'/0002.png'"),
    ],
)
def test_invalid_archive_leaves_no_images(server, tmp_path, content, message):
    server.files["train.zip"] = content
    output = tmp_path / "deep" / "output"
    with pytest.raises(ValueError, match=message):
        download(output, archive_of("train", content, 2))
    assert names(tmp_path) == ["deep", "deep/output", "deep/output/train.zip"]


def test_full_disk_is_found_before_downloading(server, train, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * train.size - 1))
    with pytest.raises(OSError, match=r"train needs 0\.0 GB") as caught:
        download(tmp_path, train)
    assert caught.value.errno == errno.ENOSPC
    assert server.ranges == []


def test_prepare_div2k_builds_shards_of_the_training_images(server, tmp_path, monkeypatch):
    for number, (name, images) in enumerate({"TRAIN": ["0001.png", "0002.png"], "VALID": ["0801.png"]}.items()):
        content = make_zip({f"{name}/{image}": png(number, size=96) for image in images})
        server.files[f"{name}.zip"] = content
        monkeypatch.setattr(div2k, name, archive_of(name, content, len(images)))
    shards = prepare_div2k(tmp_path / "div2k")
    assert [image["name"] for image in read_index(shards)["images"]] == ["0001.png", "0002.png"]
    assert names(tmp_path / "div2k-images/VALID") == ["0801.png"]
    (tmp_path / "div2k-images/TRAIN/0002.png").write_bytes(png(2, size=95))
    with pytest.raises(ValueError, match="at least 2"):
        prepare_div2k(tmp_path / "div2k")


def test_archives_are_those_of_div2k():
    assert (div2k.TRAIN.images, div2k.VALID.images) == (800, 100)
    assert div2k.TRAIN.size == 3530603713 and div2k.VALID.size == 448993893
    assert len(div2k.TRAIN.sha256) == len(div2k.VALID.sha256) == 64
