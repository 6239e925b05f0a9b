"""Publish a model directory to the Hub."""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, errors
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.utils import filter_repo_objects

from .hub import (
    CONFIG,
    WEIGHTS,
    ModelLoadError,
    bundled_models,
    describe_connection_error,
    is_hub_id,
    load_generator,
    shorten_error,
)
from .model_card import create_model_card, load_card_text, set_weights_sha256
from .upscaler import Upscaler
from .version import __version__, code_version

logger = logging.getLogger(__name__)

EXAMPLE = Path(__file__).parent / "examples" / "cat.png"
# Published in addition to config.json, model.safetensors and the model card.
HANDLER, REQUIREMENTS, BEFORE, AFTER = "handler.py", "requirements.txt", "before.png", "after.jpg"
_CONFLICT = "somebody else changed the repository at the same time; push again"
_UPLOAD_ERRORS = {  # by HTTP status code
    401: "no token with write access; run `hf auth login` or set HF_TOKEN",
    403: "the token has no write access to it; use one that has",
    404: "the repository or branch was not found; check the name and the token's write access",
    409: _CONFLICT,
    412: _CONFLICT,
}


class PushError(ValueError):
    """A model was not published."""


def push_folder(
    directory: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    tag: str | None = None,
    token: str | None = None,
    overwrite_card: bool = False,
    endpoint: bool = False,
    commit_message: str | None = None,
    create_pr: bool | None = None,
    allow_patterns: list[str] | str | None = None,
    ignore_patterns: list[str] | str | None = None,
    delete_patterns: list[str] | str | None = None,
    upscaler: Upscaler | None = None,
) -> str:
    """Publish config.json, model.safetensors and the model card of a directory in one commit; return the commit's URL.

    The repository and the branch are created if missing, and a directory without a model card gets one. A new card on
    the Hub shows an example image, published too, before and after upscaling. An existing card is kept, except for the
    SHA-256 of the weights, and a warning is logged. An interrupted push can be repeated; uploaded files are not sent
    again.

    Args:
        directory: Written by `SRGAN.save_pretrained` or the training script.
        repo_id: "org/name".
        revision: The branch; the default branch if None.
        tag: Name of a new tag of the commit.
        token: A token with write access; that of `hf auth login` or HF_TOKEN if None.
        overwrite_card: Replace an existing model card on the Hub.
        endpoint: Publish the files for Inference Endpoints too: handler.py and requirements.txt.
        commit_message, create_pr: As for `HfApi.create_commit`.
        allow_patterns, ignore_patterns, delete_patterns: As for `HfApi.upload_folder`.
        upscaler: Renders the example; by default `directory` is loaded, and must be valid for `SRGAN`.

    Raises:
        PushError: The directory is not a complete model, or the Hub is unreachable or refuses the commit.
    """
    directory = Path(directory)
    if not is_hub_id(repo_id):
        raise PushError(f"`repo_id` must have the form 'org/name', got {repo_id!r}.")
    card = load_card_text(directory)
    if upscaler is None:
        try:
            config, generator = load_generator(directory)
        except ModelLoadError as error:
            raise PushError(f"Cannot push to '{repo_id}': {error}") from error
        upscaler = Upscaler(generator, scale=config["scale"])
        card = card or str(create_model_card(config, name=repo_id))
    # The first snippet of a card that training wrote loads the local directory.
    card = re.sub(r'(?<=SRGAN\.from_pretrained\(")[^"]+', repo_id, card, count=1)
    files: dict[str, Path | bytes] = {CONFIG: directory / CONFIG, WEIGHTS: directory / WEIGHTS}
    if endpoint:
        files[HANDLER] = Path(__file__).with_name(HANDLER)
        files[REQUIREMENTS] = f"srgan-hub>={__version__}\n".encode()
    api = HfApi(token=token)
    with _raise_push_errors(repo_id):
        head = _prepare_repo(api, repo_id, private=private, revision=revision, tag=tag)
        remote_card = ""
        if not overwrite_card:
            with suppress(errors.RemoteEntryNotFoundError):  # any other failure must not overwrite a card
                remote_card = load_card_text(Path(api.hf_hub_download(repo_id, REPOCARD_NAME, revision=head)).parent)
        if remote_card:
            advice = "to replace it, push with --overwrite-card (`overwrite_card=True`)"
            logger.warning("The model card of '%s' is kept, with scores that may be outdated; %s.", repo_id, advice)
        else:
            buffer = io.BytesIO()
            upscaler.upscale(EXAMPLE).convert("RGB").save(buffer, "JPEG", quality=90)
            files[BEFORE], files[AFTER] = EXAMPLE, buffer.getvalue()
            card = _add_example_to_card(card, repo_id, revision or "main")
        card = set_weights_sha256(remote_card or card, directory / WEIGHTS)
        if card != remote_card:
            files[REPOCARD_NAME] = card.encode()
        names = filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        operations: list[Any] = [CommitOperationAdd(name, files[name]) for name in names]
        if delete_patterns:
            remote = set(api.list_repo_files(repo_id, revision=head)) - {*files, ".gitattributes"}
            operations += map(CommitOperationDelete, filter_repo_objects(remote, allow_patterns=delete_patterns))
        message = commit_message or f"Model by {code_version()}"
        commit = api.create_commit(
            repo_id, operations, commit_message=message, revision=revision, parent_commit=head, create_pr=create_pr
        )
        if tag:
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
        return commit.commit_url


