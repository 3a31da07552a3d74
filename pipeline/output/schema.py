"""Every Arrow schema that crosses a boundary of the pipeline, declared once.

Documents flow as ``pyarrow.RecordBatch`` from readers (:func:`pipeline.readers.document_schema`) to
shards (:func:`shard_schema`). No schema is inferred from the first document.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from winnow.filesystem.tables import required

QUALITY = "quality"
"""Drop reason of the keep decision."""

DUPLICATE = "duplicate"
"""Drop reason of a document that repeats the text of another."""

NEAR_DUPLICATE = "near_duplicate"
"""Drop reason of a document when another one stays in its cluster of near-duplicates."""

TOKENS = "tokens"
"""The column with the number of tokens of a text, in runs with a tokenizer."""

COPIES = pa.field("copies", pa.int32(), nullable=False)
"""How often a document is in the training order: 0 if it was dropped. Only with buckets."""


def score_column(classifier: str) -> str:
    """The column of one of several classifiers' scores."""
    return f"score_{classifier}"


def grade_column(classifier: str | None = None) -> str:
    """The column of expected grades, from the run's graded classifier or one of several."""
    return "expected_grade" if classifier is None else f"expected_grade_{classifier}"


def grade_columns(classifier: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A run's columns of expected grades, each with its scale, from the manifest's entry."""
    if "grades" in classifier:
        return {grade_column(): classifier["grades"]}
    several = sorted(classifier.get("several", {}).items())
    return {grade_column(name): one["grades"] for name, one in several if "grades" in one}


def shard_schema(
    metadata: Sequence[str] = (),
    clusters: bool = False,
    copies: bool = False,
    grades: Sequence[str] = (),
    counts: Sequence[str] = (),
    classifiers: Sequence[str] = (),
    joined: Sequence[pa.Field] = (),
) -> pa.Schema:
    """A row of ``shards/*.arrow``: one document, its features, its score and its decision.

    ``drop_reason`` is null where ``kept`` is true. ``keep_draw`` is uniform in [0, 1) and keyed by
    id and seed; ``keep_probability`` is the chance before the draw (0 where a step dropped the
    document), so both serve any later decision.

    With ``clusters`` (a near-duplicate search), ``cluster`` is the smallest of the first 64 bits of
    the content hashes in a document's cluster, and ``cluster_size`` its number of documents; both
    are null where a document was not compared. ``grades`` are columns of :func:`grade_column`,
    ``counts`` those in which steps count their changes (and ``tokens``), and ``joined`` those of
    joins, null where a document has no match.
    """
    return pa.schema(
        [
            *required(id=pa.string(), source=pa.string()),
            pa.field("url", pa.string()),
            *required(text=pa.large_string()),
            *required(bytes=pa.int64(), characters=pa.int64(), words=pa.int64()),
            *required(content_hash=pa.binary(16)),
            pa.field("language", pa.string()),
            pa.field("language_score", pa.float32()),
            *required(quality_score=pa.float32(), keep_draw=pa.float64()),
            *required(keep_probability=pa.float32(), kept=pa.bool_()),
            pa.field("drop_reason", pa.string()),
            *required(**dict.fromkeys(grades, pa.float32())),
            *(_CLUSTERS if clusters else ()),
            *([COPIES] if copies else []),
            *required(**dict.fromkeys(map(score_column, classifiers), pa.float32())),
            *(pa.field(name, pa.string()) for name in metadata),
            *required(**dict.fromkeys(counts, pa.int64())),
            *joined,
        ]
    )


_CLUSTERS = [pa.field("cluster", pa.uint64()), pa.field("cluster_size", pa.int64())]

_COUNTS = required(documents=pa.int64(), bytes=pa.int64(), words=pa.int64())


def _named(prefix: str) -> list[pa.Field]:
    return [field.with_name(f"{prefix}_{field.name}") for field in _COUNTS]


_KEPT_COUNTS = [*_COUNTS, *_named("kept")]

SOURCES = pa.schema(
    [*required(source=pa.string(), filtered=pa.bool_(), outcome=pa.string()), *_COUNTS]
)
"""``statistics/sources.parquet``: the row accounting. ``outcome`` is ``read``, ``kept``,
``quarantined`` or a drop reason; per source read = kept + every drop reason + quarantined."""

SCORE_HISTOGRAM = pa.schema(
    [*required(source=pa.string(), score_low=pa.float64(), score_high=pa.float64()), *_KEPT_COUNTS]
)
"""``statistics/score_histogram.parquet``: documents that reached the decision, by score bin."""

KEEP_CURVES = pa.schema(
    [*required(source=pa.string(), rule=pa.string(), parameter=pa.float64()), *_COUNTS]
)
"""``statistics/keep_curves.parquet``: exactly what each source would keep under ``rule``
(``pareto`` or ``threshold``) on a grid of its parameter."""

DOMAINS = pa.schema([*required(source=pa.string(), domain=pa.string()), *_KEPT_COUNTS])
"""``statistics/domains.parquet``: per source and host name of the URL."""

GROUPS = pa.schema(
    [*required(source=pa.string(), column=pa.string(), value=pa.string()), *_KEPT_COUNTS]
)
"""``statistics/groups.parquet``: the audit of a run, per source by ``language``, ``length``
(``winnow.text.groups.LENGTHS``), ``decoding`` (``mojibake.KINDS``) and every joined column."""

EXAMPLES = pa.schema(
    [
        *required(source=pa.string(), level=pa.string(), rank=pa.float64(), id=pa.string()),
        pa.field("url", pa.string()),
        *required(quality_score=pa.float32(), keep_draw=pa.float64()),
        *required(keep_probability=pa.float32(), kept=pa.bool_(), text=pa.string()),
    ]
)
"""``statistics/examples.parquet``: documents of smallest ``rank`` per ``level``, text clipped.

A level is a fifth of the score range (``0.0-0.2``, …; rank: a hash of the id), ``decision`` (rank:
distance from the decision) or ``dropped: <reason>`` (rank: the hash)."""

STATISTICS = {
    "sources": SOURCES,
    "score_histogram": SCORE_HISTOGRAM,
    "keep_curves": KEEP_CURVES,
    "domains": DOMAINS,
    "groups": GROUPS,
    "examples": EXAMPLES,
}
"""The tables of ``statistics/`` of every run, by file stem."""

RULE_GROUPS = pa.schema(
    [
        *required(source=pa.string(), group=pa.string(), bucket=pa.int32()),
        *_KEPT_COUNTS,
        *_named("copied"),
    ]
)
"""``statistics/rule_groups.parquet``: documents that reached the keep decision, by group and bucket
(from 0 for the lowest scores; 0 without buckets). ``copied_…`` counts each document as often as it
is in the training order."""

_GROUP = pa.field("group", pa.string(), nullable=False)

GROUP_STATISTICS = {
    "rule_groups": RULE_GROUPS,
    "rule_group_histogram": SCORE_HISTOGRAM.insert(1, _GROUP),
    "rule_group_curves": KEEP_CURVES.insert(1, _GROUP),
}
"""The tables of runs with rules per group or buckets."""

CLASSIFIER_KEEPS = pa.schema([*required(source=pa.string(), keepers=pa.string()), *_KEPT_COUNTS])
"""``statistics/classifier_keeps.parquet``: documents that reached the keep decision, by the
classifiers (names, separated by spaces) whose scores alone would keep them. ``kept_…`` counts those
that their combination kept."""

CLASSIFIER_SAMPLE = pa.schema(
    [
        *required(source=pa.string(), rank=pa.float64(), id=pa.string(), classifier=pa.string()),
        *required(score=pa.float32(), quality_score=pa.float32(), kept=pa.bool_()),
    ]
)
"""``statistics/classifier_sample.parquet``: all scores of a random sample of each source's
documents, those of smallest ``rank``, a hash of the id."""

CLASSIFIER_STATISTICS = {
    "classifier_keeps": CLASSIFIER_KEEPS,
    "classifier_sample": CLASSIFIER_SAMPLE,
}
"""The tables of runs with several classifiers."""

REGISTERED_DOMAINS = pa.schema(
    [*required(source=pa.string(), registered_domain=pa.string(), hosts=pa.int64()), *_KEPT_COUNTS]
)
"""``statistics/registered_domains.parquet``: sums by registered domain, written by a report on
request; the metadata name the run."""

CHANGES = pa.schema(
    required(source=pa.string(), step=pa.string(), documents=pa.int64(), removed_bytes=pa.int64())
)
"""``statistics/changes.parquet``: documents, kept or not, whose text a step changed, and the bytes
removed (negative: added). Only for runs with steps that may change texts."""

JOINS = pa.schema(
    [
        *required(source=pa.string(), join=pa.string(), documents=pa.int64()),
        *required(matched=pa.int64(), without_key=pa.int64()),
    ]
)
"""``statistics/joins.parquet``: documents read, matched by a join, and without a key for it."""

CLUSTER_SIZES = pa.schema([*required(source=pa.string(), least=pa.uint64()), *_KEPT_COUNTS])
"""``statistics/cluster_sizes.parquet``: compared documents by the size of their cluster of
near-duplicates in all sources: from ``least`` (1, 2, 4, 8, …) to below twice that."""

TABLES = {
    **STATISTICS,
    **GROUP_STATISTICS,
    **CLASSIFIER_STATISTICS,
    "changes": CHANGES,
    "cluster_sizes": CLUSTER_SIZES,
    "joins": JOINS,
    "registered_domains": REGISTERED_DOMAINS,
}
"""All tables that ``statistics/`` may hold, by file stem."""
