"""Publish and load models with the unmodified Hub client and a local server.

The client reads its environment when it is imported, so it runs in a separate process, which all tests share.
"""

import contextlib
import importlib.util
import io
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from fake_hub import READER, WRITER, Hub, Repo
from huggingface_hub import close_session, constants, errors
from PIL import Image
from torch import Tensor

from srgan_hub import SRGAN
from srgan_hub.hub import ModelLoadError, model_info
from srgan_hub.model_card import ModelInfo, get_metadata, get_section
from srgan_hub.publish import EXAMPLE, PushError, push_folder

FILES = {".gitattributes", "README.md", "after.jpg", "before.png", "config.json", "model.safetensors"}


class Process:
    """A new interpreter with its own environment, which runs functions of this module."""

    def __init__(self, environ: dict[str, str]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_prepare)
        with mock.patch.dict(os.environ, environ):
            self.pool.submit(os.getpid)  # starts the process

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.pool.submit(function, *args, **kwargs).result()


def _prepare() -> None:
    torch.set_num_threads(1)
    # The client waits up to 23 seconds between retries, and resumes after complete chunks of 10 MB.
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds / 100)
    constants.DOWNLOAD_CHUNK_SIZE = 4096


def make_model(directory: Path, seed: int = 0, **card: Any) -> Path:
    """Save a tiny model, different for each seed."""
    torch.manual_seed(seed)
    model = SRGAN(channels=4, num_blocks=1)
    model.train()(torch.rand(2, 3, 8, 8))  # updates batch norm statistics
    model.save_pretrained(directory, model_card_kwargs={"name": directory.name, **card})
    return directory


def upscale(name: str | Path, **options: Any) -> Tensor:
    model = SRGAN.from_pretrained(name, **options)
    return model.upscale(torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(1)))


def offline(function: Callable[..., Any], *args: Any) -> Any:
    with mock.patch.object(constants, "HF_HUB_OFFLINE", True):
        return function(*args)


def publish(directory: Path, repo_id: str, **options: Any) -> tuple[str, list[str]]:
    """Push a directory; return the commit and the warnings."""
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("srgan_hub")
    logger.addHandler(handler)
    try:
        url = push_folder(directory, repo_id, **{"token": WRITER, **options})
    finally:
        logger.removeHandler(handler)
    return url.rsplit("/", 1)[1], warnings


def publish_loaded(directory: Path, repo_id: str, **options: Any) -> str:
    """Load a model and call `push_to_hub`; return the commit."""
    return SRGAN.from_pretrained(directory).push_to_hub(repo_id, token=WRITER, **options).rsplit("/", 1)[1]


