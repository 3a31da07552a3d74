"""Splits, weights, fitting and calibration: properties, and scikit-learn as the reference."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from quality_classifier import splits
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.fasttext_model import repeats
from quality_classifier.kinds.fitting import Examples, calibrated_loss, fit_calibration, fit_linear

texts = st.sampled_from(["", "a", "b", "the same", "Ünïcode", "x" * 300]) | st.text(max_size=8)
rows = st.lists(st.tuples(texts, st.booleans(), st.sampled_from(["s", "t", "u"])), max_size=40)


def table(documents):
    text, positive, source = zip(*documents, strict=True) if documents else ((), (), ())
    return pa.table(
        {
            "text": pa.array(text, pa.large_string()),
            "positive": pa.array(positive, pa.bool_()),
            "source": pa.array(source, pa.string()),
            "id": pa.array([str(i) for i in range(len(documents))]),
        }
    )


@given(rows)
@settings(deadline=None)
def test_what_is_left_has_every_text_once_and_none_of_both_classes(documents):
    unique = splits.deduplicate(table(documents))
    classes = {}
    for text, positive, _ in documents:
        classes.setdefault(text, set()).add(positive)
    expected = {text: of for text, of in classes.items() if len(of) == 1}
    left = unique.documents.to_pylist()
    assert Counter(row["text"] for row in left) == Counter(expected.keys())
    for row in left:
        assert (row["text"], row["positive"], row["source"]) == documents[int(row["id"])]
        assert {row["positive"]} == expected[row["text"]]
        of_text = [s for text, _, s in documents if text == row["text"]]
        assert row["source"] == min(of_text)


@given(rows)
@settings(deadline=None)
def test_every_document_is_kept_or_counted_as_removed(documents):
    unique = splits.deduplicate(table(documents))
    left = Counter((row["positive"], row["source"]) for row in unique.documents.to_pylist())
    read = Counter((positive, source) for _, positive, source in documents)
    for row in unique.counts.to_pylist():
        key = row["positive"], row["source"]
        assert row["read"] == read.pop(key)
        assert row["read"] == row["repeated"] + row["in_both_classes"] + left[key]
    assert not read
    both = {t for t, p, _ in documents if p} & {t for t, p, _ in documents if not p}
    in_both = sum(text in both for text, _, _ in documents)
    assert sum(row["in_both_classes"] for row in unique.counts.to_pylist()) == in_both


@given(rows, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_documents_does_not_matter(documents, random):
    one = table(documents)
    order = list(range(len(documents)))
    random.shuffle(order)
    other = one.take(order) if order else one
    assert splits.deduplicate(one).documents == splits.deduplicate(other).documents
    assert splits.deduplicate(one).counts == splits.deduplicate(other).counts


def test_splits_are_those_of_the_xxhash_library():
    values = [f"document {i}" for i in range(3000)]
    half = pa.chunked_array([values[:1000], values[1000:]], pa.large_string())
    found = splits.assign(half, 0.2, 0.1)
    for text, split in zip(values, found, strict=True):
        u = xxhash.xxh3_64_intdigest(text.encode(), 0x73706C6974) / 2**64
        assert splits.SPLITS[split] == (
            "test" if u < 0.1 else "calibration" if u < 0.3 else "train"
        )
    share = np.bincount(found) / 3000
    assert np.abs(share - [0.7, 0.2, 0.1]).max() < 0.03


def test_a_document_that_was_held_out_stays_so_when_more_text_or_more_test_is_wanted():
    text = pa.chunked_array([[f"document {i}" for i in range(1000)]], pa.large_string())
    few = splits.assign(text.slice(0, 500), 0.1, 0.1)
    many = splits.assign(text, 0.1, 0.1)
    assert (many[:500] == few).all()
    wider = splits.assign(text, 0.1, 0.2)
    assert (wider[many == 2] == 2).all()


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=2, max_size=200).filter(
        lambda rows: len({positive for positive, _ in rows}) == 2
    ),
    st.floats(1, 20),
)
@settings(deadline=None)
def test_weights_balance_classes_and_sources(documents, most):
    positive = np.array([p for p, _ in documents])
    source = np.array([s for _, s in documents])
    weight = splits.balanced_weights(positive, source, most)
    assert weight.mean() == pytest.approx(1)
    for of in (True, False):
        own = weight[positive == of]
        assert own.sum() == pytest.approx(len(documents) / 2)
        names = source[positive == of]
        sizes = Counter(names.tolist())
        fair = {name: len(own) / (len(sizes) * n) for name, n in sizes.items()}
        totals = {name: own[names == name].sum() for name in sizes}
        if max(fair.values()) <= most:  # no source is too small: all have the same say
            assert max(totals.values()) == pytest.approx(min(totals.values()))
        assert all(np.ptp(own[names == name]) < 1e-9 for name in sizes)
    if most == 1:
        return
    swapped = splits.balanced_weights(~positive, source, most)
    assert swapped == pytest.approx(weight)


def test_a_tiny_source_does_not_speak_for_half_its_class():
    source = np.array(["big"] * 999 + ["tiny"] + ["other"] * 1000)
    positive = np.arange(2000) < 1000
    weight = splits.balanced_weights(positive, source, 10)
    assert weight[999] / weight[0] == pytest.approx(10 / (1000 / 2 / 999))
    assert weight[999] < 20


def test_repeats_are_right_on_average_and_bounded():
    weight = splits.balanced_weights(
        np.arange(3000) < 1500, np.where(np.arange(3000) % 7, "a", "b"), 10
    )
    times = repeats(weight, 0)
    assert (times >= 1).all()
    assert times.sum() <= 2.1 * len(weight)
    for of in (weight == weight.min(), weight == weight.max()):
        assert times[of].mean() == pytest.approx(weight[of][0] / weight.min(), rel=0.05)
    assert (repeats(weight, 0) == times).all()
    assert (repeats(weight, 1) != times).any()


margins = st.lists(st.floats(-50, 50), min_size=1, max_size=30)


@given(margins, st.floats(0.01, 10), st.floats(-5, 5))
def test_sigmoid_is_platts_and_survives_json(values, slope, intercept):
    calibration = Calibration(slope, intercept)
    scores = calibration.apply(np.array(values))
    assert scores.dtype == np.float32
    for margin, score in zip(values, scores.tolist(), strict=True):
        z = slope * margin + intercept
        assert score == pytest.approx(
            1 / (1 + math.exp(-z)) if z > -700 else 0, rel=1e-6, abs=1e-38
        )
    again = Calibration.from_json(calibration.to_json())
    assert (again.apply(np.array(values)) == scores).all()


def test_margins_without_bound_have_scores():
    ends = np.array([-np.inf, -1e6, 1e6, np.inf])
    assert Calibration.identity().apply(ends).tolist() == [0, 0, 1, 1]
    steps = Calibration(knots=((-1.0, 0.25), (1.0, 0.75)))
    assert steps.apply(np.array([-np.inf, -1, 0, 1, np.inf])).tolist() == [
        0.25,
        0.25,
        0.5,
        0.75,
        0.75,
    ]
    assert Calibration.from_json(steps.to_json()) == steps


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"method": "magic"},
        {"method": "sigmoid", "slope": 1.0},
        {"method": "sigmoid", "slope": -1.0, "intercept": 0.0},
        {"method": "sigmoid", "slope": "x", "intercept": 0.0},
        {"method": "sigmoid", "slope": math.nan, "intercept": 0.0},
        {"method": "isotonic", "knots": []},
        {"method": "isotonic", "knots": [[0.0, 0.5], [0.0, 0.6]]},
        {"method": "isotonic", "knots": [[0.0, 0.5], [1.0, 0.4]]},
        {"method": "isotonic", "knots": [[0.0, 0.5], [1.0, 1.5]]},
        {"method": "isotonic", "knots": [[0.0, 0.5, 1.0]]},
        {"method": "isotonic", "knots": [[math.nan, 0.5]]},
    ],
)
def test_a_damaged_calibration_is_refused(damaged):
    with pytest.raises(ValueError, match="calibration"):
        Calibration.from_json(damaged)


def margins_of(seed, n=2000, scale=4.0, shift=-2.0):
    """Margins that are wrong by a scale and a shift, classes and weights."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    log_odds = rng.normal(np.where(positive, 1, -1), math.sqrt(2))  # Bayes: exactly the log odds
    return scale * log_odds + shift, positive, rng.uniform(0.2, 1.8, n)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration_mends_a_distorted_model(method):
    fitted = fit_calibration(*margins_of(0), method)
    margin, positive, weight = margins_of(1)
    before = calibrated_loss(Calibration.identity(), margin, positive, weight)
    after = calibrated_loss(fitted, margin, positive, weight)
    best = calibrated_loss(Calibration(0.25, 0.5), margin, positive, weight)
    assert after < 0.8 * before
    assert after < best + 0.03
    assert fitted.method == method


