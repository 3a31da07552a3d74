"""What configs refuse, and that their defaults are GLaM's, number by number."""

import dataclasses

import hydra
import pytest
from omegaconf import OmegaConf

import model.training.train_config  # noqa: F401 registers its configs
from model import sizes
from model.glam.config import GLaMConfig
from model.training.optimizers.optim import learning_rate

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


def test_defaults_are_the_smallest_published_size_and_google_s_public_code():
    # Sizes are the paper's row 0.1B. Losses of z, which its text does not have, are off.
    assert dataclasses.asdict(GLaMConfig()) == {
        "vocabulary": 32_000,
        "layers": 12,
        "width": 768,
        "hidden": 3072,
        "heads": 12,
        "head_width": 64,
        "experts": 0,
        "moe_period": 2,
        "expert_activation": "relu",
        "router": "top2",
        "second_expert": "all",
        "capacity_factor": None,
        "group_rows": None,
        "balance_coefficient": 0.01,
        "router_z_coefficient": 0.0,
        "output_z_coefficient": 0.0,
        "bias_buckets": 32,
        "bias_distance": 128,
        "norm_epsilon": 1e-6,
    }


# layers, width, hidden, heads, head width, experts, vocabulary: the paper's table, and what its
# counts give for heads of 64B/64E and for vocabularies.
PAPER = {
    "glam_0b1": (12, 768, 3072, 12, 64, 0, 32_000),
    "glam_0b1_64e": (12, 768, 3072, 12, 64, 64, 32_000),
    "glam_1b7": (24, 2048, 8192, 16, 128, 0, 32_000),
    "glam_1b7_32e": (24, 2048, 8192, 16, 128, 32, 32_000),
    "glam_1b7_64e": (24, 2048, 8192, 16, 128, 64, 32_000),
    "glam_1b7_128e": (24, 2048, 8192, 16, 128, 128, 32_000),
    "glam_1b7_256e": (24, 2048, 8192, 16, 128, 256, 32_000),
    "glam_8b": (32, 4096, 16_384, 32, 128, 0, 32_000),
    "glam_8b_64e": (32, 4096, 16_384, 32, 128, 64, 32_000),
    "glam_137b": (64, 8192, 65_536, 128, 128, 0, 32_000),
    "glam_64b_64e": (64, 8192, 32_768, 128, 128, 64, 256_000),
}


def test_every_size_is_a_shape_alone():
    """The choices of architecture and of losses are those of the defaults, in every file."""
    shape = ("layers", "width", "hidden", "heads", "head_width", "experts", "vocabulary")
    for name, config in sizes.load(sizes.names()).items():
        found = dataclasses.asdict(config)
        given = tuple(found.pop(key) for key in shape)
        assert name not in PAPER or given == PAPER[name], name
        assert found.items() <= dataclasses.asdict(GLaMConfig()).items(), name
    assert PAPER.keys() <= set(sizes.names())


def composed(*overrides):
    with hydra.initialize("../../conf", version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


def test_glam_s_mixture_is_the_paper_s_table_1():
    mixture = composed("data/mixture=glam").data.mixture
    assert list(mixture.items()) == [
        ("web", 0.42),
        ("wikipedia", 0.06),
        ("conversations", 0.28),
        ("forums", 0.02),
        ("books", 0.20),
        ("news", 0.02),
    ]
    assert sum(mixture.values()) == pytest.approx(1)


def test_sources_come_in_natural_proportions_unless_a_mixture_is_named():
    assert composed().data.mixture == {}


def test_the_optimizer_is_the_paper_s_unless_another_is_named():
    config = OmegaConf.to_object(composed().optimizer)
    assert config.name == "adafactor"
    # 0.01 for 10,000 steps, then the inverse square root: at 40,000 half of it.
    rates = {t: learning_rate(config, t, 600_000) for t in (1, 100, 10_000, 40_000, 250_000)}
    assert rates == pytest.approx({1: 0.01, 100: 0.01, 10_000: 0.01, 40_000: 0.005, 250_000: 0.002})


def test_a_multiplier_scales_the_paper_s_schedule_at_every_step():
    # A constant rate would pass the test above, for Adafactor's own bound is 1 / sqrt(step).
    config = OmegaConf.to_object(composed("optimizer.multiplier=0.5").optimizer)
    assert config.schedule == "inverse_sqrt"
    rates = {t: learning_rate(config, t, 600_000) for t in (100, 10_000, 40_000)}
    assert rates == pytest.approx({100: 0.005, 10_000: 0.005, 40_000: 0.0025})


def test_adamw_warms_up_and_falls_by_a_cosine_to_a_tenth():
    config = OmegaConf.to_object(composed("optimizer=adamw").optimizer)
    assert (config.name, config.betas, config.epsilon) == ("adamw", [0.9, 0.95], 1e-8)
    assert config.weight_decay == 0.1
    # 100 steps of 1,100 up to 0.001, then half a cosine: in the middle 0.55 of it.
    rates = {t: learning_rate(config, t, 1100) for t in (1, 50, 100, 600, 1100)}
    assert rates == pytest.approx({1: 1e-5, 50: 5e-4, 100: 1e-3, 600: 5.5e-4, 1100: 1e-4})
