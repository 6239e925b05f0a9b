"""Resolve a model name, path or Hub id to a local directory and load it."""

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from huggingface_hub import errors, snapshot_download
from huggingface_hub.constants import REPOCARD_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .model_card import WEIGHTS_HASH, ModelInfo, file_sha256, get_metadata, load_card_text
from .network.generator import build_generator
from .network.layers import find_non_finite
from .network.streaming import receptive_field_radius

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# The photo models that `SRGAN.upscaler(detail=...)` interpolates; the second one is the default model.
FIDELITY_MODEL, DEFAULT_MODEL = "srresnet-x4-photo", "srgan-x4-photo"
_BUNDLED = Path(__file__).parent / "weights"

_DOWNLOAD_ERRORS = (  # the first match counts
    (errors.LocalEntryNotFoundError, "the Hub is unreachable and the model is not cached; check the connection"),
    (errors.GatedRepoError, "the Hub model is gated; request access on its page, then run `hf auth login`"),
    (errors.RepositoryNotFoundError, "not on the Hub; check the name, or run `hf auth login` if it is private"),
    (errors.RevisionNotFoundError, "the Hub model has no such revision; check its branches and tags"),
)

# By a pattern in the type and message of an error or one of its causes, since HTTP clients have no classes for them.
_CONNECTION_ERRORS = {
    "socksio": "the proxy is a SOCKS proxy, which requires the `socksio` package: pip install socksio",
    "(?i)proxy URL|unknown proxy": "the proxy's URL is invalid; check ALL_PROXY, HTTPS_PROXY and HTTP_PROXY",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not trusted; set SSL_CERT_FILE to those that are",
    r"X509|FileNotFoundError: \[Errno 2\] [\w ]+$": "the trusted certificates cannot be read; check SSL_CERT_FILE",
    "Illegal header|UnicodeEncodeError": "the token has invalid characters; run `hf auth login`, or set HF_TOKEN again",
    "Invalid credentials|Invalid user token": "the token is invalid; run `hf auth login`, or set HF_TOKEN again",
}

Model = TypeVar("Model", bound=nn.Module)


class ModelLoadError(ValueError):
    """A model cannot be found, or its files are invalid."""


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form org/name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def bundled_models() -> list[str]:
    """List the names of the models that ship with the package."""
    return sorted(directory.name for directory in _BUNDLED.iterdir() if (directory / WEIGHTS).is_file())


def bundled_model_path(name: str) -> Path:
    """Return the directory of a bundled model. Raises ModelLoadError if it is unknown, or has no model card."""
    if name not in bundled_models():
        raise ModelLoadError(f"Bundled model {name!r} not found; available: {', '.join(bundled_models())}.")
    if not (_BUNDLED / name / REPOCARD_NAME).is_file():
        raise ModelLoadError(f"'{_BUNDLED / name}' is missing {REPOCARD_NAME}, its model card; reinstall srgan-hub.")
    return _BUNDLED / name


def resolve_model_path(name: str | Path, **download: Any) -> Path:
    """Resolve a local directory, a bundled name or a Hub id such as "org/srgan-x4", in this order, to a directory.

    For a Hub id, `download` is passed to `huggingface_hub.snapshot_download`: `revision`, `token`, `cache_dir`,
    `local_files_only`, `force_download`.

    Raises:
        ModelLoadError: The model cannot be found or downloaded.
    """
    if Path(name).is_dir():
        return Path(name)
    name = str(name)
    if name in bundled_models():
        return bundled_model_path(name)
    revision = download.get("revision")
    model = f"Model {name!r}" + (f" at revision {revision!r}" if revision else "")
    not_local = f"{model} not found: not a local directory, not a bundled model ({', '.join(bundled_models())}), and"
    if not is_hub_id(name):
        raise ModelLoadError(f"{not_local} not a valid Hub id ('org/name').")
    try:
        directory = Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, REPOCARD_NAME], **download))
    # HTTPError: a broken connection. ValueError: an invalid name, or `force_download` without a connection.
    # ImportError: a package for the proxy is missing.
    except (OSError, errors.HTTPError, ValueError, ImportError) as error:
        reasons = (reason for kind, reason in _DOWNLOAD_ERRORS if isinstance(error, kind))
        reason = describe_connection_error(error) or next(reasons, f"download failed: {shorten_error(error)}")
        raise ModelLoadError(f"{not_local} {reason}.") from error
    for file in (CONFIG, WEIGHTS):
        if not (directory / file).is_file():
            advice = "pickle files such as pytorch_model.bin are never loaded"
            raise ModelLoadError(f"{model} on the Hub has no {file}; {advice}.")
    # The cache names a large file by the SHA-256 that the Hub announced, of which the client checks the size only.
    blob = (directory / WEIGHTS).resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and file_sha256(blob) != blob.name:
        blob.unlink()
        raise ModelLoadError(
            f"'{directory / WEIGHTS}' is corrupt: its SHA-256 differs from the Hub's, {blob.name}; it was removed from "
            "the cache, so load the model again."
        )
    return directory


