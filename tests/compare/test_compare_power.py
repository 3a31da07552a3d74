"""Planned power against statsmodels' own solver and against simulated studies; verdicts."""

import dataclasses
import re

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from ablations.contrasts.verdict import judge, number
from ablations.stats.inference import estimate, over_seeds
from ablations.stats.power import (
    assurance,
    detectable,
    minimum_detectable_effect,
    seeds_needed,
)
from ablations.study_files.results import Primary
from ablations.tasks.scores import against_chance


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_without_item_error_it_is_statsmodels_paired_t(seeds):
    wanted = TTestPower().solve_power(None, seeds, 0.05, 0.8)
    assert minimum_detectable_effect(0.3, seeds) == pytest.approx(0.3 * wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "item_error", "power"),
    [(3, 1.0, 0.0, 0.8), (5, 1.0, 0.3, 0.8), (5, 0.5, 0.5, 0.8), (10, 1.0, 0.2, 0.9)],
)
def test_power_is_as_planned(seeds, seed_sd, item_error, power):
    effect = minimum_detectable_effect(seed_sd, seeds, item_error, power=power)
    random = np.random.default_rng(seeds)
    clusters, repetitions = 300, 1500
    found = 0
    for _ in range(repetitions):
        item = item_error * random.normal(size=clusters) / np.sqrt(clusters)
        seed = seed_sd * random.normal(size=seeds)
        moves = np.tile(item - item.mean(), (seeds, 1)) * np.sqrt(clusters / (clusters - 1))
        of = estimate(effect + item.sum() + seed, [moves])
        found += of.p < 0.05 and of.value > 0
    assert found / repetitions == pytest.approx(power, abs=0.05)


@pytest.mark.parametrize(
    ("value", "error", "df"), [(-1.2, 0.5, 3.5), (0.0, 0.4, 2), (0.8, 1e-9, 4)]
)
def test_assurance_is_the_share_of_simulated_studies(value, error, df):
    seeds, seed_sd, repetitions = 4, 0.6, 20_000
    random = np.random.default_rng(0)
    truth = value + error * random.standard_t(df, size=(repetitions, 1))
    runs = truth + seed_sd * random.normal(size=(repetitions, seeds))
    test = stats.ttest_1samp(runs, 0.0, axis=1)
    wanted = [np.mean((test.pvalue < 0.05) & (sign * test.statistic > 0)) for sign in (1, -1)]
    assert assurance(value, error, df, seed_sd, seeds) == pytest.approx(wanted, abs=0.012)


def test_a_sure_difference_of_the_detectable_size_is_found_with_the_planned_power():
    effect = minimum_detectable_effect(0.5, 5, 0.2, power=0.8)
    found, wrong = assurance(effect, 0.0, 4, 0.5, 5, 0.2)
    assert found == pytest.approx(0.8)
    assert wrong < 0.001
    assert assurance(-100 * effect, 0.0, 4, 0.5, 5, 0.2) == pytest.approx((0, 1))


def test_a_known_error_has_the_normal_closed_form():
    wanted = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert detectable(1.0, np.inf, 0.05, 0.8) == pytest.approx(wanted)
    assert detectable(1.0, 1e5, 0.05, 0.8) == pytest.approx(wanted, rel=1e-3)
    assert detectable(0.0, 3, 0.05, 0.8) == 0


def test_needed_seeds_are_the_fewest():
    for difference in (0.3, 0.5, 1.0, 3.0):
        seeds = seeds_needed(difference, 1.0, 0.05)
        assert minimum_detectable_effect(1.0, seeds, 0.05) <= difference
        assert seeds == 2 or minimum_detectable_effect(1.0, seeds - 1, 0.05) > difference
    wanted = TTestPower().solve_power(0.5, None, 0.05, 0.8)
    assert seeds_needed(0.5, 1.0) == int(np.ceil(wanted))


def test_no_number_of_seeds_mends_a_small_held_out_set():
    assert seeds_needed(0.2, 0.1, item_error=0.1) is None


def test_plans_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least two"):
        minimum_detectable_effect(1.0, 1)
    with pytest.raises(ValueError, match="not negative"):
        minimum_detectable_effect(-1.0, 3)
    with pytest.raises(ValueError, match="positive"):
        seeds_needed(0.0, 1.0)