def create_repo(repo_id: str, *, private: bool | None = None, token: str | None = None) -> None:
    """Create a repository if it is missing, and check that the token may write to it, before a long run.

    Raise PushError if the Hub is unreachable or refuses.
    """
    api = HfApi(token=token)
    with _raise_push_errors(repo_id):
        _prepare_repo(api, repo_id, private=private, revision=None, tag=None)
        api.auth_check(repo_id, write=True)


@contextmanager
def _raise_push_errors(repo_id: str) -> Iterator[None]:
    try:
        yield
    except PushError:
        raise
    # RuntimeError: raised by the client for a failed upload. ImportError: a package for the proxy is missing.
    except (OSError, errors.HTTPError, RuntimeError, ValueError, ImportError) as error:
        raise PushError(f"Cannot push to '{repo_id}': {_describe_error(error)}.") from error


def _add_example_to_card(text: str, repo_id: str, revision: str) -> str:
    """Show the published example in a card, and link a bundled base model to its repository of the same owner."""
    card = ModelCard(text)
    url = f"https://huggingface.co/{repo_id}/resolve/{revision}"
    card.data["thumbnail"] = f"{url}/{AFTER}"
    card.data["widget"] = [{"src": f"{url}/{BEFORE}", "output": {"url": AFTER}, "text": "Before, and after"}]
    if card.data.get("base_model") in bundled_models():
        card.data["base_model"] = f"{repo_id.split('/')[0]}/{card.data['base_model']}"
    card.text = re.sub(r"(?m)^(# .*)$", r"\1\n\n<Gallery />", card.text, count=1)
    return str(card)


def _prepare_repo(api: HfApi, repo_id: str, *, private: bool | None, revision: str | None, tag: str | None) -> str:
    """Create the repository and the branch if missing; return the branch's latest commit."""
    api.create_repo(repo_id, private=private or None, exist_ok=True)  # None: the organization's default
    try:
        remote = api.model_info(repo_id, revision=revision)
    except errors.RevisionNotFoundError:
        assert revision is not None
        api.create_branch(repo_id, branch=revision)
        remote = api.model_info(repo_id, revision=revision)
    if private and not remote.private:
        advice = "change its settings, or push without `private`"
        raise PushError(f"Cannot push to '{repo_id}' as private: it is public; {advice}.")
    if tag and any(tag == ref.name for ref in api.list_repo_refs(repo_id).tags):
        raise PushError(f"Cannot push to '{repo_id}': tag {tag!r} already exists; choose another `tag`.")
    assert remote.sha is not None
    return remote.sha


def _describe_error(error: BaseException) -> str:
    while isinstance(error, (RuntimeError, errors.LocalEntryNotFoundError)) and error.__cause__:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, errors.LocalTokenNotFoundError):
        status = 401
    if status in _UPLOAD_ERRORS:
        return _UPLOAD_ERRORS[status]
    if reason := describe_connection_error(error):
        return reason
    if (status is None and isinstance(error, errors.HTTPError)) or (status or 0) >= 500:
        return f"the Hub is unreachable or down ({shorten_error(error)}); push again later"
    return shorten_error(error)
