"""The data of a run's page, as one JSON value of bounded size, from manifest and statistics.

Beyond :data:`SOURCES_SHOWN` the smallest sources are added up (counts and curves stay exact), each
source shows its largest domains and one row for the others, domains and example texts share a
budget, and long lists are cut. The page says what it leaves out.
"""

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.run_notes import unchecked_rows
from pipeline.output.score_counts import COUNTS, KEPT_COUNTS, PARETO_GRID, THRESHOLD_GRID
from pipeline.output.summary import EXAMPLE_CHARACTERS, Summary
from pipeline.page import Panel, embed_json, panel_data
from pipeline.page.data.changed_texts import by_source, change_rows
from pipeline.page.data.classifier_data import (
    agreement_rows,
    classifier_entry,
    keeper_rows,
    scatter,
)
from pipeline.page.data.group_data import counts_of, give_clusters, give_groups, rule_rows
from pipeline.page.data.join_data import bins_in_order, join_rows
from pipeline.page.data.keep_rules import ties
from pipeline.page.data.provenance import FILES_SHOWN, bounded, provenance
from pipeline.page.data.registered_data import registered_rows
from pipeline.page.data.spread_data import spread_rows
from pipeline.page.data.totals import account, add_up, clip, damage, headline
from pipeline.page.reading_test import agreement_rows as reading_rows
from quality_classifier.evaluation.metrics import GRADED, PAIRED, wilson
from quality_classifier.evaluation.within_groups import NEAR_CONSTANT
from winnow.text.groups import LENGTHS

SOURCES_SHOWN = 50
DOMAINS_SHOWN = 100
ALL_DOMAINS_SHOWN = 2000
GROUPS_SHOWN = 15
EXAMPLES_BYTES = 1_000_000
_SUMMED = ("outcomes", "histogram", "kept_histogram", "curves")

Json = dict[str, Any]


def page_data(
    manifest: Mapping[str, Any], statistics: Summary, domains: Iterable[pa.Table]
) -> Json:
    """Everything that ``page/report.js`` draws.

    ``domains`` may be large, so they come in parts (:data:`pipeline.output.schema.DOMAINS`).
    Counts are lists: documents, bytes, words. ``stops`` are the positions of each rule's control:
    the grid of the stored keep curves, and the run's parameter with its exact counts.
    """
    rule = manifest["rule"]
    classifier = classifier_entry(manifest["classifier"])
    sources = _fold(_sources(statistics))
    grids = {"pareto": PARETO_GRID.tolist(), "threshold": THRESHOLD_GRID.tolist()}
    give_groups(sources, manifest, statistics, _insert_own_stop, grids)
    give_clusters(sources, statistics)
    _insert_own_stop(rule, grids, sources)
    largest = _largest_domains([s["name"] for s in sources if len(s["names"]) == 1], domains)
    bins = bins_in_order(manifest)
    for source in sources:
        source["domains"], source["other_domains"] = largest.get(source["name"], ([], None))
        source["groups"] = _groups(source["names"], statistics["groups"], bins)
        for part in (source, *source["rule_groups"]):
            part["mean_score"] = _mean(part["histogram"])
            part["name"] = clip(part["name"])
    _give_examples(sources, statistics["examples"])
    damaged = damage(manifest, statistics["groups"])
    for source in sources:
        source["damage"] = add_up([damaged[name] for name in source.pop("names")])
    return {
        "rule": dict(rule),
        "rules": manifest["config"]["decision"].get("rules"),
        "headline": headline(statistics["sources"]),
        "account": account(manifest, statistics["sources"]),
        "stops": grids,
        "sources": sources,
        "classifier": {
            "path": clip(str(classifier["path"])),
            "fingerprint": classifier["fingerprint"],
            "card": bounded(_with_titles(classifier["card"])),
        },
        "scatter": scatter([source["name"] for source in sources], statistics),
        "write": manifest["config"]["write"],
        "panels": panel_data(PANELS, manifest, statistics),
        "provenance": provenance(manifest),
    }


def _records(column: str, manifest: Mapping[str, Any]) -> list[Json]:
    """Counts by source and kind in the tasks' ``column``, the most frequent first."""
    total: Counter[tuple[str, str]] = Counter()
    for task in manifest["tasks"]:
        source = clip(task["task"]["source"])
        total.update({(source, clip(kind)): count for kind, count in task[column].items()})
    most = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:FILES_SHOWN]
    return [{"source": s, "kind": kind, "records": count} for (s, kind), count in most]


