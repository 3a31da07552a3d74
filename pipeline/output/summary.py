"""Per-source statistics: collected while a task runs, merged exactly in any order.

A summary has the tables :data:`pipeline.output.schema.STATISTICS`, and some runs add others
(:data:`pipeline.output.schema.TABLES`). All sums are integers, so merging is exactly associative
and the result does not depend on workers, order or retries.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.joins.grouping import Grouping
from pipeline.output import schema
from pipeline.output.classifier_counts import ClassifierCounts, smallest
from pipeline.output.group_counts import GroupCounts
from pipeline.output.score_counts import COUNTS, Counts, ScoreCounts, named
from pipeline.rules.decision import FloatArray, Rule, keep_draw
from pipeline.rules.groups import AnyRule, GroupRules, distance
from winnow.text.groups import NONE, domain, grouped, length
from winnow.text.mojibake import faults

Summary = dict[str, pa.Table]
EXAMPLES_PER_KIND = 3
EXAMPLE_CHARACTERS = 6000
_EXAMPLE_SEED = 0x77696E6E6F77


class TaskSummary:
    """Statistics of one task. Memory grows only with its domains."""

    def __init__(
        self,
        source: str,
        filtered: bool,
        rule: AnyRule,
        classifiers: Sequence[str] = (),
        groupings: Mapping[str, Grouping] = MappingProxyType({}),
    ) -> None:
        self._source = source
        self._filtered = filtered
        self._rule = rule
        self._outcomes: dict[str, Counts] = {"read": np.zeros(3, np.int64)}
        self._scores = ScoreCounts(filtered)
        self._by_group = (
            GroupCounts(source, rule) if filtered and isinstance(rule, GroupRules) else None
        )
        self._by_classifier = (
            ClassifierCounts(source, filtered, rule, classifiers) if classifiers else None
        )
        self._domains = Tally(schema.DOMAINS)
        self._groups = Tally(schema.GROUPS)
        self._cluster_sizes: Tally | None = None
        self._changes: list[dict[str, Any]] = []
        self._groupings = groupings
        self._joins: Mapping[str, Mapping[str, int]] = {}
        self._examples: list[pa.Table] = []

    def quarantine(self, records: int = 1) -> None:
        """Count records that could not be read."""
        for outcome in ("read", "quarantined") if records else ():
            self._count(outcome, np.array([records, 0, 0]))

    def change(self, by_step: Mapping[str, Mapping[str, int]]) -> None:
        """Count the texts that steps changed (:attr:`pipeline.output.records.Record.by_step`)."""
        self._changes += [{"source": self._source, "step": s, **n} for s, n in by_step.items()]

    def join(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Set the counts of joins (:attr:`pipeline.output.records.Record.joined`)."""
        self._joins = counts

    def update(self, batch: pa.RecordBatch) -> None:
        """Count a batch of decided documents (:func:`pipeline.output.schema.shard_schema`)."""
        sizes = batch["bytes"].to_numpy(), batch["words"].to_numpy()
        weights = np.stack([np.ones(len(batch), np.int64), *sizes])
        kept = batch["kept"].to_numpy(zero_copy_only=False)
        reason = batch["drop_reason"].dictionary_encode()
        self._count_outcomes(weights, kept, reason)
        decided = kept | pc.equal(batch["drop_reason"], schema.QUALITY).fill_null(False).to_numpy(
            zero_copy_only=False
        )
        score = batch["quality_score"].to_numpy()[decided]
        draw = batch["keep_draw"].to_numpy()[decided]
        self._scores.add(score, draw, weights[:, decided], kept[decided])
        if self._by_group:
            self._by_group.add(batch, weights, decided)
        if self._by_classifier:
            self._by_classifier.add(batch, weights, decided)
        source = pa.repeat(self._source, len(batch))
        counts = [*weights, *weights * kept]
        self._domains.add([source, domain(batch["url"]), *counts])
        if "cluster_size" in batch.schema.names:
            self._add_clusters(batch["cluster_size"], counts)
        grouped_by = {
            "language": batch["language"],
            "length": length(batch["bytes"]),
            "decoding": faults(batch["text"]),
            **{name: grouped(batch[name], of) for name, of in self._groupings.items()},
        }
        for column, value in grouped_by.items():
            name = pa.repeat(column, len(batch))
            self._groups.add([source, name, value.fill_null(NONE), *counts])
        examples = _examples(batch, decided, self._rule, self._filtered)
        self._examples = [_best([*self._examples, examples])]

    def tables(self) -> Summary:
        """The tables of the counts so far."""
        source, filtered = self._source, self._filtered
        outcomes = [
            {"source": source, "filtered": filtered, "outcome": name, **named(COUNTS, counts)}
            for name, counts in self._outcomes.items()
        ]
        # Their keys are unique: adding up would cost time in many small tasks.
        own = {
            "sources": outcomes,
            "score_histogram": self._scores.histogram(source=source),
            "keep_curves": self._scores.curves(source=source),
        }
        further: Summary = {}
        if self._changes:
            further["changes"] = pa.Table.from_pylist(self._changes, schema.CHANGES)
        if self._joins:
            further["joins"] = pa.Table.from_pylist(self._joined(), schema.JOINS)
        if self._cluster_sizes:
            further["cluster_sizes"] = self._cluster_sizes.total()
        if self._by_group:
            further |= self._by_group.tables()
        if self._by_classifier:
            further |= self._by_classifier.tables()
        return {
            **{name: _sorted(rows, schema.TABLES[name]) for name, rows in own.items()},
            "domains": self._domains.total(),
            "groups": self._groups.total(),
            "examples": _best(self._examples),
            **merge([further]),
        }

    def _joined(self) -> list[dict[str, Any]]:
        read = self._outcomes["read"] - self._outcomes.get("quarantined", np.zeros(3, np.int64))
        return [
            {"source": self._source, "join": name, "documents": int(read[0]), **counts}
            for name, counts in self._joins.items()
        ]

    def _add_clusters(self, size: pa.Array, counts: Sequence[Counts]) -> None:
        """Count documents by the power of two at or below their cluster's size (int64 [n])."""
        if self._cluster_sizes is None:
            self._cluster_sizes = Tally(schema.CLUSTER_SIZES)
        compared = pc.is_valid(size).to_numpy(zero_copy_only=False)
        exponent = np.frexp(size.drop_null().to_numpy())[1] - 1
        least = np.left_shift(1, exponent).astype(np.uint64)
        source = pa.repeat(self._source, len(least))
        self._cluster_sizes.add([source, least, *(column[compared] for column in counts)])

    def _count(self, outcome: str, counts: Counts) -> None:
        self._outcomes[outcome] = self._outcomes.get(outcome, np.zeros(3, np.int64)) + counts

    def _count_outcomes(
        self, weights: Counts, kept: npt.NDArray[np.bool_], reason: pa.DictionaryArray
    ) -> None:
        self._count("read", weights.sum(axis=1))
        self._count("kept", weights[:, kept].sum(axis=1))
        codes = reason.indices.fill_null(-1).to_numpy()
        for code, name in enumerate(reason.dictionary.to_pylist()):
            self._count(name, weights[:, codes == code].sum(axis=1))


