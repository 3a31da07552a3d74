"""Scaling fits against laws that made the data; matched budgets."""

import numpy as np
import pytest
from scipy import optimize

from ablations.contrasts import budgets
from ablations.stats import scaling
from ablations.study_files.results import Curve

START = 1e15


def runs(sizes=5, seeds=3):
    return np.repeat(START * 10 ** (0.5 * np.arange(sizes)), seeds)


def law(compute, floor, exponent):
    return floor + (compute / START) ** -exponent


@pytest.mark.parametrize(("floor", "exponent"), [(0.0, 0.12), (0.6, 0.2), (1.5, 0.4)])
def test_a_law_without_noise_is_found(floor, exponent):
    compute = runs()
    fit = scaling.fit(compute, law(compute, floor, exponent))
    assert float(fit.law.exponent) == pytest.approx(exponent, rel=0.02)
    assert float(fit.law.floor) == pytest.approx(floor, abs=0.02)
    for at in (*compute, compute.max() * 10):
        assert fit.forecast(at).value == pytest.approx(law(at, floor, exponent), abs=1e-3)


def test_it_is_the_least_squares_fit_of_a_general_optimiser():
    compute = runs()
    loss = law(compute, 0.6, 0.2) + 0.01 * np.random.default_rng(0).normal(size=len(compute))
    fit = scaling.fit(compute, loss)
    with_scipy = optimize.least_squares(
        lambda p: p[0] + p[1] * (compute / START) ** -p[2] - loss,
        [0.5, 1.0, 0.3],
        bounds=([0, 0, 0], [9, 9, 2]),
        xtol=1e-12,
    )
    for at in (compute[0], compute[-1], 10 * compute[-1]):
        wanted = with_scipy.x[0] + with_scipy.x[1] * (at / START) ** -with_scipy.x[2]
        assert fit.forecast(at).value == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize(
    ("floor", "sizes", "seeds", "noise"),
    [(0.6, 5, 3, 0.01), (0.6, 4, 3, 0.003), (0.0, 5, 3, 0.02), (0.6, 6, 1, 0.01)],
)
def test_the_band_covers_the_law(floor, sizes, seeds, noise, monkeypatch):
    monkeypatch.setattr(scaling, "RESAMPLES", 300)
    monkeypatch.setattr(scaling, "EXPONENTS", np.geomspace(0.005, 2.0, 500))
    compute, random, repetitions = runs(sizes, seeds), np.random.default_rng(1), 250
    places = [compute[0], compute[-1], 10 * compute[-1]]
    covered = np.zeros(3)
    for _ in range(repetitions):
        fit = scaling.fit(
            compute, law(compute, floor, 0.15) + noise * random.normal(size=len(compute))
        )
        for i, at in enumerate(places):
            there = fit.forecast(at)
            covered[i] += there.low <= law(at, floor, 0.15) <= there.high
    # Standard error 1.4 points.
    assert (covered / repetitions >= 0.89).all()
    assert (covered / repetitions <= 0.99).all()


def test_no_forecast_beyond_a_decade():
    compute = runs()
    fit = scaling.fit(compute, law(compute, 0.6, 0.2))
    fit.forecast(10 * compute.max())
    for at in (10.1 * compute.max(), compute.min() / 11):
        with pytest.raises(ValueError, match="one decade"):
            fit.forecast(at)


def test_what_holds_no_law_is_refused():
    with pytest.raises(ValueError, match="3 sizes"):
        scaling.fit(runs(2, 3), np.ones(6))
    with pytest.raises(ValueError, match="5 runs"):
        scaling.fit(runs(4, 1), np.array([4.0, 3, 2, 1]))
    with pytest.raises(ValueError, match="does not fall"):
        scaling.fit(runs(5, 1), np.array([1.0, 2, 3, 4, 5]))


def test_a_floor_is_never_negative():
    # Falling by the same step each time: a free floor would go far below 0.
    fit = scaling.fit(runs(5, 1), np.array([3.0, 2.9, 2.8, 2.7, 2.6]))
    assert fit.law.floor == 0
    assert (fit.resampled.floor >= 0).all()


def test_a_fit_is_repeatable():
    compute = runs()
    loss = law(compute, 0.6, 0.2) + 0.01 * np.random.default_rng(0).normal(size=len(compute))
    a, b = (scaling.fit(compute, loss).forecast(1e18) for _ in range(2))
    assert a == b


def curve(tokens, unique, values):
    tokens = np.array(tokens, float)
    return Curve(tokens, np.array(unique, float), 6e6 * tokens, {"wiki": np.array(values, float)})


def test_a_curve_is_read_between_evaluations_and_not_beyond():
    of = curve([1e6, 4e6, 16e6], [1e6, 4e6, 4e6], [3.0, 2.0, 1.0])
    assert budgets.read_at(of, "tokens", 4e6, ["wiki"]) == pytest.approx(2.0)
    assert budgets.read_at(of, "tokens", 2e6, ["wiki"]) == pytest.approx(2.5)  # half way in log
    assert budgets.read_at(of, "flops", 48e12, ["wiki"]) == pytest.approx(1.5)
    assert budgets.read_at(of, "tokens", 17e6, ["wiki"]) == "not reached"
    assert budgets.read_at(of, "tokens", 0.9e6, ["wiki"]) == "before the first evaluation"
    # The corpus repeats after 4M: what was made of it in the end counts.
    assert budgets.read_at(of, "unique_tokens", 4e6, ["wiki"]) == pytest.approx(1.0)


def test_arms_that_end_within_2_percent_meet_there_once():
    lengths = {"unfiltered": 16e6, "filtered": 16.2e6, "long": 20e6}
    arms = {arm: {1: curve([1e6, at], [1e6, at], [3.0, 1.0])} for arm, at in lengths.items()}
    assert budgets.places(arms, "tokens") == [2.5e6, 5e6, 10e6, 16e6, 20e6]


def test_an_arm_is_not_reached_where_one_of_its_seeds_is_not():
    long = curve([1, 2, 4, 8], [1, 2, 4, 8], [4, 3, 2, 1])
    short = curve([1, 2, 4], [1, 2, 4], [4, 3, 2])
    points = budgets.points({"a": {1: long, 2: long}, "b": {1: long, 2: short}}, "tokens", ["wiki"])
    status = {(p.arm, p.at): p.status for p in points}
    assert {at for _, at in status} == {1, 2, 4, 8}
    assert status["a", 8] == "measured"
    assert status["b", 8] == "not reached"
    assert status["b", 4] == "measured"


def test_places_before_every_first_evaluation_are_left_out():
    late = curve([6, 8], [6, 8], [2, 1])
    points = budgets.points({"a": {1: late}, "b": {1: late}}, "tokens", ["wiki"])
    assert {p.at for p in points} == {8}
