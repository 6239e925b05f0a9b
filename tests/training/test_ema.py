import torch
from torch import nn

from srgan_hub.training.ema import EMA


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_average_matches_its_closed_form_batch_norm_alike():
    live = network()
    ema = EMA(live, 0.5)
    expected = {name: value.clone() for name, value in live.state_dict().items()}
    for step in range(12):
        for tensor in live.state_dict().values():
            tensor += 1
        ema.update(live, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in live.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value
    averaged = ema.network.state_dict()
    assert {"0.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"} <= averaged.keys()
    for name, value in expected.items():
        assert torch.allclose(averaged[name], value, rtol=1e-6), name


def test_a_decay_of_0999_moves_slowly():
    live = network()
    ema = EMA(live, 0.999)
    before = ema.network[0].weight.clone()
    with torch.no_grad():
        live[0].weight += 1
    ema.update(live, 1_000_000)
    assert torch.allclose(ema.network[0].weight - before, torch.tensor(0.001), atol=1e-6)
    assert not ema.network.training and not any(p.requires_grad for p in ema.network.parameters())
