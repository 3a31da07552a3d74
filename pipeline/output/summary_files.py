"""Statistics on disk: a file per task, merged as streams, so memory does not grow with the run.

A file holds the tables of a summary as consecutive Arrow IPC streams, named in the metadata of
their schemas. The domains come last: there may be millions, so they are merged a batch at a time.
All other tables are small whatever the run's size.
"""

import contextlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output import schema
from pipeline.output.summary import Summary, add_up, keys_of, merge
from winnow import heartbeat
from winnow.filesystem import storage, tables

BATCH_ROWS = 1 << 12
"""Domains per batch of each of up to 64 files."""

ROW_GROUP_ROWS = 1 << 17

_SMALL = [name for name in schema.TABLES if name != "domains"]
_NAME = b"table"


def write(path: str, summary: Summary) -> None:
    _write(path, summary, [summary["domains"]])


def merge_files(paths: Sequence[str], path: str) -> None:
    """Merge the summaries in ``paths`` into one file."""
    with opened(paths) as (small, domains):
        _write(path, small, domains)


def write_parquet(paths: Sequence[str], folder: str) -> tuple[Summary, dict[str, int]]:
    """Merge summaries into Parquet files; returns the small tables, and all numbers of rows."""
    rows = {}
    with opened(paths) as (small, domains):
        for name, table_schema in schema.TABLES.items():
            if name not in small and name != "domains":
                continue
            tables = domains if name == "domains" else [small[name]]
            rows[name] = 0
            with (
                storage.open_output(storage.join(folder, f"{name}.parquet")) as file,
                pq.ParquetWriter(file, table_schema, compression="zstd") as writer,
            ):
                for table in _regrouped(tables, ROW_GROUP_ROWS):
                    writer.write_table(table)
                    rows[name] += table.num_rows
    return small, rows


@contextlib.contextmanager
def opened(paths: Sequence[str]) -> Iterator[tuple[Summary, Iterator[pa.Table]]]:
    """The merged small tables of some summaries, and their domains as one stream."""
    with contextlib.ExitStack() as stack:
        small, domains = [], []
        for path in paths:
            source = stack.enter_context(tables.open_file(path, mapped=False))
            own: Summary = {}
            reader = pa.ipc.open_stream(source)
            while (name := reader.schema.metadata[_NAME]) != b"domains":
                own[name.decode()] = reader.read_all().replace_schema_metadata()
                reader = pa.ipc.open_stream(source)
            small.append(own)
            domains.append(pa.Table.from_batches([batch]) for batch in reader)
        yield merge(small), merge_sorted(domains, schema.DOMAINS)


def merge_sorted(
    streams: Sequence[Iterator[pa.Table]], table_schema: pa.Schema
) -> Iterator[pa.Table]:
    """Merge streams of tables, each sorted by key, into one sorted stream (k-way merge).

    The result equals ``add_up`` of all tables, but only one of each stream is in memory.
    """
    heads = [(table, stream) for stream in streams for table in _next(stream)]
    while heads:
        # The heads hold all rows with keys up to the smallest of their last keys.
        end = min(_Keys(table, table_schema)[-1] for table, _ in heads)
        taken, left = [], []
        for table, stream in heads:
            n = bisect_right(_Keys(table, table_schema), end)
            taken.append(table.slice(0, n))
            rest = [table.slice(n)] if n < table.num_rows else _next(stream)
            left += [(table, stream) for table in rest]
        yield add_up(taken, table_schema)
        heartbeat.beat()
        heads = left


def _next(stream: Iterator[pa.Table]) -> list[pa.Table]:
    """The next non-empty table in a list, which is empty at the stream's end."""
    return next(([table] for table in stream if table.num_rows), [])


class _Keys(Sequence[tuple[str, ...]]):
    """The keys of a table's rows, for bisection."""

    def __init__(self, table: pa.Table, table_schema: pa.Schema) -> None:
        self._columns = [table[name] for name in keys_of(table_schema)]

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, row: Any) -> Any:
        return tuple(column[row].as_py() for column in self._columns)


def _write(path: str, summary: Summary, domains: Iterable[pa.Table]) -> None:
    with storage.open_output(path) as file:
        for name in [name for name in _SMALL if name in summary]:
            with pa.ipc.new_stream(file, _named_schema(name)) as writer:
                writer.write_table(summary[name])
        with pa.ipc.new_stream(file, _named_schema("domains")) as writer:
            for table in domains:
                writer.write_table(table, max_chunksize=BATCH_ROWS)


def _named_schema(name: str) -> pa.Schema:
    return schema.TABLES[name].with_metadata({_NAME: name.encode()})


def _regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of ``rows`` rows, but for a shorter last one."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        while count >= rows:
            together = pa.concat_tables(held)
            yield together.slice(0, rows).combine_chunks()
            held, count = [together.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held).combine_chunks()