PANELS: dict[str, Panel] = {
    "rules": Panel(
        "Rules per group",
        rule_rows,
        "Documents that reached the keep decision. “In training” counts every copy in the training"
        " order.",
    ),
    "keepers": Panel(
        "Which classifier keeps what",
        keeper_rows,
        "Documents that reached the keep decision, by the classifiers whose score alone would keep"
        " them under this run's rule.",
    ),
    "agreement": Panel(
        "How much classifiers agree",
        agreement_rows,
        "Spearman's rank correlation of their scores, in a fair sample of each source.",
    ),
    "joins": Panel(
        "Joined columns",
        join_rows,
        "Documents whose id or URL is in the joined files. The groups of a source show how the"
        " joined values are distributed, and how many documents of each are kept.",
    ),
    "spread": Panel(
        "How far scores spread within sources",
        spread_rows,
        f"Where 80 % of a source's scores lie within {NEAR_CONSTANT}, a filter selects sources"
        " rather than documents.",
    ),
    "registered": Panel(
        "Largest registered domains", registered_rows, "Sums over hosts, by the public suffix list."
    ),
    "reading": Panel(
        "What readers found",
        reading_rows,
        "Readers compared pairs of documents of one source and similar length without seeing the"
        " scores. Agreement is how often the better document has the higher score, among pairs that"
        " the reader could decide, with Wilson's 95 % interval.",
    ),
    "kinds": Panel(
        "Documents of web archives and HTML files, by kind", lambda run, _: _records("kinds", run)
    ),
    "skipped": Panel(
        "Records without text",
        lambda run, _: _records("skipped", run),
        "WARC records that are not pages, failed requests, other media types, and pages with only"
        " menus and scripts. They count as neither read nor dropped.",
    ),
    "changes": Panel(
        "Texts that steps changed",
        change_rows,
        "All documents read, kept or not. Bytes removed are negative where texts became longer.",
    ),
    "changed": Panel("What steps changed", lambda run, _: by_source(run)),
    "unchecked": Panel(
        "Documents that a step passed unchecked",
        lambda run, _: unchecked_rows(run)[:FILES_SHOWN],
        "Their languages have no settings for the step.",
    ),
}
"""Further tables of the page, from manifest and statistics."""


def _sources(statistics: Summary) -> list[Json]:
    found: dict[str, Json] = {}
    for row in statistics["sources"].to_pylist():
        new = {"name": row["source"], "names": [row["source"]], "filtered": row["filtered"]}
        entry = found.setdefault(row["source"], {**new, "outcomes": {}})
        entry["outcomes"][row["outcome"]] = [row[name] for name in COUNTS]
    for name, entry in found.items():
        bins, curves = (_of(statistics[t], name) for t in ("score_histogram", "keep_curves"))
        entry |= counts_of(bins, curves, ("pareto", "threshold") if entry["filtered"] else ())
    return sorted(found.values(), key=lambda entry: (-entry["outcomes"]["read"][0], entry["name"]))


def _of(table: pa.Table, source: str) -> pa.Table:
    return table.filter(pc.equal(table["source"], source))


def _fold(sources: list[Json]) -> list[Json]:
    """Add up the smallest of too many sources, filtered and other ones separately."""
    if len(sources) <= SOURCES_SHOWN:
        return sources
    out = sources[: SOURCES_SHOWN - 2]
    for filtered in (True, False):
        rest = [s for s in sources[SOURCES_SHOWN - 2 :] if s["filtered"] == filtered]
        if rest:
            kind = "filtered sources" if filtered else "pass-through sources"
            out.append(
                {
                    **{key: add_up([s[key] for s in rest]) for key in rest[0] if key in _SUMMED},
                    "name": f"({len(rest)} smaller {kind})",
                    "names": [s["name"] for s in rest],
                    "filtered": filtered,
                }
            )
    return out


def _insert_own_stop(
    rule: Mapping[str, Any], grids: dict[str, list[float]], sources: Sequence[Json]
) -> None:
    grid = grids.get(rule["name"])
    if grid is None or (rule["parameter"] in grid and ties(rule) == 1):
        return
    place = bisect_left(grid, rule["parameter"])
    end = place + (rule["parameter"] in grid)  # replaces a stop that keeps all ties
    grid[place:end] = [rule["parameter"]]
    for source in sources:
        if source["filtered"]:
            kept = source["outcomes"].get("kept", [0, 0, 0])
            for counts, own in zip(source["curves"][rule["name"]], kept, strict=True):
                counts[place:end] = [own]


