"""The model card: rendered from model_card.md, and the few facts that are read from it again."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from .version import code_version

LIBRARY_NAME = "srgan-hub"
PIPELINE_TAG = "image-to-image"
TAGS = ["super-resolution", "image-super-resolution", "srgan", "pytorch"]

DIV2K = "eugenesiu/Div2k"

# The line of a card's metadata that states the SHA-256 of model.safetensors. The Hub keeps keys that it does not know.
WEIGHTS_HASH = "weights_sha256"

# In the wheel the template lies in the package, in a checkout at the top.
_TEMPLATES = (Path(__file__).parent / "model_card.md", Path(__file__).parent.parent / "model_card.md")


def create_model_card(
    config: Mapping[str, Any],
    *,
    name: str = "srgan",
    license: str = "apache-2.0",
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    origin: str = "",
    data: str = "",
    command: str = "",
    training: str = "",
    scores: str = "",
    eval_results: list[EvalResult] | None = None,
) -> ModelCard:
    """Render a model's card.

    Args:
        config: what config.json holds.
        name: the model's name, or its Hub id.
        license: the identifier of the weights' license on the Hub.
        base_model: Hub id or name of the model that it was fine-tuned from; see `inherit`.
        datasets: Hub ids of what it was trained on, as far as it is there.
        origin: Markdown: where the weights come from, with attribution and license.
        data: Markdown: what it was trained on, and under which license.
        command: the exact command that trained it.
        training: Markdown: what else is to be said of the recipe.
        scores: Markdown: a table with its protocol.
        eval_results: the same scores for the card's model-index.
    """
    card_data = ModelCardData(
        model_name=name.split("/")[-1],
        library_name=LIBRARY_NAME,
        pipeline_tag=PIPELINE_TAG,
        tags=[*TAGS],
        license=license,
        base_model=base_model,
        datasets=[*datasets] or None,
        eval_results=eval_results,
        made_by=code_version(),
        weights_sha256="",  # see set_weights_sha256
    )
    template = next(path for path in _TEMPLATES if path.is_file())
    card = ModelCard.from_template(
        card_data,
        template_str=template.read_text(encoding="utf-8"),
        model_name=name,
        config=config,
        origin=origin,
        data=data,
        command=command,
        training=training,
        scores=scores,
    )
    card.text = card.text.rstrip() + "\n"
    return card


def load_card_text(folder: Path) -> str:
    """Read the card in a model's folder; "" if there is none."""
    file = folder / REPOCARD_NAME
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def get_section(card: str, title: str) -> str:
    """Read what stands under a heading of a card; "" if there is no such heading."""
    found = re.search(rf"^## {re.escape(title)}[ \t]*\r?\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def inherit_card_fields(folder: Path, name: str) -> dict[str, Any]:
    """Return the arguments of `create_model_card` that a model fine-tuned from another one owes to it.

    The origin is the base model's own, so that an attribution survives any number of generations.

    Args:
        folder: the base model's folder.
        name: what the card calls the base model.
    """
    card = load_card_text(folder)
    datasets = ModelCard(card, ignore_metadata_errors=True).data.get("datasets")
    found = {"license": get_metadata(card, "license"), "datasets": datasets}
    stated = {key: value for key, value in found.items() if value}
    return {"base_model": name, "origin": get_section(card, "Origin"), **stated}


def get_metadata(card: str, key: str) -> str | None:
    """Read a one-line value of a card's metadata; None if there is none."""
    block = REGEX_YAML_BLOCK.search(card)
    found = block and re.search(rf"^{key}:[ \t]*['\"]?([^'\"\r\n]+?)['\"]?[ \t\r]*$", block[2], re.MULTILINE)
    return found[1] if found else None


def update_scores(card: str, scores: str, eval_results: list[EvalResult]) -> str:
    """Put scores into a card in place of those that it has: the table under its heading, and the model-index.

    Args:
        card: the card's text.
        scores: Markdown: a table with its protocol.
        eval_results: the same scores.
    """
    parsed = ModelCard(card)
    section = f"## Scores\n\n{scores.strip()}\n\n"
    for place in (r"^## Scores\s*\n.*?(?=^## |\Z)", r"^(?=## Limits)", r"\Z"):
        parsed.text, count = re.subn(place, lambda _: section, parsed.text, count=1, flags=re.MULTILINE | re.DOTALL)
        if count:
            break
    data = parsed.data
    assert isinstance(data, ModelCardData)
    data.model_name = data.model_name or "srgan"
    data.eval_results = eval_results
    return str(parsed)


def set_weights_sha256(card: str, weights: Path) -> str:
    """Write the SHA-256 of the weights into a card that states one; whoever saves or publishes weights calls this."""
    line = f'{WEIGHTS_HASH}: "{file_sha256(weights)}"'
    return re.sub(rf"^{WEIGHTS_HASH}:[^\r\n]*", line, card, count=1, flags=re.MULTILINE)


def file_sha256(file: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass(frozen=True)
class ModelInfo:
    """What `srgan_hub.hub.info` finds; `str()` gives a report."""

    name: str
    folder: Path
    architecture: str
    parameters: int
    receptive_radius: int  # rows of the input above and below that an output row depends on
    size: int  # bytes of the weights
    sha256: str
    card: str

    def value(self, key: str) -> str:
        """Return a value of the card's metadata; "" if there is none."""
        return get_metadata(self.card, key) or ""

    def section(self, title: str) -> str:
        """Return the Markdown under a heading of the card; "" if there is no such heading."""
        return get_section(self.card, title)

    def __str__(self) -> str:
        lines = {
            "model": self.name,
            "folder": str(self.folder),
            "architecture": self.architecture,
            "parameters": f"{self.parameters:,}",
            "receptive radius": f"{self.receptive_radius} rows of the input",
            "weights": f"{self.size / 1e6:.2f} MB",
            "SHA-256": self.sha256,
            "license": self.value("license"),
            "made by": self.value("made_by"),
            "fine-tuned from": self.value("base_model"),
        }
        report = [f"{key + ':':18}{value}" for key, value in lines.items() if value]
        report += [f"\n{title}\n{text}" for title in ("Origin", "Training", "Scores") if (text := self.section(title))]
        return "\n".join(report)
