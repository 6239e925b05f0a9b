"""What lies in a run's folder: checkpoints to go on from, and models to load and to publish."""

import hashlib
import json
import logging
import shlex
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch

from ..fileio import atomic_write
from ..publish import PushError, push_folder
from . import checkpoint
from . import logging as metrics_log
from .dataset import read_index
from .distributed import run_on_main_process
from .model_card import card_fields
from .state import TrainContext, TrainState, ema_model

logger = logging.getLogger(__name__)


def export(run: TrainContext, state: TrainState, name: str) -> None:
    """Write the averaged model to OUTPUT_DIR/name: config.json, model.safetensors and its card."""
    if run.accelerator.is_main_process:
        folder = run.args.output_dir / name
        try:
            with atomic_write(folder, directory=True, fsync=True) as tmp_path:
                ema_model(run, state).save_pretrained(tmp_path, model_card_kwargs=card_fields(run, state, name))
        except OSError as error:
            raise checkpoint.CheckpointError(f"Cannot write {folder}: {error}.") from error
    run.accelerator.wait_for_everyone()


def publish(run: TrainContext, step: int, name: str) -> bool:
    """Push OUTPUT_DIR/name to the Hub, with the card of these very steps, and return whether that worked.

    A Hub that is down or refuses is said, and costs nothing but the time.
    """
    folder, repo_id = run.args.output_dir / name, run.args.push_to_hub
    refused: list[PushError] = []

    def work() -> None:
        try:
            url = push_folder(folder, repo_id, private=run.args.private, overwrite_card=True)
            run.accelerator.print(f"published as {url}")
        except PushError as error:
            command = shlex.join(["python", "-m", "srgan_hub", "push", str(folder), repo_id, "--overwrite-card"])
            logger.warning("step %d: %s. To push later: %s", step, error, command)
            refused.append(error)

    run_on_main_process(run.accelerator, work)
    return not refused


def save(run: TrainContext, state: TrainState) -> None:
    """Write the checkpoint of this step, and last/, the model that it would export; drop old checkpoints."""
    accelerator = run.accelerator
    export(run, state, "last")
    if accelerator.is_main_process:
        parts = {name: accelerator.unwrap_model(network).state_dict() for name, network in state.networks.items()}
        parts["ema"] = state.ema.network.state_dict()
        for name, optimizer in state.optimizers.items():
            parts[f"{name}_optimizer"] = checkpoint.optimizer_tensors(optimizer.optimizer)
        facts = {
            "arguments": _arguments(run),
            "fingerprints": _fingerprints(run),
            "machine": _machine(run),
            "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
            "won": state.collapsed_steps,
            "best": state.best,
            "scores": state.scores,
        }
        checkpoint.save(run.args.output_dir, state.step, parts, facts)
        checkpoint.prune(run.args.output_dir, run.args.checkpoints_total_limit)
    accelerator.wait_for_everyone()


def resume(run: TrainContext, state: TrainState, free: Set[str]) -> None:
    """Go on from a checkpoint, if asked; refuse what would give another result than the run that made it.

    Args:
        run, state: just built; the state is filled in.
        free: names of the arguments that may differ.

    Raises:
        ValueError: the folder holds a run that would be overwritten, or the checkpoint is of another run.
    """
    args, accelerator = run.args, run.accelerator
    found = checkpoint.find(args.output_dir)
    if args.resume_from_checkpoint is None:
        if found:
            raise ValueError(
                f"{args.output_dir} holds {found[-1].stem} already: add --resume-from-checkpoint, or use another "
                "folder."
            )
        return
    if args.resume_from_checkpoint == "latest" and not found:
        logger.warning("there is no whole checkpoint in %s: starting at step 0", args.output_dir)
        return
    path = found[-1] if args.resume_from_checkpoint == "latest" else Path(args.resume_from_checkpoint)
    if found and found[-1].resolve() != path.resolve():
        newer = ", ".join(other.stem for other in found if other.resolve() != path.resolve())
        raise ValueError(f"{args.output_dir} holds {newer} beside {path}: use another --output-dir.")
    parts, facts = checkpoint.load(path)
    _check_resumable(run, path, facts, free)
    for name, network in state.networks.items():
        checkpoint.restore(accelerator.unwrap_model(network), parts[name])
    checkpoint.restore(state.ema.network, parts["ema"])
    for name, optimizer in state.optimizers.items():
        checkpoint.restore_optimizer(optimizer.optimizer, parts[f"{name}_optimizer"])
    if accelerator.scaler and facts["scaler"]:
        accelerator.scaler.load_state_dict(facts["scaler"])
    state.step, state.collapsed_steps, state.best, state.scores = (
        facts[name] for name in ("step", "won", "best", "scores")
    )
    if accelerator.is_main_process:
        metrics_log.truncate_metrics(args.output_dir, state.step)
    accelerator.print(f"going on from {path}")


def _arguments(run: TrainContext) -> dict[str, Any]:
    """Return the arguments as JSON holds them."""
    return json.loads(json.dumps(vars(run.args), default=str))


def _fingerprints(run: TrainContext) -> dict[str, str]:
    """Hash what the training images and the frozen networks hold, wherever they lie."""
    images = json.dumps(read_index(run.crops.folder)["images"], sort_keys=True)
    frozen = sum(float(p.double().sum()) for p in run.content.parameters())
    return {"train-data": hashlib.sha256(images.encode()).hexdigest(), "vgg-weights": f"{frozen:.6g}"}


def _machine(run: TrainContext) -> dict[str, Any]:
    """Return what the last bits of a result depend on."""
    processes = run.accelerator.num_processes
    return {"processes": processes, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _check_resumable(run: TrainContext, path: Path, facts: dict[str, Any], free: Set[str]) -> None:
    """Refuse arguments, images or VGG weights that change the result; say what else is different."""
    before, now = facts["arguments"], _arguments(run)
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    # Under cosine every step's rate depends on the last step.
    refused = [
        name
        for name in changed
        if name not in free or (name == "max_train_steps" and run.args.lr_scheduler == "cosine")
    ]
    described = [f"--{name.replace('_', '-')} was {before.get(name)}, is {now.get(name)}" for name in refused]
    old, new = facts["fingerprints"], _fingerprints(run)
    described += [f"--{name} holds something else than before" for name in new if old.get(name) != new[name]]
    if described:
        raise ValueError(f"{path} is of another run, which this one cannot continue: {'; '.join(described)}.")
    said = [f"--{name.replace('_', '-')}" for name in changed if name != "resume_from_checkpoint"]
    if said:
        run.accelerator.print(f"changed since {path} was made, without changing the result so far: {', '.join(said)}")
    if facts["step"] > run.args.max_train_steps:
        raise ValueError(f"{path} is beyond --max-train-steps {run.args.max_train_steps} already.")
    for name, value in _machine(run).items():
        if facts["machine"][name] != value:
            text = "%s was made with %s %s, this run has %s: the result will not be the same to the last bit"
            logger.warning(text, path, name, facts["machine"][name], value)
