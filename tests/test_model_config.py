"""What a model's config refuses, and what it says."""

import dataclasses

import pytest

from model.config import ExpertActivation, GLaMConfig

GOOD = GLaMConfig()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 11}, "11 \\* 64 = 704 must be the width, 768"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"layers": 0}, "layers"),
        ({"width": 100, "heads": 10, "head_width": 10}, "width=100 must be a multiple of 8"),
        ({"hidden": 3070}, "hidden=3070 must be a multiple of 8"),
        ({"capacity_factor": 0.99}, "capacity_factor=0.99 leaves fewer slots than tokens"),
        ({"group_rows": 0}, "group_rows"),
        ({"experts": -1}, "experts"),
        ({"moe_period": 0}, "moe_period"),
        ({"balance_coefficient": -0.1}, "balance_coefficient"),
        ({"bias_buckets": 31}, "bias_buckets"),
        ({"bias_distance": 16}, "bias_distance=16 must exceed half the buckets, 16"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
    ],
)
def test_impossible_combinations_are_refused_with_what_to_change(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(GOOD, **change)


def test_moe_layers_are_the_first_of_each_pair():
    assert dataclasses.replace(GOOD, layers=5, experts=8).moe_layers == [0, 2, 4]
    assert dataclasses.replace(GOOD, layers=3, experts=8, moe_period=1).moe_layers == [0, 1, 2]
    assert dataclasses.replace(GOOD, experts=1).moe_layers == []


def test_attention_may_be_twice_as_wide_as_the_model():
    assert dataclasses.replace(GOOD, heads=24).heads == 24


def test_enumerations_read_as_their_names():
    assert ExpertActivation("gelu") == "gelu"
