"""Results do not depend on the state of PyTorch in the host program, nor on the process."""

import contextlib
import copy
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from srgan_hub import SRGAN, Upscaler

IMAGES = [
    np.random.default_rng(0).integers(0, 256, shape, dtype)
    for shape, dtype in (((60, 7, 4), np.uint8), ((9, 8), np.uint16), ((8, 9, 2), np.uint8))
]
TENSOR = torch.rand(1, 3, 60, 6, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: default_device("meta"),
    "cpu": lambda: default_device("cpu"),
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "deterministic": deterministic,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers of a `DataLoader`
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["torch", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def directory(tiny_generator, tmp_path_factory) -> str:
    model = SRGAN(channels=48, num_blocks=1)  # as many as the PyTorch backend needs for Winograd convolutions
    model.generator.load_state_dict(tiny_generator(channels=48, num_blocks=1).state_dict())
    model.save_pretrained(tmp_path_factory.mktemp("model"))
    return str(tmp_path_factory.getbasetemp() / "model0")


def prepare(model: SRGAN, backend: str) -> Upscaler:
    return model.upscaler(backend=backend, device="cpu", dtype="float32", strip_height=8)


def run(upscaler: Upscaler) -> list[np.ndarray]:
    """Upscale arrays, with and without alpha, to the full and to a smaller size, and a tensor."""
    results = [upscaler.upscale(image, size=size) for image in IMAGES for size in (None, "2x")]
    return [*results, upscaler.upscale(TENSOR).numpy()]


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def expected(backend, directory) -> list[np.ndarray]:
    return run(prepare(SRGAN.from_pretrained(directory), backend))


@pytest.mark.parametrize("state", STATES)
def test_results_do_not_depend_on_pytorchs_state(state, backend, directory, expected):
    with STATES[state]():
        model = SRGAN.from_pretrained(directory)
        upscaler = prepare(model, backend)
        assert equal(run(upscaler), expected)
    assert equal(run(upscaler), expected)
    assert equal(run(prepare(model, backend)), expected)
    model(TENSOR).sum().backward()  # not loaded as inference tensors
    upscaler = prepare(SRGAN.from_pretrained(directory), backend)
    with STATES[state]():
        assert equal(run(upscaler), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_any_dtype_are_upscaled_in_float32(dtype, backend, directory, expected):
    rounded = SRGAN.from_pretrained(directory).to(dtype)
    assert equal(run(prepare(rounded, backend)), run(prepare(copy.deepcopy(rounded).float(), backend)))
    assert equal(run(prepare(rounded, backend)), expected) == (dtype == torch.float64)
    assert rounded.generator.head_conv.weight.dtype == dtype
    other = SRGAN.from_pretrained(directory)
    for pair in ((other, rounded), (rounded, other)):
        run(prepare(SRGAN.interpolate(*pair, 0.5), backend))


@pytest.mark.parametrize("state", STATES)
def test_models_created_in_any_state_can_be_upscaled(state, backend):
    with STATES[state]():
        model = SRGAN(channels=4, num_blocks=1)
        if state == "meta":
            with pytest.raises(ValueError, match="'meta'"):
                model.upscaler()
            return
        results = run(prepare(model, backend))
    assert equal(results, run(prepare(model.float(), backend)))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda upscaler: pickle.loads(pickle.dumps(upscaler))])
def test_copies_give_the_same_results(duplicate, backend, directory, expected):
    upscaler = prepare(SRGAN.from_pretrained(directory), backend)
    assert equal(run(duplicate(upscaler)), expected)
    assert equal(run(upscaler), expected)
    assert equal(run(duplicate(upscaler)), expected)  # with compiled backends
    assert duplicate(upscaler).fingerprint() == upscaler.fingerprint()


def test_spawned_processes_give_the_same_results(backend, directory, expected):
    upscaler = prepare(SRGAN.from_pretrained(directory), backend)
    run(upscaler)
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        assert equal(pool.submit(run, upscaler).result(), expected)


class Dataset(torch.utils.data.Dataset[np.ndarray]):
    def __init__(self, upscaler: Upscaler) -> None:
        self.upscaler = upscaler

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.upscaler.upscale(IMAGES[index])


@pytest.mark.parametrize("used", [False, True])
def test_data_loader_workers_give_the_same_results(used, backend, directory, expected):
    upscaler = prepare(SRGAN.from_pretrained(directory), backend)
    if used:
        run(upscaler)
    results = [
        *DataLoader(Dataset(upscaler), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=30)
    ]
    assert equal([np.asarray(each) for each in results], expected[:6:2])
