"""Statistics per group of the keep rules, and per bucket: counted while a task is decided."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.output import schema
from pipeline.output.score_counts import COUNTS, KEPT_COUNTS, Counts, ScoreCounts, named
from pipeline.rules.buckets import Buckets
from pipeline.rules.groups import GroupRules, label, repeats

COPIED_COUNTS = [f"copied_{name}" for name in COUNTS]


class GroupCounts:
    """Counts of one source's documents that reached the decision, by group and bucket."""

    def __init__(self, source: str, rule: GroupRules) -> None:
        self._source = source
        self._rule = rule
        self._scores: dict[int, ScoreCounts] = {}
        self._buckets: dict[tuple[int, int], Counts] = {}

    def add(self, batch: pa.RecordBatch, weights: Counts, decided: npt.NDArray[np.bool_]) -> None:
        """Count those of n documents that are ``decided`` (bool [n]), by weights int64 [3, n]."""
        codes = self._rule.groups.of(batch)
        score, draw = batch["quality_score"].to_numpy(), batch["keep_draw"].to_numpy()
        for number, rule in enumerate(self._rule.rules):
            rows = np.flatnonzero(decided & (codes == number))
            if not len(rows):
                continue
            own, drawn, weight = score[rows], draw[rows], weights[:, rows]
            copies = repeats(rule, own, drawn)
            self._scores.setdefault(number, ScoreCounts(True)).add(own, drawn, weight, copies > 0)
            bucket = (
                rule.bucket(own, drawn)
                if isinstance(rule, Buckets)
                else np.zeros(len(rows), np.int64)
            )
            for place in np.unique(bucket).tolist():
                inside = bucket == place
                counts = [weight, weight * (copies > 0), weight * copies]
                total = np.concatenate([part[:, inside].sum(axis=1) for part in counts])
                key = number, place
                self._buckets[key] = self._buckets.get(key, np.zeros(9, np.int64)) + total

    def tables(self) -> dict[str, pa.Table]:
        """The tables :data:`pipeline.output.schema.GROUP_STATISTICS` of what was counted."""
        names = {n: label(path) for n, path in enumerate(self._rule.groups.paths)}
        source = self._source
        buckets: list[dict[str, Any]] = [
            {
                "source": source,
                "group": names[number],
                "bucket": bucket,
                **named(COUNTS + KEPT_COUNTS + COPIED_COUNTS, counts),
            }
            for (number, bucket), counts in self._buckets.items()
        ]
        scores = self._scores.items()
        rows = {
            "rule_groups": buckets,
            "rule_group_histogram": [
                row for n, of in scores for row in of.histogram(source=source, group=names[n])
            ],
            "rule_group_curves": [
                row for n, of in scores for row in of.curves(source=source, group=names[n])
            ],
        }
        return {
            name: pa.Table.from_pylist(rows[name], table_schema)
            for name, table_schema in schema.GROUP_STATISTICS.items()
        }


def check_groups(groups: pa.Table, sources: pa.Table) -> None:
    """Raise RuntimeError unless the groups of each filtered source hold all that was decided."""
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
