"""Several classifiers side by side: what each would keep, and a sample of their scores."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.output import schema
from pipeline.output.score_counts import COUNTS, KEPT_COUNTS, Counts, named
from pipeline.rules.decision import keep_draw
from pipeline.rules.groups import AnyRule, decide

SAMPLE = 1000
"""Sampled documents per source, enough to know a rank correlation of 0.5 to 0.05."""

_SEED = 0x736361747465


class ClassifierCounts:
    """Counts of one source's documents that reached the decision."""

    def __init__(self, source: str, filtered: bool, rule: AnyRule, names: Sequence[str]) -> None:
        self._source = source
        self._filtered = filtered
        self._rule = rule
        self._names = list(names)
        self._keeps: dict[int, Counts] = {}
        self._sample = schema.CLASSIFIER_SAMPLE.empty_table()

    def add(self, batch: pa.RecordBatch, weights: Counts, decided: npt.NDArray[np.bool_]) -> None:
        """Count the ``decided`` (bool [n]) of n documents, by weights int64 [3, n]."""
        scores = {n: batch[schema.score_column(n)].to_numpy() for n in self._names}
        if self._filtered:
            self._count(batch, weights, decided, scores)
        rank = keep_draw(batch["id"], _SEED)
        rows = np.flatnonzero(decided)
        rows = rows[np.argsort(rank[rows], kind="stable")[:SAMPLE]]
        chosen = batch.take(pa.array(rows))
        parts = [self._sample]
        for name, score in scores.items():
            columns = {
                "source": pa.repeat(self._source, len(rows)),
                "rank": rank[rows],
                "id": chosen["id"],
                "classifier": pa.repeat(name, len(rows)),
                "score": score[rows],
                "quality_score": chosen["quality_score"],
                "kept": chosen["kept"],
            }
            parts.append(pa.table(columns, schema=schema.CLASSIFIER_SAMPLE))
        self._sample = smallest(parts)

    def _count(
        self,
        batch: pa.RecordBatch,
        weights: Counts,
        decided: npt.NDArray[np.bool_],
        scores: dict[str, npt.NDArray[np.float32]],
    ) -> None:
        keepers = np.zeros(len(batch), np.int64)
        for place, score in enumerate(scores.values()):
            keeps = decide(self._rule, batch, score, decided)[0] > 0
            keepers |= keeps.astype(np.int64) << place
        kept = batch["kept"].to_numpy(zero_copy_only=False)
        for code in np.unique(keepers[decided]).tolist():
            rows = decided & (keepers == code)
            counts = [part[:, rows].sum(axis=1) for part in (weights, weights * kept)]
            before = self._keeps.get(code, np.zeros(6, np.int64))
            self._keeps[code] = before + np.concatenate(counts)

    def tables(self) -> dict[str, pa.Table]:
        """The tables :data:`pipeline.output.schema.CLASSIFIER_STATISTICS`."""
        keeps = [
            {
                "source": self._source,
                "keepers": " ".join(n for i, n in enumerate(self._names) if code >> i & 1),
                **named(COUNTS + KEPT_COUNTS, counts),
            }
            for code, counts in self._keeps.items()
        ]
        return {
            "classifier_keeps": pa.Table.from_pylist(keeps, schema.CLASSIFIER_KEEPS),
            "classifier_sample": self._sample,
        }


def smallest(tables: Sequence[pa.Table]) -> pa.Table:
    """The sorted rows of up to SAMPLE documents of smallest rank per source."""
    keys = ("source", "rank", "id", "score", "classifier")
    table = pa.concat_tables(tables).sort_by([(key, "ascending") for key in keys])
    source = table["source"].combine_chunks().dictionary_encode().indices.to_numpy()
    rank = table["rank"].to_numpy()
    # Number each row's document within its source; documents with one id share a rank.
    new = np.ones(len(table), np.bool_)
    new[1:] = (np.diff(source) != 0) | (np.diff(rank) != 0)
    ordinal = np.cumsum(new)
    first = np.zeros(len(table), np.int64)
    starts = np.flatnonzero(np.diff(source, prepend=-1) != 0)
    first[starts] = ordinal[starts]
    first = np.maximum.accumulate(first)
    return table.filter(pa.array(ordinal - first < SAMPLE)).combine_chunks()
