"""Builds the table of a join: partitions the rows of its files into buckets, then sorts each.

Memory is bounded by a bucket, or a piece of a file; the rows pass through ``$TMPDIR`` once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.joins.grouping import Values
from pipeline.joins.settings import Join
from pipeline.joins.side_files import batches, common, decoded_bytes
from pipeline.joins.tables import (
    Table,
    about_path,
    bucket_of,
    bucket_path,
    encoded,
    keys_of,
    read_about,
)
from pipeline.readers.columnar.value_text import text_octets
from winnow import heartbeat
from winnow.filesystem import files, storage, tables
from winnow.spool import FILES, Spool, split
from winnow.text.hashing import xxh3_64

BUCKET_BYTES = 32 << 20
"""Bytes of rows per bucket, up to the maximum number of buckets. Sorting takes a few times that."""

FORMAT = 1
"""Bump it when the same files give a different table."""

Rows = Spool[int, pa.RecordBatch]
"""Rows by bucket."""

_KEY = [pa.field("hash", pa.uint64()), pa.field("key", pa.string()), pa.field("order", pa.int64())]
_LONGEST = 100  # characters of a key in a message


@dataclass
class _Seen:
    """State while the files are read."""

    buckets: int
    kinds: dict[str, dict[pa.DataType, None]] = field(default_factory=dict)
    firsts: list[int] = field(default_factory=list)  # the number of each file's first row
    rows: int = 0
    without_key: int = 0
    has_key: bool = False


def fingerprint(join: Join, checksums: Mapping[str, str]) -> str:
    """The inputs of a join's table: its settings, and its files by path and checksum."""
    settings = {"key": join.key, "field": join.key_field, "columns": list(join.columns)}
    return files.fingerprint(FORMAT, settings, join.duplicates, dict(checksums))


def build(name: str, join: Join, checksums: Mapping[str, str], work: str) -> Table:
    """The table of the join ``name`` in the work folder, built unless it exists.

    ``checksums`` maps its files, sorted, to their checksums.

    Raises:
        ValueError: a file or column is missing or damaged, a column mixes types, or a key occurs
            twice and the settings do not say which row stays.
    """
    key = fingerprint(join, checksums)
    done = read_about(work, name)
    if done is not None and done.fingerprint == key:
        return done
    paths = list(checksums)
    size = sum(map(decoded_bytes, paths))
    buckets = 1
    while buckets < FILES and buckets * BUCKET_BYTES < size:
        buckets *= 2
    seen = _Seen(buckets)
    try:
        with Rows() as spool:
            _read(join, paths, seen, spool)
            table = _sorted(name, join, paths, spool, seen, work, key)
    except ValueError as error:
        raise ValueError(f"--join {name}: {error}") from error
    storage.write_json(about_path(work, name), table.to_json())
    return table


def _read(join: Join, paths: Sequence[str], seen: _Seen, spool: Rows) -> None:
    wanted = list(dict.fromkeys([join.key_field, *join.columns])) if join.columns else None
    for path in paths:
        seen.firsts.append(seen.rows)
        for batch in batches(path, wanted):
            _partition(join, batch, seen, spool)
    if not seen.has_key:
        raise ValueError(
            f"no record has {join.key_field!r}: name the field of the {join.key}, as :field=NAME"
        )
    if lacking := [name for name in join.columns if name not in seen.kinds]:
        raise ValueError(f"no record has {', '.join(lacking)}: correct the name")
    if not seen.kinds:
        raise ValueError(f"the files have no column besides {join.key_field!r}")


def _partition(join: Join, batch: pa.RecordBatch, seen: _Seen, spool: Rows) -> None:
    names = batch.schema.names
    order = np.arange(seen.rows, seen.rows + len(batch))
    seen.rows += len(batch)
    if join.key_field not in names:
        seen.without_key += len(batch)
        return
    seen.has_key = True
    keys = keys_of(_text(batch[join.key_field]), join.key)
    keys = pc.if_else(pc.equal(keys, ""), pa.scalar(None, pa.string()), keys)
    valid = pc.is_valid(keys)
    seen.without_key += keys.null_count
    # A column that is also the key is joined only if it is named.
    chosen = [n for n in names if (n in join.columns if join.columns else n != join.key_field)]
    values = {n: _stored(batch[n]) for n in chosen}
    for name, column in values.items():
        seen.kinds.setdefault(name, {})[column.type] = None
    keys = keys.filter(valid)
    columns = [pa.array(xxh3_64(keys)), keys, pa.array(order).filter(valid)]
    columns += [column.filter(valid) for column in values.values()]
    rows = pa.RecordBatch.from_arrays(columns, names=[f.name for f in _KEY] + _own(values))
    for bucket, mine in split(bucket_of(rows["hash"].to_numpy(), seen.buckets)):
        spool.add(bucket, rows.take(pa.array(mine)))


