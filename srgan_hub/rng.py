"""Counter-based per-sample random numbers: reproducible across workers, ranks, batch sizes and resumes."""

import numpy as np

CROP, DEGRADATION = 0, 1  # independent streams of one sample


def sample_rng(seed: int, index: int, stream: int) -> np.random.Generator:
    """Return the generator of a sample: Philox (Salmon et al. 2011), keyed by seed and index, each 0 to 2**64 - 1."""
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
