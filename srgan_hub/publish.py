"""A model's folder, published on the Hub: card and weights in one commit."""

import logging
import re
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub import errors as hub
from huggingface_hub.constants import REPOCARD_NAME

from .card import make_card, read_card, state_weights
from .model import SRGAN
from .names import CONFIG, WEIGHTS, ModelError
from .version import code_version

logger = logging.getLogger(__name__)


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

    The repository and the branch are created if they are missing. A folder without a card gets one. A card that is on
    the Hub stays, but for its line with the weights' hash, and a warning says so. A push that broke off can be
    repeated: what has been uploaded is not sent twice.

    Args:
        folder: what ``SRGAN.save_pretrained`` or the training wrote.
        repo_id: "org/name".
        private: create the repository as a private one.
        revision: the branch; the default one if None.
        tag: a name for this very commit, which is never moved.
        token: a token with the right to write; the one of ``hf auth login`` or HF_TOKEN if None.
        overwrite_card: replace a card that is on the Hub.

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
    card = read_card(folder) or str(make_card(model.config, name=repo_id))
    # Training knew the folder alone; the first snippet is how this very model is loaded.
    card = re.sub(r'(?<=SRGAN\.from_pretrained\(")[^"]+', repo_id, card, count=1)
    api = HfApi(token=token)
    try:
        with tempfile.TemporaryDirectory() as staging:
            head = _prepare_repo(api, repo_id, private=private, revision=revision, tag=tag)
            remote_card = "" if overwrite_card else _read_remote_card(api, repo_id, head, Path(staging))
            if remote_card:
                logger.warning(
                    "the card of %s stays as it is, though its scores may be of older weights; to replace it, push "
                    "with --overwrite-card (overwrite_card=True)",
                    repo_id,
                )
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(folder / name, Path(staging, name))
            card = state_weights(remote_card or card, folder / WEIGHTS)
            if card == remote_card:
                Path(staging, REPOCARD_NAME).unlink()  # it was read there, and goes back only if it changed
            else:
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
