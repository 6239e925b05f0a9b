"""Counter-based per-sample random numbers: reproducible across workers, ranks, batch sizes and resumes."""

import numpy as np

# Independent streams of one sample.
CROP = 0
DEGRADATION = 1


def sample_rng(seed: int, index: int, stream: int) -> np.random.Generator:
    """Return the random generator of a sample: Philox (Salmon et al. 2011), keyed by seed and index.

    Args:
        seed: of the run, 0 to 2**64 - 1.
        index: of the sample, 0 to 2**64 - 1.
        stream: a constant of this module.
    """
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
