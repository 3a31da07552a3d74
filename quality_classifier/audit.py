"""Whom the filter keeps: keep rates by source, domain, language, length or any other column.

python quality_classifier/audit.py scored=scored/ 'by=[source,domain,language,length]'

reads the shards of a pipeline run. Every default is in ``conf/classifier/audit.yaml``.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from quality_classifier import command_line
from quality_classifier.metrics import expected_keep_rate, wilson

FloatArray = npt.NDArray[np.float64]

NONE = "(none)"
"""The value of documents without one."""

ALL = "(all)"
"""The column and value of the rows about all documents."""

RULES = ("pareto", "threshold", "run")

AUDIT = pa.schema(
    [
        pa.field("column", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("mean_score", pa.float64(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("rate", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("ratio", pa.float64(), nullable=False),
    ]
)
"""What an audit says, a row per value and rule; of a column, the most frequent values come first
(lengths from short to long).

``rule`` is ``pareto`` (``rate`` is the expected keep rate), ``threshold`` or ``run`` (what was
really kept). ``low`` and ``high`` are the ends of the interval of 95 %, ``ratio`` is the rate over
that of all documents (0 where nothing at all is kept)."""

LENGTHS = ("under 500 B", "500 B to 2 kB", "2 to 8 kB", "8 to 32 kB", "32 kB and more")
_LENGTH_EDGES = np.array([500, 2_000, 8_000, 32_000])

_HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@]*@)?(?:www\.)?(?P<host>[^/?#:]+)"

_SUMS = ("documents", "score", "threshold", "expected", "run")


class Audit:
    """Adds up scored documents, a batch at a time; memory grows with the distinct values alone.

    Args:
        by: columns to group by. ``domain`` (of ``url``) and ``length`` (of ``bytes``) are derived
            where the documents have no such column.
        alpha: of the Pareto rule.
        threshold: of the threshold rule.
    """

    def __init__(self, by: Sequence[str], alpha: float, threshold: float) -> None:
        self._by = [ALL, *by]
        self._alpha = alpha
        self._threshold = threshold
        self._parts: list[pa.Table] = []
        self._has_run = False

    def update(self, batch: pa.RecordBatch) -> None:
        """Count documents: ``quality_score``, the columns to group by, ``kept`` if there is one.

        Raises:
            ValueError: a column to group by is missing.
        """
        self._has_run = "kept" in batch.schema.names
        score = batch["quality_score"].to_numpy()
        numbers = {
            "documents": np.ones(len(batch)),
            "score": score.astype(np.float64),
            "threshold": (score.astype(np.float64) >= self._threshold).astype(np.float64),
            "expected": expected_keep_rate(score, self._alpha),
            "run": batch["kept"].cast(pa.float64()) if self._has_run else np.zeros(len(batch)),
        }
        for column in self._by:
            value = _values(batch, column)
            keys = {"column": pa.array([column] * len(batch), pa.string()), "value": value}
            self._parts.append(_add_up([pa.table(keys | numbers)]))
        if len(self._parts) > 64 * len(self._by):
            self._parts = [_add_up(self._parts)]

    def table(self) -> pa.Table:
        """The rates of everything counted so far (:data:`AUDIT`)."""
        if not self._parts:
            return AUDIT.empty_table()
        total = _add_up(self._parts)
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
            columns = {
                "column": total["column"],
                "value": total["value"],
                "documents": n.astype(np.int64),
                "mean_score": total["score"].to_numpy() / n,
                "rule": pa.array([rule] * len(n), pa.string()),
                "rate": rate,
                "low": low,
                "high": high,
                "ratio": ratio,
            }
            pieces.append(pa.table([columns[name] for name in AUDIT.names], schema=AUDIT))
        rows = pa.concat_tables(pieces)
        keys = zip(
            *(rows[name].to_pylist() for name in ("column", "value", "documents")), strict=True
        )
        ranks = [self._rank(*key) for key in keys]
        # Sorting is stable, so the rules of a value keep their order.
        return rows.take(sorted(range(len(rows)), key=ranks.__getitem__))

    def _rank(self, column: str, value: str, documents: int) -> tuple[int, int, str]:
        """Columns as they were named, lengths from short to long, other values by frequency."""
        is_length = column == "length" and value in LENGTHS
        return self._by.index(column), LENGTHS.index(value) if is_length else -documents, value


def audit(documents: pa.Table, by: Sequence[str], alpha: float, threshold: float) -> pa.Table:
    """The audit of a table of scored documents; see :class:`Audit` for what it takes."""
    counts = Audit(by, alpha, threshold)
    for batch in documents.to_batches():
        counts.update(batch)
    return counts.table()


def expected_rate_interval(
    rate: FloatArray, n: FloatArray, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """The interval of each mean of n chances to be kept under the Pareto rule.

    Chances lie between that of a score of 0 and 1, and vary no more than if each were one of the
    two. So Wilson's interval for a share, stretched to that range, covers at least as often as it
    says. Intervals from the variance of the chances are narrower, but often miss: the rare
    document of high score that makes most of the mean is not in a small sample.
    """
    least = 2.0**-alpha
    if least == 1:
        return rate, rate
    low, high = wilson(np.clip((rate - least) / (1 - least), 0, 1), n)
    return least + (1 - least) * low, least + (1 - least) * high


def domain(url: pa.Array) -> pa.Array:
    """Host names of n URLs, lower-cased, without ``www.``; ``(none)`` where there is none."""
    host = pc.struct_field(pc.extract_regex(pc.utf8_lower(url), _HOST), "host")
    return pc.fill_null(host, NONE).cast(pa.string())


def length(size: pa.Array) -> pa.Array:
    """The names in LENGTHS of n sizes in bytes."""
    bins = np.searchsorted(_LENGTH_EDGES, size.to_numpy(), side="right")
    return pa.array(LENGTHS).take(pa.array(bins))


def _values(batch: pa.RecordBatch, column: str) -> pa.Array:
    """What to group a batch by, as strings."""
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


def _add_up(parts: Sequence[pa.Table]) -> pa.Table:
    """One row per column and value, in a fixed order of addition."""
    groups = pa.concat_tables(parts).group_by(["column", "value"], use_threads=False)
    summed = groups.aggregate([(name, "sum") for name in _SUMS])
    summed = summed.select(["column", "value", *(f"{name}_sum" for name in _SUMS)])
    return summed.rename_columns(["column", "value", *_SUMS])


@dataclass
class AuditConfig:
    """What the command line is told; defaults and their meaning are in ``audit.yaml``."""

    scored: str = MISSING
    by: list[str] = MISSING
    alpha: float = MISSING
    threshold: float = MISSING
    sources: list[str] = field(default_factory=list)
    rows: int = MISSING
    output: str | None = None


def audit_run(config: AuditConfig) -> pa.Table:
    """The audit of the documents of a pipeline run that came as far as the keep decision.

    Raises:
        ValueError: the folder is no finished run, or one that has not stored what it dropped.
    """
    folder = Path(config.scored)
    manifest = _manifest(folder)
    known = sorted(manifest["config"]["source"])
    sources = config.sources or manifest["config"]["filter"] or known
    if strangers := set(sources) - set(known):
        raise ValueError(f"no source {sorted(strangers)} in {folder}: there are {known}")
    counts = Audit(config.by, config.alpha, config.threshold)
    for path in sorted((folder / "shards").glob("*.arrow")):
        for batch in _batches(path, config.by):
            reached = pc.fill_null(pc.equal(batch["drop_reason"], "quality"), True)
            chosen = pc.is_in(batch["source"], pa.array(sources, pa.string()))
            counts.update(batch.filter(pc.and_(reached, chosen)))
    return counts.table()


def text_table(table: pa.Table, rows: int) -> str:
    """An audit as lines for a terminal, at most ``rows`` values of each column."""
    lines = [
        f"{'column':10} {'value':28} {'documents':>9} {'score':>6}  {'rule':10}"
        f" {'keep rate':>9}  {'95 % interval':17} {'ratio':>6}"
    ]
    shown: dict[str, list[str]] = {}
    for row in table.to_pylist():
        values = shown.setdefault(row["column"], [])
        first = row["value"] not in values[-1:]
        if first and len(values) == rows:
            continue
        group = " " * 56  # a group is named on its first line
        if first:
            values.append(row["value"])
            group = f"{row['column']:10.10} {row['value']:28.28} {row['documents']:9,}"
            group += f" {row['mean_score']:6.3f}"
        interval = f"{row['low']:.2%} to {row['high']:.2%}"
        rates = f"{row['rate']:9.2%}  {interval:17} {row['ratio']:6.2f}"
        lines.append(f"{group}  {row['rule']:10} {rates}")
    return "\n".join(lines)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{folder} has no manifest.json: name the --output of a finished pipeline run"
        ) from None
    if manifest["config"]["write"] != "all":
        raise ValueError(
            f"{folder} was written with --write kept: what it dropped is not there to be audited"
        )
    return manifest


def _batches(path: Path, by: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a shard, memory-mapped, with no more columns than an audit needs."""
    with pa.memory_map(str(path)) as mapped:
        names = pa.ipc.open_file(mapped).schema.names
        wanted = {"source", "url", "bytes", "quality_score", "kept", "drop_reason", *by}
        options = pa.ipc.IpcReadOptions(
            included_fields=[i for i, name in enumerate(names) if name in wanted]
        )
        reader = pa.ipc.open_file(mapped, options=options)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


ConfigStore.instance().store(name="audit_schema", node=AuditConfig)


@hydra.main(version_base=None, config_path="../conf/classifier", config_name="audit")
def main(config: DictConfig) -> None:
    """The command line."""
    command_line.run(print_audit, config)


def print_audit(config: AuditConfig) -> None:
    """Print the audit, and write it as Parquet where that is asked for."""
    table = audit_run(config)
    print(text_table(table, config.rows))
    print(
        f"\npareto: expected at alpha = {config.alpha:g}; threshold: score >= {config.threshold:g};"
        " run: what the run itself has kept"
    )
    if config.output:
        pq.write_table(table, config.output)


if __name__ == "__main__":
    main()
