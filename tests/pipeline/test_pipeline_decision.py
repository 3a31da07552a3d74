"""The keep decision against numpy's own Pareto draw, and the parameter solved for a yield."""

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rules import solve
from pipeline.rules.decision import Rule, critical_alpha, keep_draw
from pipeline.settings.decision_settings import Decision

scores = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50)


def ids(n: int) -> pa.Array:
    return pa.array([f"document-{i}" for i in range(n)])


def uniform(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n)


def test_draws_are_the_top_bits_of_the_keyed_hash_of_the_id():
    expected = [(xxhash.xxh3_64_intdigest(b"document-%d" % i, 7) >> 11) / 2**53 for i in range(100)]
    assert keep_draw(ids(100), 7).tolist() == expected


def test_draws_are_uniform():
    draws = np.sort(keep_draw(ids(20_000), 1))
    distance = np.abs(draws - (np.arange(20_000) + 0.5) / 20_000).max()
    assert distance < 1.63 / np.sqrt(20_000)  # Kolmogorov-Smirnov, 1 %


@pytest.mark.parametrize("alpha", [0.5, 3.0, 9.0])
@pytest.mark.parametrize("score", [0.0, 0.5, 0.9])
def test_pareto_keeps_as_often_as_numpy_pareto_exceeds_one_minus_score(alpha, score):
    n = 200_000
    reference = (np.random.default_rng(3).pareto(alpha, n) > 1 - score).mean()
    kept = Rule("pareto", alpha).keep(np.full(n, score, np.float32), uniform(n)).mean()
    law = (2 - score) ** -alpha
    error = 5 * np.sqrt(law * (1 - law) / n)
    assert abs(kept - law) < error
    assert abs(reference - law) < error


@given(scores, st.floats(0, 20), st.floats(0, 20))
@settings(deadline=None)
def test_arms_are_nested_in_alpha(values, a, b):
    score = np.array(values, np.float32)
    draw = keep_draw(ids(len(values)), 0)
    small, large = sorted([a, b])
    loose, strict = (Rule("pareto", alpha).keep(score, draw) for alpha in (small, large))
    assert not (strict & ~loose).any()


@given(scores, st.sampled_from(["pareto", "threshold", "random", "all"]), st.floats(0, 1))
@settings(deadline=None)
def test_a_document_is_kept_iff_its_draw_is_below_its_probability(values, name, parameter):
    score = np.array(values, np.float32)
    draw = keep_draw(ids(len(values)), 5)
    rule = Rule(name, parameter * 12 if name == "pareto" else parameter)
    probability = rule.probability(score)
    apart = np.abs(draw - probability) > 1e-6  # the probability is stored in float32
    assert ((draw < probability) == rule.keep(score, draw))[apart].all()


def test_limits_of_the_law():
    one, zero = np.array([1.0], np.float32), np.array([0.0], np.float32)
    assert critical_alpha(one, np.array([0.999]))[0] == np.inf
    assert critical_alpha(zero, np.array([0.0]))[0] == np.inf
    nearly = np.array([1 - 2.0**-53])
    assert Rule("pareto", 0.0).keep(zero, nearly)[0]
    assert not Rule("threshold", 0.5).keep(np.array([0.4999], np.float32), nearly)[0]
    assert Rule("threshold", 0.5).keep(np.array([0.5], np.float32), nearly)[0]


@pytest.mark.parametrize(
    ("name", "parameter", "said"),
    [
        ("pareto", -1, "alpha must be a finite number of 0 or more, not -1"),
        ("threshold", 5, "threshold must be from 0 to 1, not 5"),
        ("random", -0.1, "rate must be from 0 to 1, not -0.1"),
        ("best", 0.5, "best"),
    ],
)
def test_impossible_rules_are_refused(name, parameter, said):
    with pytest.raises(ValueError, match=said):
        Rule(name, parameter)


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(1, 1000)), min_size=1, max_size=300),
    st.floats(0.01, 1),
    st.sampled_from(["pareto", "threshold"]),
)
@settings(deadline=None)
def test_the_solved_parameter_yields_what_the_sketch_says_and_no_edge_comes_nearer(
    documents, fraction, name
):
    score = np.array([s for s, _ in documents], np.float32)
    weight = np.array([w for _, w in documents])
    draw = keep_draw(ids(len(score)), 2)
    total = solve.sketch(name, score, draw, weight)
    rule = solve.solve(name, total, fraction) if name == "threshold" else _solve(total, fraction)
    if rule is None:
        return
    goal = fraction * weight.sum()
    kept = weight[rule.keep(score, draw)].sum()
    for edge in np.linspace(0, 1, 257) if name == "threshold" else np.arange(0, 64, 0.25):
        other = weight[Rule(name, float(edge)).keep(score, draw)].sum()
        assert abs(kept - goal) <= abs(other - goal) + 1e-9


