"""The page, data card and table of a finished run, from its manifest and statistics."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import page
from pipeline.output.score_counts import COUNTS
from pipeline.output.summary import Summary
from pipeline.page import reading_test
from pipeline.page.data import keep_rules, registered_data
from pipeline.page.data.group_data import rule_rows
from pipeline.page.data.totals import add_up, headline, megabytes, share, total
from pipeline.page.data_card import data_card
from pipeline.page.reading_test import ReadingTest
from pipeline.page.report_data import page_data
from pipeline.steps import STEP_OF
from winnow.commands import console
from winnow.filesystem import storage, tables

PAGE = "report.html"
CARD = "README.md"
SCRIPTS = ("explore.js", "score_charts.js", "clusters.js", "report.js")

NOT_DROPPED = ("read", "kept", "quarantined")
"""Outcomes that are not drop reasons."""


def render(
    manifest: Mapping[str, Any],
    statistics: Summary,
    domains: Iterable[pa.Table],
    test: ReadingTest | None = None,
) -> str:
    """The page as one self-contained HTML file."""
    title = f"Winnow: {headline(statistics['sources'])}"
    scripts = [page.read(name) for name in SCRIPTS]
    data = page_data(manifest, statistics, domains)
    if test:
        scripts.append(page.read("reading_test.js"))
        data["reading"] = test.page_data()
    return page.assemble(title, page.read("report.html"), scripts, data)


def write_report(output: str, manifest: Mapping[str, Any]) -> None:
    """Write ``report.html`` and ``README.md`` from the statistics in ``output``."""
    statistics = {
        name: read_statistics(output, name) for name in manifest["statistics"] if name != "domains"
    }
    test = reading_test.load(output, manifest)
    if test and len(test.answers):
        statistics["reading"] = test.answers
    registered = registered_data.read(output, manifest)
    if registered is not None:
        statistics[registered_data.NAME] = registered
    with open_statistics(output, "domains") as file:
        domains = (file.read_row_group(i) for i in range(file.num_row_groups))
        html = render(manifest, statistics, domains, test)
    storage.write_bytes(storage.join(output, PAGE), html.encode())
    card = data_card(manifest, statistics)
    storage.write_bytes(storage.join(output, CARD), card.encode())


def print_summary(
    output: str, manifest: Mapping[str, Any], seconds: float | None = None, engine: str = ""
) -> None:
    """Print a finished run's row accounting, rule, page and, if known, the time of its engine."""
    sources = read_statistics(output, "sources")
    print(table(sources))
    if manifest["rule"]["name"] == "groups":
        print("\n" + "\n".join(groups_table(manifest, read_statistics(output, "rule_groups"))))
    kinds = sum((Counter(task["kinds"]) for task in manifest["tasks"]), Counter[str]())
    print()
    if kinds:
        counts = (f"{count:,} {kind.replace('_', ' ')}" for kind, count in kinds.most_common())
        print(f"kinds:  {', '.join(counts)}")
    rule, decision = manifest["rule"], manifest["config"]["decision"]
    print(f"rule:   {keep_rules.short(rule)}{keep_rules.solved_for(decision)}")
    if seconds is not None:
        documents, size, _ = total(sources, "read")
        print(f"engine: {engine}")
        print(f"time:   {console.spent(documents, size, seconds)}")
    print(f"report: {storage.join(output, PAGE)}")


def next_step(output: str) -> str:
    """The line that suggests the next commands."""
    return console.next_command("prepare", f"scored={output}", "output=corpus")