def test_the_sigmoid_is_the_one_that_distorted_the_margins():
    fitted = fit_calibration(*margins_of(0, n=50_000), "sigmoid")
    assert fitted.slope == pytest.approx(1 / 4, rel=0.03)
    assert fitted.intercept == pytest.approx(2 / 4, abs=0.03)


def test_the_sigmoid_is_scikit_learns():
    margin, positive, _ = margins_of(2)
    # A model whose decision function is its input: sign and scale are those of a fitted one.
    model = LogisticRegression().fit(margin[:, None], positive)
    model.coef_, model.intercept_ = np.array([[1.0]]), np.array([0.0])
    library = CalibratedClassifierCV(FrozenEstimator(model), method="sigmoid")
    library.fit(margin[:, None], positive)
    expected = library.predict_proba(margin[:, None])[:, 1]
    ours = fit_calibration(margin, positive, np.ones(len(margin)), "sigmoid").apply(margin)
    assert np.abs(ours - expected).max() < 1e-4


def test_weights_stand_for_repetitions():
    margin, positive, _ = margins_of(3, n=300)
    times = np.random.default_rng(0).integers(1, 4, 300)
    weighted = fit_calibration(margin, positive, times.astype(float), "sigmoid")
    repeated = fit_calibration(
        np.repeat(margin, times), np.repeat(positive, times), np.ones(times.sum()), "sigmoid"
    )
    assert weighted.slope == pytest.approx(repeated.slope, rel=1e-6)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_swapping_the_classes_mirrors_the_calibration(method):
    margin, positive, weight = margins_of(4, n=400)
    one = fit_calibration(margin, positive, weight, method)
    other = fit_calibration(-margin, ~positive, weight, method)
    assert one.apply(margin) == pytest.approx(1 - other.apply(-margin), abs=1e-5)


