"""What a run tells the model card: data, the command, scores, and where it started."""

import shlex
from pathlib import Path
from typing import Any

import torch

from ..card import DIV2K, inherit
from ..hub import resolve
from .run import Run, State
from .validation import report

EXPORTED = ("final", "last", "best")  # the models in a run's folder


def card_fields(run: Run, state: State, name: str) -> dict[str, Any]:
    """Return the arguments of `srgan_hub.card.make_card` for the model OUTPUT_DIR/name."""
    args = run.args
    pictures = "DIV2K's training pictures, a data set for academic research" if args.train_data == "div2k" else (
        f"{len(run.crops.pictures)} pictures of {Path(args.train_data).name}"
    )  # fmt: skip
    fields: dict[str, Any] = {}
    if args.init_from:
        base = args.init_from
        fields = inherit(resolve(base), shown_name(Path(base)) if Path(base).is_dir() else base)
    if args.train_data == "div2k":
        fields["datasets"] = [DIV2K]
    if args.license:
        fields["license"] = args.license
    folder = args.output_dir.resolve().name
    title = args.push_to_hub or (folder if name == "final" else f"{folder}/{name}")
    fields |= {
        "name": title,
        "data": f"{pictures}{f' ({args.data_license})' if args.data_license else ''}. "
        f"LR made by the degradation `{args.degradation}`.",
        "command": shown_command(run.args, run.command),
        "training": f"{state.step} of {args.steps} steps on {run.accelerator.num_processes} process(es), torch "
        f"{torch.__version__}. The weights are the run's exponential moving average.",
    }
    if state.scores:
        scores = report(run, state.scores, title)
        fields |= {"scores": scores.to_markdown(cost=False), "eval_results": scores.eval_results()}
    return fields


def shown_command(args: Any, command: str) -> str:
    """Return the command with folders and files by their last names: the rest of a path is the trainer's own."""
    names = ("train_data", "val_data", "init_from", "vgg_weights", "output_dir", "data_dir", "resume")
    paths = [Path(value) for name in names if (value := getattr(args, name))]
    mine = {path for path in paths if path.exists() or path.is_absolute()}

    def shorten(word: str) -> str:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        return f"{option}{equals}{shown_name(Path(value))}" if value and Path(value) in mine else word

    return shlex.join(map(shorten, shlex.split(command)))


def shown_name(path: Path) -> str:
    """Return a folder's last name; of a model that a run wrote, the run's too."""
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in EXPORTED else path.name