def primary(endpoint="heldout/curated", smallest=0.1):
    return Primary(endpoint, "unfiltered", "filtered", smallest)


def around(value, sd, seeds=5):
    """Seed differences of exactly this mean and standard deviation."""
    spread = np.linspace(-1, 1, seeds)
    return over_seeds(value + sd * spread / spread.std(ddof=1))


@pytest.mark.parametrize(
    ("value", "sd", "outcome", "words"),
    [
        (-0.5, 0.1, "better", "less"),
        (+0.5, 0.1, "worse", "more"),
        (-0.12, 0.05, "better", "may be smaller than"),
        (-0.05, 0.01, "differs slightly", "better"),
        (+0.05, 0.01, "differs slightly", "worse"),
        (0.01, 0.05, "no difference", "below the smallest difference of interest"),
        (0.05, 0.055, "no difference", "would have been found with probability 80%"),
        (0.01, 0.5, "underpowered", "seeds would do"),
    ],
)
def test_every_outcome_in_words(value, sd, outcome, words):
    verdict = judge(around(value, sd), 1.0, primary())
    assert verdict.outcome == outcome
    assert words in verdict.sentence
    assert verdict.sentence.lower().startswith(outcome)
    assert verdict.detectable == pytest.approx(minimum_detectable_effect(sd, 5))


def test_what_an_underpowered_study_needs_is_seeds_documents_or_both():
    def needs(sd, item_error):
        of = dataclasses.replace(around(0.01, sd), item_error=item_error, low=-1.0, high=1.0, p=0.9)
        verdict = judge(of, 1.0, primary(smallest=0.1))
        assert verdict.outcome == "underpowered"
        return verdict.sentence.split(": ")[-1]

    # By the normal distribution: (1.960 + 0.842)² variances over the difference squared.
    assert re.fullmatch("about (19[6-9]|20[0-2]) seeds would do[.]", needs(0.5, 0.0))
    assert needs(0.01, 0.5) == "more held-out documents are needed, not seeds."
    both = "more held-out documents are needed, and at least (19[6-9]|20[0-2]) seeds[.]"
    assert re.fullmatch(both, needs(0.5, 0.5))
    assert needs(9.0, 0.5).startswith("more seeds than can be run, and more held-out documents")


@pytest.mark.parametrize(("value", "sd"), [(0.01, 0.05), (0.05, 0.01), (0.05, 0.055)])
def test_equivalence_is_not_claimed_in_doubt_and_a_large_difference_is(value, sd):
    verdict = judge(around(value, sd), 1.0, primary(), ["the arms are one", "they slept"])
    assert verdict.outcome == "underpowered"
    assert verdict.sentence.endswith("the arms are one; they slept.")
    assert judge(around(0.5, sd), 1.0, primary(), ["the arms are one"]).outcome == "worse"


def test_more_points_are_better_and_more_bits_are_worse():
    up = around(3.0, 0.1)
    assert judge(up, 50.0, primary("average/nlg/0")).outcome == "better"
    assert judge(up, 50.0, primary("average/gold/0")).outcome == "worse"
    assert judge(up, 50.0, primary("task/piqa/gold_bits_per_byte/5")).outcome == "worse"


def test_verdicts_on_equal_arms_seldom_claim_a_difference():
    random = np.random.default_rng(0)
    outcomes = [
        judge(over_seeds(random.normal(size=5)), 10.0, primary(smallest=2.0)).outcome
        for _ in range(300)
    ]
    claims = sum(o in ("better", "worse", "differs slightly") for o in outcomes)
    assert claims / 300 <= 0.07
    assert outcomes.count("no difference") / 300 > 0.7


def test_chance():
    assert against_chance(51.0, 48.0, 54.0, 50.0) == "at chance"
    assert against_chance(60.0, 56.0, 64.0, 50.0) == "above chance"
    assert against_chance(40.0, 36.0, 44.0, 50.0) == "below chance"
    assert against_chance(40.0, 36.0, 44.0, None) is None


def test_numbers_have_three_digits():
    assert [number(v) for v in (0.0, 0.00123456, 1.23456, 123456.0)] == [
        "0",
        "0.00123",
        "1.23",
        "123456",
    ]
    assert number(-0.5, signed=True) == "-0.500"