def load_config(directory: Path, options: Iterable[str] | None = ()) -> dict[str, Any]:
    """Read a model's config.json, which must have all options of the generator, and may have the further `options`.

    If `options` is None, it may have any, which the constructor checks.

    Raises:
        ModelLoadError: The file is missing, invalid, or has missing or unexpected keys.
    """
    path = directory / CONFIG
    for file in (path, directory / WEIGHTS):
        if not file.is_file():
            raise ModelLoadError(f"'{directory}' is not a complete model directory: missing {file.name}.")
    required = inspect.signature(build_generator).parameters
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        found = set(config)
    except (OSError, ValueError, TypeError) as error:
        raise ModelLoadError(f"Invalid config '{path}': {shorten_error(error)}.") from error
    unexpected = set() if options is None else found - {*required, *options}
    problems = [f"unexpected key {key!r}" for key in sorted(unexpected)]
    problems += [f"missing key {key!r}" for key in sorted(required.keys() - found)]
    if problems:
        raise ModelLoadError(f"Invalid config '{path}': {', '.join(problems)}.")
    return config


def build_model(
    build: Callable[..., Model],
    directory: Path,
    config: Mapping[str, Any],
    *,
    map_location: str | torch.device = "cpu",
    strict: bool = True,
) -> Model:
    """Call `build` with the config, load a directory's safetensors, never a pickle, and move it to a device.

    `strict` refuses missing and unexpected tensors.

    Raises:
        ModelLoadError: The config is invalid, the weights do not fit or are not finite, or their SHA-256 is not that of
            the model card.
    """
    path = directory / WEIGHTS
    try:
        # Whatever the host program's defaults, and never inference tensors, which cannot be trained.
        with torch.inference_mode(False), torch.device("cpu"):
            model = build(**config)
            if torch.get_default_dtype() != torch.float32:
                model = model.float()
    except (ValueError, TypeError) as error:
        raise ModelLoadError(f"Invalid config '{directory / CONFIG}': {error}") from error
    try:
        with torch.inference_mode(False), torch.device("cpu"):
            model.load_state_dict(load_file(path), strict=strict)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelLoadError(f"'{path}' does not match {CONFIG}: {shorten_error(error)}.") from error
    require_finite(model, path)
    expected = get_metadata(load_card_text(directory), WEIGHTS_HASH)
    if expected and expected != (actual := file_sha256(path)):
        raise ModelLoadError(
            f"'{path}' does not match its model card: expected SHA-256 {expected}, got {actual}; download it again, "
            f"or, if you changed it yourself, delete the line {WEIGHTS_HASH} from {REPOCARD_NAME}."
        )
    return model.to(map_location)


def require_finite(model: nn.Module, path: Path) -> None:
    """Raise ModelLoadError if a model that was loaded from `path` has NaN or infinite weights."""
    if name := find_non_finite(model):
        advice = "it is corrupt, or its training diverged; use an earlier checkpoint"
        raise ModelLoadError(f"'{path}' has NaN or infinite values in {name!r}: {advice}.")


def load_generator(directory: Path) -> tuple[dict[str, Any], nn.Sequential]:
    """Load the config and the generator, in training mode on the CPU, of a directory. Raises `ModelLoadError`."""
    config = load_config(directory)
    model = build_model(lambda **options: nn.ModuleDict({"generator": build_generator(**options)}), directory, config)
    return config, cast(nn.Sequential, model["generator"])


def model_info(name: str | Path, **download: Any) -> ModelInfo:
    """Return a model's architecture, provenance and scores; arguments and errors as for `resolve_model_path`."""
    directory = resolve_model_path(name, **download)
    config, generator = load_generator(directory)
    return ModelInfo(
        name=str(name),
        directory=directory,
        architecture=", ".join(f"{key} {value}" for key, value in config.items()),
        parameters=sum(parameter.numel() for parameter in generator.parameters()),
        receptive_field=receptive_field_radius(generator),
        size=(directory / WEIGHTS).stat().st_size,
        sha256=file_sha256(directory / WEIGHTS),
        card=load_card_text(directory),
    )


def describe_connection_error(error: BaseException) -> str | None:
    """Return what is wrong with the proxy, the certificates or the token, None if nothing is."""
    cause: BaseException | None = error
    while cause:
        text = f"{type(cause).__name__}: {cause}"
        if reason := next((each for pattern, each in _CONNECTION_ERRORS.items() if re.search(pattern, text)), None):
            return reason
        cause = cause.__cause__
    return None


def shorten_error(error: BaseException) -> str:
    """Return a library's error message in one line of at most 300 characters, without a final period."""
    message = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return textwrap.shorten(message, 300, placeholder=" [...]").rstrip(".")