def _largest_domains(
    sources: Sequence[str], domains: Iterable[pa.Table]
) -> dict[str, tuple[list[Any], Json | None]]:
    """The largest domains of each source, and the sum of its others.

    A domain is ``[name, documents, bytes, kept documents, kept bytes]``.
    """
    units = [*COUNTS[:2], *KEPT_COUNTS[:2]]
    shown = min(DOMAINS_SHOWN, ALL_DOMAINS_SHOWN // max(1, len(sources)))
    order = [("documents", "descending"), ("domain", "ascending")]
    top: dict[str, pa.Table] = {}
    whole = {source: np.zeros(1 + len(units), np.int64) for source in sources}
    for part in domains:
        for source in set(part["source"].unique().to_pylist()) & set(sources):
            table = _of(part, source).select(["domain", *units])
            whole[source] += [len(table), *(pc.sum(table[unit]).as_py() for unit in units)]
            table = pa.concat_tables([table, *([top[source]] if source in top else [])])
            top[source] = table.take(pc.select_k_unstable(table, shown, order))
    found: dict[str, tuple[list[Any], Json | None]] = {}
    for source, table in top.items():
        rows = [[clip(row["domain"]), *(row[u] for u in units)] for row in table.to_pylist()]
        others, *counts = whole[source] - [len(rows), *np.sum([row[1:] for row in rows], axis=0)]
        rest = {"domains": int(others), "counts": [int(n) for n in counts]}
        found[source] = rows, rest if others else None
    return found


def _groups(names: Sequence[str], groups: pa.Table, bins: Mapping[tuple[str, str], int]) -> Json:
    """Per column of the audit ``[value, documents, bytes, kept documents, low, high]``.

    ``low`` and ``high`` bound the keep rate (Wilson, 95 %). ``bins`` come in their order, other
    values by frequency.
    """
    groups = groups.filter(pc.is_in(groups["source"], pa.array(names, pa.string())))
    units = ["documents", "bytes", "kept_documents"]
    groups = groups.group_by(["column", "value"]).aggregate([(unit, "sum") for unit in units])
    out: dict[str, list[Any]] = {"language": [], "length": [], "decoding": []}
    rows = [list(row.values()) for row in groups.to_pylist()]
    rows.sort(key=lambda row: (bins.get((row[0], row[1]), _length_rank(row[1])), -row[2], row[1]))
    for column, value, n, size, kept in rows:
        low, high = wilson(np.array([kept / n]), np.array([float(n)]))
        if len(shown := out.setdefault(clip(column), [])) < GROUPS_SHOWN:
            shown.append([clip(value), n, size, kept, float(low[0]), float(high[0])])
    return out


def _mean(histogram: Sequence[int]) -> Json | None:
    """The mean score with its 95 % interval, from bins; None if nothing was scored.

    The interval of a single document is 0 to 1.
    """
    n = sum(histogram)
    if not n:
        return None
    # Integers, in units of half a bin: their sum does not depend on the order.
    halves = range(1, 2 * len(histogram), 2)
    first = sum(count * half for count, half in zip(histogram, halves, strict=True))
    second = sum(count * half**2 for count, half in zip(histogram, halves, strict=True))
    whole = 2 * len(histogram)
    mean = first / (n * whole)
    half = 1.96 * math.sqrt((n * second - first**2) / (n**2 * (n - 1))) / whole if n > 1 else 1.0
    return {"value": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}


def _with_titles(card: Any) -> Any:
    """A classifier's card with titles for its metrics, each with its interval."""
    if not isinstance(card, Mapping):
        return card
    lists = {name: list(map(_titled, rows)) for name, rows in card.items() if type(rows) is list}
    return {**card, **lists}


def _titled(row: Any) -> Any:
    if not isinstance(row, Mapping):
        return row
    titles = GRADED | PAIRED
    out = {key: value for key, value in row.items() if key.removesuffix("_95") not in titles}
    for key, title in titles.items():
        if key in row:
            ends = re.fullmatch(r"(\d+\.?\d*) to (\d+\.?\d*)", str(row.get(f"{key}_95")))
            interval = {"low": float(ends[1]), "high": float(ends[2])} if ends else {}
            out[title] = {"value": row[key], **interval} if ends else row[key]
    return out


def _length_rank(value: str) -> int:
    return LENGTHS.index(value) if value in LENGTHS else -1


def _give_examples(sources: Sequence[Json], examples: pa.Table) -> None:
    """Add examples to every single source, with texts within the budget."""
    names = [source["names"][0] for source in sources if len(source["names"]) == 1]
    rows = {name: _of(examples, name).to_pylist() for name in names}
    limit = EXAMPLES_BYTES // max(1, sum(map(len, rows.values())))
    for source in sources:
        source["examples"] = [
            {
                "level": clip(row["level"]),
                "id": clip(row["id"]),
                "url": row["url"] and clip(row["url"]),
                "score": row["quality_score"],
                "draw": row["keep_draw"],
                "probability": row["keep_probability"],
                "kept": row["kept"],
                "text": (text := _fit(row["text"], limit)),
                "cut": len(text) < len(row["text"]) or len(text) >= EXAMPLE_CHARACTERS,
            }
            for row in rows.get(source["names"][0], [])
        ]


def _fit(text: str, limit: int) -> str:
    """``text``, cut to at most ``limit`` bytes of embedded JSON."""
    while (size := len(embed_json(text).encode())) > max(limit, 2):
        text = text[: len(text) * limit // size]
    return text
