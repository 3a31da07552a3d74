"""Weighted metrics against scikit-learn and plain loops; intervals by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from quality_classifier.evaluation import metrics

documents = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32)),
        st.booleans(),
        st.floats(0.1, 5),
    ),
    min_size=2,
    max_size=40,
).filter(lambda rows: len({positive for _, positive, _ in rows}) == 2)


def columns(rows):
    score, positive, weight = zip(*rows, strict=True)
    return np.array(score, np.float32), np.array(positive), np.array(weight)


def point(score, positive, weight):
    """All metrics of one weighting, by the function under test."""
    order = np.argsort(-score, kind="stable")
    out = metrics.weighted_metrics(
        score[order].astype(np.float64), positive[order], weight[None, order]
    )
    return {name: values[0] for name, values in out.items()}


@given(documents)
@settings(deadline=None)
def test_ranking_metrics_are_scikit_learns(rows):
    score, positive, weight = columns(rows)
    ours = point(score, positive, weight)
    auc = reference.roc_auc_score(positive, score, sample_weight=weight)
    assert ours["roc_auc"] == pytest.approx(auc, abs=1e-9)
    precision = reference.average_precision_score(positive, score, sample_weight=weight)
    assert ours["average_precision"] == pytest.approx(precision, abs=1e-9)
    brier = reference.brier_score_loss(positive, score, sample_weight=weight)
    assert ours["brier"] == pytest.approx(brier, abs=1e-6)


@given(documents)
@settings(deadline=None)
def test_auc_is_the_weighted_share_of_pairs_in_the_right_order(rows):
    won = total = 0.0
    for score, positive, weight in rows:
        for other, is_positive, other_weight in rows:
            if positive and not is_positive:
                total += weight * other_weight
                won += weight * other_weight * ((score > other) + 0.5 * (score == other))
    assert point(*columns(rows))["roc_auc"] == pytest.approx(won / total, abs=1e-9)


@given(documents)
@settings(deadline=None)
def test_log_loss_and_calibration_error_by_plain_loops(rows):
    loss = total = 0.0
    bins = {}
    for score, positive, weight in rows:
        held = min(max(score, 2.0**-24), 1 - 2.0**-24)
        loss -= weight * np.log(held if positive else 1 - held)
        total += weight
        low = 9 if score == 1 else int(score * 10)
        gap, _ = bins.get(low, (0.0, 0.0))
        bins[low] = (gap + weight * (score - positive), 0.0)
    ours = point(*columns(rows))
    assert ours["log_loss"] == pytest.approx(loss / total, abs=1e-6)
    error = sum(abs(gap) for gap, _ in bins.values()) / total
    assert ours["ece"] == pytest.approx(error, abs=1e-6)


@given(documents)
@settings(deadline=None)
def test_swapping_the_classes_mirrors_every_metric(rows):
    score, positive, weight = columns(rows)
    score = np.round(score * 2**20) / np.float32(2**20)  # so that 1 - score is exact
    mirrored = 1 - score
    one, other = point(score, positive, weight), point(mirrored, ~positive, weight)
    for name in ("roc_auc", "brier", "log_loss"):
        assert one[name] == pytest.approx(other[name], abs=1e-9)


def test_calibration_error_by_hand():
    # Two bins: 0.2 and 0.25 with one positive of two, 0.9 with two of two.
    score = np.array([0.2, 0.25, 0.9, 0.9], np.float32)
    positive = np.array([True, False, True, True])
    ece = point(score, positive, np.ones(4))["ece"]
    assert ece == pytest.approx(0.5 * (0.5 - 0.225) + 0.5 * (1 - 0.9), abs=1e-7)


@given(documents)
@settings(deadline=None)
def test_reliability_bins_hold_every_document_once_and_give_the_calibration_error(rows):
    score, positive, weight = columns(rows)
    bins = metrics.reliability(score, positive, weight)
    assert sum(row["documents"] for row in bins) == len(rows)
    assert sum(row["weight"] for row in bins) == pytest.approx(1)
    error = sum(row["weight"] * abs(row["score"] - row["positive"]) for row in bins)
    assert point(score, positive, weight)["ece"] == pytest.approx(error, abs=1e-9)
    for row in bins:
        assert row["low"] - 1e-9 <= row["score"] <= row["high"] + 1e-9
        assert 0 <= row["positive_low"] <= row["positive"] + 1e-9
        assert row["positive"] - 1e-9 <= row["positive_high"] <= 1


@given(documents)
@settings(deadline=None)
def test_the_curves_enclose_the_reported_areas(rows):
    score, positive, weight = columns(rows)
    curve = metrics.curves(score, positive, weight)
    fpr, recall = (np.append(0, curve[name]) for name in ("false_positive_rate", "recall"))
    area = np.trapezoid(recall, fpr)
    assert point(score, positive, weight)["roc_auc"] == pytest.approx(area, abs=1e-9)
    steps = np.diff(recall) @ curve["precision"]
    assert point(score, positive, weight)["average_precision"] == pytest.approx(steps, abs=1e-9)


def sample(rng, n):
    """Scores of n documents whose true ROC-AUC is that of normals one unit apart."""
    positive = np.arange(n) % 2 == 0
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + positive)))
    return score.astype(np.float32), positive


def test_bootstrap_intervals_cover_the_true_auc():
    truth = 0.7602499389065233  # Phi(1 / sqrt(2))
    covered = 0
    for seed in range(120):
        score, positive = sample(np.random.default_rng(seed), 150)
        figures = metrics.evaluate(score, positive, np.ones(150), np.full(150, "a"), 200, seed)
        covered += figures["roc_auc"].low <= truth <= figures["roc_auc"].high
    assert 105 <= covered <= 120  # 95 % of 120 is 114, give or take 2.4


def test_the_bootstrap_draws_within_each_source_and_class():
    strata = np.array([0, 0, 0, 1, 2, 2, 5])
    chunks = list(metrics._resample(strata, 50, np.random.default_rng(0)))
    counts = np.concatenate(chunks)
    assert counts.shape == (50, 7)
    for stratum in set(strata.tolist()):
        own = counts[:, strata == stratum]
        assert (own.sum(axis=1) == own.shape[1]).all()
    assert (counts[:, :3] != 1).any()


def test_the_bootstrap_is_keyed_by_its_seed_and_blind_to_the_order_of_documents():
    score, positive = sample(np.random.default_rng(0), 60)
    source = np.where(np.arange(60) < 20, "a", "b")
    weight = np.ones(60)
    one, again, other = (
        metrics.evaluate(score, positive, weight, source, 50, seed) for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other
    assert one["roc_auc"].value == other["roc_auc"].value


@pytest.mark.parametrize("alpha", [1.0, 9.0])
def test_yields_are_what_pareto_draws_keep(alpha):
    rng = np.random.default_rng(0)
    score = rng.random(400).astype(np.float32)
    size = rng.integers(1, 1000, 400)
    row = metrics.yields(score, size, [alpha])[0]
    kept = rng.pareto(alpha, (4000, 400)) > 1 - score
    assert row["documents"] == pytest.approx(kept.mean(), abs=0.002)
    assert row["bytes"] == pytest.approx((kept @ size).mean() / size.sum(), abs=0.002)
