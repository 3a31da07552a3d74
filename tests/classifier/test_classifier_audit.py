"""Audit of keep rates: plain Python loops, statsmodels' intervals, coverage, the command line."""

import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_run import run_folder
from statsmodels.stats.proportion import proportion_confint

from quality_classifier.audit import text_table
from quality_classifier.evaluation.group_rates import (
    AUDIT,
    Audit,
    audit,
    expected_rate_interval,
)
from quality_classifier.evaluation.metrics import wilson
from winnow.text.groups import LENGTHS

ROOT = Path(__file__).parents[2]


SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("url", pa.string()),
        ("bytes", pa.int64()),
        ("quality_score", pa.float32()),
        ("kept", pa.bool_()),
        ("topic", pa.string()),
    ]
)

HOSTS = {
    None: "(none)",
    "": "(none)",
    "http://www.a.org/x": "a.org",
    "https://A.org:80/": "a.org",
    "ftp://u@b.com": "b.com",
    "c.com": "c.com",
    "c/d.html": "(none)",
}

rows = st.lists(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["web", "news"]),
            "url": st.sampled_from(
                [None, "", "http://www.a.org/x", "https://A.org:80/", "ftp://u@b.com", "c.com"]
            ),
            "bytes": st.integers(0, 50_000),
            "quality_score": st.floats(0, 1, width=32),
            "kept": st.booleans(),
            "topic": st.sampled_from(["x", "y", None]),
        }
    ),
    min_size=1,
    max_size=40,
)


def plain_length(size):
    for bound, name in zip((500, 2000, 8000, 32000), LENGTHS, strict=False):
        if size < bound:
            return name
    return LENGTHS[-1]


@given(rows, st.floats(0, 12), st.sampled_from([0.0, 0.5, 1.0]))
@settings(deadline=None, max_examples=50)
def test_rates_are_those_of_a_plain_loop(documents, alpha, threshold):
    groups = defaultdict(list)
    for row in documents:
        values = {
            "(all)": "(all)",
            "source": row["source"],
            "domain": HOSTS[row["url"]],
            "length": plain_length(row["bytes"]),
            "topic": row["topic"] or "(none)",
        }
        for column, value in values.items():
            groups[column, value].append(row)
    table = audit(
        pa.Table.from_pylist(documents, SCHEMA),
        ["source", "domain", "length", "topic"],
        alpha,
        threshold,
    )
    assert table.schema == AUDIT
    assert len(table) == 3 * len(groups)
    overall = {}
    for row in table.to_pylist():
        own = groups[row["column"], row["value"]]
        chances = {
            "pareto": [(2 - d["quality_score"]) ** -alpha for d in own],
            "threshold": [d["quality_score"] >= threshold for d in own],
            "run": [d["kept"] for d in own],
        }[row["rule"]]
        rate = sum(chances) / len(own)
        overall.setdefault(row["rule"], rate)  # rows of (all) come first
        assert row["documents"] == len(own)
        assert row["rate"] == pytest.approx(rate, abs=1e-12)
        assert row["ratio"] == pytest.approx(
            rate / overall[row["rule"]] if overall[row["rule"]] else 0
        )
        assert row["low"] <= row["rate"] + 1e-12
        assert row["rate"] <= row["high"] + 1e-12
        if row["rule"] != "pareto":
            low, high = proportion_confint(sum(chances), len(own), method="wilson")
            assert row["low"] == pytest.approx(low, abs=1e-9)
            assert row["high"] == pytest.approx(high, abs=1e-9)


