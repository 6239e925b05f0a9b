"""Checkpoint, export, resume and publish a training run."""

import json
import logging
import shlex
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..fileio import atomic_write, remove_stale_parts, wrap_write_errors
from ..publish import PushError, push_folder
from . import checkpoint
from .arguments import CHANGEABLE, FLAGS, flag_name
from .distributed import shared_errors
from .logging import truncate_metrics
from .model_card import card_fields
from .state import TrainContext, TrainState, effective_batch, ema_model
from .validation import validation_due

logger = logging.getLogger(__name__)
SAVED = ("step", "samples", "collapsed_steps", "best", "scores", "changes")  # values of `TrainState`


def export(run: TrainContext, state: TrainState, name: str) -> None:
    """Save the averaged model to OUTPUT_DIR/name: config.json, model.safetensors and a model card.

    Raise OSError if the disk is full or cannot be written.
    """
    directory = run.config.output_dir / name
    with shared_errors(run.accelerator):
        if run.accelerator.is_main_process:
            with wrap_write_errors(directory), atomic_write(directory, directory=True, fsync=True) as tmp_path:
                ema_model(run, state).save_pretrained(tmp_path, model_card_kwargs=card_fields(run, state, name))


def publish(run: TrainContext, step: int, name: str) -> bool:
    """Push OUTPUT_DIR/name to the Hub and return whether it worked; a failure is logged and training continues."""
    directory, repo_id, pushed = run.config.output_dir / name, str(run.config.push_to_hub), True
    if run.accelerator.is_main_process:
        try:
            url = push_folder(directory, repo_id, private=run.config.private, overwrite_card=True)
            run.accelerator.print(f"pushed to {url}")
        except PushError as error:
            command = shlex.join(["srgan-hub", "push", str(directory), repo_id, "--overwrite-card"])
            logger.warning("step %d: %s. To retry: %s", step, error, command)
            pushed = False
    run.accelerator.wait_for_everyone()
    return pushed


def save(run: TrainContext, state: TrainState) -> None:
    """Write the checkpoint of this step and the model last/, and remove old checkpoints."""
    with shared_errors(run.accelerator):
        if run.accelerator.is_main_process:
            _save_checkpoint(run, state)
    export(run, state, "last")


def _save_checkpoint(run: TrainContext, state: TrainState) -> None:
    config, accelerator = run.config, run.accelerator
    parts = {name: network.state_dict() for name, network in state.networks.items()}
    parts["ema"] = state.ema.network.state_dict()
    for name, optimizer in state.optimizers.items():
        parts[f"{name}_optimizer"] = checkpoint.optimizer_tensors(optimizer)
    header = {
        "arguments": _arguments(run),
        "fingerprints": _fingerprints(run),
        "environment": _environment(run),
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
        **{name: getattr(state, name) for name in SAVED},
    }
    checkpoint.save(config.output_dir, state.step, parts, header)
    checkpoint.prune(config.output_dir, config.checkpoints_total_limit)


def resume(run: TrainContext, state: TrainState) -> None:
    """Load a checkpoint into a new state if --resume-from-checkpoint asks for it.

    Raise ValueError if checkpoints would be overwritten, or the checkpoint is of a run with other data or arguments.
    """
    config, accelerator = run.config, run.accelerator
    found = checkpoint.find(config.output_dir)
    if config.resume_from_checkpoint is None:
        if found:
            advice = "use --resume-from-checkpoint or another --output-dir"
            raise ValueError(f"'{config.output_dir}' already holds {found[-1].name}; {advice}.")
        return
    if config.resume_from_checkpoint == "latest" and not found:
        logger.warning("no complete checkpoint in '%s'; starting at step 0", config.output_dir)
        return
    path = found[-1] if config.resume_from_checkpoint == "latest" else Path(config.resume_from_checkpoint)
    if found and found[-1].resolve() != path.resolve():
        raise ValueError(f"'{config.output_dir}' holds {found[-1].name}, not only '{path}'; use another --output-dir.")
    parts, header = checkpoint.load(path)
    changed = _check_resumable(run, path, header)
    for name, network in state.networks.items():
        network.load_state_dict(parts[name])
    state.ema.network.load_state_dict(parts["ema"])
    for name, optimizer in state.optimizers.items():
        checkpoint.restore_optimizer(optimizer, parts[f"{name}_optimizer"])
    if accelerator.scaler and header["scaler"]:
        accelerator.scaler.load_state_dict(header["scaler"])
    for name in SAVED:
        setattr(state, name, header[name])
    state.changes += [f"step {state.step}: {change}" for change in changed.values()]
    if "content_loss" in changed:
        state.best = None  # measured by another loss
    if accelerator.is_main_process:
        remove_stale_parts(config.output_dir)
        checkpoint.prune(config.output_dir, config.checkpoints_total_limit)
        truncate_metrics(config.output_dir, state.step, validated=not validation_due(config, state.step))
    accelerator.print(f"resuming from {path}")


