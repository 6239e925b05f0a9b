"""What a run tells the model card: data, the command, scores, and where it started."""

import shlex
from pathlib import Path
from typing import Any

import torch

from ..hub import resolve_model_path
from ..model_card import DIV2K, inherit_card_fields
from .state import TrainContext, TrainState
from .validation import report

EXPORTED = ("final", "last", "best")  # the models in a run's folder


def card_fields(run: TrainContext, state: TrainState, name: str) -> dict[str, Any]:
    """Return the arguments of `srgan_hub.model_card.create_model_card` for the model OUTPUT_DIR/name."""
    args = run.args
    images = "DIV2K's training images, a data set for academic research" if args.train_data == "div2k" else (
        f"{len(run.crops.images)} images of {Path(args.train_data).name}"
    )  # fmt: skip
    fields: dict[str, Any] = {}
    if args.pretrained_model_name_or_path:
        base = args.pretrained_model_name_or_path
        fields = inherit_card_fields(resolve_model_path(base), redact_path(Path(base)) if Path(base).is_dir() else base)
    if args.train_data == "div2k":
        fields["datasets"] = [DIV2K]
    if args.license:
        fields["license"] = args.license
    folder = args.output_dir.resolve().name
    title = args.push_to_hub or (folder if name == "final" else f"{folder}/{name}")
    fields |= {
        "name": title,
        "data": f"{images}{f' ({args.data_license})' if args.data_license else ''}. "
        f"LR made by the degradation `{args.degradation}`.",
        "command": redact_command(run.args, run.command),
        "training": f"{state.step} of {args.max_train_steps} steps on {run.accelerator.num_processes} process(es), "
        f"torch {torch.__version__}. The weights are the run's exponential moving average.",
    }
    if state.scores:
        scores = report(run, state.scores, title)
        fields |= {"scores": scores.to_markdown(cost=False), "eval_results": scores.eval_results()}
    return fields


def redact_command(args: Any, command: str) -> str:
    """Return the command with folders and files by their last names: the rest of a path is the trainer's own."""
    names = (
        "train_data",
        "val_data",
        "pretrained_model_name_or_path",
        "vgg_weights",
        "output_dir",
        "data_dir",
        "resume_from_checkpoint",
    )
    paths = [Path(value) for name in names if (value := getattr(args, name))]
    mine = {path for path in paths if path.exists() or path.is_absolute()}

    def shorten(word: str) -> str:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        return f"{option}{equals}{redact_path(Path(value))}" if value and Path(value) in mine else word

    return shlex.join(map(shorten, shlex.split(command)))


def redact_path(path: Path) -> str:
    """Return a folder's last name; of a model that a run wrote, the run's too."""
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in EXPORTED else path.name
