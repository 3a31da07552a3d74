"""The table that a run prints, against its documents."""

import re

import pyarrow as pa
from report_run import FILTERED, kept_at

from pipeline.output import schema
from pipeline.page import render
from pipeline.rules.decision import Rule


def test_the_table_of_the_terminal(run, capsys):
    output, batches, _ = run
    tasks = [
        task | {"kinds": {"html": 900, "plain_text": n}} for n, task in enumerate(run[2]["tasks"])
    ]
    render.print_summary(str(output), run[2] | {"tasks": tasks})
    lines = capsys.readouterr().out.splitlines()
    count = len(tasks)
    assert f"kinds:  {900 * count:,} html, {count * (count - 1) // 2} plain text" in lines
    end = lines.index("")
    cells = {line.split()[0]: line.split() for line in lines[:end]}
    sums = {}
    for source, batch in batches.items():
        rule = Rule("pareto", 2.345) if source in FILTERED else Rule("all")
        kept = kept_at(batch, rule)
        # Steps drop documents of our whole sources too: the fixture did so before deciding.
        read = [len(batch) + 3, sum(batch["bytes"].to_pylist())]
        numbers = [read[0], read[1], kept[0], kept[1], len(batch) - kept[0], 3]
        sums[source] = numbers
        assert cells[source][:2] == [source, "yes" if source in FILTERED else "no"]
    sums["total"] = [sum(column) for column in zip(*sums.values(), strict=True)]
    for name, (read, n_bytes, kept, kept_bytes, dropped, lost) in sums.items():
        expected = [
            f"{read:,}", f"{n_bytes / 1e6:,.2f}", f"{kept:,}", f"{kept_bytes / 1e6:,.2f}",
            f"{100 * kept / read:.3g}", "%", f"{dropped:,}", f"{lost:,}",
        ]  # fmt: skip
        assert cells[name][1 if name == "total" else 2 :] == expected
    widths = {len(line) for line in lines[:end] if "─" not in line}
    assert widths == {len(next(line for line in lines if "─" in line))}
    assert lines[-1] == f"report: {output}/report.html"
    assert "rule:   pareto, alpha = 2.345" in lines
    dropped = [b["drop_reason"].to_pylist() for b in batches.values()]
    read = sum(len(batches[source]) + 3 for source in FILTERED)
    rows = {line.split()[0]: line.split() for line in lines[end:] if line}
    language = sum(reasons.count("language") for reasons in dropped)
    assert rows["language"][1] == f"{language:,}"
    assert rows["language"][3] == f"{100 * language / read:.3g}"


def test_what_each_step_dropped_is_added_up_over_sources_and_reasons():
    rows = [
        {"source": source, "filtered": True, "outcome": outcome, "documents": n, "bytes": 10**6 * n}
        | {"words": 1}
        for source, n_words in (("a", 3), ("b", 4))
        for outcome, n in (("read", 20), ("gopher_word_count", n_words), ("gopher_hashes", 2))
    ]
    lines = render.table(pa.Table.from_pylist(rows, schema.SOURCES)).splitlines()
    row = lines[-1].split()
    assert row == ["gopher", "11", "11.00", "27.5", "%", "gopher_word_count"]


def test_a_source_that_could_not_be_read_at_all_is_said_to_be_so():
    rows = [
        {
            "source": name,
            "filtered": True,
            "outcome": outcome,
            "documents": n,
            "bytes": 0,
            "words": 0,
        }
        for name, outcomes in {
            "web": {"read": 4, "kept": 1, "quarantined": 3},
            "odd": {"read": 3, "kept": 0, "quarantined": 3},
            "none": {"read": 0, "kept": 0},
        }.items()
        for outcome, n in outcomes.items()
    ]
    said = render.table(pa.Table.from_pylist(rows, schema.SOURCES))
    assert "No record of odd could be read" in said
    assert said.count("could be read") == 1
    assert "--filter" not in said


def test_a_run_that_filters_nothing_says_so():
    row = {"source": "web", "filtered": False, "documents": 1, "bytes": 1, "words": 1}
    rows = [row | {"outcome": outcome} for outcome in ("read", "kept")]
    said = render.table(pa.Table.from_pylist(rows, schema.SOURCES))
    assert "No source is filtered" in said
    assert "--filter web" in said


def test_thousands_are_separated_and_nothing_is_a_dash():
    names = schema.SOURCES.names
    rows = [
        ("a", True, "read", 0, 0, 0),
        ("b", False, "read", 1234567, 10**10, 1),
        ("b", False, "kept", 1234567, 10**10, 1),
    ]
    rows = [dict(zip(names, row, strict=True)) for row in rows]
    text = render.table(pa.Table.from_pylist(rows, schema.SOURCES))
    assert "1,234,567  10,000.00" in text
    assert "100 %" in text
    assert re.search(r"^a +yes +0 +0.00 +0 +0.00 +– +0 +0$", text, re.MULTILINE)
