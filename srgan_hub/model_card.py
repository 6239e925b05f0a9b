"""Render, parse and update model cards."""

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
DIV2K = "eugenesiow/Div2k"
# Metadata key with the SHA-256 of model.safetensors; the Hub keeps keys that it does not know.
WEIGHTS_HASH = "weights_sha256"
# Inside the package in a wheel, at the top level of a checkout.
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
    data_terms: str = "",
    scores: str = "",
    eval_results: list[EvalResult] | None = None,
) -> ModelCard:
    """Render a model card.

    Args:
        config: The content of config.json.
        name: The model's name or Hub id.
        license: Hub identifier of the weights' license.
        base_model: Hub id or name of the model that it was fine-tuned from; see `inherit_card_fields`.
        datasets: Hub ids of the training data, if on the Hub.
        origin: Markdown: where the weights come from, with attribution and license.
        data, training: Markdown: the training data and its license; further details of the training.
        command: The exact training command.
        data_terms: Markdown: terms of the training data that a user of the weights must know, next to the license.
        scores, eval_results: Markdown: a table of scores and its protocol; the same scores, for the model-index.
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
        weights_sha256="",  # see `set_weights_sha256`
    )
    template = next(path for path in _TEMPLATES if path.is_file()).read_text(encoding="utf-8")
    sections = {"origin": origin, "data": data, "command": command, "training": training, "scores": scores}
    sections["data_terms"] = data_terms
    card = ModelCard.from_template(card_data, template_str=template, model_name=name, config=config, **sections)
    card.text = card.text.rstrip() + "\n"
    return card


def load_card_text(directory: Path) -> str:
    """Read the model card in a directory; "" if there is none."""
    path = directory / REPOCARD_NAME
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def get_section(card: str, title: str) -> str:
    """Return the text under a heading of a card; "" if there is no such heading."""
    found = re.search(rf"^## {re.escape(title)}[ \t]*\r?\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def get_metadata(card: str, key: str) -> str | None:
    """Return a one-line value of a card's metadata; None if there is none."""
    block = REGEX_YAML_BLOCK.search(card)
    found = block and re.search(rf"^{key}:[ \t]*['\"]?([^'\"\r\n]+?)['\"]?[ \t\r]*$", block[2], re.MULTILINE)
    return found[1] if found else None


def inherit_card_fields(directory: Path, name: str) -> dict[str, Any]:
    """Return the arguments of `create_model_card` that a fine-tuned model inherits from its base model.

    The origin is the base model's own, so attributions survive any number of generations.
    """
    card = load_card_text(directory)
    datasets = ModelCard(card, ignore_metadata_errors=True).data.get("datasets")
    fields = {"license": get_metadata(card, "license"), "datasets": datasets}
    given = {key: value for key, value in fields.items() if value}
    return {"base_model": name, "origin": get_section(card, "Origin"), **given}


def update_scores(card: str, scores: str, eval_results: list[EvalResult]) -> str:
    """Return the text of a card with new scores: Markdown for the section "Scores", the same for the model-index."""
    parsed = ModelCard(card)
    section = f"## Scores\n\n{scores.strip()}\n\n"
    for position in (r"^## Scores\s*\n.*?(?=^## |\Z)", r"^(?=## Limits)", r"\Z"):
        parsed.text, count = re.subn(position, lambda _: section, parsed.text, count=1, flags=re.MULTILINE | re.DOTALL)
        if count:
            break
    data = parsed.data
    assert isinstance(data, ModelCardData)
    data.model_name = data.model_name or "srgan"
    data.eval_results = eval_results
    return str(parsed)


def set_weights_sha256(card: str, weights: Path) -> str:
    """Return the text of a card with the SHA-256 of a weights file, if it has the key."""
    line = f"{WEIGHTS_HASH}: {file_sha256(weights)}"
    return re.sub(rf"^{WEIGHTS_HASH}:[^\r\n]*", line, card, count=1, flags=re.MULTILINE)


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model, from `srgan_hub.hub.model_info`; `str()` returns a report."""

    name: str
    directory: Path
    architecture: str
    parameters: int
    receptive_field: int  # input rows above and below that an output row depends on
    size: int  # of the weights, in bytes
    sha256: str
    card: str

    def __str__(self) -> str:
        fields = {
            "model": self.name,
            "directory": str(self.directory),
            "architecture": self.architecture,
            "parameters": f"{self.parameters:,}",
            "receptive field": f"{self.receptive_field} input rows above and below",
            "weights": f"{self.size / 1e6:.2f} MB",
            "SHA-256": self.sha256,
            "license": get_metadata(self.card, "license"),
            "made by": get_metadata(self.card, "made_by"),
            "fine-tuned from": get_metadata(self.card, "base_model"),
        }
        report = [f"{key + ':':18}{value}" for key, value in fields.items() if value]
        sections = {title: get_section(self.card, title) for title in ("Origin", "Training", "Scores")}
        report += [f"\n{title}\n{text}" for title, text in sections.items() if text]
        return "\n".join(report)
