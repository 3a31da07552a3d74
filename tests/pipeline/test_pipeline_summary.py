"""Statistics against plain Python loops over the documents."""

import tempfile
from unittest import mock
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.task import decide_batch
from pipeline.output import schema, summary_files
from pipeline.output.score_counts import PARETO_GRID, THRESHOLD_GRID
from pipeline.output.summary import (
    EXAMPLES_PER_KIND,
    TaskSummary,
    check_accounting,
    merge,
)
from pipeline.rules.decision import Rule
from winnow.text.groups import domain

documents = st.lists(
    st.fixed_dictionaries(
        {
            "score": st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 1.0])),
            "draw": st.floats(0, 1, exclude_max=True),
            "reason": st.sampled_from([None, None, None, "gopher_words", "language"]),
            "host": st.sampled_from(["a.example", "www.a.example", "b.example", ""]),
            "text": st.text("ab ü", max_size=20),
            "language": st.sampled_from([None, "en"]),
        }
    ),
    max_size=30,
)
groups_columns = schema.GROUPS.names

rules = st.one_of(
    st.floats(0, 12).map(lambda a: Rule("pareto", a)),
    st.floats(0, 1).map(lambda t: Rule("threshold", t)),
    st.just(Rule("all")),
)


def as_batch(rows, first=0):
    n = len(rows)
    columns = {
        "id": [f"id-{first + i}" for i in range(n)],
        "source": ["web"] * n,
        "url": [f"https://{r['host']}/x" if r["host"] else None for r in rows],
        "text": [r["text"] for r in rows],
        "bytes": [len(r["text"].encode()) for r in rows],
        "characters": [len(r["text"]) for r in rows],
        "words": [len(r["text"].split()) for r in rows],
        "content_hash": [b"x" * 16] * n,
        "language": [r["language"] for r in rows],
        "language_score": [None] * n,
        "quality_score": [r["score"] for r in rows],
        "keep_draw": [r["draw"] for r in rows],
        "keep_probability": [0.0] * n,
        "kept": [False] * n,
        "drop_reason": [r["reason"] for r in rows],
    }
    return pa.RecordBatch.from_pydict(columns, schema=schema.shard_schema())


def summarise(batches, rule, quarantined=0):
    summary = TaskSummary("web", True, rule)
    for batch in batches:
        summary.update(decide_batch(batch, rule, True))
    summary.quarantine(quarantined)
    return summary.tables()


def total(rows):
    return {
        "documents": len(rows),
        "bytes": sum(len(r["text"].encode()) for r in rows),
        "words": sum(len(r["text"].split()) for r in rows),
    }


def keeps(rule, row):
    return bool(rule.keep(np.array([row["score"]], np.float32), np.array([row["draw"]]))[0])


@given(documents, rules, st.integers(0, 3), st.integers(0, 30))
@settings(deadline=None, max_examples=60)
def test_tables_are_what_plain_loops_count(rows, rule, quarantined, cut):
    tables = summarise([as_batch(rows[:cut]), as_batch(rows[cut:], cut)], rule, quarantined)
    reached = [r for r in rows if r["reason"] is None]
    kept = [r for r in reached if keeps(rule, r)]

    by_outcome = {r["outcome"]: r for r in tables["sources"].to_pylist()}
    assert by_outcome["read"]["documents"] == len(rows) + quarantined
    assert by_outcome.get("quarantined", {"documents": 0})["documents"] == quarantined
    expected = {"kept": kept, "quality": [r for r in reached if not keeps(rule, r)]}
    for reason in ("gopher_words", "language"):
        expected[reason] = [r for r in rows if r["reason"] == reason]
    for outcome, members in expected.items():
        counted = by_outcome.get(outcome, dict.fromkeys(total([]), 0))
        assert {k: counted[k] for k in total([])} == total(members)
    check_accounting(tables["sources"])

    histogram = tables["score_histogram"].to_pylist()
    assert len(histogram) == 100
    for i, bar in enumerate(histogram):
        inside = [
            r for r in reached if min(int(np.float32(r["score"]).astype(float) * 100), 99) == i
        ]
        assert {k: bar[k] for k in total([])} == total(inside)
        inside = [r for r in inside if keeps(rule, r)]
        assert {k: bar[f"kept_{k}"] for k in total([])} == total(inside)

    for stop in tables["keep_curves"].to_pylist():
        if (stop["parameter"] * 10) % 7 == 0 or stop["rule"] == "threshold":
            there = Rule(stop["rule"], stop["parameter"])
            assert {k: stop[k] for k in total([])} == total([r for r in reached if keeps(there, r)])
    assert tables["keep_curves"].num_rows == len(PARETO_GRID) + len(THRESHOLD_GRID)

    for row in tables["domains"].to_pylist():
        host = "" if row["domain"] == "(none)" else row["domain"]
        members = [r for r in rows if r["host"].removeprefix("www.") == host]
        assert {k: row[k] for k in total([])} == total(members)

    groups = {(row["column"], row["value"]): row for row in tables["groups"].to_pylist()}
    assert sum(row["documents"] for row in groups.values()) == 3 * len(rows)
    for code in ("(none)", "en"):
        members = [r for r in rows if (r["language"] or "(none)") == code]
        counted = groups.get(("language", code), dict.fromkeys(groups_columns, 0))
        assert {k: counted[k] for k in total([])} == total(members)
        there = total([r for r in kept if (r["language"] or "(none)") == code])
        assert {k: counted[f"kept_{k}"] for k in total([])} == there
    short = groups.get(("length", "under 500 B"), dict.fromkeys(groups_columns, 0))
    assert {k: short[k] for k in total([])} == total(rows)


