"""One way in, from what a user calls a model to the folder that holds it; one way out, from a folder to the Hub."""

import inspect
import io
import json
import logging
import re
import textwrap
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, snapshot_download
from huggingface_hub import errors as hub
from huggingface_hub.constants import REPOCARD_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .model_card import (
    WEIGHTS_HASH,
    ModelInfo,
    create_model_card,
    file_sha256,
    get_metadata,
    load_card_text,
    set_weights_sha256,
)
from .network.generator import build_generator
from .network.streaming import receptive_field_radius
from .upscaler import Upscaler
from .version import __version__, code_version

logger = logging.getLogger(__name__)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FILES = [CONFIG, WEIGHTS, REPOCARD_NAME]
# What a published model has beside them.
HANDLER, REQUIREMENTS, BEFORE, AFTER = "handler.py", "requirements.txt", "before.png", "after.jpg"
EXAMPLE = Path(__file__).parent / "examples" / "cat.png"
# The photo pair, mixed by `SRGAN.upscaler(detail=...)`: the faithful end of the dial, and the model that is taken
# where none is named.
FIDELITY_MODEL, DEFAULT_MODEL = "srresnet-x4-photo", "srgan-x4-photo"
_BUNDLED = Path(__file__).parent / "weights"

# Why a model is not loaded, by what the Hub's client raises; the first that fits.
_DOWNLOAD_ERRORS = (
    (
        hub.LocalEntryNotFoundError,
        "the Hub cannot be reached nor is it in the download cache; check the name and the connection",
    ),
    (hub.GatedRepoError, "on the Hub it is gated; ask for access on its page, then log in by `hf auth login`"),
    (hub.RepositoryNotFoundError, "the Hub has none; check the name, or log in by `hf auth login` if it is private"),
    (hub.RevisionNotFoundError, "the Hub has no such revision of it; check its branches and tags"),
)
# Why a model is not taken, by the status that the Hub answers with.
_UPLOAD_ERRORS = {
    401: "there is no valid token; log in by `hf auth login`, or set HF_TOKEN, with a token that may write",
    403: "the token has no right to write there; use one that has",
    404: "the Hub has no such place, or hides it; check the name, and that the token may write there",
    409: "somebody else changed it at the same time; push again",
    412: "somebody else changed it at the same time; push again",
}


class ModelLoadError(ValueError):
    """A model that cannot be found, or whose files are not what they should be. The message says what to do."""


class PushError(ValueError):
    """A model that was not published. The message says why and what to do."""


