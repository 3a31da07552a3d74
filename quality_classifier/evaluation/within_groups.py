"""Reliability of scores within groups of documents, such as sources or types of pages.

A score that separates good sources from bad ones may be uninformative within each; the filter then
selects sources rather than documents. So, per group: the spread of scores, and their correlation
with labels and calibration if labels are known.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quality_classifier.evaluation.graded import spearman
from quality_classifier.evaluation.group_rates import values
from quality_classifier.evaluation.metrics import BINS, Z, bin_of, wilson
from winnow.filesystem.tables import required

FloatArray = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Numbers = Callable[[pa.Array], FloatArray]

NEAR_CONSTANT = 0.05
"""Scores are near constant if 80 % of them span less than this. The calibration error on held-out
text is 0.02 to 0.05, so the order of most documents is then unreliable."""

LEAST_DOCUMENTS = 20
"""Smaller groups are not judged."""

SCORE_BINS = 100
SAMPLE = 50_000
"""Limit of labelled documents per group: those with the smallest draws, a fair sample."""

WITHIN = pa.schema(
    [
        *required(group=pa.string(), documents=pa.int64()),
        *required(low=pa.float64(), median=pa.float64(), high=pa.float64()),
        pa.field("near_constant", pa.bool_()),
        pa.field("labelled", pa.int64(), nullable=False),
        *(pa.field(f"spearman{end}", pa.float64()) for end in ("", "_low", "_high")),
        *(pa.field(name, pa.float64()) for name in ("mean_score", "share")),
        *(pa.field(f"share_{end}", pa.float64()) for end in ("low", "high")),
        pa.field("calibration_error", pa.float64()),
    ]
)
"""A row per group, the largest first. ``low``, ``median`` and ``high`` are the 10th, 50th and 90th
percentile of the scores; ``near_constant`` is null below LEAST_DOCUMENTS. For ``labelled``
documents: Spearman's correlation of score and label, null if one is constant; and, if a grade was
named, the mean score, the share that reaches it, and the calibration error. Intervals are 95 %."""


def score_quantiles(counts: Counts, shares: Sequence[float] = (0.1, 0.5, 0.9)) -> list[float]:
    """Quantiles of scores from a histogram with equal bins over [0, 1].

    Documents are assumed to be spread evenly in a bin. ``counts`` is int64 [bins], not all 0.
    """
    below = np.cumsum(counts)
    out = []
    for share in shares:
        target = share * below[-1]
        i = int(np.searchsorted(below, target))  # the first bin to reach it, so it is not empty
        part = (target - (below[i] - counts[i])) / counts[i]
        out.append(float((i + part) / len(counts)))
    return out


def near_constant(counts: Counts) -> bool | None:
    """Whether the scores in a histogram (int64 [bins]) are near constant; None if too few."""
    if counts.sum() < LEAST_DOCUMENTS:
        return None
    low, _, high = score_quantiles(counts)
    return high - low < NEAR_CONSTANT


def spearman_interval(rho: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a rank correlation of n > 3 documents.

    Fisher's, with the variance ``(1 + rho ** 2 / 2) / (n - 3)`` (Bonett and Wright 2000,
    Psychometrika 65, p. 23-28).
    """
    if abs(rho) >= 1:
        return rho, rho
    half = Z * np.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(rho) + np.array([-half, half]))
    return float(low), float(high)