def test_classes_that_can_be_told_apart_get_no_certain_scores():
    positive = np.arange(100) % 2 == 0
    margin = np.where(positive, 3.0, -3.0)
    for method in ("sigmoid", "isotonic"):
        scores = fit_calibration(margin, positive, np.ones(100), method).apply(margin)
        assert scores.min() > 0.001
        assert scores.max() < 0.999


def test_a_model_that_ranks_the_wrong_way_is_refused():
    margin, positive, weight = margins_of(5)
    with pytest.raises(ValueError, match="slope"):
        fit_calibration(-margin, positive, weight, "sigmoid")


def examples(seed, n=300):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    dense = rng.random((n, 8)) * (rng.random((n, 8)) < 0.4)
    dense[:, 0] += positive * rng.random(n)
    features = sp.csr_array(dense.astype(np.float32))
    return Examples(features, positive, rng.uniform(0.5, 1.5, n))


def test_the_fit_is_the_minimum_of_the_penalised_loss():
    train, held_out = examples(0), examples(1)
    weights, bias, trials = fit_linear(train, held_out, [2.0], "sigmoid")
    sign = np.where(train.positive, 1, -1)
    dense = train.features.toarray().astype(np.float64)

    def loss(parameters):
        margin = dense @ parameters[:-1] + parameters[-1]
        fit = train.weight @ np.logaddexp(0, -sign * margin)
        return 2.0 * fit + parameters[:-1] @ parameters[:-1] / 2

    best = minimize(loss, np.zeros(9), method="BFGS")
    assert loss(np.append(weights.astype(np.float64), bias)) < best.fun * 1.0001
    assert [trial["c"] for trial in trials] == [2.0]


def test_the_penalty_with_the_least_held_out_loss_is_chosen():
    train, held_out = examples(0), examples(1)
    cs = [0.001, 1.0, 1000.0]
    weights, bias, trials = fit_linear(train, held_out, cs, "sigmoid")
    alone = {c: fit_linear(train, held_out, [c], "sigmoid") for c in cs}
    best = min(trials, key=lambda trial: trial["log_loss"])
    assert len({trial["log_loss"] for trial in trials}) == 3
    assert (weights == alone[best["c"]][0]).all()
    assert bias == alone[best["c"]][1]
