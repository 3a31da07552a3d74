"""A run's part of the public summary of training content that EU law requires of model providers.

Sections follow the template of the European Commission's AI Office (24 July 2025, adopted as
C(2025) 8311; Regulation (EU) 2024/1689, article 53(1)(d)). A run knows sizes, languages, domains
and removals of text; the rest is marked for the provider to fill in.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from pipeline.output import schema
from pipeline.output.score_counts import COUNTS
from pipeline.output.summary import Summary, Tally
from pipeline.page import render
from pipeline.page.data import registered_data
from pipeline.page.data.totals import megabytes, share
from pipeline.page.data_card import markdown_table
from pipeline.steps import STEP_OF
from winnow.filesystem import storage
from winnow.filesystem.tables import required
from winnow.text.groups import NONE

FILES = ("eu_summary.md", "eu_summary.json", "eu_summary_domains.csv")

TOP_SHARE, TOP_SHARE_SME, MOST_SME = 0.1, 0.05, 1000
"""The share of domains, largest first, to be named; for small and medium enterprises, the lower of
share and number."""

TOKEN_RANGES = (
    (1e9, "Less than 1 billion tokens"),
    (1e13, "1 billion to 10 trillion tokens"),
    (float("inf"), "More than 10 trillion tokens"),
)

TO_SAY = "*To be filled in by the provider.*"
SHOWN = 50

DOMAINS = pa.schema(required(domain=pa.string(), documents=pa.int64(), bytes=pa.int64()))
"""Training text by domain, the largest first."""

Json = dict[str, Any]


def write(output: str, manifest: Mapping[str, Any]) -> str:
    """Write the summary of a finished run as :data:`FILES`; return the path of the first.

    Domains are registered domains if the run has these.
    """
    registered = registered_data.read(output, manifest)
    if registered is not None:
        domains = kept_by_domain([registered], "registered_domain")
    else:
        with render.open_statistics(output, "domains") as file:
            parts = (file.read_row_group(i) for i in range(file.num_row_groups))
            domains = kept_by_domain(parts, "domain")
    statistics = {name: render.read_statistics(output, name) for name in ("sources", "groups")}
    about = summary(manifest, statistics, domains)
    text, values, names = (storage.join(output, name) for name in FILES)
    storage.write_bytes(text, markdown(about, domains, registered is not None).encode())
    storage.write_json(values, about)
    with storage.open_output(names) as out:
        csv.write_csv(domains.slice(0, about["2.3"]["named"]), out)
    return text


def kept_by_domain(parts: Iterable[pa.Table], column: str) -> pa.Table:
    """Kept documents and bytes of each domain over all sources (:data:`DOMAINS`).

    ``parts`` are statistics by host or registered domain, the ``column``.
    """
    tally = Tally(DOMAINS)
    for part in parts:
        named = pc.not_equal(part[column], NONE)
        part = part.filter(pc.and_(named, pc.greater(part["kept_documents"], 0)))
        tally.add([part[column], part["kept_documents"], part["kept_bytes"]])
    return tally.total().sort_by([("bytes", "descending"), ("domain", "ascending")])


def summary(manifest: Mapping[str, Any], statistics: Summary, domains: pa.Table) -> Json:
    """The figures of the summary, by section; ``domains`` is from :func:`kept_by_domain`."""
    rows = statistics["sources"].to_pylist()
    outcomes: dict[str, dict[str, Json]] = {}
    for row in rows:
        outcomes.setdefault(row["source"], {})[row["outcome"]] = row
    kept = [by["kept"] for by in outcomes.values() if "kept" in by]
    total = {unit: sum(row[unit] for row in kept) for unit in COUNTS}
    least = [_range(total["words"]), _range(total["bytes"])]
    patterns = manifest["config"]["source"]
    return {
        "template": "AI Office, 24 July 2025: Regulation (EU) 2024/1689, article 53(1)(d)",
        "run": manifest["key"],
        "1.3": {
            "modality": "text",
            "size": total,
            "tokens": least[0] if least[0] == least[1] else " or: ".join(least),
            "languages": _languages(statistics["groups"]),
        },
        "2": [
            {
                "source": source,
                "files": list(patterns.get(source, [])),
                **{unit: by["kept"][unit] for unit in total},
                "of_bytes": by["kept"]["bytes"] / (total["bytes"] or 1),
            }
            for source, by in sorted(outcomes.items())
            if "kept" in by
        ],
        "2.3": {
            "domains": (n := len(domains)),
            "named": math.ceil(TOP_SHARE * n),
            "named_sme": min(MOST_SME, math.ceil(TOP_SHARE_SME * n)),
        },
        "3": {
            "steps": list(manifest["config"].get("steps") or ()),
            "rule": dict(manifest["rule"]),
            "classifier": manifest["classifier"]["fingerprint"],
            "removed": _removed(rows),
        },
    }


def _range(tokens: float) -> str:
    return next(name for end, name in TOKEN_RANGES if tokens < end)


def _languages(groups: pa.Table) -> list[Json]:
    found = groups.filter(pc.equal(groups["column"], "language"))
    sums = [(f"kept_{unit}", "sum") for unit in ("documents", "bytes")]
    found = found.group_by("value").aggregate(sums)
    names = {"value": "language", "kept_documents_sum": "documents", "kept_bytes_sum": "bytes"}
    rows = found.select([*names]).rename_columns([*names.values()]).to_pylist()
    kept = [row for row in rows if row["documents"]]
    return sorted(kept, key=lambda row: (-row["bytes"], row["language"]))


def _removed(rows: Sequence[Json]) -> list[Json]:
    counts: Counter[str] = Counter()
    for row in rows:
        if row["outcome"] not in ("read", "kept", "copied", "quarantined"):
            counts[row["outcome"]] += row["documents"]
    by = {**STEP_OF, schema.QUALITY: "keep rule"}
    found = [
        {"step": by.get(reason, reason), "reason": reason, "documents": n}
        for reason, n in counts.items()
        if n
    ]
    return sorted(found, key=lambda row: (-row["documents"], row["reason"]))


def markdown(about: Json, domains: pa.Table, registered: bool) -> str:
    """The summary by the template's headings, to be completed by hand."""
    blocks = [
        "# Public summary of training content",
        f"Drawn up from the text that the run `{about['run']}` kept, after all filters. Where it"
        f" says *to be filled in*, the run cannot know. Template: {about['template']}.",
        "## 1. General information",
        *_to_say("1.1 Provider identification", "1.2 Model identification"),
        *_characteristics(about["1.3"]),
        "## 2. List of data sources",
        "Assign each source to one of the sections 2.1 to 2.6, and complete that section.",
        _sources(about["2"]),
        *_to_say(
            "2.1 Publicly available datasets",
            "2.2 Private non-publicly available datasets obtained from third parties",
        ),
        *_crawled(about["2.3"], domains, "registered domains" if registered else "host names"),
        *_to_say("2.4 User data", "2.5 Synthetic data", "2.6 Other sources of data"),
        "## 3. Data processing aspects",
        *_to_say(
            "3.1 Respect of reservation of rights from the text and data mining exception or"
            " limitation",
            "3.2 Removal of illegal content",
        ),
        *_processing(about["3"]["removed"]),
    ]
    return "\n\n".join(blocks) + "\n"


