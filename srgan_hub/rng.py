"""Random numbers as a pure function of seed and sample index, alike for any workers, ranks, batches and resumes."""

import numpy as np

# Each purpose has its own numbers for a sample.
CROP = 0
DEGRADATION = 1


def sample_rng(seed: int, index: int, stream: int) -> np.random.Generator:
    """Return the random numbers of one sample: Philox (Salmon et al. 2011), a counter-based generator, cheap to start.

    Args:
        seed: Of the run, 0 to 2**64 - 1.
        index: Of the sample, 0 to 2**64 - 1.
        stream: A constant of this module.
    """
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
