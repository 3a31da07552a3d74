"""Grades and pairs: labels, fits, curves, figures, against scikit-learn, SciPy and plain loops."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from quality_classifier import labels
from quality_classifier.evaluation import graded, paired
from quality_classifier.kinds.calibration import Calibration, Grades, likelihoods
from quality_classifier.kinds.graded_fitting import fit_curves, fit_ordinal, fit_squared, log_loss
from quality_classifier.kinds.pair_fitting import fit_pairs, pair_loss
from quality_classifier.training.pairs import linked_pairs


def column(*words):
    return pa.chunked_array([list(words)], pa.string())


def test_labels_are_numbers_lists_and_names():
    rows, value, scale = labels.read_labels(column("3", "1.5", "[4, 0]", "3.0"), None, "score")
    assert rows.tolist() == [0, 1, 2, 2, 3]
    assert value.tolist() == [3, 1.5, 4, 0, 3]
    assert scale.names == ("0", "1", "2", "3", "4")
    named = labels.declared(["bad", "fair", "good"])
    rows, value, _ = labels.read_labels(column("good", '["bad", "fair"]'), named, "score")
    assert (rows.tolist(), value.tolist()) == ([0, 1, 1], [2, 0, 1])
    assert named.position("good") == 2
    assert labels.declared([0, 25, 100]).position(25) == 1


@pytest.mark.parametrize(
    ("words", "grades", "message"),
    [
        (["1", "7"], [0, 1, 2, 3, 4, 5], "'7' is out of range: the grades are 0, 1, 2, 3, 4, 5"),
        (["1", "NaN"], None, "'NaN' is not a finite number"),
        (["1", "inf"], [0, 1], "'inf' is not a finite number"),
        (
            ["1", "good"],
            None,
            r"'good' is not a number: name the classes .* grades=\[bad,fair,good\]",
        ),
        (["1", "[]"], None, "'' is not a number"),
        (["good", "great"], ["bad", "good"], "'great' is out of range: the grades are bad, good"),
        (["3", "3.0"], None, "all labels are 3"),
        (["0", "100"], None, r"run from 0 to 100, .* grades=\[0,50,100\]"),
    ],
)
def test_labels_that_are_no_grades_are_refused(words, grades, message):
    scale = None if grades is None else labels.declared(grades)
    with pytest.raises(ValueError, match=message):
        labels.read_labels(column(*words), scale, "score")


@pytest.mark.parametrize("grades", [[1], [], [1, 1], [2, 1], ["a", "a", "b"]])
def test_grades_that_do_not_rise_are_refused(grades):
    with pytest.raises(ValueError, match="grades="):
        labels.declared(grades)


@pytest.mark.parametrize("at_least", [0, 7, "x"])
def test_the_lowest_grade_and_strangers_can_not_be_the_least(at_least):
    with pytest.raises(ValueError, match="set at_least to one of 1, 2"):
        labels.declared([0, 1, 2]).position(at_least)


texts = st.sampled_from(["", "a", "b", "the same", "Ünïcode"])
records = st.lists(
    st.tuples(texts, st.lists(st.integers(0, 8), min_size=1, max_size=3)), min_size=1, max_size=12
)


@given(records, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_every_text_is_there_once_with_all_its_labels(rows, rng):
    scale = labels.declared([0, 1, 2, 3, 4])

    def found(rows):
        documents = pa.table({"text": [text for text, _ in rows], "source": ["s"] * len(rows)})
        of = np.repeat(np.arange(len(rows)), [len(own) for _, own in rows])
        value = np.array([label / 2 for _, own in rows for label in own])
        return labels.by_text(documents, of, value, scale)

    one = found(rows)
    everything = {}
    for text, own in rows:
        everything.setdefault(text, []).extend(label / 2 for label in own)
    assert set(one.documents["text"].to_pylist()) == set(everything)
    assert one.repeated == len(rows) - len(everything)
    for i, text in enumerate(one.documents["text"].to_pylist()):
        mine = everything[text]
        assert one.label[i] == pytest.approx(np.mean(mine))
        assert sorted(one.labels[1][one.labels[0] == i]) == sorted(mine)
        for k in (1, 2, 3, 4):  # between two grades, a label reaches the upper one in part
            reach = [1 if v >= k else 0 if v <= k - 1 else v - k + 1 for v in mine]
            assert one.target[i, k - 1] == pytest.approx(np.mean(reach))
        assert one.target[i].sum() == pytest.approx(one.label[i])
    rng.shuffle(rows)
    other = found(rows)
    assert other.documents["text"] == one.documents["text"]
    assert (other.target == one.target).all()


def features_of(seed, n=60, columns=8):
    rng = np.random.default_rng(seed)
    return sp.csr_array(sp.random(n, columns, 0.5, random_state=rng, dtype=np.float64)), rng


@pytest.mark.parametrize("steps", [1, 4])
def test_the_ordinal_fit_is_logistic_regression_with_a_threshold_for_each_grade(steps):
    features, rng = features_of(0)
    grade = rng.integers(0, steps + 1, 60)
    target = (grade[:, None] > np.arange(steps)).astype(float)
    weights = fit_ordinal(features, target, 5.0)
    # The same as one regression of all documents and thresholds, these as columns so large that
    # their penalty is nothing.
    x = np.repeat(features.toarray(), steps, axis=0)
    thresholds = 1e3 * np.tile(np.eye(steps), (60, 1))
    model = LogisticRegression(C=5.0 / steps, fit_intercept=False, tol=1e-10, max_iter=10_000)
    model.fit(np.hstack([x, thresholds]), target.ravel())
    assert weights == pytest.approx(model.coef_[0, :8], abs=2e-3)


def test_the_squared_fit_solves_the_normal_equations():
    features, rng = features_of(1)
    target = np.sort(rng.random((60, 3)), axis=1)[:, ::-1]
    x = features.toarray() - features.toarray().mean(axis=0)
    y = target.mean(axis=1)
    y = (y - y.mean()) / y.std()
    expected = np.linalg.solve(x.T @ x + np.eye(8) / 2.0, x.T @ y)
    assert fit_squared(features, target, 2.0) == pytest.approx(expected, abs=1e-4)


def test_pairs_are_learned_as_differences():
    features, rng = features_of(2, n=400)
    truth = rng.normal(size=8) * 3
    one, other = features[:200], features[200:]
    flip = rng.random(200) < 1 / (1 + np.exp((one - other) @ truth))
    better = sp.csr_array(np.where(flip[:, None], other.toarray(), one.toarray()))
    worse = sp.csr_array(np.where(flip[:, None], one.toarray(), other.toarray()))
    model = LogisticRegression(C=10.0, fit_intercept=False, tol=1e-10)
    difference = (one - other).toarray()
    model.fit(difference, ~flip)
    assert fit_pairs(better, worse, 10.0) == pytest.approx(model.coef_[0], abs=1e-2)
    assert pair_loss((better - worse) @ truth) < np.log(2)
    assert pair_loss((worse - better) @ truth) is None


def margins_of_grades(seed, n=4000):
    """Margins and grades under P(grade k or more) = sigmoid(2 margin - threshold)."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=n)
    reached = 1 / (1 + np.exp(-(2 * margin[:, None] - [-2.0, 0.0, 3.0])))
    return margin, (rng.random(n)[:, None] < reached).astype(float), reached


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_curves_find_the_truth_and_never_cross(method):
    curves = fit_curves(*margins_of_grades(0)[:2], method)
    margin, target, truth = margins_of_grades(1)
    found = np.stack([curve.apply(margin) for curve in curves], axis=1)
    assert np.abs(found - truth).mean() < 0.02
    assert (np.diff(found, axis=1) <= 1e-6).all()
    best = [Calibration(2.0, 2.0), Calibration(2.0, 0.0), Calibration(2.0, -3.0)]
    # Steps of isotonic curves that meet give a grade no chance at all.
    room = 0.03 if method == "isotonic" else 0.002
    assert log_loss(curves, margin, target) < log_loss(best, margin, target) + room
    if method == "sigmoid":
        assert [c.slope for c in curves] == pytest.approx([2.0] * 3, abs=0.15)


