"""Fills the joined columns of one task, and counts the matches of each join.

``<stem>.joined.arrow`` in the work folder lists the table rows that the task's documents matched,
so that the end of the run can count the rows that no document matched.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.joins.tables import Table, keys_of, lookup
from pipeline.output.records import Record
from winnow import heartbeat
from winnow.filesystem import storage, tables

MATCHED = pa.schema([pa.field("join", pa.string()), pa.field("row", pa.int64())])


class TaskJoins:
    """The joined columns of one task's documents; ``counts`` has the documents that ``matched`` a
    row of each join, and those ``without_key``.
    """

    def __init__(self, joins: Sequence[Table], work: str) -> None:
        self._work = work
        self._tables = [(table, lookup(work, table.name, table.fingerprint)) for table in joins]
        self._matched: dict[str, list[npt.NDArray[np.int64]]] = {table.name: [] for table in joins}
        self.counts = {table.name: {"matched": 0, "without_key": 0} for table in joins}

    def columns(self, ids: pa.Array, urls: pa.Array) -> dict[str, pa.Array]:
        """The joined columns of n documents, by name in the shards."""
        joined: dict[str, pa.Array] = {}
        for table, rows_of in self._tables:
            keys = keys_of(ids if table.key == "id" else urls, table.key)
            rows = rows_of.find(keys)
            matched = np.unique(rows[rows >= 0])
            self._matched[table.name].append(matched)
            self.counts[table.name]["matched"] += int((rows >= 0).sum())
            self.counts[table.name]["without_key"] += keys.null_count
            joined.update(zip(table.columns.names, rows_of.take(rows), strict=True))
        return joined

    def save(self, stem: str) -> None:
        """Write the matched rows, each once."""
        if not self._tables:
            return
        parts = []
        for name, matched in self._matched.items():
            rows = np.unique(np.concatenate([np.empty(0, np.int64), *matched]))
            parts.append(pa.table([pa.repeat(name, len(rows)), rows], schema=MATCHED))
        tables.write(_path(self._work, stem), pa.concat_tables(parts).combine_chunks())


def about(joins: Iterable[Table]) -> dict[str, Any]:
    """The manifest's entries for joins before any document is matched."""
    entries = {table.name: table.to_json() | {"rows": table.rows} for table in joins}
    for entry in entries.values():
        del entry["buckets"]
    return entries


def of_manifest(joins: Mapping[str, Mapping[str, Any]]) -> tuple[Table, ...]:
    """The joins of a finished run."""
    unused = ("rows", "matched_rows")
    return tuple(
        Table(**{n: v for n, v in join.items() if n not in unused}, buckets=(join["rows"],))
        for join in joins.values()
    )


def with_matched_rows(
    joins: Mapping[str, Mapping[str, Any]], tasks: Iterable[Record], work: str
) -> dict[str, Any]:
    """The entries after all tasks, with ``matched_rows``; takes one bit of memory per row."""
    bitmaps = {name: np.zeros(-(-join["rows"] // 8), np.uint8) for name, join in joins.items()}
    for record in tasks:
        table = tables.read(_path(work, record.task.stem))
        names, rows = table["join"].to_numpy(), table["row"].to_numpy()
        for name, bits in bitmaps.items():
            matched = rows[names == name]
            np.bitwise_or.at(bits, matched >> 3, (1 << (matched & 7)).astype(np.uint8))
        heartbeat.beat()
    return {
        name: {**join, "matched_rows": int(np.bitwise_count(bitmaps[name]).sum())}
        for name, join in joins.items()
    }


def _path(work: str, stem: str) -> str:
    return storage.join(work, f"{stem}.joined.arrow")