def _own(values: Iterable[str]) -> list[str]:
    return [f"value {name}" for name in values]


def _text(keys: pa.Array) -> pa.Array:
    """Keys of any type as text, just as readers convert documents' ids."""
    try:
        return text_octets(keys, hexadecimal=True).cast(pa.string())
    except pa.ArrowInvalid as error:
        raise ValueError(f"a key is not UTF-8: {error}") from error


def _stored(column: pa.Array) -> pa.Array:
    """The same values in a plain type, whatever the file's encoding."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _stored(column.storage)
    if pa.types.is_dictionary(kind):
        return _stored(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return _stored(pc.run_end_decode(column))
    plain = {pa.string_view(): pa.string(), pa.large_string(): pa.string()}
    plain |= {pa.binary_view(): pa.binary(), pa.large_binary(): pa.binary()}
    return column.cast(plain[kind]) if kind in plain else column


def _sorted(
    name: str, join: Join, paths: Sequence[str], spool: Rows, seen: _Seen, work: str, key: str
) -> Table:
    chosen = list(join.columns or seen.kinds)
    kinds = [common(list(seen.kinds[n]), f"column {n}") for n in chosen]
    columns = pa.schema(
        [pa.field(join.column(name, n), kind) for n, kind in zip(chosen, kinds, strict=True)]
    )
    stored = pa.schema([*_KEY, *columns])
    values = {field.name: Values(field.type) for field in columns}
    counts, duplicates = [], 0
    for number in range(seen.buckets):
        parts = [_shaped(batch, chosen, stored) for batch in spool.of(number) if len(batch)] or [
            stored.empty_table()
        ]
        rows = pa.concat_tables(parts).combine_chunks()
        rows = rows.sort_by([(f.name, "ascending") for f in _KEY])
        again = _same_as_before(rows)
        duplicates += int(again.sum())
        if again.any():
            if join.duplicates == "error":
                raise ValueError(_twice(rows, int(np.flatnonzero(again)[0]), paths, seen.firsts))
            stays = np.append(~again[1:], True) if join.duplicates == "last" else ~again
            rows = rows.filter(pa.array(stays))
        rows = rows.drop_columns("order").combine_chunks()
        for column, known in values.items():
            for chunk in rows[column].chunks:
                known.add(chunk)
        counts.append(len(rows))
        tables.write(bucket_path(work, name, number), rows)
        heartbeat.beat()
    groupings = {column: known.grouping() for column, known in values.items()}
    schema = encoded(columns)
    return Table(
        name, join.key, key, tuple(counts), schema, groupings, duplicates, seen.without_key
    )


def _shaped(batch: pa.RecordBatch, chosen: Sequence[str], stored: pa.Schema) -> pa.Table:
    """Rows in the stored schema: missing columns are null, and integers may become floats."""
    names = [*(field.name for field in _KEY), *_own(chosen)]
    columns = [
        batch[own].cast(field.type)
        if own in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for own, field in zip(names, stored, strict=True)
    ]
    return pa.table(columns, schema=stored)


def _same_as_before(rows: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of n sorted rows repeat the key of the row before: bool [n]."""
    again = np.zeros(len(rows), np.bool_)
    if len(rows) > 1:
        keys = rows["key"]
        again[1:] = pc.equal(keys.slice(1), keys.slice(0, len(rows) - 1)).to_numpy()
    return again


def _twice(rows: pa.Table, row: int, paths: Sequence[str], firsts: Sequence[int]) -> str:
    orders = rows["order"].slice(row - 1, 2).to_numpy()
    places = [paths[int(np.searchsorted(firsts, order, "right")) - 1] for order in orders]
    where = " and ".join(dict.fromkeys(places))
    key = repr(rows["key"][row].as_py()[:_LONGEST])
    twice = "twice in" if len(set(places)) == 1 else "in"
    return (
        f"the key {key} is {twice} {where}: leave out all but one, or add :duplicates=first or"
        " :duplicates=last"
    )
