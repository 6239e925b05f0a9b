"""A model's folder, published on the Hub: card and weights in one commit."""

import hashlib
import logging
import re
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub import errors as hub
from huggingface_hub.constants import REPOCARD_NAME

from .card import WEIGHTS_HASH, make_card, read_card, read_value, rename, state_weights, write_value
from .model import SRGAN
from .names import CONFIG, WEIGHTS, ModelError
from .version import code_version

logger = logging.getLogger(__name__)

# The line of a published card's metadata with the SHA-256 of all the rest: a card that still fits it is as we wrote it.
CARD_HASH = "card_sha256"


class PublishError(ValueError):
    """A model that was not published. The message says why and what to do."""


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    token: str | None = None,
    overwrite_card: bool = False,
) -> str:
    """Publish a model's folder: config.json, model.safetensors and its card, in one commit.

    The repository and the branch are created if they are missing. A folder without a card gets one. A card on the Hub
    that was edited by hand since the last push stays, but for its line with the weights' hash, and a warning says so.
    A push that broke off can be repeated: what has been uploaded is not sent twice.

    Args:
        folder: what ``SRGAN.save_pretrained`` or the training wrote.
        repo_id: "org/name".
        private: create the repository as a private one.
        revision: the branch; the default one if None.
        tag: a name for this very commit, which is never moved.
        token: a token with the right to write; the one of ``hf auth login`` or HF_TOKEN if None.
        overwrite_card: replace a card that was edited by hand, too.

    Returns:
        The URL of the commit.

    Raises:
        PublishError: the folder is no whole model, or the Hub cannot be reached or refuses.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PublishError(f"cannot publish {folder}: expected a folder with {CONFIG} and {WEIGHTS}")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise PublishError(f"cannot publish as {repo_id!r}: expected a Hub id such as org/name")
    try:
        model = SRGAN.from_pretrained(folder)
    except ModelError as error:
        raise PublishError(f"{folder} is no whole model: {error}") from error
    card = rename(read_card(folder) or str(make_card(model.config, name=repo_id)), repo_id)
    api = HfApi(token=token)
    try:
        with tempfile.TemporaryDirectory() as staging:
            head = _prepare_repo(api, repo_id, private=private, revision=revision, tag=tag)
            remote_card = _read_remote_card(api, repo_id, head, Path(staging))
            card = _choose_card(card, remote_card, folder / WEIGHTS, repo_id, overwrite=overwrite_card)
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(folder / name, Path(staging, name))
            Path(staging, REPOCARD_NAME).write_text(card, encoding="utf-8", newline="\n")
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=staging,
                allow_patterns=[CONFIG, WEIGHTS, REPOCARD_NAME],
                revision=revision,
                parent_commit=head,
                commit_message=f"Model by {code_version()}",
            )
        if tag:
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
        return commit.commit_url
    except PublishError:
        raise
    # RuntimeError: what the client raises from a failed upload.
    except (OSError, hub.HTTPError, RuntimeError, ValueError) as error:
        raise PublishError(f"{folder} was not published as {repo_id}: {_reason(error)}") from error


def _prepare_repo(api: HfApi, repo_id: str, *, private: bool, revision: str | None, tag: str | None) -> str:
    """Make sure that repository and branch exist; return the commit that the branch is at."""
    # None leaves the choice to the organisation's settings.
    api.create_repo(repo_id, private=private or None, exist_ok=True)
    try:
        info = api.model_info(repo_id, revision=revision)
    except hub.RevisionNotFoundError:
        assert revision is not None
        api.create_branch(repo_id, branch=revision)
        info = api.model_info(repo_id, revision=revision)
    if private and not info.private:
        raise PublishError(
            f"{repo_id} is public already: make it private on its settings page, or push without private"
        )
    if tag and any(tag == ref.name for ref in api.list_repo_refs(repo_id).tags):
        raise PublishError(f"{repo_id} has a tag {tag!r} already, and a tag is never moved: choose another")
    assert info.sha is not None
    return info.sha


def _read_remote_card(api: HfApi, repo_id: str, commit: str, staging: Path) -> str:
    # Only the Hub's word that there is none counts: a failure to look must not overwrite a card.
    try:
        file = api.hf_hub_download(repo_id, REPOCARD_NAME, revision=commit, local_dir=staging)
    except hub.RemoteEntryNotFoundError:
        return ""
    return read_card(Path(file).parent)


def _choose_card(card: str, remote: str, weights: Path, repo_id: str, *, overwrite: bool) -> str:
    card = state_weights(card, weights)
    untouched = read_value(remote, CARD_HASH) == _hash_card(remote)
    if remote and not (untouched or overwrite or _text(remote) == _text(card)):
        logger.warning(
            "the card of %s was edited by hand and stays, though its scores may be of older weights; "
            "to replace it, push with --overwrite-card (overwrite_card=True)",
            repo_id,
        )
        return state_weights(remote, weights)
    return write_value(card, CARD_HASH, _hash_card(card))


def _hash_card(card: str) -> str:
    return hashlib.sha256(_text(card, CARD_HASH).encode()).hexdigest()


def _text(card: str, without: str = f"{CARD_HASH}|{WEIGHTS_HASH}") -> str:
    """Strip a card of lines that this file writes, and of what editors and git change about line ends."""
    card = card.replace("\r\n", "\n")
    return re.sub(rf"^({without}):.*\n", "", card, flags=re.MULTILINE).strip()


def _reason(error: BaseException) -> str:
    """Say in one sentence why the Hub did not take a model."""
    while isinstance(error, (RuntimeError, hub.LocalEntryNotFoundError)) and error.__cause__:
        error = error.__cause__
    said = getattr(error, "server_message", None) or str(error)
    first_line = next(iter(said.strip().splitlines()), type(error).__name__)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, hub.LocalTokenNotFoundError) or status == 401:
        return "there is no valid token; log in by `hf auth login`, or set HF_TOKEN, with a token that may write"
    if status == 403:
        return "the token has no right to write there; use one that has"
    if status == 404:
        return "the Hub has no such place, or hides it; check the name, and that the token may write there"
    if status in (409, 412):
        return "somebody else changed it at the same time; push again"
    if (status is None and isinstance(error, hub.HTTPError)) or (status or 0) >= 500:
        return f"the Hub cannot be reached or is down ({first_line}); push again later"
    return first_line