def load_discriminator(path: Path, network: nn.Module) -> None:
    """Load a discriminator's weights from a checkpoint, or the latest one of a directory.

    Raise ValueError if there is none, or it is of another discriminator.
    """
    found = checkpoint.find(path) if path.is_dir() else [path]
    if not found:
        raise ValueError(f"--init-discriminator '{path}' holds no complete checkpoint.")
    weights = checkpoint.load(found[-1])[0].get("discriminator", {})
    if _shapes(weights) != _shapes(network.state_dict()):
        raise ValueError(f"'{found[-1]}' has no such discriminator; use its --discriminator and --hr-crop.")
    network.load_state_dict(weights)


def _shapes(tensors: checkpoint.Tensors) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _arguments(run: TrainContext) -> dict[str, Any]:
    """Return the values of all flags as JSON holds them."""
    return json.loads(json.dumps({name: getattr(run.config, name) for name in FLAGS}, default=str))


def _fingerprints(run: TrainContext) -> dict[str, str]:
    """Hash the training images and sum the frozen weights, wherever they are stored."""
    frozen = sum(float(p.double().sum()) for p in run.content.parameters())
    return {"train_data": run.crops.fingerprint(), "vgg_weights": f"{frozen:.6g}"}


def _environment(run: TrainContext) -> dict[str, Any]:
    """Return the software and hardware that affect rounding."""
    processes = run.accelerator.num_processes
    values = {"processes": processes, "effective_batch": effective_batch(run)}
    return values | {"threads": torch.get_num_threads(), "torch": torch.__version__}


def _check_resumable(run: TrainContext, path: Path, header: dict[str, Any]) -> dict[str, str]:
    """Raise ValueError for arguments, images or VGG weights that change the result; report other differences.

    Return the changes that --allow-changes permits, by field.
    """
    before, now = header["arguments"], _arguments(run)
    changed = [name for name in FLAGS if before.get(name) != now[name]]
    # With a cosine schedule every step's learning rate depends on the last step.
    cosine = run.config.lr_scheduler == "cosine"
    refused = [n for n in changed if not FLAGS[n].metadata["runtime"] or (n == "max_train_steps" and cosine)]
    allowed = [name for name in refused if run.config.allow_changes and name in CHANGEABLE]
    refused = [name for name in refused if name not in allowed]
    if header["environment"]["effective_batch"] == effective_batch(run):  # divided otherwise among processes and passes
        refused = [name for name in refused if name not in ("batch_size", "gradient_accumulation_steps")]
    reasons = [f"{flag_name(name)} differs (checkpoint {before.get(name)}, now {now[name]})" for name in refused]
    new = _fingerprints(run)
    if "content_loss" in allowed:
        del new["vgg_weights"]
    reasons += [f"{flag_name(name)} has other content" for name in new if header["fingerprints"].get(name) != new[name]]
    if reasons:
        raise ValueError(f"Cannot resume from '{path}': {'; '.join(reasons)}.")
    if header["step"] > run.config.max_train_steps:
        raise ValueError(f"'{path}' is beyond --max-train-steps {run.config.max_train_steps}.")
    accepted = [
        flag_name(name) for name in changed if name not in ("resume_from_checkpoint", "allow_changes", *allowed)
    ]
    if accepted:
        run.accelerator.print(f"changed since '{path}', without effect on the weights so far: {', '.join(accepted)}")
    for name, value in _environment(run).items():
        if header["environment"][name] != value:
            text = "'%s' was saved with %s=%s, now %s: the result will not be bit-identical"
            logger.warning(text, path, name, header["environment"][name], value)
    for name in allowed:
        logger.warning("%s was %s until step %d, now %s", flag_name(name), before.get(name), header["step"], now[name])
    return {name: f"{flag_name(name)} {before.get(name)} -> {now[name]}" for name in allowed}
