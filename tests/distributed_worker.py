"""One rank of a training run with several processes, which records what it has and sees."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

import train_accelerate
from srgan_hub.training.dataset import RandomCropDataset


def train(output: Path, rank: int, ranks: int, port: int, argv: list[str]) -> None:
    """Run the script as one rank; write rank-N.json and the weights in rank-N.safetensors to the output directory."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    samples, local, runs = [], [], []
    read, step, build = RandomCropDataset.__getitem__, train_accelerate.generator_step, train_accelerate.build

    def record_read(crops: RandomCropDataset, index: int) -> torch.Tensor:
        samples.append(index)
        return read(crops, index)

    def record_step(*args):
        values = step(*args)
        local.append(values["g_l1"].item())
        return values

    def record_build(*args):
        runs.append(build(*args))
        return runs[-1]

    RandomCropDataset.__getitem__ = record_read
    train_accelerate.generator_step, train_accelerate.build = record_step, record_build
    assert train_accelerate.main([*argv, "--output-dir", str(output)]) == 0
    ((run, state),) = runs
    networks = {name: run.accelerator.unwrap_model(network) for name, network in state.networks.items()}
    tensors = {
        f"{name}.{key}": value.contiguous().clone()
        for name, network in (networks | {"ema": state.ema.network}).items()
        for key, value in network.state_dict().items()
    }
    save_file(tensors, output / f"rank-{rank}.safetensors")
    record = {"samples": samples, "g_l1": local, "scores": state.scores, "wrapped": type(state.generator).__name__}
    record["broadcast_buffers"] = getattr(state.discriminator, "broadcast_buffers", None)
    (output / f"rank-{rank}.json").write_text(json.dumps(record))
