"""From what a user calls a model to the folder that holds it."""

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# The photo pair, mixed by ``SRGAN.upscaler(detail=...)``: the faithful end of the dial, and the model that is taken
# where none is named.
FAITHFUL, DEFAULT = "srresnet-x4-photo", "srgan-x4-photo"
_BUNDLED = Path(__file__).parent / "weights"


class ModelError(ValueError):
    """A model that cannot be found, or whose files are not what they should be. The message says what to do."""


def bundled_names() -> list[str]:
    """List the models that come with the package."""
    return sorted(folder.name for folder in _BUNDLED.iterdir() if (folder / WEIGHTS).is_file())


def bundled(name: str) -> Path:
    """Give the folder of a model that comes with the package: config.json, model.safetensors and its card.

    Raises:
        ModelError: there is none of that name, or its card is missing, which states licence and origin.
    """
    if name not in bundled_names():
        raise ModelError(f"there is no bundled model {name!r}; there are: {', '.join(bundled_names())}")
    if not (_BUNDLED / name / "README.md").is_file():
        raise ModelError(f"{_BUNDLED / name} lacks README.md, its card with licence and origin; install srgan-hub anew")
    return _BUNDLED / name


def resolve(name: str | Path, **download: Any) -> Path:
    """Find a model's folder by an existing folder, a bundled name or a Hub id such as "org/srgan-x4", in this order.

    Args:
        name: the folder, bundled name or Hub id.
        download: passed to ``huggingface_hub.hf_hub_download`` for a Hub id: revision, token, cache_dir,
            local_files_only, force_download.

    Raises:
        ModelError: nothing of that name can be found or downloaded.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if str(name) in bundled_names():
        return bundled(str(name))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise ModelError(
            f"no model {str(name)!r}: it is no folder and not bundled ({', '.join(bundled_names())}), "
            "and a Hub id reads org/name"
        )
    return _download(str(name), **download)


def _download(name: str, **download: Any) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import REPOCARD_NAME

    local = f"it is no folder and not bundled ({', '.join(bundled_names())})"
    at = f" at revision {download['revision']!r}" if download.get("revision") else ""
    file = CONFIG
    try:
        folder = Path(hf_hub_download(name, file, **download)).parent
        # The cache names the folder by the commit: all files come from that one, whatever is pushed meanwhile.
        download = {**download, "revision": folder.name}
        file = WEIGHTS
        _check_blob(Path(hf_hub_download(name, file, **download)))
        # The card carries licence and attribution; a model without one is a model all the same.
        with contextlib.suppress(hub.EntryNotFoundError):
            hf_hub_download(name, REPOCARD_NAME, **download)
        return folder
    except hub.LocalEntryNotFoundError as error:
        raise ModelError(
            f"no model {name!r}{at}: {local}, and the Hub cannot be reached nor is it in the download cache; "
            "check the name and the connection"
        ) from error
    except hub.GatedRepoError as error:
        raise ModelError(
            f"model {name!r} is gated: ask for access on its Hub page, then log in by `hf auth login`"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(
            f"no model {name!r}: {local}, and the Hub has none; check the name, "
            "or log in by `hf auth login` if it is private"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(f"model {name!r} has no revision {download.get('revision')!r} on the Hub") from error
    except hub.EntryNotFoundError as error:
        raise ModelError(
            f"model {name!r} has no {file} on the Hub{at}: expected a model of this package, which consists of "
            f"{CONFIG} and {WEIGHTS}; pickles such as pytorch_model.bin are never loaded"
        ) from error
    # HTTPError: the connection broke off. ValueError: an odd name, or a forced download without a connection.
    except (OSError, hub.HTTPError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model {name!r} cannot be downloaded: {first_line}") from error


def _check_blob(file: Path) -> None:
    # The cache names a large file by the SHA-256 that the Hub announced; the client itself checks the size alone.
    blob = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
        blob.unlink()
        raise ModelError(
            f"{file} was damaged: it is not what the Hub announced (SHA-256 {blob.name}); "
            "it has been removed from the download cache, so load the model again"
        )
