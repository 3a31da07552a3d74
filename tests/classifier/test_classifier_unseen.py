"""Sources left out of training: the sample, the groups, and fits against scikit-learn's."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from quality_classifier.evaluation import metrics
from quality_classifier.training import leave_one_out


def test_the_short_cut_gives_the_margins_of_the_whole_regression():
    rng = np.random.default_rng(0)
    features = sp.csr_array(sp.random(80, 500, 0.1, random_state=rng, dtype=np.float32))
    positive = rng.random(80) < 0.5
    weight = rng.uniform(0.5, 1.5, 50)
    fit = leave_one_out.linear_fit(features, positive, 2.0)
    for c in (1.0, 50.0):  # the second starts from the first one's solution
        margin = fit(c, np.arange(50), weight)
        whole = LogisticRegression(C=2 * c, tol=1e-8, max_iter=5000)
        whole.fit(features[:50].astype(np.float64), positive[:50], sample_weight=weight)
        reference = whole.decision_function(features.astype(np.float64))
        assert np.abs(margin - reference).max() < 0.02 * np.ptp(reference)


def test_a_sample_has_an_even_share_of_sources_and_of_each_split():
    source = np.array(["big"] * 5000 + ["small"] * 40 + ["raw"] * 3000)
    positive = np.arange(len(source)) < 5040
    split = np.arange(len(source)) % 10 // 8 * (1 + np.arange(len(source)) % 2)
    rows = leave_one_out.even_sample(source, positive, split.astype(np.int8), 400)
    assert (np.diff(rows) > 0).all()
    found = np.bincount(split[rows])
    assert (found <= [200, 100, 100]).all()
    assert found.sum() > 390
    for part in range(3):
        own = rows[split[rows] == part]
        sizes = {name: (source[own] == name).sum() for name in ("big", "small", "raw")}
        assert sizes["small"] == (split[source == "small"] == part).sum()
        assert sizes["big"] == sizes["raw"]
        for name in sizes:  # the first ones
            everything = np.flatnonzero((source == name) & (split == part))
            assert (own[source[own] == name] == everything[: sizes[name]]).all()
    everything = leave_one_out.even_sample(source, positive, split.astype(np.int8), 40_000)
    assert len(everything) == len(source)


def test_every_source_is_left_out_once_where_its_class_has_enough():
    source = np.array([*"abcdefg", *"xy"])
    positive = np.arange(9) < 7
    assert leave_one_out.groups_to_leave_out(source, positive, 3) == [
        (True, [n]) for n in "abcdefg"
    ]
    groups = leave_one_out.groups_to_leave_out(source, positive, 2, most=3)
    assert [of for of, _ in groups] == [True] * 3 + [False] * 2
    assert sorted(name for _, names in groups for name in names) == sorted(source.tolist())
    assert leave_one_out.groups_to_leave_out(source, positive, 8) == []


def test_figures_are_of_documents_that_the_fit_has_not_seen():
    """A fit that only knows the documents it was given: all others have a margin of noise."""
    rng = np.random.default_rng(1)
    n = 300
    positive = np.arange(n) < 150
    source = np.array([f"{'pn'[i >= 150]}{i % 3}" for i in range(n)])
    split = (np.arange(n) // 3 % 4 - 1).clip(0).astype(np.int8)
    noise = rng.normal(size=n)
    asked = []

    def fit(c, rows, weight):
        asked.append((c, rows))
        margin = noise.copy()
        margin[rows] = np.where(positive[rows], 9, -9)
        return margin + c / 100 * np.where(positive, 1, -1)

    found = leave_one_out.leave_sources_out(
        fit,
        [1.0, 100.0],
        positive,
        source,
        split,
        least=3,
        most=10,
        method="sigmoid",
        source_weight_limit=10.0,
        alpha=9.0,
    )
    assert len(asked) == 12
    assert all((split[rows] == 0).all() for _, rows in asked)
    assert found.c == 100.0
    assert [trial["c"] for trial in found.trials] == [1.0, 100.0]
    row = next(row for row in found.rows if row["source"] == "n1")
    against = (source == "n1") | (positive & (split == 2))
    margin = noise + np.where(positive, 1, -1)
    auc = roc_auc_score(positive[against], margin[against])  # of equal sources, so equal weights
    assert row["roc_auc"] == pytest.approx(auc)
    assert row["documents"] == 50
    assert auc < 0.99  # the noise was asked


def test_the_roc_auc_is_scikit_learns():
    rng = np.random.default_rng(2)
    score, positive = rng.integers(0, 9, 100) / 8, rng.random(100) < 0.4
    weight = rng.random(100)
    expected = roc_auc_score(positive, score, sample_weight=weight)
    assert metrics.roc_auc(score, positive, weight) == pytest.approx(expected)
