"""Statistics per group of the keep rules and per bucket, counted while a task is decided."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.output import schema
from pipeline.output.score_counts import COUNTS, KEPT_COUNTS, Counts, ScoreCounts, named
from pipeline.rules.buckets import Buckets
from pipeline.rules.groups import GroupRules, label

COPIED_COUNTS = [f"copied_{name}" for name in COUNTS]


class GroupCounts:
    """Counts of one source's documents that reached the decision, by group and bucket."""

    def __init__(self, source: str, rule: GroupRules) -> None:
        self._source = source
        self._rule = rule
        self._scores: dict[int, ScoreCounts] = {}
        self._buckets: dict[tuple[int, int], Counts] = {}

    def add(self, batch: pa.RecordBatch, weights: Counts, decided: npt.NDArray[np.bool_]) -> None:
        """Count the ``decided`` (bool [n]) of n documents, by weights int64 [3, n]."""
        codes = self._rule.groups.of(batch)
        score, draw = batch["quality_score"].to_numpy(), batch["keep_draw"].to_numpy()
        for number, rule in enumerate(self._rule.rules):
            rows = np.flatnonzero(decided & (codes == number))
            if not len(rows):
                continue
            own, drawn, weight = score[rows], draw[rows], weights[:, rows]
            copies = rule.repeats(own, drawn)
            self._scores.setdefault(number, ScoreCounts(True)).add(own, drawn, weight, copies > 0)
            bucket = np.zeros(len(rows), np.int64)
            if isinstance(rule, Buckets):
                bucket = rule.bucket(own, drawn)
            for place in np.unique(bucket).tolist():
                inside = bucket == place
                counts = [weight, weight * (copies > 0), weight * copies]
                total = np.concatenate([part[:, inside].sum(axis=1) for part in counts])
                key = number, place
                self._buckets[key] = self._buckets.get(key, np.zeros(9, np.int64)) + total

    def tables(self) -> dict[str, pa.Table]:
        """The tables :data:`pipeline.output.schema.GROUP_STATISTICS`."""
        groups = [
            {"source": self._source, "group": label(path)} for path in self._rule.groups.paths
        ]
        names = COUNTS + KEPT_COUNTS + COPIED_COUNTS
        rows: dict[str, list[dict[str, Any]]] = {
            "rule_groups": [
                {**groups[number], "bucket": bucket, **named(names, counts)}
                for (number, bucket), counts in self._buckets.items()
            ],
            "rule_group_histogram": [],
            "rule_group_curves": [],
        }
        for number, scores in self._scores.items():
            rows["rule_group_histogram"] += scores.histogram(**groups[number])
            rows["rule_group_curves"] += scores.curves(**groups[number])
        return {
            name: pa.Table.from_pylist(rows[name], table_schema)
            for name, table_schema in schema.GROUP_STATISTICS.items()
        }


def check_groups(groups: pa.Table, sources: pa.Table) -> None:
    """Raise RuntimeError unless the groups of each filtered source add up to all decided."""
    decided: dict[str, Counts] = {}
    for row in groups.to_pylist():
        counts = np.array([row[name] for name in [*COUNTS, *KEPT_COUNTS]])
        decided[row["source"]] = decided.get(row["source"], np.zeros(6, np.int64)) + counts
    expected: dict[str, Counts] = {}
    for row in sources.to_pylist():
        if row["filtered"] and row["outcome"] in ("kept", schema.QUALITY):
            counts = np.array([row[name] for name in COUNTS])
            kept = counts if row["outcome"] == "kept" else np.zeros(3, np.int64)
            total = expected.get(row["source"], np.zeros(6, np.int64))
            expected[row["source"]] = total + np.concatenate([counts, kept])
    for source, counts in expected.items():
        if not (decided.get(source, np.zeros(6, np.int64)) == counts).all():
            raise RuntimeError(
                f"the groups of source {source!r} do not add up to what was decided. Do not trust"
                " the output"
            )
