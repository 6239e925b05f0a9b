"""What is known of a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .card import file_sha256, read_card, read_section, read_value
from .model import SRGAN
from .names import WEIGHTS, resolve
from .network.stream import receptive_radius


@dataclass(frozen=True)
class Info:
    """What ``info`` finds. Texts are Markdown from the card, "" where it is silent; ``str()`` gives a report."""

    name: str
    folder: Path
    architecture: str
    parameters: int
    receptive_radius: int  # rows of the input above and below that an output row depends on
    size: int  # bytes of the weights
    sha256: str
    licence: str
    made_by: str
    base_model: str
    origin: str
    training: str
    scores: str

    def __str__(self) -> str:
        lines = {
            "model": self.name,
            "folder": str(self.folder),
            "architecture": self.architecture,
            "parameters": f"{self.parameters:,}",
            "receptive radius": f"{self.receptive_radius} rows of the input",
            "weights": f"{self.size / 1e6:.2f} MB",
            "SHA-256": self.sha256,
            "licence": self.licence,
            "made by": self.made_by,
            "fine-tuned from": self.base_model,
        }
        report = [f"{key + ':':18}{value}" for key, value in lines.items() if value]
        for title, text in (("Origin", self.origin), ("Training", self.training), ("Scores", self.scores)):
            if text:
                report.append(f"\n{title}\n{text}")
        return "\n".join(report)


def info(name: str | Path, **download: Any) -> Info:
    """Say what is known of a model: its architecture, provenance and scores.

    Args:
        name: an existing folder, a bundled name or a Hub id.
        download: as in ``srgan_hub.names.resolve``: revision, token, cache_dir, local_files_only, force_download.

    Raises:
        ModelError: as ``SRGAN.from_pretrained``.
    """
    folder = resolve(name, **download)
    model = SRGAN.from_pretrained(folder)
    card = read_card(folder)
    return Info(
        name=str(name),
        folder=folder,
        architecture=", ".join(f"{key} {value}" for key, value in model.config.items()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        receptive_radius=receptive_radius(model.generator),
        size=(folder / WEIGHTS).stat().st_size,
        sha256=file_sha256(folder / WEIGHTS),
        licence=read_value(card, "license") or "",
        made_by=read_value(card, "made_by") or "",
        base_model=read_value(card, "base_model") or "",
        origin=read_section(card, "Origin"),
        training=read_section(card, "Training"),
        scores=read_section(card, "Scores"),
    )