def test_curves_of_margins_that_mean_nothing_are_refused():
    margin, target, _ = margins_of_grades(0)
    with pytest.raises(ValueError, match="positive slope"):
        fit_curves(-margin, target, "sigmoid")


def test_the_expected_grade_is_the_mean_of_the_grades():
    curves = tuple(Calibration(1.0, -t) for t in (-1.0, 0.5, 2.0))
    grades = Grades(("0", "1", "2", "10"), (0.0, 1.0, 2.0, 10.0), 2, curves)
    margin = np.linspace(-5, 5, 50)
    probability = likelihoods(grades.reached(margin))
    assert probability.sum(axis=1) == pytest.approx(np.ones(50))
    assert grades.expected(margin) == pytest.approx(probability @ [0, 1, 2, 10], abs=1e-5)
    assert (grades.score.apply(margin) == curves[1].apply(margin)).all()
    assert Grades.from_json(grades.to_json()) == grades
    for name, value in [("names", ["0"]), ("values", [0, 2, 1, 10]), ("at_least", "5")]:
        with pytest.raises(ValueError, match=r"grades|not in"):
            Grades.from_json(grades.to_json() | {name: value})


def test_agreement_is_that_of_scipy_and_scikit_learn():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, 200).astype(float)
    expected = np.clip(label + rng.normal(size=200), 0, 4)
    assert graded.spearman(expected, label) == pytest.approx(spearmanr(expected, label).statistic)
    assert graded.spearman(expected, np.ones(200)) == 0
    values = (0.0, 1.0, 2.0, 3.0, 4.0)
    counts = graded.confusion(label, expected, values)
    rounded = np.floor(expected + 0.5)
    assert counts == confusion_matrix(label, rounded, labels=values).tolist()
    found = graded.agreement(label, expected, 200, 0)
    for row in found.values():
        assert row["low"] < row["value"] < row["high"]