class WithBias(SRGAN):
    def __init__(self, *, alpha: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.bias = torch.nn.Parameter(torch.full((3, 1, 1), alpha))


def save_and_push_subclass(directory: Path, repo_id: str, **options: Any) -> str | None:
    model = WithBias(alpha=0.25, channels=4, num_blocks=1)
    return model.save_pretrained(directory, push_to_hub=True, repo_id=repo_id, token=WRITER, **options)


def load_subclass(repo_id: str, **options: Any) -> tuple[dict[str, Any], Tensor]:
    model = WithBias.from_pretrained(repo_id, **options)
    return model.config, model.bias.detach()


def train(data: Path, output: Path, repo_id: str, token: str = WRITER) -> int:
    """Run the training script for a few steps; return its exit code."""
    from accelerate.state import AcceleratorState, GradientState

    import train_accelerate

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    tiny = (
        "--channels 4 --num-blocks 1 --hr-crop 32 --batch-size 2  --push-steps 2 --report-to none "
        "--threads 1 --max-train-steps 4"
    )
    directorys = ["--train-data", str(data), "--output-dir", str(output), "--push-to-hub", repo_id]
    with mock.patch.dict(os.environ, {"HF_TOKEN": token}):
        return train_accelerate.main([*directorys, *tiny.split()])


def train_error(*args: Any) -> tuple[int, str]:
    """Run the training script; return its exit code and what it wrote to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as error:
        return train(*args), error.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub) -> Iterator[Hub]:
    server.faults.clear()
    server.requests.clear()
    yield server
    assert server.unknown == []


@pytest.fixture(scope="module")
def client(server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(server.environ(tmp_path_factory.mktemp("home")))
    yield process
    process.pool.shutdown(wait=False)


def test_round_trip(hub: Hub, client: Process, tmp_path: Path) -> None:
    directory = make_model(tmp_path / "final", seed=0)
    sr = client(upscale, directory)
    commit, warnings = client(publish, directory, "org/tiny", tag="v1")
    repo = hub.repos["org/tiny"]
    assert len(repo.commits) == 2  # the initial one, and one with card and weights
    assert repo.branches["main"] == repo.tags["v1"] == commit
    assert set(repo.files()) == FILES and warnings == []
    assert repo.files()["model.safetensors"] == (directory / "model.safetensors").read_bytes()
    card = repo.files()["README.md"].decode()
    local = (directory / "README.md").read_text()
    shown = (
        "thumbnail: https://huggingface.co/org/tiny/resolve/main/after.jpg\n"
        "widget:\n- src: https://huggingface.co/org/tiny/resolve/main/before.png\n"
        "  output:\n    url: after.jpg\n  text: Before, and after\n"
    )
    plain = card.replace(shown, "").replace("\n<Gallery />\n", "")
    assert plain == local.replace('from_pretrained("final")', 'from_pretrained("org/tiny")') != local
    assert "\n# final\n\n<Gallery />\n" in card
    assert shown in card.split("---\n")[1]
    with Image.open(io.BytesIO(repo.files()["after.jpg"])) as after:
        expected = SRGAN.from_pretrained(directory).upscale(EXAMPLE).convert("RGB")
        assert np.abs(np.asarray(after).astype(int) - np.asarray(expected)).mean() < 3
    assert repo.files()["before.png"] == EXAMPLE.read_bytes()

    loaded = client(upscale, "org/tiny")
    assert torch.equal(loaded, sr)

    hub.requests.clear()
    assert torch.equal(client(offline, upscale, "org/tiny"), sr)
    with pytest.raises(ModelLoadError, match="unreachable"):
        client(offline, upscale, "org/never-seen")
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set"):
        client(offline, publish, directory, "org/tiny")
    assert hub.requests == []


def test_training_checks_the_token_and_creates_the_repository_before_the_first_step(
    hub: Hub, client: Process, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "data" / "0.png")
    hub.repos["org/theirs"] = Repo()
    hub.repos["org/theirs"].commit({})
    for repo_id, token, message in (
        ("org/absent", READER, "no write access"),
        ("org/theirs", READER, "no write access"),  # exists: only a check tells
        ("org/absent", "wrong", "no token with write access"),
    ):
        code, error = client(train_error, tmp_path / "data", tmp_path / "out", repo_id, token)
        assert code == 2 and message in error
    assert "org/absent" not in hub.repos and not list((tmp_path / "out").glob("step-*"))


def test_training_run_is_published_and_loaded(hub: Hub, client: Process, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for seed in range(3):
        array = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "data" / f"{seed}.png")
    hub.fail("POST", "/commit/main", 503, times=999)
    assert client(train, tmp_path / "data", tmp_path / "down", "org/trained") == 1
    assert len(hub.repos["org/trained"].commits) == 1 and (tmp_path / "down" / "step-4.safetensors").is_file()
    hub.faults.clear()
    assert client(train, tmp_path / "data", tmp_path / "up", "org/trained") == 0
    final = tmp_path / "up" / "final"
    weights = (final / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "down" / "final" / "model.safetensors").read_bytes()  # no step was lost
    repo = hub.repos["org/trained"]
    assert len(repo.commits) == 3  # the initial one, that of step 2 and that of the end
    assert set(repo.files()) == FILES and repo.files()["model.safetensors"] == weights
    card = repo.files()["README.md"]
    assert b"--push-to-hub org/trained" in card and b"4 of 4 steps" in card  # that of step 2 is replaced
    assert torch.equal(client(upscale, "org/trained"), client(upscale, final))


def test_revisions_are_pinned(hub: Hub, client: Process, tmp_path: Path) -> None:
    directorys = [make_model(tmp_path / f"seed{seed}", seed=seed) for seed in (1, 2, 3)]
    srs = [client(upscale, directory) for directory in directorys]
    first, _ = client(publish, directorys[0], "org/pinned", tag="v1")
    client(publish, directorys[1], "org/pinned", revision="next")
    third, _ = client(publish, directorys[2], "org/pinned")
    for revision, expected in ((first, 0), ("v1", 0), ("next", 1), (third, 2), ("main", 2), (None, 2)):
        loaded = client(upscale, "org/pinned", revision=revision)
        assert [torch.equal(loaded, sr) for sr in srs] == [number == expected for number in range(3)], revision
    with pytest.raises(ModelLoadError, match=r"at revision 'v9' not found.*no such revision"):
        client(upscale, "org/pinned", revision="v9")
    with pytest.raises(PushError, match="tag 'v1' already exists"):
        client(publish, directorys[1], "org/pinned", tag="v1")
    assert hub.repos["org/pinned"].branches["main"] == third


def test_files_are_downloaded_from_one_commit(hub: Hub, client: Process, tmp_path: Path) -> None:
    old, new = make_model(tmp_path / "old", seed=4), make_model(tmp_path / "new", seed=5)
    repo = hub.repos["org/moving"] = Repo()
    repo.commit(_read(old))
    # Somebody pushes between the downloads of the two files.
    hub.fail("HEAD", "model.safetensors", lambda: repo.commit(_read(new)))
    assert torch.equal(client(upscale, "org/moving"), client(upscale, old))
    assert torch.equal(client(upscale, "org/moving"), client(upscale, new))


def test_private_and_gated_repositories(hub: Hub, client: Process, tmp_path: Path) -> None:
    directory = make_model(tmp_path / "secret", seed=6)
    client(publish, directory, "org/secret", private=True)
    assert hub.repos["org/secret"].private
    with pytest.raises(ModelLoadError, match=r"not on the Hub.*`hf auth login`"):
        client(upscale, "org/secret")
    assert torch.equal(client(upscale, "org/secret", token=READER), client(upscale, directory))

    hub.repos["org/gated"] = Repo(gated=True)
    hub.repos["org/gated"].commit(_read(directory))
    with pytest.raises(ModelLoadError, match="gated"):
        client(upscale, "org/gated", token=READER)

    client(publish, directory, "org/open")
    with pytest.raises(PushError, match="public"):
        client(publish, directory, "org/open", private=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model.safetensors"}, "has no config.json"),
        ({"config.json"}, "has no model.safetensors"),
        ({"config.json", "pytorch_model.bin"}, "pytorch_model.bin are never loaded"),
        (None, "not on the Hub"),
    ],
)
def test_incomplete_models_are_refused(
    hub: Hub, client: Process, tmp_path: Path, files: set[str] | None, message: str
) -> None:
    name = f"org/incomplete-{len(files or ())}-{'config.json' in (files or ())}"
    if files is not None:
        whole = {**_read(make_model(tmp_path / "model")), "pytorch_model.bin": b"\x80\x04."}
        hub.repos[name] = Repo()
        hub.repos[name].commit({file: whole[file] for file in files})
    with pytest.raises(ModelLoadError, match=message):
        client(upscale, name)
    assert not any("pytorch_model.bin" in request for request in hub.requests)


def test_tampered_weights_are_refused(hub: Hub, client: Process, tmp_path: Path) -> None:
    directory = make_model(tmp_path / "model", seed=7)
    client(publish, directory, "org/tampered")
    good = hub.repos["org/tampered"].files()["model.safetensors"]
    bad = good[:-1] + bytes([good[-1] ^ 1])
    hub.repos["org/tampered"].commit({"model.safetensors": bad})
    with pytest.raises(ModelLoadError, match="does not match its model card"):
        client(upscale, "org/tampered")
    with pytest.raises(ModelLoadError, match="does not match its model card"):
        client(model_info, "org/tampered")

    (directory / "model.safetensors").write_bytes(bad)
    with pytest.raises(PushError, match="does not match its model card"):
        client(publish, directory, "org/tampered")


def test_failed_and_interrupted_downloads(hub: Hub, client: Process, tmp_path: Path) -> None:
    directory = make_model(tmp_path / "model", seed=8)
    sr = client(upscale, directory)
    (directory / "README.md").unlink()  # without a card, the Hub's hash is checked
    hub.repos["org/shaky"] = Repo()
    hub.repos["org/shaky"].commit(_read(directory))

    hub.fail("GET", "model.safetensors", "wrong")
    with pytest.raises(ModelLoadError, match=r"corrupt.*load the model again"):
        client(upscale, "org/shaky")
    for fault, times in (("reset", 1), ("cut", 99)):
        hub.fail("GET", "model.safetensors", fault, times)
        with pytest.raises(ModelLoadError, match=r"'org/shaky' not found.*download failed: "):
            client(upscale, "org/shaky")
        hub.faults.clear()
    hub.requests.clear()
    hub.fail("GET", "model.safetensors", "cut", times=2)
    assert torch.equal(client(upscale, "org/shaky"), sr)
    downloads = [request.rpartition("/")[2] for request in hub.requests if re.match("GET .*/resolve/", request)]
    size, resumed = (directory / "model.safetensors").stat().st_size, []
    for _ in range(2):  # each time half of the rest arrived, in complete chunks
        start = resumed[-1] if resumed else 0
        resumed.append(start + (size - start) // 2 // 4096 * 4096)
    assert downloads == ["model.safetensors", *(f"model.safetensors bytes={start}-" for start in resumed)]

    hub.fail("HEAD", "config.json", 503, times=99)
    with pytest.raises(ModelLoadError, match=r"unreachable|download failed"):
        client(upscale, "org/shaky", force_download=True)
    hub.fail("GET", "/api/models/", 503, times=99)
    assert torch.equal(client(upscale, "org/shaky"), sr)  # from the cache
    hub.repos["org/down"] = hub.repos["org/shaky"]
    with pytest.raises(ModelLoadError, match="unreachable"):
        client(upscale, "org/down")


def test_interrupted_upload_can_be_repeated(hub: Hub, client: Process, tmp_path: Path) -> None:
    directory = make_model(tmp_path / "model", seed=9)
    hub.fail("PUT", "/lfs/", "reset", times=6)
    with pytest.raises(PushError, match=r"unreachable or down.*push again later") as caught:
        client(publish, directory, "org/broken")
    assert "\n" not in str(caught.value)
    repo = hub.repos["org/broken"]
    assert set(repo.files()) == {".gitattributes"}

    hub.fail("POST", "/commit/main", 503)
    with pytest.raises(PushError, match="push again later"):
        client(publish, directory, "org/broken")
    assert set(repo.files()) == {".gitattributes"}

    hub.requests.clear()
    commit, _ = client(publish, directory, "org/broken")
    assert set(repo.files()) == FILES and repo.branches["main"] == commit
    assert not any(request.startswith("PUT") for request in hub.requests)  # the weights were uploaded before
    assert client(publish, directory, "org/broken", tag="v1")[0] == commit  # no empty commit
    assert repo.tags == {"v1": commit}


@pytest.mark.parametrize(
    ("options", "fault", "message"),
    [
        ({"token": READER}, None, "no write access"),
        ({"token": "hf_expired"}, None, "no token with write access"),
        ({"token": None}, None, "no token with write access.*`hf auth login`"),
        ({}, ("POST", "repos/create", 503), "unreachable or down.*push again later"),
        ({}, ("POST", "repos/create", "reset"), "unreachable or down.*push again later"),
    ],
)
def test_refused_push_reports_the_reason(
    hub: Hub, client: Process, tmp_path: Path, options: dict[str, Any], fault: Any, message: str
) -> None:
    if fault:
        hub.fail(*fault)
    with pytest.raises(PushError, match=message) as caught:
        client(publish, make_model(tmp_path / "model"), "org/refused", **options)
    assert "\n" not in str(caught.value)
    assert "org/refused" not in hub.repos or set(hub.repos["org/refused"].files()) == {".gitattributes"}


@pytest.mark.parametrize(
    ("environ", "content", "token", "message"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:1"}, None, None, "SOCKS proxy.*pip install socksio"),
        ({"ALL_PROXY": "ftp://user:secret@127.0.0.1:1"}, None, None, "proxy's URL is invalid; check ALL_PROXY"),
        ({"SSL_CERT_FILE": "missing.pem"}, None, None, "certificates cannot be read; check SSL_CERT_FILE"),
        ({"SSL_CERT_FILE": "other.pem"}, "no certificate", None, "certificates cannot be read; check SSL_CERT_FILE"),
        ({}, None, "hf_secret\u00e4", "token has invalid characters"),
    ],
)
def test_proxies_certificates_and_tokens_are_explained(
    environ: dict[str, str], content: str | None, token: str | None, message: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if content:
        Path(environ["SSL_CERT_FILE"]).write_text(content)
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "socksio", None)
    options = {"token": token} if token else {}
    directory = make_model(tmp_path / "model")
    close_session()
    try:
        with pytest.raises(ModelLoadError, match=message) as load:
            SRGAN.from_pretrained("org/name", cache_dir=tmp_path / "cache", **options)
        with pytest.raises(PushError, match=message) as push:
            push_folder(directory, "org/name", **options)
    finally:
        close_session()
    assert "\n" not in f"{load.value}{push.value}" and "secret" not in f"{load.value}{push.value}"


def test_untrusted_certificate_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        try:
            raise OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
        except OSError as error:
            raise errors.LocalEntryNotFoundError("Got: ConnectError\nCannot find the files") from error

    monkeypatch.setattr("srgan_hub.hub.snapshot_download", fail)
    with pytest.raises(ModelLoadError, match=r"not trusted; set SSL_CERT_FILE") as caught:
        SRGAN.from_pretrained("org/name")
    assert "\n" not in str(caught.value)


def test_invalid_token_is_explained(hub: Hub, client: Process) -> None:
    with pytest.raises(ModelLoadError, match="token is invalid; run `hf auth login`"):
        client(upscale, "org/open", token="hf_expired")
    with pytest.raises(ModelLoadError, match="token has invalid characters") as caught:
        client(upscale, "org/open", token="hf_secret\n\n1")
    assert "secret" not in str(caught.value)


def test_concurrent_push_is_detected(hub: Hub, client: Process, tmp_path: Path) -> None:
    repo = hub.repos["org/busy"] = Repo()
    repo.commit({".gitattributes": b""})
    hub.fail("POST", "/preupload/", lambda: repo.commit({"README.md": b"Mine."}))
    with pytest.raises(PushError, match="at the same time; push again"):
        client(publish, make_model(tmp_path / "model"), "org/busy")
    assert repo.files()["README.md"] == b"Mine." and "model.safetensors" not in repo.files()
    _, warnings = client(publish, tmp_path / "model", "org/busy")
    assert len(warnings) == 1 and repo.files()["README.md"] == b"Mine."


def test_incomplete_directories_are_not_published(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(PushError, match=r"nowhere.*missing config.json"):
        push_folder(tmp_path / "nowhere", "org/name")
    with pytest.raises(PushError, match=r"`repo_id`.*'name'"):
        push_folder(make_model(tmp_path / "model"), "name")
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(PushError, match=r"model.*missing config.json"):
        push_folder(tmp_path / "model", "org/name")
    assert hub.requests == []


def test_card_on_the_hub_is_kept(hub: Hub, client: Process, tmp_path: Path) -> None:
    first, second = (make_model(tmp_path / f"number-{seed}", seed, scores=f"PSNR {seed}") for seed in (10, 11))
    client(publish, first, "org/edited")
    repo = hub.repos["org/edited"]
    assert client(publish, second, "org/edited", overwrite_card=True)[1] == []
    assert b"PSNR 11" in repo.files()["README.md"]
    by_hand = repo.files()["README.md"] + "\nIch war hier. \N{WAVING HAND SIGN}\n".encode()
    repo.commit({"README.md": by_hand})

    hub.fail("HEAD", "README.md", 503, times=99)  # a failed download must not replace the card
    with pytest.raises(PushError, match="unreachable or down"):
        client(publish, first, "org/edited")
    hub.faults.clear()
    assert repo.files()["README.md"] == by_hand

    _, warnings = client(publish, first, "org/edited")
    assert len(warnings) == 1 and "'org/edited' is kept" in warnings[0] and "--overwrite-card" in warnings[0]
    old_hash, new_hash = (
        get_metadata((directory / "README.md").read_text(), "weights_sha256") for directory in (second, first)
    )
    assert repo.files()["README.md"].decode() == by_hand.decode().replace(str(old_hash), str(new_hash))
    assert torch.equal(client(upscale, "org/edited"), client(upscale, first))

    repo.commit({"README.md": by_hand})
    assert client(publish, second, "org/edited", overwrite_card=True)[1] == []
    assert b"Ich war hier" not in repo.files()["README.md"]


def test_push_to_hub_and_push_folder_are_equivalent(hub: Hub, client: Process, tmp_path: Path) -> None:
    first, second = (make_model(tmp_path / f"number-{seed}", seed) for seed in (13, 14))
    (first / "README.md").unlink()
    client(publish_loaded, first, "org/both")
    repo = hub.repos["org/both"]
    files = repo.files()
    assert set(files) == FILES and len(repo.commits) == 2
    del hub.repos["org/both"]
    client(publish, first, "org/both")
    assert hub.repos["org/both"].files() == files

    repo = hub.repos["org/both"]
    by_hand = files["README.md"] + b"\nEdited by hand.\n"
    repo.commit({"README.md": by_hand})
    before = repo.branches["main"]
    client(publish_loaded, second, "org/both")
    files = repo.files()
    repo.branches["main"] = before
    client(publish, second, "org/both")
    assert repo.files() == files and b"\nEdited by hand.\n" in files["README.md"]
    assert files["model.safetensors"] == (second / "model.safetensors").read_bytes()
    client(publish_loaded, second, "org/both", overwrite_card=True, tag="v1")
    assert b"Edited by hand." not in repo.files("v1")["README.md"]


def test_subclass_is_pushed_with_the_mixins_parameters(hub: Hub, client: Process, tmp_path: Path) -> None:
    repo = hub.repos["org/subclass"] = Repo()
    repo.commit({".gitattributes": b"", "old.txt": b"", "notes.txt": b""})
    options = {"commit_message": "Add gain", "ignore_patterns": "*.png", "delete_patterns": ["old*", "*.safetensors"]}
    url = client(save_and_push_subclass, tmp_path / "model", "org/subclass", branch="next", private=False, **options)
    assert url.endswith(repo.branches["next"]) and repo.messages[-1] == "Add gain"
    assert set(repo.files()) == {".gitattributes", "old.txt", "notes.txt"}
    assert set(repo.files("next")) == FILES - {"before.png"} | {"notes.txt"}
    config, bias = client(load_subclass, "org/subclass", revision="next")
    assert config["alpha"] == 0.25 and torch.equal(bias, torch.full((3, 1, 1), 0.25))
    with pytest.raises(ModelLoadError, match="unexpected key 'alpha'"):
        client(upscale, "org/subclass", revision="next")


def test_only_three_files_are_downloaded(hub: Hub, client: Process, tmp_path: Path) -> None:
    repo = hub.repos["org/more"] = Repo()
    repo.commit({**_read(make_model(tmp_path / "model")), "pytorch_model.bin": b"0", "logs/events": b"0"})
    client(upscale, "org/more")
    assert {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    hub.requests.clear()
    client(upscale, "org/more")
    assert not [request for request in hub.requests if "/resolve/" in request]  # all files are cached


def test_model_info_from_the_hub(hub: Hub, client: Process, tmp_path: Path) -> None:
    directory = make_model(tmp_path / "model", seed=12, origin="Made by nobody.", scores="| PSNR |\n| --- |\n| 20 |")
    client(publish, directory, "org/known")
    facts: ModelInfo = client(model_info, "org/known")
    assert facts.name == "org/known"
    found = (get_section(facts.card, "Origin"), get_metadata(facts.card, "license"), get_section(facts.card, "Scores"))
    assert found == ("Made by nobody.", "apache-2.0", "| PSNR |\n| --- |\n| 20 |")
    assert facts.size == (directory / "model.safetensors").stat().st_size


def _read(directory: Path) -> dict[str, bytes | None]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_endpoint_handler_runs_from_the_published_directory(hub: Hub, client: Process, tmp_path: Path) -> None:
    client(publish, make_model(tmp_path / "model", seed=20), "org/endpoint", endpoint=True)
    files = hub.repos["org/endpoint"].files()
    assert set(files) == FILES | {"handler.py", "requirements.txt"}
    assert re.fullmatch(r"srgan-hub>=[\d.]+\n", files["requirements.txt"].decode())
    directory = tmp_path / "endpoint"
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    # As the endpoint's server loads it.
    spec = importlib.util.spec_from_file_location("handler", directory / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(path=str(directory))
    with Image.open(EXAMPLE) as image:
        small = image.convert("RGB").crop((0, 0, 20, 12))
    expected = np.asarray(SRGAN.from_pretrained(directory).upscale(small))
    assert np.array_equal(np.asarray(handler({"inputs": small})), expected)


@pytest.mark.slow
def test_documented_commands_publish_models_space_and_collection(hub: Hub, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    text = (root / "CONTRIBUTING.md").read_text().split("## Publishing")[1]
    commands = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1].replace("ORG", "house")
    environ = {**os.environ, **hub.environ(tmp_path / "home", WRITER), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(["bash", "-e", "-c", commands], cwd=root, env=environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    models = {f"house/{kind}-x4{data}" for kind in ("srgan", "srresnet") for data in ("-photo", "")}
    for name in models:
        assert set(hub.repos[name].files()) == FILES | {"handler.py", "requirements.txt"}
        bundled = root / "srgan_hub" / "weights" / name.split("/")[1] / "model.safetensors"
        assert hub.repos[name].files()["model.safetensors"] == bundled.read_bytes()
    base = "base_model: house/srresnet-x4-photo\n"
    assert base in hub.repos["house/srgan-x4-photo"].files()["README.md"].decode()
    space = hub.repos["house/srgan"]
    assert space.kind == "space"
    for name in (
        "app.py",
        "README.md",
        "requirements.txt",
        "srgan_hub/model.py",
        "srgan_hub/weights/srgan-x4/config.json",
    ):
        assert space.files()[name] == (root / name).read_bytes()
    assert not [name for name in space.files() if "__pycache__" in name or "test_" in name or name.startswith(".ci")]
    ((_, items),) = hub.collections.items()
    assert set(items) == {("model", name) for name in models} | {("space", "house/srgan")}
    assert hub.unknown == []