def is_hub_id(name: str) -> bool:
    """Return whether a name reads org/name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def list_bundled_models() -> list[str]:
    """List the models that come with the package."""
    return sorted(folder.name for folder in _BUNDLED.iterdir() if (folder / WEIGHTS).is_file())


def bundled_model_path(name: str) -> Path:
    """Return the folder of a model that comes with the package: config.json, model.safetensors and its card.

    Raises:
        ModelLoadError: there is none of that name, or its card is missing, which states license and origin.
    """
    if name not in list_bundled_models():
        raise ModelLoadError(f"There is no bundled model {name!r}; there are: {', '.join(list_bundled_models())}.")
    if not (_BUNDLED / name / REPOCARD_NAME).is_file():
        raise ModelLoadError(
            f"{_BUNDLED / name} lacks {REPOCARD_NAME}, its card with license and origin; install srgan-hub again."
        )
    return _BUNDLED / name


def resolve_model_path(name: str | Path, **download: Any) -> Path:
    """Find a model's folder by an existing folder, a bundled name or a Hub id such as "org/srgan-x4", in this order.

    Args:
        name: the folder, bundled name or Hub id.
        download: passed to `huggingface_hub.snapshot_download` for a Hub id: revision, token, cache_dir,
            local_files_only, force_download.

    Raises:
        ModelLoadError: nothing of that name can be found or downloaded.
    """
    if Path(name).is_dir():
        return Path(name)
    name = str(name)
    if name in list_bundled_models():
        return bundled_model_path(name)
    revision = download.get("revision")
    problem = f"There is no model {name!r}" + (f" at revision {revision!r}" if revision else "")
    not_here = f"{problem}: it is no folder and not bundled ({', '.join(list_bundled_models())}), and"
    if not is_hub_id(name):
        raise ModelLoadError(f"{not_here} a Hub id reads org/name.")
    try:
        folder = Path(snapshot_download(name, allow_patterns=FILES, **download))
    # HTTPError: the connection broke off. ValueError: an odd name, or a forced download without a connection.
    except (OSError, hub.HTTPError, ValueError) as error:
        known = (reason for kind, reason in _DOWNLOAD_ERRORS if isinstance(error, kind))
        raise ModelLoadError(
            f"{not_here} {next(known, f'it cannot be downloaded: {shorten_error(error)}')}."
        ) from error
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise ModelLoadError(
                f"{problem}: expected {CONFIG} and {WEIGHTS} on the Hub, got no {file}; "
                "pickles such as pytorch_model.bin are never loaded."
            )
    # The cache names a large file by the SHA-256 that the Hub announced; the client itself checks the size alone.
    blob = (folder / WEIGHTS).resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and file_sha256(blob) != blob.name:
        blob.unlink()
        raise ModelLoadError(
            f"{folder / WEIGHTS} was damaged: it is not what the Hub announced (SHA-256 {blob.name}); "
            "it has been removed from the download cache, so load the model again."
        )
    return folder


def load_generator(folder: Path) -> tuple[dict[str, Any], nn.Sequential]:
    """Read a model's config.json and safetensors, never a pickle.

    Returns:
        What config.json holds, and the generator in training mode, on the CPU.

    Raises:
        ModelLoadError: config or weights are not exactly a model's, or the weights are not those that the card states.
    """
    for file in (folder / CONFIG, folder / WEIGHTS):
        if not file.is_file():
            raise ModelLoadError(f"{file} is missing: expected {CONFIG} and {WEIGHTS}; pickles are never loaded.")
    file = folder / CONFIG
    options = list(inspect.signature(build_generator).parameters)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if sorted(config) != sorted(options):
            raise ValueError(f"Expected the options {', '.join(options)}, got {', '.join(map(str, config))}.")
        generator = build_generator(**config)
    except (OSError, ValueError, TypeError) as error:
        raise ModelLoadError(f"{file} is no model's: {error}") from error
    file = folder / WEIGHTS
    try:
        nn.ModuleDict({"generator": generator}).load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelLoadError(f"{file} does not fit {CONFIG}: {shorten_error(error)}.") from error
    stated = get_metadata(load_card_text(folder), WEIGHTS_HASH)
    if stated and stated != (actual := file_sha256(file)):
        raise ModelLoadError(
            f"{file} is not what its card states: expected SHA-256 {stated}, got {actual}; fetch it "
            f"again, or, if you changed it yourself, delete the line {WEIGHTS_HASH} from {REPOCARD_NAME}."
        )
    return config, generator


def model_info(name: str | Path, **download: Any) -> ModelInfo:
    """Read what is known of a model, given as for `resolve`: its architecture, provenance and scores.

    Raises:
        ModelLoadError: it cannot be found, or is not whole.
    """
    folder = resolve_model_path(name, **download)
    config, generator = load_generator(folder)
    return ModelInfo(
        name=str(name),
        folder=folder,
        architecture=", ".join(f"{key} {value}" for key, value in config.items()),
        parameters=sum(parameter.numel() for parameter in generator.parameters()),
        receptive_radius=receptive_field_radius(generator),
        size=(folder / WEIGHTS).stat().st_size,
        sha256=file_sha256(folder / WEIGHTS),
        card=load_card_text(folder),
    )


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    token: str | None = None,
    overwrite_card: bool = False,
    endpoint: bool = False,
) -> str:
    """Publish a model's folder: config.json, model.safetensors and its card, in one commit.

    The repository and the branch are created if they are missing. A folder without a card gets one. A card that is new
    on the Hub shows an example, published too, before and after the model. One that is there stays, but for its line
    with the weights' hash, and a warning says so. A push that broke off can be repeated: what has been uploaded is not
    sent twice.

    Args:
        folder: what `SRGAN.save_pretrained` or the training wrote.
        repo_id: "org/name".
        private: create the repository as a private one.
        revision: the branch; the default one if None.
        tag: a name for this very commit, which is never moved.
        token: a token with the right to write; the one of `hf auth login` or HF_TOKEN if None.
        overwrite_card: replace a card that is on the Hub.
        endpoint: publish what Inference Endpoints need too: handler.py and requirements.txt.

    Returns:
        The URL of the commit.

    Raises:
        PushError: the folder is no whole model, or the Hub cannot be reached or refuses.
    """
    folder = Path(folder)
    if not is_hub_id(repo_id):
        raise PushError(f"Expected a Hub id such as org/name to publish as, got {repo_id!r}.")
    try:
        config, generator = load_generator(folder)
    except ModelLoadError as error:
        raise PushError(f"{folder} is no whole model: {error}") from error
    card = load_card_text(folder) or str(create_model_card(config, name=repo_id))
    # Training knew the folder alone; the first snippet is how this very model is loaded.
    card = re.sub(r'(?<=SRGAN\.from_pretrained\(")[^"]+', repo_id, card, count=1)
    files: dict[str, Path | bytes] = {CONFIG: folder / CONFIG, WEIGHTS: folder / WEIGHTS}
    if endpoint:
        files[HANDLER] = Path(__file__).with_name(HANDLER)
        files[REQUIREMENTS] = f"srgan-hub>={__version__}\n".encode()
    api = HfApi(token=token)
    try:
        head = _prepare_repo(api, repo_id, private=private, revision=revision, tag=tag)
        remote_card = "" if overwrite_card else _read_remote_card(api, repo_id, head)
        if remote_card:
            logger.warning(
                "the card of %s stays as it is, though its scores may be of older weights; to replace it, push "
                "with --overwrite-card (overwrite_card=True)",
                repo_id,
            )
        else:
            files[BEFORE], files[AFTER] = EXAMPLE, _render_example(Upscaler(generator, scale=config["scale"]))
            card = _add_example_to_card(card, repo_id, revision or "main")
        card = set_weights_sha256(remote_card or card, folder / WEIGHTS)
        if card != remote_card:
            files[REPOCARD_NAME] = card.encode()
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            revision=revision,
            parent_commit=head,
            commit_message=f"Model by {code_version()}",
        )
        if tag:
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
        return commit.commit_url
    except PushError:
        raise
    # RuntimeError: what the client raises from a failed upload.
    except (OSError, hub.HTTPError, RuntimeError, ValueError) as error:
        raise PushError(f"{folder} was not published as {repo_id}: {_describe_error(error)}.") from error


def _render_example(upscaler: Upscaler) -> bytes:
    buffer = io.BytesIO()
    upscaler.upscale(EXAMPLE).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _add_example_to_card(card: str, repo_id: str, revision: str) -> str:
    """Let a card show the example that lies beside it, before and after.

    A bundled base model is taken to be published beside this one.
    """
    shown = ModelCard(card)
    address = f"https://huggingface.co/{repo_id}/resolve/{revision}"
    shown.data["thumbnail"] = f"{address}/{AFTER}"
    shown.data["widget"] = [{"src": f"{address}/{BEFORE}", "output": {"url": AFTER}, "text": "Before, and after"}]
    if shown.data.get("base_model") in list_bundled_models():
        shown.data["base_model"] = f"{repo_id.split('/')[0]}/{shown.data['base_model']}"
    shown.text = re.sub(r"(?m)^(# .*)$", r"\1\n\n<Gallery />", shown.text, count=1)
    return str(shown)


def _prepare_repo(api: HfApi, repo_id: str, *, private: bool, revision: str | None, tag: str | None) -> str:
    """Make sure that repository and branch exist; return the commit that the branch is at."""
    # None leaves the choice to the organisation's settings.
    api.create_repo(repo_id, private=private or None, exist_ok=True)
    try:
        remote = api.model_info(repo_id, revision=revision)
    except hub.RevisionNotFoundError:
        assert revision is not None
        api.create_branch(repo_id, branch=revision)
        remote = api.model_info(repo_id, revision=revision)
    if private and not remote.private:
        raise PushError(f"{repo_id} is public already: make it private on its settings page, or push without private.")
    if tag and any(tag == ref.name for ref in api.list_repo_refs(repo_id).tags):
        raise PushError(f"{repo_id} has a tag {tag!r} already, and a tag is never moved: choose another.")
    assert remote.sha is not None
    return remote.sha


def _read_remote_card(api: HfApi, repo_id: str, commit: str) -> str:
    # Only the Hub's word that there is none counts: a failure to look must not overwrite a card.
    try:
        return load_card_text(Path(api.hf_hub_download(repo_id, REPOCARD_NAME, revision=commit)).parent)
    except hub.RemoteEntryNotFoundError:
        return ""


def _describe_error(error: BaseException) -> str:
    """Return in one sentence why the Hub did not take a model."""
    while isinstance(error, (RuntimeError, hub.LocalEntryNotFoundError)) and error.__cause__:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, hub.LocalTokenNotFoundError):
        status = 401
    if status in _UPLOAD_ERRORS:
        return _UPLOAD_ERRORS[status]
    if (status is None and isinstance(error, hub.HTTPError)) or (status or 0) >= 500:
        return f"the Hub cannot be reached or is down ({shorten_error(error)}); push again later"
    return shorten_error(error)


def shorten_error(error: BaseException) -> str:
    """Return what a library says, in one line of at most 300 characters, without a stop at its end."""
    said = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return textwrap.shorten(said, 300, placeholder=" and so on").rstrip(".")