@given(rows, st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_batches_do_not_matter(documents, size):
    table = pa.Table.from_pylist(documents, SCHEMA)
    whole = audit(table, ["source", "topic"], 9, 0.5)
    counts = Audit(["source", "topic"], 9, 0.5)
    for batch in table.to_batches(max_chunksize=size):
        counts.update(batch)
    for one, other in zip(whole.to_pylist(), counts.table().to_pylist(), strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_many_batches_are_all_counted():
    score = pa.array(np.random.default_rng(0).random(300).astype(np.float32))
    table = pa.table({"quality_score": score, "source": ["a", "b", "c"] * 100})
    counts = Audit(["source"], 9, 0.5)
    for batch in table.to_batches(max_chunksize=1):
        counts.update(batch)
    whole = audit(table, ["source"], 9, 0.5)
    for one, other in zip(whole.to_pylist(), counts.table().to_pylist(), strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_of_a_column_with_many_values_the_most_frequent_are_told_apart():
    topics = [f"t{i:03d}" for i in range(103) for _ in range(1 if i < 3 else 2)]
    scores = np.linspace(0.2, 0.9, len(topics)).astype(np.float32)
    table = pa.table({"topic": topics, "quality_score": scores})
    whole, bounded = (Audit(["topic"], 9, 0.5, bounded=b) for b in ((), ("topic",)))
    for batch in table.to_batches():
        whole.update(batch)
        bounded.update(batch)
    rows = bounded.table().filter(pc.equal(bounded.table()["column"], "topic"))
    assert rows.slice(0, 200).equals(
        whole.table().filter(
            pc.and_(
                pc.equal(whole.table()["column"], "topic"), pc.equal(whole.table()["documents"], 2)
            )
        )
    )
    last = rows.slice(200).to_pylist()
    assert [(row["value"], row["documents"]) for row in last] == [("(other: 3 values)", 3)] * 2
    assert last[0]["mean_score"] == pytest.approx(scores[:3].mean())
    assert "(other: 3 values)" in text_table(bounded.table(), 5)


@given(st.integers(0, 200), st.integers(1, 200))
@settings(deadline=None)
def test_wilson_is_statsmodels(kept, further):
    n = kept + further
    low, high = wilson(np.array([kept / n]), np.array([float(n)]))
    expected = proportion_confint(kept, n, method="wilson")
    assert (low[0], high[0]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("shape", [(0.3, 3.0), (0.05, 1.0), (3.0, 0.3), (0.2, 0.2)])
def test_intervals_of_the_expected_rate_cover_it(n, shape):
    rng = np.random.default_rng(0)
    truth = ((2 - rng.beta(*shape, 1_000_000)) ** -9.0).mean()
    rate = ((2 - rng.beta(*shape, (2000, n))) ** -9.0).mean(axis=1)
    low, high = expected_rate_interval(rate, np.full(2000, float(n)), 9.0)
    assert ((low <= truth) & (truth <= high)).mean() >= 0.94
    assert (low >= 2.0**-9).all()


@pytest.mark.parametrize("truth", [0.01, 0.1, 0.5])
def test_intervals_of_a_share_cover_it(truth):
    rng = np.random.default_rng(0)
    rate = rng.binomial(200, truth, 4000) / 200
    low, high = wilson(rate, np.full(4000, 200.0))
    assert 0.92 <= ((low <= truth) & (truth <= high)).mean() <= 0.98


def test_a_lone_document_says_next_to_nothing():
    table = pa.table({"quality_score": pa.array([0.0], pa.float32()), "source": ["web"]})
    row = audit(table, ["source"], 9, 0.5).to_pylist()[0]
    assert row["rule"] == "pareto"
    assert row["low"] < 0.002 < 0.7 < row["high"]


def test_a_missing_column_is_refused_by_name():
    table = pa.table({"quality_score": pa.array([0.5], pa.float32())})
    with pytest.raises(ValueError, match="'colour'"):
        audit(table, ["colour"], 9, 0.5)


def test_lengths_come_in_their_own_order():
    table = pa.table(
        {
            "quality_score": pa.array([0.5] * 4, pa.float32()),
            "bytes": pa.array([40_000, 40_000, 100, 3_000], pa.int64()),
        }
    )
    found = audit(table, ["length"], 9, 0.5)["value"].to_pylist()[2::2]
    assert found == [LENGTHS[0], LENGTHS[2], LENGTHS[4]]


@pytest.fixture
def command(quick_python):
    start = [quick_python, ROOT / "quality_classifier" / "audit.py"]
    return lambda *arguments: subprocess.run(
        [*start, *arguments], capture_output=True, text=True, check=False
    )


def test_command_line(command, tmp_path):
    run_folder(tmp_path)
    output = tmp_path / "audit.parquet"
    done = command(f"scored={tmp_path}", "by=[domain,language]", "alpha=1", f"output={output}")
    assert done.returncode == 0, done.stderr
    assert "x.org" in done.stdout
    found = pa.parquet.read_table(output).to_pylist()
    all_rows = {row["rule"]: row for row in found if row["column"] == "(all)"}
    assert all_rows["run"]["documents"] == 2  # neither the pass-through source nor the blocked URL
    assert all_rows["run"]["rate"] == 0.5
    assert all_rows["threshold"]["rate"] == 0.5
    assert all_rows["pareto"]["rate"] == pytest.approx((1 / 1.75 + 1 / 1.25) / 2)
    assert {row["value"] for row in found if row["column"] == "language"} == {"en", "(none)"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["scored={}", "sources=[books]"], 1, "no source ['books']"),
        (["scored={}", "by=[colour]"], 1, "no column 'colour'"),
        (["scored={}/none"], 1, "manifest.json"),
        ([], 2, "scored missing"),
        (["scored={}", "alfa=3"], 2, "alfa"),
        (["scored={}", "+alfa=3"], 2, "alfa"),
        (["scored={}", "alpha=three"], 2, "alpha"),
    ],
)
def test_command_line_errors_are_clear(command, tmp_path, arguments, code, message):
    run_folder(tmp_path)
    done = command(*(argument.format(tmp_path) for argument in arguments))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_without_its_dropped_documents_is_refused(command, tmp_path):
    run_folder(tmp_path, write="kept")
    assert "--write kept" in command(f"scored={tmp_path}").stderr
