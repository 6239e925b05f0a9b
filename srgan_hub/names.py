"""From what a user calls a model to the folder that holds it."""

import re
from pathlib import Path
from typing import Any

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
_BUNDLED = Path(__file__).parent / "weights"


class ModelError(ValueError):
    """A model that cannot be found, or whose files are not what they should be. The message says what to do."""


def bundled_names() -> list[str]:
    """List the models that come with the package."""
    return sorted(folder.name for folder in _BUNDLED.iterdir() if (folder / WEIGHTS).is_file())


def bundled(name: str) -> Path:
    """Give the folder of a model that comes with the package: config.json, model.safetensors and its card.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in bundled_names():
        raise ModelError(f"there is no bundled model {name!r}; there are: {', '.join(bundled_names())}")
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

    local = f"it is no folder and not bundled ({', '.join(bundled_names())})"
    at = f" at revision {download['revision']!r}" if download.get("revision") else ""
    path = ""
    for file in (CONFIG, WEIGHTS):
        try:
            path = hf_hub_download(name, file, **download)
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
                f"model {name!r} has no {file} on the Hub{at}: expected a model of this package, "
                "which consists of config.json and model.safetensors"
            ) from error
        except (OSError, hub.HfHubHTTPError) as error:
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"model {name!r} cannot be downloaded: {first_line}") from error
    return Path(path).parent