def merge(summaries: Sequence[Summary]) -> Summary:
    """One canonically sorted summary, whatever the order or grouping."""
    merged = {}
    names = {name for summary in summaries for name in summary}
    for name in [name for name in schema.TABLES if name in names]:
        tables = [summary[name] for summary in summaries if name in summary]
        if name == "examples":
            merged[name] = _best(tables)
        elif name == "classifier_sample":
            merged[name] = smallest(tables)
        else:
            merged[name] = add_up(tables, schema.TABLES[name])
    return merged


def add_up(tables: Sequence[pa.Table], table_schema: pa.Schema) -> pa.Table:
    """Sum the int64 columns of rows with equal keys (all other columns), sorted by key."""
    keys = keys_of(table_schema)
    sums = [name for name in table_schema.names if name not in keys]
    grouped = pa.concat_tables(tables).group_by(keys).aggregate([(name, "sum") for name in sums])
    ordered = grouped.sort_by([(key, "ascending") for key in keys])
    columns = [ordered[key] for key in keys] + [ordered[f"{name}_sum"] for name in sums]
    return pa.table(columns, schema=table_schema)


def _sorted(rows: list[dict[str, Any]], table_schema: pa.Schema) -> pa.Table:
    order = [(key, "ascending") for key in keys_of(table_schema)]
    return pa.Table.from_pylist(rows, table_schema).sort_by(order)


def keys_of(table_schema: pa.Schema) -> list[str]:
    """The key columns; all others are int64 sums."""
    return [field.name for field in table_schema if not pa.types.is_int64(field.type)]


