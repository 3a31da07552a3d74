"""Every Arrow schema that crosses a boundary of the pipeline, declared once.

What flows between steps is a ``pyarrow.RecordBatch``. It starts as what a reader yields
(:func:`pipeline.readers.document_schema`), and each step appends its columns until it is
a row of a shard (:func:`shard_schema`). Nothing takes a schema from its first document.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from winnow.filesystem.tables import required

QUALITY = "quality"
"""Drop reason of a document that reached the keep decision and was not drawn."""

DUPLICATE = "duplicate"
"""Drop reason of a document whose text another kept document of the run has."""

NEAR_DUPLICATE = "near_duplicate"
"""Drop reason of a document of whose cluster of near-duplicates another one stays."""

TOKENS = "tokens"
"""The column of the tokens of a text, among the counts of a run with a tokenizer."""

COPIES = pa.field("copies", pa.int32(), nullable=False)
"""How often a document is in the training order: 0 if it was dropped. Only with buckets."""


def score_column(classifier: str) -> str:
    """The column of one of several classifiers' scores."""
    return f"score_{classifier}"


def grade_column(classifier: str | None = None) -> str:
    """The column of the grade that a document is expected to have, by the run's classifier, which
    was trained on labels, or by one of several.
    """
    return "expected_grade" if classifier is None else f"expected_grade_{classifier}"


def grade_columns(classifier: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The columns of expected grades of a run, each with its scale of grades, by what the manifest
    says of the run's ``classifier``, or of several.
    """
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
    id and seed; ``keep_probability`` is the chance that the rule gave this document before the
    draw (0 where another step dropped it), so both stay valid for any later decision.

    A run that looked for near-duplicates has ``clusters``: ``cluster`` is the smallest of the first
    64 bits of the content hashes in a document's cluster, ``cluster_size`` its documents, equal
    texts among them. Both are null where a document was not compared. ``grades`` are the columns of
    expected grades (:func:`grade_column`), float32.

    ``counts`` are the columns in which steps count what they changed in the text (and ``tokens``,
    with a tokenizer), ``joined`` those of joins (:mod:`pipeline.joins`), null where a document met
    no row.
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
"""``statistics/score_histogram.parquet``: documents that reached the keep decision, in equal bins
of their score over [0, 1]."""

KEEP_CURVES = pa.schema(
    [*required(source=pa.string(), rule=pa.string(), parameter=pa.float64()), *_COUNTS]
)
"""``statistics/keep_curves.parquet``: what each source would keep under ``rule`` (``pareto``,
``threshold``) at every stop of a grid of its parameter. Counted from each document's own score and
draw, so a rerun at that parameter keeps exactly these."""

DOMAINS = pa.schema([*required(source=pa.string(), domain=pa.string()), *_KEPT_COUNTS])
"""``statistics/domains.parquet``: per source and host name of the URL."""

GROUPS = pa.schema(
    [*required(source=pa.string(), column=pa.string(), value=pa.string()), *_KEPT_COUNTS]
)
"""``statistics/groups.parquet``: the audit of a run, per source by ``language``, ``length`` (the
bins of ``winnow.text.groups.LENGTHS``), ``decoding`` (the kinds of ``mojibake.KINDS``) and every
joined column (:mod:`pipeline.joins.grouping`)."""

EXAMPLES = pa.schema(
    [
        *required(source=pa.string(), level=pa.string(), rank=pa.float64(), id=pa.string()),
        pa.field("url", pa.string()),
        *required(quality_score=pa.float32(), keep_draw=pa.float64()),
        *required(keep_probability=pa.float32(), kept=pa.bool_(), text=pa.string()),
    ]
)
"""``statistics/examples.parquet``: documents of smallest ``rank`` in their kind, text clipped.

``level`` is a fifth of the score range (``0.0-0.2``, …, rank = a hash of the id, so the sample is
fair), ``decision`` (rank = distance from the decision) or ``dropped: <reason>`` (hash)."""

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
"""``statistics/rule_groups.parquet``: documents that reached the keep decision, by the group whose
rule decided, and its bucket (0 is that of the lowest scores; groups without buckets have no other).
``copied_…`` counts each document as often as it is in the training order."""

_GROUP = pa.field("group", pa.string(), nullable=False)

GROUP_STATISTICS = {
    "rule_groups": RULE_GROUPS,
    "rule_group_histogram": SCORE_HISTOGRAM.insert(1, _GROUP),
    "rule_group_curves": KEEP_CURVES.insert(1, _GROUP),
}
"""The tables of runs with rules per group or buckets."""

CLASSIFIER_KEEPS = pa.schema([*required(source=pa.string(), keepers=pa.string()), *_KEPT_COUNTS])
"""``statistics/classifier_keeps.parquet``: documents that reached the keep decision, by the
classifiers (names, separated by spaces) by whose score alone the run's rule would keep them.
``kept_…`` counts what the run kept, by their combination."""

CLASSIFIER_SAMPLE = pa.schema(
    [
        *required(source=pa.string(), rank=pa.float64(), id=pa.string(), classifier=pa.string()),
        *required(score=pa.float32(), quality_score=pa.float32(), kept=pa.bool_()),
    ]
)
"""``statistics/classifier_sample.parquet``: all scores of a fair sample of documents of each
source, those of smallest ``rank``, a hash of the id."""

CLASSIFIER_STATISTICS = {
    "classifier_keeps": CLASSIFIER_KEEPS,
    "classifier_sample": CLASSIFIER_SAMPLE,
}
"""The tables of runs with several classifiers."""

REGISTERED_DOMAINS = pa.schema(
    [*required(source=pa.string(), registered_domain=pa.string(), hosts=pa.int64()), *_KEPT_COUNTS]
)
"""``statistics/registered_domains.parquet``: domains added up by the name that is registered
(:func:`winnow.text.hosts.registered_domains`), with their number of hosts. Only where a report was
asked for it; its metadata name the run."""

CHANGES = pa.schema(
    required(source=pa.string(), step=pa.string(), documents=pa.int64(), removed_bytes=pa.int64())
)
"""``statistics/changes.parquet``: documents whose text a step changed, kept or not, and by how many
bytes they are shorter (negative: longer). Only of runs with a step that may change texts."""

JOINS = pa.schema(
    [
        *required(source=pa.string(), join=pa.string(), documents=pa.int64()),
        *required(matched=pa.int64(), without_key=pa.int64()),
    ]
)
"""``statistics/joins.parquet``: documents that were read, those that met a row of a join, and those
without an id or URL to meet one by. Only of runs with joins."""

CLUSTER_SIZES = pa.schema([*required(source=pa.string(), least=pa.uint64()), *_KEPT_COUNTS])
"""``statistics/cluster_sizes.parquet``: documents that were compared with all others, by the size
of their cluster of near-duplicates: ``least`` (1, 2, 4, 8, …) to less than twice as many documents,
those of other sources among them. Only of runs that looked for near-duplicates."""

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
