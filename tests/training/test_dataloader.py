import argparse

from srgan_hub.training.dataloader import StepBatchSampler


def test_positions_tile_the_samples_and_follow_from_the_step():
    args = argparse.Namespace(batch_size=2, gradient_accumulation_steps=3, max_train_steps=4)
    both = [list(StepBatchSampler(args, 0, rank, 2)) for rank in (0, 1)]
    assert sorted(i for batch in both[0] + both[1] for i in batch) == list(range(4 * 3 * 2 * 2))
    assert list(StepBatchSampler(args, 2, 1, 2)) == both[1][2 * 3 :]
