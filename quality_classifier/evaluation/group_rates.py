"""Keep rates of groups of documents, with intervals."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quality_classifier.evaluation.metrics import expected_keep_rate, wilson
from winnow.filesystem.tables import required
from winnow.text.groups import LENGTHS, NONE, domain, length

FloatArray = npt.NDArray[np.float64]

ALL = "(all)"
"""The column and the value of rows for all documents."""

MOST_VALUES = 100
OTHER = "(other: "
"""Prefix of the row that sums up the less frequent values; their number follows."""

RULES = ("pareto", "threshold", "run")

AUDIT = pa.schema(
    [
        *required(column=pa.string(), value=pa.string(), documents=pa.int64()),
        *required(mean_score=pa.float64(), rule=pa.string(), rate=pa.float64()),
        *required(low=pa.float64(), high=pa.float64(), ratio=pa.float64()),
    ]
)
"""An audit: a row per value and rule, most frequent values first, lengths from short to long.

``rule`` is ``pareto`` (``rate`` is the expected keep rate), ``threshold`` or ``run`` (what was
kept). ``low`` and ``high`` bound the 95 % interval; ``ratio`` is the rate over that of all
documents (0 where nothing is kept)."""

_SUMS = ("documents", "score", "threshold", "expected", "run")


class Audit:
    """Adds up scored documents batch by batch; memory grows only with the distinct values.

    ``by`` names the columns to group by; ``domain`` and ``length`` are derived from ``url`` and
    ``bytes`` if absent. ``bounded`` columns have rows for :data:`MOST_VALUES` values only.
    """

    def __init__(
        self, by: Sequence[str], alpha: float, threshold: float, bounded: Collection[str] = ()
    ) -> None:
        self._bounded = bounded
        self._by = [ALL, *by]
        self._alpha = alpha
        self._threshold = threshold
        self._parts: list[pa.Table] = []
        self._has_run = False

    def update(self, batch: pa.RecordBatch) -> None:
        """Count documents by ``quality_score``, ``kept`` if any, and the columns to group by."""
        self._has_run = "kept" in batch.schema.names
        score = batch["quality_score"].to_numpy()
        exact = score.astype(np.float64)
        numbers = {
            "documents": np.ones(len(batch)),
            "score": exact,
            "threshold": (exact >= self._threshold).astype(np.float64),
            "expected": expected_keep_rate(score, self._alpha),
            "run": batch["kept"].cast(pa.float64()) if self._has_run else np.zeros(len(batch)),
        }
        for column in self._by:
            value = values(batch, column)
            keys = {"column": pa.array([column] * len(batch), pa.string()), "value": value}
            self._parts.append(_add_up([pa.table(keys | numbers)]))
        if len(self._parts) > 64 * len(self._by):
            self._parts = [_add_up(self._parts)]

    def table(self) -> pa.Table:
        """The rates so far (:data:`AUDIT`)."""
        if not self._parts:
            return AUDIT.empty_table()
        total = _add_up(self._parts)
        for column in self._bounded:
            total = _most_frequent(total, column)
        n = total["documents"].to_numpy()
        overall = total["column"].to_pylist().index(ALL)
        pieces = []
        for rule in RULES if self._has_run else RULES[:2]:
            rate = total["expected" if rule == "pareto" else rule].to_numpy() / n
            if rule == "pareto":
                low, high = expected_rate_interval(rate, n, self._alpha)
            else:
                low, high = wilson(rate, n)
            ratio = rate / rate[overall] if rate[overall] > 0 else np.zeros(len(rate))
            columns = [total["column"], total["value"], n.astype(np.int64)]
            columns += [total["score"].to_numpy() / n, pa.array([rule] * len(n), pa.string())]
            pieces.append(pa.table([*columns, rate, low, high, ratio], schema=AUDIT))
        rows = pa.concat_tables(pieces)
        keys = rows.select(["column", "value", "documents"]).to_pylist()
        ranks = [self._rank(**key) for key in keys]
        # Sorting is stable, so the rules of a value keep their order.
        return rows.take(sorted(range(len(rows)), key=ranks.__getitem__))

    def _rank(self, column: str, value: str, documents: int) -> tuple[int, int, str]:
        """Columns in the order named, lengths from short to long, other values by frequency."""
        place = LENGTHS.index(value) if column == "length" and value in LENGTHS else -documents
        return self._by.index(column), 1 if value.startswith(OTHER) else place, value


def audit(documents: pa.Table, by: Sequence[str], alpha: float, threshold: float) -> pa.Table:
    """The audit of a table of scored documents (:class:`Audit`)."""
    counts = Audit(by, alpha, threshold)
    for batch in documents.to_batches():
        counts.update(batch)
    return counts.table()


def expected_rate_interval(
    rate: FloatArray, n: FloatArray, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """The interval of each mean of n keep probabilities under the Pareto rule.

    These range from that of score 0 to that of score 1, and vary at most as if each were one of the
    two. So Wilson's interval for a share, scaled to that range, is conservative. Intervals from
    their variance are narrower but often miss, since small samples lack the rare high-scoring
    document that dominates the mean.
    """
    least = 2.0**-alpha
    if least == 1:
        return rate, rate
    low, high = wilson(np.clip((rate - least) / (1 - least), 0, 1), n)
    return least + (1 - least) * low, least + (1 - least) * high


def values(batch: pa.RecordBatch, column: str) -> pa.Array:
    """The group of each of n documents: string [n]; ValueError if ``column`` can't be derived."""
    names = batch.schema.names
    if column == ALL:
        return pa.array([ALL] * len(batch), pa.string())
    if column in names:
        return pc.fill_null(batch[column].cast(pa.string()), NONE)
    if column == "domain" and "url" in names:
        return domain(batch["url"])
    if column == "length" and "bytes" in names:
        return length(batch["bytes"])
    raise ValueError(
        f"no column {column!r} to audit by: there are {sorted({*names, 'domain', 'length'})}"
    )


def _most_frequent(total: pa.Table, column: str) -> pa.Table:
    """The sums with all but the most frequent values of a column merged into one row."""
    of_column = pc.equal(total["column"], column)
    order = [("documents", "descending"), ("value", "ascending")]
    known = total.filter(of_column).sort_by(order)["value"][:MOST_VALUES]
    rest = pc.and_not(of_column, pc.is_in(total["value"], value_set=known))
    if not (count := pc.sum(rest).as_py()):
        return total
    value = pc.if_else(rest, f"{OTHER}{count:,} values)", total["value"])
    return _add_up([total.set_column(total.schema.get_field_index("value"), "value", value)])


def _add_up(parts: Sequence[pa.Table]) -> pa.Table:
    """One row per column and value, added in a fixed order."""
    groups = pa.concat_tables(parts).group_by(["column", "value"], use_threads=False)
    summed = groups.aggregate([(name, "sum") for name in _SUMS])
    summed = summed.select(["column", "value", *(f"{name}_sum" for name in _SUMS)])
    return summed.rename_columns(["column", "value", *_SUMS])
