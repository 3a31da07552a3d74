"""The regression over a swarm of mixtures, against scikit-learn; its coverage with known truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import PolynomialFeatures

from ablations.stats import inference, mixtures

NATURAL = np.array([0.5, 0.3, 0.15, 0.05])
MOST = np.array([1.0, 1.0, 0.5, 0.2])
NOISE = 0.005  # bits per byte between seeds, as conf/ablation.yaml expects


def swarm(count, seed=0):
    drawn = mixtures.draw(NATURAL, MOST, count - 1, seed)
    return np.concatenate([NATURAL[None], drawn])


@pytest.fixture(scope="module")
def runs():
    weights = np.repeat(swarm(20), 2, axis=0)
    return weights, np.random.default_rng(1).normal(size=40)


def test_the_surface_is_scikit_learns(runs):
    weights, values = runs
    found = mixtures.fit(weights, values)
    terms = PolynomialFeatures(2, interaction_only=True, include_bias=False)
    theirs = LinearRegression(fit_intercept=False)

    def predicted(rows, by):
        theirs.fit(terms.fit_transform(weights[by]), values[by])
        return theirs.predict(terms.transform(weights[rows]))

    everyone = np.arange(40)
    rest = values - predicted(everyone, everyone)
    np.testing.assert_allclose(found.coefficients, theirs.coef_, rtol=1e-6)
    assert found.df == 30
    assert found.sd == pytest.approx(np.sqrt((rest**2).sum() / 30))
    left_out = [predicted([i], np.delete(everyone, i))[0] for i in everyone]
    np.testing.assert_allclose(found.left_out, left_out, rtol=1e-6)
    design = terms.transform(weights)
    covariance = found.sd**2 * np.linalg.inv(design.T @ design)
    errors = found.errors(np.eye(10))
    np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-6)
    _, half = mixtures.coefficients(found)
    np.testing.assert_allclose(half, stats.t.ppf(0.975, 30) * errors, rtol=1e-6)
    pure = ((values[::2] - values[1::2]) ** 2 / 2).sum()  # of pairs of one mixture
    ratio = (((rest**2).sum() - pure) / 10) / (pure / 20)
    assert found.lack_of_fit == pytest.approx(stats.f.sf(ratio, 10, 20))


def test_effects_are_slopes_towards_each_component(runs):
    found = mixtures.fit(*runs)
    effect, _ = mixtures.effects(found, NATURAL, step=0.1)
    small = 1e-6
    for i, ours in enumerate(effect):
        moved = NATURAL + small * ((np.arange(4) == i) - NATURAL) / (1 - NATURAL[i])
        at = mixtures.design(np.stack([NATURAL, moved])) @ found.coefficients
        assert ours == pytest.approx(0.1 * (at[1] - at[0]) / small, rel=1e-4)


@given(
    st.lists(st.tuples(st.floats(0.001, 1), st.floats(1.01, 9)), min_size=2, max_size=7),
    st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_mixtures_sum_to_one_within_their_bounds_and_begin_alike(parts, seed):
    natural = np.array([weight for weight, _ in parts]) / sum(weight for weight, _ in parts)
    most = np.minimum(1, natural * np.array([times for _, times in parts]))
    drawn = mixtures.draw(natural, most, 8, seed)
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    assert (drawn >= 0).all()
    assert (drawn <= most).all()
    assert mixtures.draw(natural, most, 3, seed).tolist() == drawn[:3].tolist()
    inside = natural + 1e-3 * (drawn - natural)
    np.testing.assert_allclose([mixtures.within(w, natural, most) for w in inside], inside)


def test_what_can_not_be_fitted_is_explained():
    with pytest.raises(ValueError, match="12 runs are too few for the 10 coefficients of 4"):
        mixtures.fit(swarm(12), np.zeros(12))
    same = np.repeat(NATURAL[None], 20, axis=0)
    with pytest.raises(ValueError, match="do not identify its components"):
        mixtures.fit(same, np.zeros(20))


def data_mixing_law(weights):
    """Two domains' losses, each the exponential of a linear form (arXiv 2403.16952)."""
    slopes = np.array([[-0.9, 0.4, 0.2, -0.1], [0.3, -0.8, 0.5, 0.1]])
    return 1.5 + 0.05 * np.exp(weights @ slopes.T).mean(axis=1)


@pytest.mark.parametrize(
    "truth", [lambda w: np.full(len(w), 1.6), data_mixing_law], ids=["none", "data mixing law"]
)
def test_intervals_hold_for_the_mixture_that_was_picked(monkeypatch, truth):
    """Of 100 swarms of 32 runs each."""
    monkeypatch.setattr(mixtures, "DRAWS", 400)
    weights, others = swarm(32), mixtures.draw(NATURAL, MOST, 300, 7)
    candidates = np.concatenate([weights, others])
    leverage = mixtures.leverage(mixtures.fit(weights, truth(weights)), candidates)
    inside = candidates[leverage <= leverage[:32].max()]
    best = inside[truth(inside).argmin()]
    held = plain = open_ = claims = 0
    for seed in range(100):
        noise = np.random.default_rng([5, seed]).normal(0, NOISE, 32)
        surface = mixtures.fit(weights, truth(weights) + noise)
        found = mixtures.propose(surface, candidates, NATURAL)
        gained = (truth(found.weights[None]) - truth(NATURAL[None]))[0]
        held += found.change_low <= gained <= found.change_high
        way = mixtures.design(found.weights[None]) - mixtures.design(NATURAL[None])
        t = inference.quantile(0.05, surface.df) * surface.errors(way)[0]
        plain += abs(found.change - gained) <= t
        open_ += ((found.low <= best) & (best <= found.high)).all()
        claims += found.p < 0.05 and gained >= 0
    assert held >= 93
    assert plain < held
    assert open_ >= 93
    assert claims <= 7