@dataclass
class Within:
    """Aggregates scored documents by group, batch by batch.

    The values of the columns ``by`` together name a group; without columns, nothing is counted.
    ``numbers`` maps labels, string [k], to numbers and a final NaN, float64 [k + 1]. For
    calibration, a document with a label of ``at_least`` or more counts as good.
    """

    by: Sequence[str]
    label: str | None = None
    numbers: Numbers | None = None
    at_least: float | None = None
    _histograms: dict[str, Counts] = field(default_factory=dict)
    _labelled: list[pa.Table] = field(default_factory=list)
    _rows: int = 0
    _limit: int = 4 * SAMPLE

    def update(self, batch: pa.RecordBatch) -> None:
        """Count documents; ValueError for a missing column or an invalid label."""
        if not len(batch) or not self.by:
            return
        parts = [values(batch, column) for column in self.by]
        group = pc.binary_join_element_wise(*parts, " / ").dictionary_encode()
        code, names = group.indices.to_numpy(), group.dictionary.to_pylist()
        score = batch["quality_score"].to_numpy()
        bins = np.minimum((score * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
        counts = np.bincount(code * SCORE_BINS + bins, minlength=len(names) * SCORE_BINS)
        for name, row in zip(names, counts.reshape(len(names), SCORE_BINS), strict=True):
            self._histograms[name] = self._histograms.get(name, 0) + row
        if self.label and self.numbers:
            self._add_labelled(batch, group.cast(pa.string()), self.label, self.numbers)

    def _add_labelled(
        self, batch: pa.RecordBatch, group: pa.Array, name: str, numbers: Numbers
    ) -> None:
        if name not in batch.schema.names:
            raise ValueError(
                f"no column {name!r} with labels: carry it along with --metadata {name}"
            )
        words = batch[name].cast(pa.string()).dictionary_encode()
        value = numbers(words.dictionary)[words.indices.fill_null(-1)]
        valid = ~np.isnan(value) & words.is_valid().to_numpy(zero_copy_only=False)
        columns = [group, batch["keep_draw"], batch["quality_score"], value]
        table = pa.table(columns, ["group", "draw", "score", "label"]).filter(pa.array(valid))
        self._labelled.append(table)
        self._rows += len(table)
        if self._rows > self._limit:
            self._labelled = [_smallest(self._labelled)]
            self._rows = len(self._labelled[0])
            self._limit = 2 * self._rows + 4 * SAMPLE

    def table(self) -> pa.Table:
        """The rows so far (:data:`WITHIN`)."""
        labelled = _smallest(self._labelled) if self._labelled else None
        rows: list[dict[str, Any]] = []
        for name, counts in self._histograms.items():
            low, median, high = score_quantiles(counts)
            row: dict[str, Any] = {"group": name, "documents": int(counts.sum()), "labelled": 0}
            row |= {"low": low, "median": median, "high": high}
            row["near_constant"] = near_constant(counts)
            if labelled is not None:
                row |= self._compared(labelled.filter(pc.equal(labelled["group"], name)))
            rows.append(row)
        rows.sort(key=lambda row: (-row["documents"], row["group"]))
        return pa.Table.from_pylist(rows, WITHIN)

    def _compared(self, table: pa.Table) -> dict[str, Any]:
        score, label = table["score"].to_numpy().astype(np.float64), table["label"].to_numpy()
        n = len(table)
        row: dict[str, Any] = {"labelled": n}
        if n > 3 and np.ptp(score) > 0 and np.ptp(label) > 0:
            rho = spearman(score, label)
            low, high = spearman_interval(rho, n)
            row |= {"spearman": rho, "spearman_low": low, "spearman_high": high}
        if n and self.at_least is not None:
            good = label >= self.at_least
            low_share, high_share = wilson(np.array([good.mean()]), np.array([float(n)]))
            gaps = np.bincount(bin_of(score), score - good, BINS)
            row |= {"mean_score": float(score.mean()), "share": float(good.mean())}
            row |= {"share_low": float(low_share[0]), "share_high": float(high_share[0])}
            row["calibration_error"] = float(np.abs(gaps).sum() / n)
        return row


def share_near_constant(table: pa.Table) -> tuple[int, int]:
    """The number of near-constant groups in :data:`WITHIN`, and of all judged groups."""
    known = table["near_constant"].drop_null()
    return pc.sum(known).as_py() or 0, len(known)


def _smallest(tables: Sequence[pa.Table]) -> pa.Table:
    """The SAMPLE documents with the smallest draws in each group, sorted."""
    keys = ("group", "draw", "score", "label")
    table = pa.concat_tables(tables).sort_by([(key, "ascending") for key in keys])
    code = table["group"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    place = np.arange(len(code)) - np.repeat(starts, np.diff(np.append(starts, len(code))))
    return table.filter(pa.array(place < SAMPLE)).combine_chunks()