def table(sources: pa.Table) -> str:
    """The row accounting for a terminal: a line per source, then the total drops of each step.

    ``sources`` is :data:`pipeline.output.schema.SOURCES`. Sizes are MB (10⁶ bytes) of text.
    """
    counts: dict[str, dict[str, list[int]]] = {}
    filtered = {}
    for row in sources.to_pylist():
        filtered[row["source"]] = "yes" if row["filtered"] else "no"
        counts.setdefault(row["source"], {})[row["outcome"]] = [row[name] for name in COUNTS]
    counts = dict(sorted(counts.items()))
    body = [_row(name, filtered[name], outcomes) for name, outcomes in counts.items()]
    summed = add_up([*counts.values()])
    body.append(_row("total", "", summed))
    head = ["source", "filtered", "read", "MB", "kept", "MB", "share", "dropped", "quarantined"]
    lines = _align([head, *body], left=2, rules=(1, len(body)))

    if dropped := _by_step(summed):
        read = sum(outcomes["read"][0] for n, outcomes in counts.items() if filtered[n] == "yes")
        steps = [
            [step, f"{n[0]:,}", megabytes(n[1]), share(n[0], read), often if often != step else ""]
            for step, n, often in dropped
        ]
        head = ["dropped by", "documents", "MB", "of filtered", "most often for"]
        lines += ["", *_align([head, *steps], left=1, rules=(1,))]
    for name, outcomes in counts.items():
        if outcomes.get("quarantined", [0])[0] == outcomes["read"][0] > 0:
            lines += ["", f"No record of {name} could be read: quarantine/ says why."]
    if "yes" not in filtered.values():
        note = "No source is filtered, so every document is kept: name sources with --filter web"
        lines += ["", note]
    return "\n".join(lines)


def groups_table(manifest: Mapping[str, Any], groups: pa.Table) -> list[str]:
    """Documents kept by each group's rule (:data:`pipeline.output.schema.RULE_GROUPS`), and copies
    in the training order, for a terminal.
    """
    rules = {
        group["group"]: keep_rules.short(group["rule"]) for group in manifest["rule"]["groups"]
    }
    columns = ["group", "source", "rule", "bucket", "documents", "kept", "in training"]
    if "source" in manifest["rule"]["by"]:
        columns.remove("source")  # the group says it
    rows = []
    for row in rule_rows(manifest, {"rule_groups": groups}):
        shown = {"group": row["group"], "source": row["source"] or "–", "rule": rules[row["group"]]}
        shown |= {"bucket": row.get("bucket") or ""}
        shown |= {name: f"{row.get(name, 0):,}" for name in columns[-3:]}
        rows.append([shown[name] for name in columns])
    return _align([columns, *rows], left=len(columns) - 3, rules=(1,))


def _row(name: str, filtered: str, outcomes: Mapping[str, Sequence[int]]) -> list[str]:
    read, kept, quarantined = (
        outcomes.get(outcome, [0, 0, 0]) for outcome in ("read", "kept", "quarantined")
    )
    dropped = sum(n[0] for reason, n in outcomes.items() if reason not in NOT_DROPPED)
    sizes = [f"{read[0]:,}", megabytes(read[1]), f"{kept[0]:,}", megabytes(kept[1])]
    rest = [share(kept[0], read[0]), f"{dropped:,}", f"{quarantined[0]:,}"]
    return [name, filtered, *sizes, *rest]


def _by_step(outcomes: Mapping[str, list[int]]) -> list[tuple[str, list[int], str]]:
    """Each step, its drops and their main reason, in descending order."""
    reasons: dict[str, dict[str, list[int]]] = {}
    for reason, n in outcomes.items():
        if reason not in NOT_DROPPED and n[0]:
            reasons.setdefault(STEP_OF.get(reason, reason), {})[reason] = n
    found = [
        (step, add_up([*of.values()]), max(of, key=of.__getitem__)) for step, of in reasons.items()
    ]
    return sorted(found, key=lambda row: (-row[1][0], row[0]))


def _align(rows: Sequence[Sequence[str]], left: int, rules: Sequence[int]) -> list[str]:
    """Rows as lines: the first ``left`` columns left-aligned, a rule before the rows ``rules``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for i, row in enumerate(rows):
        if i in rules:
            lines.append("─" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [f"{row[k]:{'<' if k < left else '>'}{width}}" for k, width in enumerate(widths)]
        lines.append("  ".join(cells).rstrip())
    return lines


def read_statistics(output: str, name: str) -> pa.Table:
    """One of the statistics of a finished run; errors as in :func:`open_statistics`."""
    with open_statistics(output, name) as file:
        return file.read()


@contextlib.contextmanager
def open_statistics(output: str, name: str) -> Iterator[pq.ParquetFile]:
    """A statistics file of a finished run, to read in parts; a ValueError if it is missing."""
    path = storage.join(output, "statistics", f"{name}.parquet")
    if not storage.exists(path):
        raise ValueError(
            f"{path} is missing: {output} is not an output of a finished pipeline/run.py"
        )
    with tables.open_file(path) as source, pq.ParquetFile(source) as file:
        yield file
