"""Run by test_train.py under torchrun, on two ranks: trains, and writes down what each rank has and saw."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import train_accelerate
from srgan_hub.training.dataset import RandomCropDataset


def main(output: str, *arguments: str) -> None:
    samples, local = [], []
    read, step, begin = RandomCropDataset.__getitem__, train_accelerate.generator_step, train_accelerate.build
    runs = []

    def noted_read(crops: RandomCropDataset, index: int) -> torch.Tensor:
        samples.append(index)
        return read(crops, index)

    def noted_step(*args):
        values = step(*args)
        local.append(values["g_l1"].item())
        return values

    def noted_build(*args):
        runs.append(begin(*args))
        return runs[-1]

    RandomCropDataset.__getitem__ = noted_read
    train_accelerate.generator_step, train_accelerate.build = noted_step, noted_build
    assert train_accelerate.main([*arguments, "--output-dir", output]) == 0
    ((run, state),) = runs
    rank = run.accelerator.process_index
    tensors = {
        f"{name}.{key}": value.contiguous().clone()
        for name, network in (
            ("generator", run.accelerator.unwrap_model(state.generator)),
            ("discriminator", run.accelerator.unwrap_model(state.discriminator)),
            ("ema", state.ema.network),
        )
        for key, value in network.state_dict().items()
    }
    save_file(tensors, Path(output) / f"rank-{rank}.safetensors")
    facts = {"samples": samples, "g_l1": local, "scores": state.scores, "wrapped": type(state.generator).__name__}
    facts["broadcast_buffers"] = getattr(state.discriminator, "broadcast_buffers", None)
    (Path(output) / f"rank-{rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
