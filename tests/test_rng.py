from srgan_hub.rng import CROP, DEGRADATION, sample_rng


def test_values_are_fixed_and_differ_by_seed_index_and_stream():
    def values(*key):
        return tuple(sample_rng(*key).integers(0, 2**32, 3).tolist())

    assert values(5, 3, CROP) == (3984554842, 3227980289, 2624634515)
    assert len({values(5, 3, CROP), values(5, 3, DEGRADATION), values(5, 4, CROP), values(6, 3, CROP)}) == 4
