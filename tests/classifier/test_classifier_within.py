"""What is known of scores within groups: scipy's rank correlation, numpy's quantiles, coverage."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_run import invented, scored
from scipy.stats import spearmanr
from scored_run import run_folder
from statsmodels.stats.proportion import proportion_confint

from pipeline.output import schema
from pipeline.output.summary import TaskSummary
from pipeline.page.data.spread_data import spread_rows
from pipeline.rules.decision import Rule
from quality_classifier import labels
from quality_classifier.audit import AuditConfig, audit_run, within_table
from quality_classifier.evaluation import within_groups
from quality_classifier.evaluation.within_groups import Within, near_constant, score_quantiles

NUMBERS = partial(labels.numbers, scale=None, target="grade")


def documents(n=300, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.random(n).astype(np.float32)
    grade = np.round(4 * np.clip(score + rng.normal(0, 0.4, n), 0, 1)).astype(int)
    return pa.table(
        {
            "source": rng.choice(["web", "news"], n),
            "type": rng.choice(["a", "b", None], n),
            "quality_score": score,
            "keep_draw": rng.random(n),
            "grade": [str(g) if g != 2 else None for g in grade.tolist()],
        }
    )


def counted(table, by, *, size=70, **about):
    found = Within(by, **about, numbers=NUMBERS)
    for batch in table.to_batches(max_chunksize=size):
        found.update(batch)
    return found.table().to_pylist()


def test_within_each_group_it_is_scipys_correlation():
    table = documents()
    rows = {
        row["group"]: row for row in counted(table, ["source", "type"], label="grade", at_least=3)
    }
    plain = {}
    for row in table.to_pylist():
        plain.setdefault(f"{row['source']} / {row['type'] or '(none)'}", []).append(row)
    assert rows.keys() == plain.keys()
    for group, own in plain.items():
        row, known = rows[group], [r for r in own if r["grade"] is not None]
        assert (row["documents"], row["labelled"]) == (len(own), len(known))
        score = np.array([r["quality_score"] for r in known])
        grade = np.array([int(r["grade"]) for r in known])
        assert row["spearman"] == pytest.approx(spearmanr(score, grade).statistic)
        assert row["spearman_low"] < row["spearman"] < row["spearman_high"]
        assert row["mean_score"] == pytest.approx(score.mean())
        good = grade >= 3
        assert row["share"] == pytest.approx(good.mean())
        interval = proportion_confint(good.sum(), len(good), method="wilson")
        assert (row["share_low"], row["share_high"]) == pytest.approx(interval)
        error = sum(
            abs(score[own_bin].sum() - good[own_bin].sum())
            for own_bin in (np.floor(score * 10) == i for i in range(10))
        )
        assert row["calibration_error"] == pytest.approx(error / len(good), rel=1e-6)


def test_batches_do_not_matter_and_a_sample_is_of_smallest_draws(monkeypatch):
    table = documents()
    whole = counted(table, ["source"], label="grade", size=300)
    assert counted(table, ["source"], label="grade", size=7) == whole
    monkeypatch.setattr(within_groups, "SAMPLE", 40)
    parts = Within(["source"], "grade", NUMBERS, _limit=50)
    for batch in table.to_batches(max_chunksize=7):
        parts.update(batch)
    for row in parts.table().to_pylist():
        own = [r for r in table.to_pylist() if r["source"] == row["group"] and r["grade"]]
        own = sorted(own, key=lambda r: r["keep_draw"])[:40]
        assert row["labelled"] == 40
        two = zip(*((r["quality_score"], int(r["grade"])) for r in own), strict=True)
        assert row["spearman"] == pytest.approx(spearmanr(*two).statistic)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=200))
@settings(deadline=None, max_examples=50)
def test_quantiles_are_numpys_up_to_a_bin(scores):
    counts = np.histogram(scores, bins=100, range=(0, 1))[0]
    expected = np.quantile(scores, [0.1, 0.5, 0.9], method="inverted_cdf")
    assert np.abs(np.array(score_quantiles(counts)) - expected).max() <= 0.01 + 1e-9


def test_scores_are_near_constant_where_four_fifths_lie_close():
    def counts(scores):
        return np.histogram(scores, bins=100, range=(0, 1))[0]

    close, far = np.linspace(0.400, 0.439, 85), np.linspace(0, 0.99, 15)
    assert near_constant(counts([*close, *far]))
    assert not near_constant(counts([*close[:70], *far, *far]))
    assert near_constant(counts(close[:19])) is None


@pytest.mark.parametrize("slope", [0.0, 1.0, 3.0])
def test_intervals_of_the_correlation_cover_it(slope):
    rng = np.random.default_rng(0)

    def draw(n):
        x = rng.normal(size=n)
        return spearmanr(x, np.round(slope * x + rng.normal(size=n))).statistic  # with ties

    truth = draw(200_000)
    found = [within_groups.spearman_interval(draw(60), 60) for _ in range(400)]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in found]) <= 0.98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "colour"}, "--metadata colour"),
        ({"label": "language"}, "'en' is not a number: name the classes"),
        ({"grades": ["bad", "good"]}, "label=grade"),
        ({"within": ["colour"]}, "no column 'colour'"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, change, message):
    run_folder(tmp_path)
    config = AuditConfig(str(tmp_path), ["source"], 9.0, 0.5, ["web", "wiki"], within=["source"])
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        audit_run(config)


def test_named_grades_and_the_printed_table(tmp_path):
    run_folder(tmp_path)
    config = AuditConfig(str(tmp_path), ["source"], 9.0, 0.5, ["web", "wiki"], within=["source"])
    config.label, config.grades, config.calibration = "drop_reason", ["quality", "fine"], "fine"
    _, table = audit_run(config)
    text = within_table(table, 20)
    assert [row["group"] for row in table.to_pylist()] == ["web", "wiki"]
    assert "0 of 0 groups" in text
    assert labels.numbers(
        pa.array(["quality", '["fine", "quality"]', ""]), labels.declared(config.grades), "x"
    )[:2].tolist() == [0, 0.5]


def test_the_page_says_how_far_scores_spread():
    rng = np.random.default_rng(0)
    flat = scored("flat", ["t"] * 40, [None] * 40, np.full(40, 0.3))
    tables = []
    for name, batch in (
        ("web", invented("web", 300, rng)),
        ("flat", flat),
        ("few", flat.slice(0, 3)),
    ):
        summary = TaskSummary(name, True, Rule("all"))
        kept = batch.set_column(
            batch.schema.get_field_index("kept"), "kept", pa.array([True] * len(batch))
        )
        summary.update(kept)
        tables.append(summary.tables()["score_histogram"])
    rows = spread_rows({}, {"score_histogram": pa.concat_tables(tables)})
    assert [(row["source"], row["near constant"]) for row in rows] == [
        ("web", "no"),
        ("flat", "yes"),
        ("few", "too few"),
        ("sources of 20 documents and more", "1 of 2"),
    ]
    assert rows[1]["median"] == pytest.approx(0.305, abs=0.006)
    assert spread_rows({}, {"score_histogram": schema.SCORE_HISTOGRAM.empty_table()}) == []
