"""From publishing to loading, against the unmodified client of the Hub and a server on loopback.

The client reads its environment when it is imported, so publishing, loading and loading without a connection each have
a fresh process: each costs an import of torch, so all tests share the three.
"""

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
from huggingface_hub import constants
from PIL import Image
from torch import Tensor

from srgan_hub import SRGAN
from srgan_hub.hub import EXAMPLE, ModelInfo, ModelLoadError, PushError, model_info, push_folder
from srgan_hub.model_card import get_metadata

FILES = {".gitattributes", "README.md", "after.jpg", "before.png", "config.json", "model.safetensors"}


class Process:
    """A fresh interpreter with an environment of its own, that runs functions of this module."""

    def __init__(self, environ: dict[str, str]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_prepare)
        with mock.patch.dict(os.environ, environ):
            self.pool.submit(os.getpid)  # starts the process

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.pool.submit(function, *args, **kwargs).result()


def _prepare() -> None:
    torch.set_num_threads(1)
    # The client waits up to 23 seconds between its tries, and resumes after whole pieces of 10 MB.
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds / 100)
    constants.DOWNLOAD_CHUNK_SIZE = 4096


def make_model(folder: Path, seed: int = 0, **card: Any) -> Path:
    """Write a tiny model that is unlike any other."""
    torch.manual_seed(seed)
    model = SRGAN(channels=4, num_blocks=1)
    model.train()(torch.rand(2, 3, 8, 8))  # moves the batch norms' statistics
    model.save_pretrained(folder, model_card_kwargs={"name": folder.name, **card})
    return folder


def upscale(name: str | Path, **options: Any) -> Tensor:
    model = SRGAN.from_pretrained(name, **options)
    return model.upscale(torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(1)))