@given(
    st.lists(st.tuples(documents, st.integers(0, 5)), min_size=1, max_size=4), rules, st.randoms()
)
@settings(deadline=None, max_examples=30)
def test_merging_is_exact_in_any_order_and_grouping(parts, rule, random):
    summaries, first = [], 0
    for rows, quarantined in parts:
        summaries.append(summarise([as_batch(rows, first)], rule, quarantined))
        first += len(rows)
    once = merge(summaries)
    random.shuffle(summaries)
    stepwise = summaries[0]
    for summary in summaries[1:]:
        stepwise = merge([stepwise, summary])
    assert all(once[name].equals(stepwise[name]) for name in once)
    together, first = TaskSummary("web", True, rule), 0
    for rows, quarantined in parts:
        together.update(decide_batch(as_batch(rows, first), rule, True))
        together.quarantine(quarantined)
        first += len(rows)
    # An outcome that nothing had is no row in a part, but may be a zero in the whole.
    for name in ("keep_curves", "domains", "groups", "examples"):
        assert together.tables()[name].equals(once[name])


@pytest.mark.slow
@given(st.lists(documents, min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_merging_files_as_streams_is_merging_in_memory(parts, batch_rows, together):
    rule, first = Rule("pareto", 2.0), 0
    summaries = []
    for rows in parts:
        rows = [row | {"host": f"{row['host']}{i % 7}"} for i, row in enumerate(rows)]
        summaries.append(summarise([as_batch(rows, first)], rule))
        first += len(rows)
    expected = merge(summaries)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(summary_files, "BATCH_ROWS", batch_rows),
        mock.patch.object(summary_files, "ROW_GROUP_ROWS", batch_rows + 1),
    ):
        paths = [f"{folder}/{i}.arrow" for i in range(len(summaries))]
        for path, summary in zip(paths, summaries, strict=True):
            summary_files.write(path, summary)
        groups = [paths[i : i + together] for i in range(0, len(paths), together)]
        for i, group in enumerate(groups):
            summary_files.merge_files(group, f"{folder}/group-{i}.arrow")
        merged = [f"{folder}/group-{i}.arrow" for i in range(len(groups))]
        small, rows = summary_files.write_parquet(merged, folder)
        found = {name: pq.read_table(f"{folder}/{name}.parquet") for name in expected}
    assert found == expected
    assert rows == {name: table.num_rows for name, table in expected.items()}
    assert small == {name: table for name, table in expected.items() if name != "domains"}


def test_examples_are_few_of_each_kind_and_nearest_the_decision_first():
    rng = np.random.default_rng(0)
    rows = [
        {"score": float(np.float32(s)), "draw": float(u), "reason": None, "host": "", "text": "a"}
        | {"language": None}
        for s, u in rng.random((500, 2))
    ]
    examples = summarise([as_batch(rows)], Rule("pareto", 2.0))["examples"].to_pylist()
    kinds = {}
    for row in examples:
        kinds.setdefault((row["level"], row["kept"]), []).append(row)
    assert len(kinds) == 12
    assert all(len(members) == EXAMPLES_PER_KIND for members in kinds.values())
    distances = sorted(
        abs(r["draw"] - float(np.float32((2 - r["score"]) ** -2.0)))
        for r in rows
        if keeps(Rule("pareto", 2.0), r)
    )
    found = [abs(r["keep_draw"] - r["keep_probability"]) for r in kinds["decision", True]]
    assert np.allclose(found, distances[:3], atol=1e-7)


def test_an_account_that_does_not_balance_is_an_error():
    sources = summarise([as_batch([])], Rule("all"), 1)["sources"].to_pylist()
    sources = [r for r in sources if r["outcome"] != "quarantined"]
    with pytest.raises(RuntimeError, match="off by 1 documents"):
        check_accounting(pa.Table.from_pylist(sources, schema.SOURCES))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a", "https://www.Example.com:8080/?q=http://b.example", "ftp://a.b",
        "http://user:secret@host.example/path", "https://host.example?x@y", "http://h.example#f",
    ],
)  # fmt: skip
def test_domains_are_those_of_urlsplit(url):
    expected = (urlsplit(url).hostname or "").removeprefix("www.")
    assert domain(pa.array([url])).to_pylist() == [expected]


def test_what_is_no_url_has_no_domain():
    assert domain(pa.array([None, "", "dir/file.html", "http://"])).to_pylist() == ["(none)"] * 4
