"""Times are predicted from those of earlier runs."""

import random

import pytest

from srgan_hub.demo.eta import EtaEstimator, format_duration


def test_nothing_is_known_before_the_first_run():
    assert EtaEstimator().estimate(1000) is None


def test_after_one_run_time_goes_with_size_but_for_a_start():
    speed = EtaEstimator()
    speed.update(34_000, 1.0)
    assert speed.estimate(34_000) == pytest.approx(1)
    assert speed.estimate(68_000) == pytest.approx(1.9)


def test_after_two_sizes_the_start_is_known_too():
    speed = EtaEstimator()
    for pixels in (10_000, 100_000) * 10:
        speed.update(pixels, 0.3 + pixels * 3e-5)
    assert speed.estimate(750_000) == pytest.approx(0.3 + 750_000 * 3e-5, rel=0.05)
    assert speed.estimate(2_000) == pytest.approx(0.36, rel=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_noisy_times_are_predicted_within_a_factor_of_one_and_a_half(seed):
    draw, speed = random.Random(seed), EtaEstimator()
    for run in range(40):
        pixels = draw.choice([8_000, 34_000, 120_000, 480_000, 1_000_000])
        seconds = (0.08 + pixels * 2.5e-5) * draw.uniform(0.9, 1.15)
        if run:
            assert 1 / 1.5 < speed.estimate(pixels) / seconds < 1.5, (run, pixels)
        speed.update(pixels, seconds)


def test_a_machine_that_slows_down_is_noticed():
    speed = EtaEstimator()
    for rate in [1e-5] * 32 + [3e-5] * 32:
        speed.update(100_000, 100_000 * rate)
    assert speed.estimate(100_000) == pytest.approx(3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "under a second"),
        (1.2, "about 1 second"),
        (7, "about 7 seconds"),
        (65, "about 65 seconds"),
        (100, "about 2 minutes"),
    ],
)
def test_times_in_words(seconds, text):
    assert format_duration(seconds) == text