def publish(folder: Path, repo_id: str, **options: Any) -> tuple[str, list[str]]:
    """Push; return the commit and what was logged."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("srgan_hub")
    logger.addHandler(handler)
    try:
        url = push_folder(folder, repo_id, **{"token": WRITER, **options})
    finally:
        logger.removeHandler(handler)
    return url.rsplit("/", 1)[1], said


def publish_loaded(folder: Path, repo_id: str, **options: Any) -> str:
    """Load a model and push it by its own method; return the commit."""
    return SRGAN.from_pretrained(folder).push_to_hub(repo_id, token=WRITER, **options).rsplit("/", 1)[1]


def train(data: Path, output: Path, repo_id: str) -> int:
    """Run the training script in this process, a few steps; give its exit code."""
    from accelerate.state import AcceleratorState, GradientState

    import train_accelerate

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    tiny = (
        "--channels 4 --num-blocks 1 --hr-crop 32 --batch-size 2  --push-every 2 --report-to none "
        "--threads 1 --max-train-steps 4"
    )
    folders = ["--train-data", str(data), "--output-dir", str(output), "--push-to-hub", repo_id]
    with mock.patch.dict(os.environ, {"HF_TOKEN": WRITER}):
        return train_accelerate.main([*folders, *tiny.split()])


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
def publisher(server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(server.environ(tmp_path_factory.mktemp("publisher")))
    yield process
    process.pool.shutdown(wait=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def loader(server: Hub, home: Path) -> Iterator[Process]:
    process = Process(server.environ(home))
    yield process
    process.pool.shutdown(wait=False)


@pytest.fixture(scope="module")
def offline(server: Hub, home: Path) -> Iterator[Process]:
    process = Process({**server.environ(home), "HF_HUB_OFFLINE": "1"})
    yield process
    process.pool.shutdown(wait=False)


def test_round_trip(hub: Hub, publisher: Process, loader: Process, offline: Process, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "final", seed=0)
    sr = publisher(upscale, folder)
    commit, said = publisher(publish, folder, "org/tiny", tag="v1")
    repo = hub.repos["org/tiny"]
    assert len(repo.commits) == 2  # the initial one, and one for card and weights together
    assert repo.branches["main"] == repo.tags["v1"] == commit
    assert set(repo.files()) == FILES and said == []
    assert repo.files()["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    card = repo.files()["README.md"].decode()
    local = (folder / "README.md").read_text()
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
        expected = SRGAN.from_pretrained(folder).upscale(EXAMPLE).convert("RGB")
        assert np.abs(np.asarray(after).astype(int) - np.asarray(expected)).mean() < 3
    assert repo.files()["before.png"] == EXAMPLE.read_bytes()

    loaded = loader(upscale, "org/tiny")
    assert torch.equal(loaded, sr)

    hub.requests.clear()
    assert torch.equal(offline(upscale, "org/tiny"), sr)
    with pytest.raises(ModelLoadError, match="cannot be reached nor is it in the download cache"):
        offline(upscale, "org/never-seen")
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set"):
        offline(publish, folder, "org/tiny")
    assert hub.requests == []


def test_what_was_trained_is_published_and_loaded(
    hub: Hub, publisher: Process, loader: Process, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    for seed in range(3):
        levels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(levels).save(tmp_path / "data" / f"{seed}.png")
    hub.fail("POST", "/api/repos/create", 503, times=999)
    assert publisher(train, tmp_path / "data", tmp_path / "down", "org/trained") == 1
    assert "org/trained" not in hub.repos and (tmp_path / "down" / "step-4.safetensors").is_file()
    hub.faults.clear()
    assert publisher(train, tmp_path / "data", tmp_path / "up", "org/trained") == 0
    final = tmp_path / "up" / "final"
    weights = (final / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "down" / "final" / "model.safetensors").read_bytes()  # no step was lost
    repo = hub.repos["org/trained"]
    assert len(repo.commits) == 3  # the initial one, that of step 2 and that of the end
    assert set(repo.files()) == FILES and repo.files()["model.safetensors"] == weights
    card = repo.files()["README.md"]
    assert b"--push-to-hub org/trained" in card and b"4 of 4 steps" in card  # that of step 2 is replaced
    assert torch.equal(loader(upscale, "org/trained"), publisher(upscale, final))


def test_a_pinned_revision_stays(hub: Hub, publisher: Process, loader: Process, tmp_path: Path) -> None:
    folders = [make_model(tmp_path / f"seed{seed}", seed=seed) for seed in (1, 2, 3)]
    srs = [publisher(upscale, folder) for folder in folders]
    first, _ = publisher(publish, folders[0], "org/pinned", tag="v1")
    publisher(publish, folders[1], "org/pinned", revision="next")
    third, _ = publisher(publish, folders[2], "org/pinned")
    for revision, expected in ((first, 0), ("v1", 0), ("next", 1), (third, 2), ("main", 2), (None, 2)):
        loaded = loader(upscale, "org/pinned", revision=revision)
        assert [torch.equal(loaded, sr) for sr in srs] == [number == expected for number in range(3)], revision
    with pytest.raises(ModelLoadError, match=r"at revision 'v9': .*the Hub has no such revision"):
        loader(upscale, "org/pinned", revision="v9")
    with pytest.raises(PushError, match="has a tag 'v1' already"):
        publisher(publish, folders[1], "org/pinned", tag="v1")
    assert hub.repos["org/pinned"].branches["main"] == third


def test_files_come_from_one_commit(hub: Hub, loader: Process, tmp_path: Path) -> None:
    old, new = make_model(tmp_path / "old", seed=4), make_model(tmp_path / "new", seed=5)
    repo = hub.repos["org/moving"] = Repo()
    repo.commit(_read(old))
    # Somebody pushes when we have one file and not yet the other.
    hub.fail("HEAD", "model.safetensors", lambda: repo.commit(_read(new)))
    assert torch.equal(loader(upscale, "org/moving"), loader(upscale, old))
    assert torch.equal(loader(upscale, "org/moving"), loader(upscale, new))


def test_private_and_gated(hub: Hub, publisher: Process, loader: Process, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "secret", seed=6)
    publisher(publish, folder, "org/secret", private=True)
    assert hub.repos["org/secret"].private
    with pytest.raises(ModelLoadError, match=r"the Hub has none; check the name, or log in by `hf auth login`"):
        loader(upscale, "org/secret")
    assert torch.equal(loader(upscale, "org/secret", token=READER), loader(upscale, folder))

    hub.repos["org/gated"] = Repo(gated=True)
    hub.repos["org/gated"].commit(_read(folder))
    with pytest.raises(ModelLoadError, match="on the Hub it is gated; ask for access"):
        loader(upscale, "org/gated", token=READER)

    publisher(publish, folder, "org/open")
    with pytest.raises(PushError, match="is public already"):
        publisher(publish, folder, "org/open", private=True)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"model.safetensors"}, "on the Hub, got no config.json"),
        ({"config.json"}, "on the Hub, got no model.safetensors"),
        ({"config.json", "pytorch_model.bin"}, "pickles such as pytorch_model.bin are never loaded"),
        (None, "the Hub has none; check the name"),
    ],
)
def test_incomplete_models_are_refused(
    hub: Hub, loader: Process, tmp_path: Path, files: set[str] | None, sentence: str
) -> None:
    name = f"org/incomplete-{len(files or ())}-{'config.json' in (files or ())}"
    if files is not None:
        whole = {**_read(make_model(tmp_path / "model")), "pytorch_model.bin": b"\x80\x04."}
        hub.repos[name] = Repo()
        hub.repos[name].commit({file: whole[file] for file in files})
    with pytest.raises(ModelLoadError, match=sentence):
        loader(upscale, name)
    assert not any("pytorch_model.bin" in request for request in hub.requests)


def test_tampered_weights_are_refused(hub: Hub, publisher: Process, loader: Process, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", seed=7)
    publisher(publish, folder, "org/tampered")
    good = hub.repos["org/tampered"].files()["model.safetensors"]
    bad = good[:-1] + bytes([good[-1] ^ 1])
    hub.repos["org/tampered"].commit({"model.safetensors": bad})
    with pytest.raises(ModelLoadError, match="is not what its card states"):
        loader(upscale, "org/tampered")
    with pytest.raises(ModelLoadError, match="is not what its card states"):
        loader(model_info, "org/tampered")

    (folder / "model.safetensors").write_bytes(bad)
    with pytest.raises(PushError, match="is not what its card states"):
        publisher(publish, folder, "org/tampered")


def test_a_download_that_goes_wrong(hub: Hub, loader: Process, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", seed=8)
    sr = loader(upscale, folder)
    (folder / "README.md").unlink()  # what the Hub announces must do where no card states a hash
    hub.repos["org/shaky"] = Repo()
    hub.repos["org/shaky"].commit(_read(folder))

    hub.fail("GET", "model.safetensors", "wrong")
    with pytest.raises(ModelLoadError, match="it has been removed from the download cache, so load the model again"):
        loader(upscale, "org/shaky")
    for fault, times in (("reset", 1), ("cut", 99)):
        hub.fail("GET", "model.safetensors", fault, times)
        with pytest.raises(ModelLoadError, match=r"'org/shaky': .* it cannot be downloaded: "):
            loader(upscale, "org/shaky")
        hub.faults.clear()
    hub.requests.clear()
    hub.fail("GET", "model.safetensors", "cut", times=2)
    assert torch.equal(loader(upscale, "org/shaky"), sr)
    downloads = [request.rpartition("/")[2] for request in hub.requests if re.match("GET .*/resolve/", request)]
    size, resumed = (folder / "model.safetensors").stat().st_size, []
    for _ in range(2):  # each time half of the rest came, in whole pieces
        start = resumed[-1] if resumed else 0
        resumed.append(start + (size - start) // 2 // 4096 * 4096)
    assert downloads == ["model.safetensors", *(f"model.safetensors bytes={start}-" for start in resumed)]

    hub.fail("HEAD", "config.json", 503, times=99)
    with pytest.raises(ModelLoadError, match=r"cannot be reached|cannot be downloaded"):
        loader(upscale, "org/shaky", force_download=True)
    hub.fail("GET", "/api/models/", 503, times=99)
    assert torch.equal(loader(upscale, "org/shaky"), sr)  # from the cache
    hub.repos["org/down"] = hub.repos["org/shaky"]
    with pytest.raises(ModelLoadError, match="the Hub cannot be reached nor is it in the download cache"):
        loader(upscale, "org/down")


def test_an_upload_that_breaks_off_can_be_repeated(hub: Hub, publisher: Process, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", seed=9)
    hub.fail("PUT", "/lfs/", "reset", times=6)
    with pytest.raises(PushError, match=r"the Hub cannot be reached or is down .*; push again later") as caught:
        publisher(publish, folder, "org/broken")
    assert "\n" not in str(caught.value)
    repo = hub.repos["org/broken"]
    assert set(repo.files()) == {".gitattributes"}

    hub.fail("POST", "/commit/main", 503)
    with pytest.raises(PushError, match="push again later"):
        publisher(publish, folder, "org/broken")
    assert set(repo.files()) == {".gitattributes"}

    hub.requests.clear()
    commit, _ = publisher(publish, folder, "org/broken")
    assert set(repo.files()) == FILES and repo.branches["main"] == commit
    assert not any(request.startswith("PUT") for request in hub.requests)  # the weights were there already
    assert publisher(publish, folder, "org/broken", tag="v1")[0] == commit  # nothing new: no empty commit
    assert repo.tags == {"v1": commit}


@pytest.mark.parametrize(
    ("options", "fault", "sentence"),
    [
        ({"token": READER}, None, "the token has no right to write there"),
        ({"token": "hf_expired"}, None, "there is no valid token"),
        ({"token": None}, None, "there is no valid token; log in by `hf auth login`"),
        ({}, ("POST", "repos/create", 503), "the Hub cannot be reached or is down .*push again later"),
        ({}, ("POST", "repos/create", "reset"), "the Hub cannot be reached or is down .*push again later"),
    ],
)
def test_a_hub_that_refuses(
    hub: Hub, publisher: Process, tmp_path: Path, options: dict[str, Any], fault: Any, sentence: str
) -> None:
    if fault:
        hub.fail(*fault)
    with pytest.raises(PushError, match=sentence) as caught:
        publisher(publish, make_model(tmp_path / "model"), "org/refused", **options)
    assert "\n" not in str(caught.value)
    assert "org/refused" not in hub.repos or set(hub.repos["org/refused"].files()) == {".gitattributes"}


def test_a_push_between_looking_and_committing_is_noticed(hub: Hub, publisher: Process, tmp_path: Path) -> None:
    repo = hub.repos["org/busy"] = Repo()
    repo.commit({".gitattributes": b""})
    hub.fail("POST", "/preupload/", lambda: repo.commit({"README.md": b"Mine."}))
    with pytest.raises(PushError, match="somebody else changed it at the same time; push again"):
        publisher(publish, make_model(tmp_path / "model"), "org/busy")
    assert repo.files()["README.md"] == b"Mine." and "model.safetensors" not in repo.files()
    _, said = publisher(publish, tmp_path / "model", "org/busy")
    assert len(said) == 1 and repo.files()["README.md"] == b"Mine."


def test_only_whole_models_are_published(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(PushError, match=r"is no whole model: .*expected config\.json and model\.safetensors"):
        push_folder(tmp_path / "nowhere", "org/name")
    with pytest.raises(PushError, match="Expected a Hub id such as org/name"):
        push_folder(make_model(tmp_path / "model"), "name")
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(PushError, match=r"is no whole model: .*config\.json is missing"):
        push_folder(tmp_path / "model", "org/name")
    assert hub.requests == []


def test_a_card_on_the_hub_stays(hub: Hub, publisher: Process, loader: Process, tmp_path: Path) -> None:
    first, second = (make_model(tmp_path / f"number-{seed}", seed, scores=f"PSNR {seed}") for seed in (10, 11))
    publisher(publish, first, "org/edited")
    repo = hub.repos["org/edited"]
    assert publisher(publish, second, "org/edited", overwrite_card=True)[1] == []
    assert b"PSNR 11" in repo.files()["README.md"]
    by_hand = repo.files()["README.md"] + "\nIch war hier. \N{WAVING HAND SIGN}\n".encode()
    repo.commit({"README.md": by_hand})

    hub.fail("HEAD", "README.md", 503, times=99)  # not to see the card is no reason to replace it
    with pytest.raises(PushError, match="cannot be reached or is down"):
        publisher(publish, first, "org/edited")
    hub.faults.clear()
    assert repo.files()["README.md"] == by_hand

    _, said = publisher(publish, first, "org/edited")
    assert len(said) == 1 and "org/edited stays as it is" in said[0] and "--overwrite-card" in said[0]
    old_hash, new_hash = (
        get_metadata((folder / "README.md").read_text(), "weights_sha256") for folder in (second, first)
    )
    assert repo.files()["README.md"].decode() == by_hand.decode().replace(str(old_hash), str(new_hash))
    assert torch.equal(loader(upscale, "org/edited"), loader(upscale, first))

    repo.commit({"README.md": by_hand})
    assert publisher(publish, second, "org/edited", overwrite_card=True)[1] == []
    assert b"Ich war hier" not in repo.files()["README.md"]


def test_both_ways_out_give_the_same_commit_and_keep_a_card(hub: Hub, publisher: Process, tmp_path: Path) -> None:
    first, second = (make_model(tmp_path / f"number-{seed}", seed) for seed in (13, 14))
    (first / "README.md").unlink()
    publisher(publish_loaded, first, "org/both")
    repo = hub.repos["org/both"]
    files = repo.files()
    assert set(files) == FILES and len(repo.commits) == 2
    del hub.repos["org/both"]
    publisher(publish, first, "org/both")
    assert hub.repos["org/both"].files() == files

    repo = hub.repos["org/both"]
    by_hand = files["README.md"] + b"\nMy words.\n"
    repo.commit({"README.md": by_hand})
    before = repo.branches["main"]
    publisher(publish_loaded, second, "org/both")
    files = repo.files()
    repo.branches["main"] = before
    publisher(publish, second, "org/both")
    assert repo.files() == files and b"\nMy words.\n" in files["README.md"]
    assert files["model.safetensors"] == (second / "model.safetensors").read_bytes()
    publisher(publish_loaded, second, "org/both", overwrite_card=True, tag="v1")
    assert b"My words." not in repo.files("v1")["README.md"]


def test_a_download_is_the_three_files_of_a_model(hub: Hub, loader: Process, tmp_path: Path) -> None:
    repo = hub.repos["org/more"] = Repo()
    repo.commit({**_read(make_model(tmp_path / "model")), "pytorch_model.bin": b"0", "logs/events": b"0"})
    loader(upscale, "org/more")
    assert {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    hub.requests.clear()
    loader(upscale, "org/more")
    assert not [request for request in hub.requests if "/resolve/" in request]  # one question, and all is there


def test_info_of_a_model_on_the_hub(hub: Hub, publisher: Process, loader: Process, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", seed=12, origin="Made by nobody.", scores="| PSNR |\n| --- |\n| 20 |")
    publisher(publish, folder, "org/known")
    facts: ModelInfo = loader(model_info, "org/known")
    assert facts.name == "org/known"
    found = (facts.section("Origin"), facts.value("license"), facts.section("Scores"))
    assert found == ("Made by nobody.", "apache-2.0", "| PSNR |\n| --- |\n| 20 |")
    assert facts.size == (folder / "model.safetensors").stat().st_size


def _read(folder: Path) -> dict[str, bytes | None]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_endpoint_answers_from_the_published_folder(hub: Hub, publisher: Process, tmp_path: Path) -> None:
    publisher(publish, make_model(tmp_path / "model", seed=20), "org/endpoint", endpoint=True)
    files = hub.repos["org/endpoint"].files()
    assert set(files) == FILES | {"handler.py", "requirements.txt"}
    assert re.fullmatch(r"srgan-hub>=[\d.]+\n", files["requirements.txt"].decode())
    folder = tmp_path / "endpoint"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    # As the endpoint's server does it.
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(path=str(folder))
    with Image.open(EXAMPLE) as image:
        small = image.convert("RGB").crop((0, 0, 20, 12))
    expected = np.asarray(SRGAN.from_pretrained(folder).upscale(small))
    assert np.array_equal(np.asarray(handler({"inputs": small})), expected)


@pytest.mark.slow
def test_the_documented_commands_publish_models_space_and_collection(hub: Hub, tmp_path: Path) -> None:
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