def test_label_noise_counts_every_pair_of_labels_of_a_document():
    rng = random.Random(0)
    own = [[rng.randint(0, 5) for _ in range(rng.randint(1, 4))] for _ in range(50)]
    expected = np.array([rng.uniform(0, 5) for _ in own])
    text = np.repeat(np.arange(50), [len(k) for k in own])
    found = graded.label_noise(text, np.array([*itertools.chain(*own)], float), expected)
    several = [i for i in range(50) if len(own[i]) > 1]
    assert (found["documents"], found["labels"]) == (
        len(several),
        sum(len(own[i]) for i in several),
    )
    between = [np.mean([abs(a - b) for a, b in itertools.combinations(own[i], 2)]) for i in several]
    assert found["labels_mae"] == pytest.approx(np.mean(between))
    to_one = [np.mean([abs(a - expected[i]) for a in own[i]]) for i in several]
    assert found["classifier_mae"] == pytest.approx(np.mean(to_one))
    assert graded.label_noise(np.arange(3), np.ones(3), np.ones(3)) is None


def pair_table(rows, group=None):
    columns = {
        "text": pa.chunked_array([[a for a, _ in rows]], pa.large_string()),
        "worse": pa.chunked_array([[b for _, b in rows]], pa.string()),
        "source": pa.chunked_array([["s"] * len(rows)]),
    }
    return pa.table(columns | ({"group": group} if group else {}))


names = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(names, names), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_pairs_that_share_texts_are_linked_and_equal_ones_left_out(rows, rng):
    found = linked_pairs(pair_table(rows))
    text = found.pairs.text.to_pylist()
    again = [(text[a], text[b]) for a, b in zip(found.pairs.better, found.pairs.worse, strict=True)]
    assert sorted(again) == sorted((a, b) for a, b in rows if a != b)
    assert found.equal == sum(a == b for a, b in rows)
    sets = [{name} for name in text]
    for a, b in rows:
        joined = [s for s in sets if a in s or b in s]
        sets = [s for s in sets if s not in joined] + [set().union(*joined)]
    for one, other in itertools.combinations(range(len(text)), 2):
        together = any(text[one] in s and text[other] in s for s in sets)
        assert (found.linked[one] == found.linked[other]) == together
    rng.shuffle(rows)
    other = linked_pairs(pair_table(rows))
    assert other.pairs.text == found.pairs.text
    assert (other.linked == found.linked).all()
    assert (other.pairs.better == found.pairs.better).all()


def test_a_group_links_pairs_that_share_no_text():
    rows = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    group = pa.chunked_array([["x", "x", None, None]])
    found = linked_pairs(pair_table(rows, group))
    of = dict(zip(found.pairs.text.to_pylist(), found.linked.tolist(), strict=True))
    assert of["a"] == of["b"] == of["c"] == of["d"]
    assert len(set(of.values())) == 3


def test_figures_of_pairs_are_counted():
    margin, size = np.array([3.0, 2.0, 1.0, 1.0]), np.array([1.0, 5.0, 5.0, 2.0])
    better, worse = np.array([0, 1, 2, 3, 0] * 4), np.array([1, 2, 3, 0, 1] * 4)
    found = paired.evaluate(
        margin, size, better, worse, np.zeros(20, np.int64), np.repeat(["s", "t"], 10), 20, 0
    )
    assert found["accuracy"]["value"] == pytest.approx((1 + 1 + 0.5 + 0 + 1) / 5)
    assert found["longer"]["value"] == pytest.approx((0 + 0.5 + 1 + 1 + 0) / 5)
    assert found["noise"] == {"pairs": 4, "judgements": 20, "agreement": 1.0}
    assert [row["value"] for row in found["groups"] if row["column"] == "source"] == ["s", "t"]
    assert paired.noise(np.array([0, 1, 1]), np.array([1, 0, 0]))["agreement"] == pytest.approx(
        2 / 3
    )
    assert paired.noise(np.array([0]), np.array([1])) is None
