"""Processing-time estimates."""

import random

import pytest

from srgan_hub.demo.eta import EtaEstimator, format_duration


def test_unknown_before_the_first_job():
    assert EtaEstimator().estimate(1000) is None


def test_one_job_gives_a_rate_with_the_assumed_fixed_cost():
    eta = EtaEstimator()
    eta.update(34_000, 1.0)
    assert eta.estimate(34_000) == pytest.approx(1)
    assert eta.estimate(68_000) == pytest.approx(1.9)


def test_two_sizes_give_the_fixed_cost():
    eta = EtaEstimator()
    for pixels in (10_000, 100_000) * 10:
        eta.update(pixels, 0.3 + pixels * 3e-5)
    assert eta.estimate(750_000) == pytest.approx(0.3 + 750_000 * 3e-5, rel=0.05)
    assert eta.estimate(2_000) == pytest.approx(0.36, rel=0.1)


def test_noisy_times_are_estimated_within_a_factor_of_1_5():
    for seed in range(20):
        rng, eta = random.Random(seed), EtaEstimator()
        for job in range(40):
            pixels = rng.choice([8_000, 34_000, 120_000, 480_000, 1_000_000])
            seconds = (0.08 + pixels * 2.5e-5) * rng.uniform(0.9, 1.15)
            if job:
                assert 1 / 1.5 < eta.estimate(pixels) / seconds < 1.5, (seed, job, pixels)
            eta.update(pixels, seconds)


def test_slowdown_of_the_machine_is_followed():
    eta = EtaEstimator()
    for rate in [1e-5] * 32 + [3e-5] * 32:
        eta.update(100_000, 100_000 * rate)
    assert eta.estimate(100_000) == pytest.approx(3)


def test_format_duration():
    expected = {0.2: "less than 1 s", 1.2: "about 1 s", 7: "about 7 s", 65: "about 65 s", 100: "about 2 min"}
    assert {seconds: format_duration(seconds) for seconds in expected} == expected
