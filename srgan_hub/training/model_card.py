"""Model card fields for a training run."""

import shlex
from pathlib import Path
from typing import Any

import torch

from ..hub import resolve_model_path
from ..model_card import DIV2K, inherit_card_fields
from .arguments import TrainConfig, split_weight
from .div2k import URL
from .state import TrainContext, TrainState
from .validation import make_report

DIV2K_TERMS = (
    "They were trained on DIV2K, whose images belong to their owners and are available for academic research only "
    f"([terms]({URL}/)); the license of the weights cannot grant more than that."
)
EXPORTED = ("final", "last", "best")  # models in the output directory


def card_fields(run: TrainContext, state: TrainState, name: str) -> dict[str, Any]:
    """Return keyword arguments of `create_model_card` for the model in OUTPUT_DIR/name."""
    config, base = run.config, run.config.pretrained_model_name_or_path
    fields: dict[str, Any] = {}
    if base:
        fields = inherit_card_fields(resolve_model_path(base), redact_path(Path(base)) if Path(base).is_dir() else base)
    if config.license:
        fields["license"] = config.license
    paths = [split_weight(word)[0] for word in config.train_data or ()]
    if paths == ["div2k"]:
        fields["datasets"] = [DIV2K]
        fields["data_terms"] = DIV2K_TERMS
        data = "DIV2K's training images"
    else:
        names = [
            *(Path(path).resolve().name for path in paths),
            *([config.dataset_name] if config.dataset_name else []),
        ]
        data = f"{run.crops.num_images} images of {', '.join(names)}"
    directory = config.output_dir.resolve().name
    title = config.push_to_hub or (directory if name == "final" else f"{directory}/{name}")
    fields |= {
        "name": title,
        "data": f"{data}{f' ({config.data_license})' if config.data_license else ''}. "
        + ("LR images are given." if config.train_lr_data else f"LR images by the degradation `{config.degradation}`."),
        "command": redact_command(config),
        "training": f"{state.step} of {config.max_train_steps} steps on {run.accelerator.num_processes} process(es), "
        f"torch {torch.__version__}. The weights are the exponential moving average."
        + (f" Changed on resuming: {'; '.join(state.changes)}." if state.changes else ""),
    }
    if state.scores:
        report = make_report(run, state.scores, title)
        fields |= {"scores": report.to_markdown(cost=False), "eval_results": report.eval_results()}
    return fields


def redact_command(config: TrainConfig) -> str:
    """Return the command line with local paths cut to their last names."""
    values: list[str | Path | None] = [
        *(config.train_data or ()),
        *(config.train_lr_data or ()),
        config.dataset_name,
        config.val_data,
    ]
    values += [config.val_lr_data, config.vgg_weights, config.output_dir, config.data_dir]
    values += [config.pretrained_model_name_or_path, config.resume_from_checkpoint, config.init_discriminator]
    paths = {Path(value): Path(split_weight(str(value))[0]) for value in values if value}
    local = {word for word, path in paths.items() if path.exists() or path.is_absolute()}

    def redact(word: str) -> str:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        return f"{option}{equals}{redact_path(Path(value))}" if value and Path(value) in local else word

    return shlex.join(map(redact, shlex.split(config.command)))


def redact_path(path: Path) -> str:
    """Return the last name of a path, preceded by the run's name for an exported model: "my-run/final"."""
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in EXPORTED else path.name