def _to_say(*headings: str) -> list[str]:
    return [block for heading in headings for block in (f"### {heading}", TO_SAY)]


def _characteristics(about: Json) -> list[str]:
    size, languages = about["size"], about["languages"]
    spoken = [
        [
            row["language"],
            f"{row['documents']:,}",
            megabytes(row["bytes"]),
            share(row["bytes"], size["bytes"]),
        ]
        for row in languages[:SHOWN]
    ]
    return [
        "### 1.3 Modalities, overall training data size and other characteristics",
        markdown_table(
            ["Modality", "Training data size", "Types of content"],
            [["Text", about["tokens"], TO_SAY]],
        ),
        f"{size['documents']:,} documents, {megabytes(size['bytes'])} MB of UTF-8 text,"
        f" {size['words']:,} words between white space. The range holds for any tokenizer that"
        " makes no fewer tokens than words and no more than bytes.",
        f"**Latest date of data acquisition:** {TO_SAY}",
        "**Linguistic characteristics of the overall training data:**",
        (
            markdown_table(["Language", "Documents", "MB", "Share of text"], spoken)
            if {row["language"] for row in languages} - {NONE}
            else "The run did not identify languages (`--steps language`, `--field language=…`)."
            f" {TO_SAY}"
        ),
    ]


def _sources(sources: Sequence[Json]) -> str:
    head = ["Source", "Section", "Documents", "MB", "Share of text", "Read from"]
    rows = [
        [
            row["source"],
            TO_SAY,
            f"{row['documents']:,}",
            megabytes(row["bytes"]),
            f"{100 * row['of_bytes']:.3g} %",
            ", ".join(f"`{pattern}`" for pattern in row["files"]),
        ]
        for row in sources
    ]
    return markdown_table(head, rows)


def _crawled(web: Json, domains: pa.Table, names: str) -> list[str]:
    shown = domains.slice(0, min(SHOWN, web["named"])).to_pylist()
    rows = [[row["domain"], f"{row['documents']:,}", megabytes(row["bytes"])] for row in shown]
    return [
        "### 2.3 Data crawled and scraped from online sources",
        f"Crawlers, their purposes and behaviour, period of collection: {TO_SAY}",
        f"The kept text comes from {web['domains']:,} {names}. The largest {web['named']:,} of"
        " them, 10 % by size of content, are to be named; small and medium enterprises name"
        f" {web['named_sme']:,} (5 %, at most {MOST_SME:,}). `{FILES[2]}` has the former, the"
        f" largest first{'; the first of them:' if shown else '.'}",
        *([markdown_table(["Domain", "Documents", "MB"], rows)] if rows else []),
    ]


def _processing(removed: Sequence[Json]) -> list[str]:
    rows = [[row["step"], row["reason"], f"{row['documents']:,}"] for row in removed]
    head = "### 3.3 Other information about data processing"
    if not rows:
        return [head, "The run left no document out."]
    table = markdown_table(["By", "Reason", "Documents"], rows)
    return [head, "Documents that the run left out:", table]
