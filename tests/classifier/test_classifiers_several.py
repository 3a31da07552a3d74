"""Several classifiers in one pass: scores, their combination, who keeps what."""

import json

import numpy as np
import pyarrow as pa
import pytest
from corpora import documents, write_classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from report_run import scored
from scipy.stats import spearmanr

from pipeline.config import load
from pipeline.core.scored_documents import with_schema
from pipeline.core.scores import Combined, load_calibration
from pipeline.core.task import decide_batch
from pipeline.output import schema
from pipeline.output.classifier_counts import SAMPLE
from pipeline.output.summary import TaskSummary, merge
from pipeline.page.data.classifier_data import agreement_rows, keeper_rows, spearman
from pipeline.rules.decision import Rule, keep_draw
from pipeline.runs import calibration_run
from pipeline.settings.classifier_settings import combined_again, one_or_named
from quality_classifier import artifact
from quality_classifier.combining import Combination
from quality_classifier.features.hashed_features import FeatureConfig
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.linear import HashedLinear
from quality_classifier.scoring import ClassifierSet, load_classifier

NAMES = ("edu", "quality")
some_scores = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=20
)


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Two of one set of features, one of another, the last calibrated."""
    folder = tmp_path_factory.mktemp("several")
    for seed, name in enumerate(NAMES):
        write_classifier(folder / name, seed, trained_on=[documents(9)[seed]["text"]])
    features = FeatureConfig(log2_buckets=18, max_ngram=1)
    weights = np.random.default_rng(5).normal(0, 2, features.buckets).astype(np.float32)
    model = HashedLinear(features, weights, 0.25)
    artifact.save(folder / "words", model, Calibration(2.0, -0.5), {}, {}, {})
    return {name: load_classifier(str(folder / name)) for name in (*NAMES, "words")}


def test_scores_are_to_the_bit_those_of_each_classifier_alone(classifiers):
    rows = documents(200)
    text = pa.array([*(row["text"] for row in rows), "", "one", "long " * 500], pa.large_string())
    several = ClassifierSet(classifiers)
    for part in (text, text.slice(7, 60), text.slice(0, 0)):
        found = several.scores(part)
        assert list(found) == list(classifiers)
        for name, classifier in classifiers.items():
            alone = classifier.score(part)
            assert found[name].dtype == np.float32
            assert found[name].tobytes() == alone.tobytes()


def test_documents_that_any_has_learned_from_are_counted_once(classifiers):
    texts = [row["text"] for row in documents(9)]
    hashes = scored("web", texts, [None] * 9, [0.5] * 9)["content_hash"]
    assert ClassifierSet(classifiers).trained_on(hashes) == 2


@given(some_scores)
@settings(deadline=None)
def test_rules_combine_as_plain_python_does(pairs):
    a, b = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    expected = {
        "max": max,
        "min": min,
        "mean": lambda x, y: (x + y) / 2,
        "product": lambda x, y: x * y,
        "edu": lambda x, _: x,
        "0.75 * quality + 0.25 * edu": lambda x, y: 0.75 * y + 0.25 * x,
        "-(edu - 1) ** 2 / 2 + 1": lambda x, _: -((x - 1) ** 2) / 2 + 1,
        "2*edu - quality": lambda x, y: min(1, max(0, 2 * x - y)),
    }
    for rule, plain in expected.items():
        found = Combination(rule, NAMES).apply({"quality": b, "edu": a})
        wanted = [plain(float(x), float(y)) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
        assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("max(edu, quality)", r"'max\(edu, quality\)' calls a function"),
        ("__import__('os').system('true')", "calls a function"),
        ("edu + other", "names 'other', but the classifiers are edu, quality"),
        ("edu.real", "is not allowed"),
        ("edu if edu else quality", "is not allowed"),
        ("edu < quality", "is not allowed"),
        ("edu + True", "'True' is not allowed"),
        ("[edu]", "is not allowed"),
        ("(edu := 1)", "is not allowed"),
        ("edu +", "is not an expression"),
        ("", "is not an expression"),
        ("0.5", "names no classifier"),
        ("(" * 400 + "edu" + ")" * 400, "is not an expression"),
        ("edu + " * 300 + "edu", "up to 1000 characters"),
    ],
)
def test_what_is_no_arithmetic_of_names_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        Combination(rule, NAMES)


def test_an_expression_that_gives_no_number_is_an_error_and_a_huge_power_is_quick():
    scores = {"edu": np.zeros(2, np.float32), "quality": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match="no number for some documents"):
        Combination("edu / quality", NAMES).apply(scores)
    assert Combination("edu + 9 ** 9 ** 9 ** 9", NAMES).apply(scores).tolist() == [1, 1]


def test_a_calibration_maps_the_log_odds_of_the_combination():
    a, b = np.array([0, 0.2, 0.9, 1], np.float32), np.array([0, 0.4, 0.7, 1], np.float32)
    calibration = Calibration(2.0, -1.0)
    combined = Combined(NAMES, "mean", calibration.to_json())
    mean = np.array([0.3, 0.8])
    odds = (mean / (1 - mean)) ** 2 * np.exp(-1)
    expected = [0.0, *(odds / (1 + odds)), 1.0]
    assert combined.of({"edu": a, "quality": b}) == pytest.approx(expected, rel=1e-5)


def several_of(n, source="web", seed=0):
    """Scored documents of two classifiers, combined by their product."""
    rng = np.random.default_rng([seed, len(source)])
    edu, quality = rng.beta(0.7, 1, (2, n)).astype(np.float32)
    batch = scored(source, ["text"] * n, [None] * n, np.zeros(n), seed=seed)
    batch = with_schema(batch, schema.shard_schema(classifiers=NAMES))
    for name, values in zip(NAMES, (edu, quality), strict=True):
        at = batch.schema.get_field_index(schema.score_column(name))
        batch = batch.set_column(at, batch.schema.field(at), pa.array(values))
    return Combined(NAMES, "product").again(batch)


def test_who_keeps_what_is_what_each_score_alone_decides():
    rule = Rule("pareto", 2.0)
    batch = decide_batch(several_of(500), rule, True)
    summary = TaskSummary("web", True, rule, NAMES)
    for part in (batch.slice(0, 180), batch.slice(180)):
        summary.update(part)
    tables = summary.tables()
    expected = {}
    for row in batch.to_pylist():
        keepers = " ".join(
            name for name in NAMES if row["keep_draw"] < (2 - row[f"score_{name}"]) ** -2.0
        )
        counted = expected.setdefault(keepers, [0, 0])
        counted[0] += 1
        counted[1] += row["kept"]
    found = {
        row["keepers"]: [row["documents"], row["kept_documents"]]
        for row in tables["classifier_keeps"].to_pylist()
    }
    assert found == expected
    assert set(found) == {"", "edu", "quality", "edu quality"}
    shown = keeper_rows({"classifier": {"several": dict.fromkeys(NAMES)}}, tables)
    assert {row["would keep"] for row in shown} == {
        "none of them", "edu alone", "quality alone", "both",
    }  # fmt: skip


def test_the_sample_is_the_same_however_tasks_are_cut_and_merged():
    rule = Rule("all")
    whole = several_of(3 * SAMPLE)
    parts = [whole.slice(start, 700) for start in range(0, 3 * SAMPLE, 700)]
    summaries = []
    for pieces in ([whole], parts[::2], parts[1::2]):
        summary = TaskSummary("web", True, rule, NAMES)
        for piece in pieces:
            summary.update(decide_batch(piece, rule, True))
        summaries.append(summary.tables())
    one, *two = summaries
    together = merge(two)["classifier_sample"]
    assert together.equals(merge([one])["classifier_sample"])
    assert together.equals(merge(two[::-1])["classifier_sample"])
    assert together.num_rows == 2 * SAMPLE
    # Those of smallest rank: a hash of the id.
    ranks = np.sort(keep_draw(whole["id"], 0x736361747465))[:SAMPLE]
    assert np.unique(together["rank"].to_numpy()).tolist() == ranks.tolist()
    (row,) = agreement_rows({}, {"classifier_sample": together})
    chosen = whole.filter(pa.array(keep_draw(whole["id"], 0x736361747465) <= ranks[-1]))
    expected = spearmanr(chosen["score_edu"].to_numpy(), chosen["score_quality"].to_numpy())
    assert row["rank correlation"] == round(float(expected.statistic), 3)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40))
@settings(deadline=None)
def test_rank_correlation_is_scipys_with_ties(pairs):
    a, b = (np.array(column) for column in zip(*pairs, strict=True))
    found = spearman(a, b)
    if len(set(a.tolist())) == 1 or len(set(b.tolist())) == 1:
        assert found is None
    else:
        assert found == pytest.approx(float(spearmanr(a, b).statistic))


def test_flags_name_one_classifier_or_several(tmp_path):
    flags = ["--source=web=x.jsonl", "--filter=web", "--output=o"]
    assert load([*flags, "--classifier=DIR"])[0].classifier == "DIR"
    several = load([*flags, "--classifier=b=x", "--classifier=a=y=z", "--combine=a"])[0]
    assert several.classifier == {"b": "x", "a": "y=z"}
    assert load([*flags, "--classifier=/a=b/c"])[0].classifier == "/a=b/c"
    (tmp_path / "a=b").mkdir()
    assert one_or_named("classifier", [f"{tmp_path}/a=b"]) == f"{tmp_path}/a=b"
    (tmp_path / "run.yaml").write_text("classifier: {a: x, b: y}\ncombine: 0.5 * a + 0.5 * b\n")
    read = load([*flags, f"--config={tmp_path}/run.yaml"])[0]
    assert (read.classifier, read.combine) == ({"a": "x", "b": "y"}, "0.5 * a + 0.5 * b")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classifier=a=x", "--classifier=a=y"], "two are named 'a'"),
        (["--classifier=a=x", "--classifier=y"], "several need names"),
        (["--classifier=2a=x"], "'2a' is not a name for a classifier"),
        (["--classifier=if=x"], "'if' is not a name"),
        (["--classifier=max=x"], "a rule that combines them"),
        (["--classifier=a=x", "--combine=b"], "names 'b', but the classifiers are a"),
        (["--classifier=x", "--combine=max"], "no meaning for one classifier"),
        (["--classifier=a=x", "--label=l"], "name its classifier"),
        (["--classifier=a=x", "--label=b=l"], "--label names b"),
        (["--classifier=x", "--label=a=l"], "--label NAME=LABEL needs"),
        (["--classifier=a=x", "--metadata=score_a"], "would clash"),
    ],
)
def test_classifiers_that_do_not_go_together_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        load(["--source=web=x.jsonl", "--output=o", *flags])


def test_a_run_of_one_classifier_cannot_be_combined_anew():
    plain = {"classifier": {"fingerprint": "f"}, "config": {}}
    one = load(["--source=a=x", "--output=o", "--classifier=a=x", "--combine=a"])[0]
    with pytest.raises(ValueError, match="this one had one"):
        combined_again(one, plain)


def test_a_calibration_of_another_combination_is_refused(tmp_path):
    path = tmp_path / "calibration.json"
    value = {
        "format": 1,
        "combine": "mean",
        "classifiers": {"edu": "1", "quality": "2"},
        "calibration": Calibration(2.0, 0.5).to_json(),
    }
    path.write_text(json.dumps(value))
    prints = {"quality": "2", "edu": "1"}
    assert load_calibration(str(path), "mean", prints) == value["calibration"]
    for rule, of in (("max", prints), ("mean", {**prints, "edu": "3"}), ("mean", {"edu": "1"})):
        with pytest.raises(ValueError, match="calibrate again"):
            load_calibration(str(path), rule, of)
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a calibration file"):
        load_calibration(str(path), "mean", prints)
    with pytest.raises(ValueError, match="there is no file"):
        load_calibration(str(tmp_path / "none"), "mean", prints)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_a_calibration_finds_the_probabilities_that_labels_were_drawn_with(method):
    rng = np.random.default_rng(1)
    truth = rng.random(40_000)
    good = rng.random(40_000) < truth
    # What is seen of them are log odds that are halved and shifted.
    seen = 1 / (1 + np.exp(-(0.5 * np.log(truth / (1 - truth)) - 1)))
    score = seen.astype(np.float32)
    calibration, losses = calibration_run.fit(score[good], score[~good], method)
    at = np.array([0.1, 0.3, 0.5, 0.8])
    margin = 0.5 * np.log(at / (1 - at)) - 1
    near = 0.02 if method == "sigmoid" else 0.06
    assert calibration.apply(margin) == pytest.approx(at, abs=near)
    assert losses["after"] < losses["before"]


def test_a_calibration_needs_both_classes_the_right_way_round():
    low, high = np.full(5, 0.2, np.float32), np.full(5, 0.8, np.float32)
    with pytest.raises(ValueError, match="right way round"):
        calibration_run.fit(low, high, "sigmoid")
    with pytest.raises(ValueError, match="the negative sources have no documents"):
        calibration_run.fit(high, low[:0], "sigmoid")
