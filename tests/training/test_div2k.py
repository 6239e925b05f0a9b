import errno
import hashlib
import io
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from srgan_hub.training import div2k
from srgan_hub.training.dataset import read_index
from srgan_hub.training.div2k import Archive, download, prepare_div2k


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
    """Serves ``files``; breaks off after ``bytes_per_answer``, if set; notes the ranges that it is asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.bytes_per_answer = None
        self.ranges = []
        self.knows_ranges = True
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        content = self.server.files.get(self.path[1:])
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.knows_ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = None if self.server.bytes_per_answer is None else start + self.server.bytes_per_answer
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
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


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_downloads_and_unpacks_once(server, train, tmp_path):
    calls = []
    for _ in range(2):
        download(tmp_path, url=server.url, archives=(train,), progress=lambda *call: calls.append(call))
    assert names(tmp_path) == ["train", "train/0001.png", "train/0002.png"]
    assert (tmp_path / "train/0002.png").read_bytes() == png(2)
    assert calls[-1] == ("train.zip", train.size, train.size)
    assert server.ranges == [None]


def test_goes_on_where_the_transfer_broke_off(server, train, tmp_path):
    server.bytes_per_answer = 3000
    download(tmp_path, url=server.url, archives=(train,))
    assert train.size > 6000
    assert server.ranges == [None, *(f"bytes={start}-" for start in range(3000, train.size, 3000))]
    assert (tmp_path / "train/0001.png").read_bytes() == png(1)


def test_goes_on_in_the_next_call(server, train, tmp_path, monkeypatch):
    (tmp_path / "train.zip.part").write_bytes(server.files["train.zip"][:1234])
    download(tmp_path, url=server.url, archives=(train,))
    assert server.ranges == ["bytes=1234-"]
    assert (tmp_path / "train/0001.png").read_bytes() == png(1)


def test_a_server_that_is_down_is_named_and_what_came_is_kept(server, train, tmp_path):
    (tmp_path / "train.zip.part").write_bytes(server.files["train.zip"][:1234])
    server.bytes_per_answer = 0
    with pytest.raises(ConnectionError, match=r"broke off at 1,234 of .* Run the same again"):
        download(tmp_path, url=server.url, archives=(train,))
    assert len(server.ranges) == div2k.ATTEMPTS
    assert (tmp_path / "train.zip.part").stat().st_size == 1234
    with pytest.raises(ConnectionError, match="404"):
        download(tmp_path, url=server.url + "elsewhere", archives=(train,))


def test_starts_again_where_the_server_knows_no_ranges(server, train, tmp_path):
    (tmp_path / "train.zip.part").write_bytes(b"x" * 1234)
    server.knows_ranges = False
    download(tmp_path, url=server.url, archives=(train,))
    assert (tmp_path / "train/0001.png").read_bytes() == png(1)


def test_another_size_is_refused(server, train, tmp_path):
    server.files["train.zip"] += b"more"
    with pytest.raises(ValueError, match=rf"Expected {train.size:,} bytes .* got {train.size + 4:,}"):
        download(tmp_path, url=server.url, archives=(train,))
    assert names(tmp_path) == []


def test_another_hash_is_refused_and_not_kept(server, train, tmp_path):
    content = bytearray(server.files["train.zip"])
    content[100] ^= 1
    server.files["train.zip"] = bytes(content)
    with pytest.raises(ValueError, match=f"SHA-256 {train.sha256}, got"):
        download(tmp_path, url=server.url, archives=(train,))
    assert names(tmp_path) == []


def damaged_zip():
    content = bytearray(make_zip({"train/0001.png": png(1), "train/0002.png": png(2)}))
    content[100] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged_zip(), "damaged .*CRC"),
        (b"no zip at all", "damaged"),
        (make_zip({"train/0001.png": png(1)}), "Expected 2 images .* got 1"),
        (make_zip({"train/0001.png": png(1), "../0002.png": png(2)}), r"got '\.\./0002\.png'"),
        (make_zip({"train/0001.png": png(1), "train/../../0002.png": png(2)}), r"got 'train/\.\./"),
        (make_zip({"train/0001.png": png(1), "/0002.png": png(2)}), "got '/0002.png'"),
    ],
)
def test_a_bad_archive_is_refused_and_leaves_no_images(server, tmp_path, content, message):
    server.files["train.zip"] = content
    output = tmp_path / "deep" / "output"
    with pytest.raises(ValueError, match=message):
        download(output, url=server.url, archives=(archive_of("train", content, 2),))
    assert names(tmp_path) == ["deep", "deep/output", "deep/output/train.zip"]


def test_a_full_disk_is_said_before(server, train, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * train.size - 1))
    with pytest.raises(OSError, match=r"train needs 0\.0 GB") as caught:
        download(tmp_path, url=server.url, archives=(train,))
    assert caught.value.errno == errno.ENOSPC
    assert server.ranges == []


def test_prepares_the_training_images(server, train, tmp_path):
    content = make_zip({"valid/0801.png": png(3)})
    server.files["valid.zip"] = content
    archives = train, archive_of("valid", content, 1)
    shards = prepare_div2k(tmp_path / "div2k", minimum_size=32, url=server.url, archives=archives)
    assert [p["name"] for p in read_index(shards)["images"]] == ["0001.png", "0002.png"]
    assert names(tmp_path / "div2k-images/valid") == ["0801.png"]
    with pytest.raises(ValueError, match="at least 2 usable"):
        prepare_div2k(tmp_path / "div2k", minimum_size=33, url=server.url, archives=archives)


def test_records_both_archives():
    assert (div2k.TRAIN.images, div2k.VALID.images) == (800, 100)
    assert div2k.TRAIN.size == 3530603713 and div2k.VALID.size == 448993893
    assert len(div2k.TRAIN.sha256) == len(div2k.VALID.sha256) == 64