def _solve(total, fraction):
    try:
        return solve.solve("pareto", total, fraction)
    except ValueError:
        return None


tied = st.lists(
    st.tuples(st.sampled_from([0.0, -0.0, 1e-30, 0.3, 0.5, 0.50001, 1.0]), st.integers(0, 9)),
    min_size=1,
    max_size=200,
).filter(lambda documents: any(weight for _, weight in documents))


def cut(score, draw, weight, fraction, parts=1):
    """A top fraction, sketched in some parts of the documents."""
    places = [range(i, len(score), parts) for i in range(parts)]
    total = sum(solve.bands(score[at], weight[at]) for at in places)
    band = solve.find_band(total, fraction)
    return solve.cut(
        band,
        solve.merge_places(solve.places(band, score[at], draw[at], weight[at]) for at in places),
    )


@given(tied, st.floats(0.001, 1), st.floats(0.001, 1))
@settings(deadline=None)
def test_a_top_fraction_is_the_best_and_of_equals_those_of_the_lowest_draws(documents, low, high):
    score = np.array([s for s, _ in documents], np.float32)
    weight = np.array([w for _, w in documents])
    draw = keep_draw(ids(len(score)), 3)
    order = np.lexsort([draw, -score])
    sums = np.concatenate([[0], weight[order].cumsum()])
    found = []
    for fraction in sorted([low, high]):
        rule = cut(score, draw, weight, fraction)
        assert rule == cut(score, draw, weight, fraction, parts=3)
        kept = rule.keep(score, draw)
        assert sorted(order[: kept.sum()]) == np.flatnonzero(kept).tolist()
        goal = fraction * weight.sum()
        assert abs(weight[kept].sum() - goal) == np.abs(sums - goal).min()
        probability = rule.probability(score)
        assert ((probability == 0) <= ~kept).all()
        assert ((probability == 1) <= kept).all()
        found.append(kept)
    assert (found[0] <= found[1]).all()


def test_a_top_fraction_of_very_many_equals_is_met(monkeypatch):
    monkeypatch.setattr(solve, "MOST_PLACES", 256)
    score, draw, weight = np.full(20_000, 0.7, np.float32), uniform(20_000), np.ones(20_000, int)
    for fraction in (0.001, 0.1, 0.5, 0.999, 1):
        rule = cut(score, draw, weight, fraction)
        assert rule == cut(score, draw, weight, fraction, parts=7)
        assert rule.keep(score, draw).mean() == pytest.approx(fraction, abs=1 / 256)


def test_sketches_add_up():
    score, draw, weight = uniform(500).astype(np.float32), uniform(500, 1), np.arange(500)
    whole = solve.sketch("pareto", score, draw, weight)
    parts = sum(
        solve.sketch("pareto", score[half], draw[half], weight[half])
        for half in (slice(0, 123), slice(123, None))
    )
    assert (whole == parts).all()


def test_a_target_that_no_alpha_reaches_is_refused():
    score = np.full(100, 0.999999, np.float32)
    total = solve.sketch("pareto", score, uniform(100), np.ones(100, np.int64))
    with pytest.raises(ValueError, match="threshold"):
        solve.solve("pareto", total, 0.1)
    with pytest.raises(ValueError, match="no document"):
        solve.solve("pareto", np.zeros_like(total), 0.1)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"rule": "pareto", "threshold": 0.5}, "--threshold has no meaning"),
        ({"rule": "threshold"}, "needs --threshold"),
        ({"rule": "top_fraction"}, "needs --target-fraction"),
        ({"rule": "pareto", "alpha": 3.0, "target_fraction": 0.1}, "not both"),
        ({"rule": "all", "target_fraction": 0.1}, "no meaning"),
        ({"rule": "pareto", "target_fraction": 1.5}, "must be in"),
        ({"rule": "pareto", "target_fraction": 0.5, "target_unit": "pages"}, "target unit"),
        ({"rule": "best"}, "unknown --rule"),
    ],
)
def test_decisions_that_contradict_themselves_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        Decision(**settings_)


def test_the_default_decision_is_gpt3s():
    assert Decision().known_rule() == Rule("pareto", 9.0)
    assert Decision(target_fraction=0.1).known_rule() is None
    assert Decision("random", target_fraction=0.1).known_rule() == Rule("random", 0.1)