def check_accounting(sources: pa.Table) -> None:
    """Raise RuntimeError unless per source read = kept + dropped by each reason + quarantined."""
    for name in COUNTS:
        signed = pc.multiply(sources[name], pc.if_else(pc.equal(sources["outcome"], "read"), 1, -1))
        balance = pa.table({"source": sources["source"], "n": signed}).group_by("source")
        for row in balance.aggregate([("n", "sum")]).to_pylist():
            if row["n_sum"] != 0:
                raise RuntimeError(
                    f"row accounting of source {row['source']!r} is off by {row['n_sum']} {name}:"
                    " read is not kept + dropped + quarantined. Do not trust the output"
                )


class Tally:
    """Rows of a table, regularly summed by key, so memory grows with keys instead of rows."""

    def __init__(self, table_schema: pa.Schema) -> None:
        self._schema = table_schema
        self._tables = [table_schema.empty_table()]
        self._rows = 0
        self._limit = 1 << 16

    def add(self, columns: Sequence[Any]) -> None:
        """Append n rows, given as one array [n] per column."""
        self._tables.append(pa.table(columns, schema=self._schema))
        self._rows += self._tables[-1].num_rows
        if self._rows > self._limit:
            self._tables = [self.total()]
            self._rows = self._tables[0].num_rows
            self._limit = 2 * self._rows + (1 << 16)

    def total(self) -> pa.Table:
        return add_up(self._tables, self._schema)


def _examples(
    batch: pa.RecordBatch, decided: npt.NDArray[np.bool_], rule: AnyRule, filtered: bool
) -> pa.Table:
    """The candidates of one batch for each level that has any."""
    score = batch["quality_score"].to_numpy()
    kept = batch["kept"].to_numpy(zero_copy_only=False)
    fair = keep_draw(batch["id"], _EXAMPLE_SEED)
    fifth = np.minimum((score * 5).astype(np.int64), 4)
    candidates = [
        (decided & side & (fifth == i), f"{i / 5:.1f}-{(i + 1) / 5:.1f}", fair)
        for i in range(5)
        for side in (kept, ~kept)
    ]
    if filtered and rule != Rule("all"):
        far = distance(rule, batch)
        near = decided & np.isfinite(far)
        candidates += [(near & side, "decision", far) for side in (kept, ~kept)]
    if not decided.all():
        reason = batch["drop_reason"].dictionary_encode()
        codes = reason.indices.fill_null(-1).to_numpy()
        candidates += [
            (codes == code, f"dropped: {name}", fair)
            for code, name in enumerate(reason.dictionary.to_pylist())
            if name != schema.QUALITY
        ]
    return _example_rows(batch, candidates)


def _example_rows(
    batch: pa.RecordBatch, candidates: Sequence[tuple[npt.NDArray[np.bool_], str, FloatArray]]
) -> pa.Table:
    """The documents of smallest rank for each (documents, level, rank)."""
    best = [
        (rows[np.argsort(rank[rows], kind="stable")[:EXAMPLES_PER_KIND]], level, rank)
        for among, level, rank in candidates
        for rows in [np.flatnonzero(among)]
    ]
    names = [name for name in schema.EXAMPLES.names if name in batch.schema.names]
    chosen = batch.select(names).take(np.concatenate([rows for rows, _, _ in best]))
    text = pc.utf8_slice_codeunits(chosen["text"], 0, EXAMPLE_CHARACTERS).cast(pa.string())
    columns = {
        **{name: chosen[name] for name in names},
        "level": pa.array([level for rows, level, _ in best for _ in rows], pa.string()),
        "rank": np.concatenate([rank[rows] for rows, _, rank in best]),
        "text": text,
    }
    return pa.table(columns, schema=schema.EXAMPLES)


def _best(tables: list[pa.Table]) -> pa.Table:
    """The rows of smallest rank within each (source, level, kept), in that order."""
    order = [(key, "ascending") for key in ("source", "level", "kept", "rank", "id", "text")]
    table = pa.concat_tables([schema.EXAMPLES.empty_table(), *tables]).sort_by(order)
    groups = zip(*(table[key].to_pylist() for key in ("source", "level", "kept")), strict=True)
    seen: Counter[tuple[str, str, bool]] = Counter()
    rows = []
    for row, group in enumerate(groups):
        seen[group] += 1
        if seen[group] <= EXAMPLES_PER_KIND:
            rows.append(row)
    return table.take(pa.array(rows, pa.int64()))
