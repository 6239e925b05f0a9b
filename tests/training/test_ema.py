import torch
from torch import nn

from srgan_hub.training.ema import EMA


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_ema_equals_its_recurrence_for_weights_and_batch_norm_statistics():
    network = make_network()
    ema = EMA(network, 0.5)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(12):
        for tensor in network.state_dict().values():
            tensor += 1
        ema.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name].lerp_(value, 1 - decay)
            else:
                expected[name] = value
    averages = ema.network.state_dict()
    assert {"0.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"} <= averages.keys()
    for name, value in expected.items():
        assert torch.equal(averages[name], value), name


def test_ema_with_decay_0999_moves_slowly():
    network = make_network()
    ema = EMA(network, 0.999)
    before = ema.network[0].weight.clone()
    with torch.no_grad():
        network[0].weight += 1
    ema.update(network, 1_000_000)
    assert torch.allclose(ema.network[0].weight - before, torch.tensor(0.001), atol=1e-6)
    assert not ema.network.training and not any(p.requires_grad for p in ema.network.parameters())
