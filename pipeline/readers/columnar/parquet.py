"""Parquet files, read by row groups; also concatenated ones."""

import itertools
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.readers.columnar.columns import (
    BATCH_BYTES,
    all_names,
    check_end,
    documents,
    pick,
    wanted_columns,
)
from pipeline.readers.columnar.parquet_footer import ENCRYPTED, Column, RowGroup, read_parts
from pipeline.readers.columnar.parquet_pages import PIECE_BYTES, Leaf, Pages, TooMuchError
from pipeline.readers.columnar.source import DAMAGE, Section, Source
from pipeline.readers.contract import FieldMap, InputRange, Reading, Reason

_MAX_ROWS = 1 << 13  # needed because a dictionary-encoded column is smaller than its text
_READ_BYTES = 1 << 20
_FEW_BYTES = 1 << 14  # pyarrow reads this many bytes for a page header

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


def read_parquet(stream: BinaryIO, piece: InputRange, reading: Reading) -> Iterator[pa.RecordBatch]:
    """The documents of some row groups.

    The rest of a damaged row group is quarantined as one record, and so is a file with a damaged
    footer, without which nothing can be located.

    Raises:
        ValueError: the text column is missing, or is not a string.
        OSError: the file cannot be read.
    """
    fields, quarantine = reading.fields, reading.quarantine
    parts = _parts(stream)
    if any(part.error for part in parts):
        check_end(piece, 0)
    end = check_end(piece, sum(len(part.groups) for part in parts))
    row = number = 0
    for part in parts:
        if part.file is None:
            quarantine.add(row, "record", _reason(part.error), f"cannot be opened: {part.error}")
            continue
        columns = wanted_columns(part.file.schema_arrow, piece.path, fields)
        for index, group in enumerate(part.groups):
            if piece.start <= number < end:
                tables = _tables(part.source, part.file, index, group, columns, fields)
                rows = range(row, row + group.rows)
                for first, table in _sound(tables, part.source, rows, number, reading):
                    yield from documents(table, first, reading)
            row += group.rows
            number += 1


def _sound(
    tables: Iterator[pa.RecordBatch], source: Source, rows: range, number: int, reading: Reading
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The tables of a row group with their first rows; damage is quarantined and ends them."""
    row = rows.start
    try:
        for table in tables:
            yield row, table
            row += len(table)
    except DAMAGE as error:
        source.check()
        message = f"rows {row} to {rows.stop - 1} (row group {number}): {error}"
        reading.quarantine.add(row, "record", _reason(error), message)


class _EncryptedError(ValueError): ...


def _reason(error: Exception | None) -> Reason:
    return "encrypted_parquet" if isinstance(error, _EncryptedError) else "corrupt_parquet"


class _Part(NamedTuple):
    """One of several concatenated Parquet files, or its error if ``file`` is None."""

    source: Source
    groups: list[RowGroup]
    file: pq.ParquetFile | None
    error: Exception | None = None


def _parts(stream: BinaryIO) -> list[_Part]:
    """The concatenated Parquet files; nearly always just one."""
    found = read_parts(stream)
    parts = []
    for start, end, footer in found:
        section = stream if len(found) == 1 else cast(BinaryIO, Section(stream, start, end))
        source = Source(section)
        try:
            if _is_encrypted(section):
                raise _EncryptedError("it is encrypted")
            if footer is None:
                raise ValueError("the footer is damaged or missing")
            file = _file(source, _READ_BYTES)
            _ = file.schema_arrow.names  # raises if they are not UTF-8
            parts.append(_Part(source, footer.groups, file))
        except DAMAGE as error:
            source.check()
            parts.append(_Part(source, [], None, error))
    return parts


def _is_encrypted(stream: BinaryIO) -> bool:
    """Whether a whole file is encrypted; otherwise some of its columns may be."""
    stream.seek(0)
    head = stream.read(len(ENCRYPTED))
    stream.seek(max(stream.seek(0, 2) - len(ENCRYPTED), 0))
    return ENCRYPTED in (head, stream.read())


def _file(
    source: Source, read_bytes: int, metadata: pq.FileMetaData | None = None
) -> pq.ParquetFile:
    options = {"pre_buffer": False, "buffer_size": read_bytes, "page_checksum_verification": True}
    return pq.ParquetFile(source.arrow(), metadata=metadata, **options)


def _tables(
    source: Source,
    file: pq.ParquetFile,
    index: int,
    group: RowGroup,
    names: list[str],
    fields: FieldMap,
) -> Iterator[pa.RecordBatch]:
    """A row group in pieces of about :data:`BATCH_BYTES` of text.

    If a piece turns out too large (rows may share values, or a few may be very long), the row group
    is read again from its start, with fewer rows per piece.
    """
    columns = list(_columns(file, group, names))
    sizes = [column.size for column in group.columns if _is_part(column.path, fields.text)]
    rows = min([_MAX_ROWS, *(group.rows * BATCH_BYTES // max(size, 1) for size in sizes)])
    widest = max((leaf.width or 1 for _, leaf in columns), default=1)
    rows = min(max(rows, 1), PIECE_BYTES // widest)
    done = 0
    pages = Pages(columns, rows)
    while True:
        source.watch = pages.see
        end = 0
        try:
            for batch in file.iter_batches(
                batch_size=rows, row_groups=[index], columns=names, use_threads=False
            ):
                pages.next_piece()
                batch = pick(batch, names)
                _check_indices(batch)
                end += len(batch)
                if end > done:
                    yield batch.slice(max(len(batch) - (end - done), 0))
                    done = end
            if end < group.rows:  # pyarrow does not report a short column
                raise ValueError(f"it has only {end} of {group.rows} rows")
            return
        except TooMuchError as error:
            rows = error.rows
            pages = Pages(columns, rows, error.careful)
            if error.careful:
                source.watch = None
                file = _file(source, _FEW_BYTES, file.metadata)


def _columns(
    file: pq.ParquetFile, group: RowGroup, names: list[str]
) -> Iterator[tuple[Column, Leaf]]:
    """The stored columns of some columns of the schema, which may be structs or lists."""
    leaves = [file.schema.column(i) for i in range(len(file.schema))]
    for column, leaf in itertools.zip_longest(group.columns, leaves):
        path = column.path if column else leaf.path
        if any(_is_part(path, name) for name in names):
            if column is None or leaf is None or leaf.path != path:
                raise ValueError(f"the columns of a row group are not the schema's: {path!r}")
            if column.encrypted:
                raise _EncryptedError(f"column {path!r} is encrypted")
            width = _WIDTHS.get(leaf.physical_type, leaf.length or None)
            if width and width > PIECE_BYTES:
                raise ValueError(f"column {path!r} has values of {width:,} bytes")
            yield column, Leaf(leaf.max_definition_level, leaf.max_repetition_level, width)


def _is_part(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _check_indices(batch: pa.RecordBatch) -> None:
    """Refuse damage that pyarrow does not detect."""
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            ends = pc.min_max(column.indices)
            if (ends["max"].as_py() or 0) >= max(len(column.dictionary), 1):
                raise ValueError("an index beyond the dictionary")


def group_sizes(stream: BinaryIO, path: str, fields: FieldMap | None) -> list[int]:
    """The stored bytes of each row group, empty if damaged; ValueError without the text column."""
    parts = _parts(stream)
    for part in parts:
        if fields and part.file:
            wanted_columns(part.file.schema_arrow, path, fields)
    if any(part.error for part in parts):
        return []
    return [group.end - group.start for part in parts for group in part.groups]


def column_names(stream: BinaryIO) -> list[str] | None:
    """The columns of a file and the fields of its structs; None if it cannot be opened."""
    parts = _parts(stream)
    if any(part.error for part in parts):
        return None
    names = (name for part in parts if part.file for name in all_names(part.file.schema_arrow))
    return list(dict.fromkeys(names))


def regions(stream: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """The byte ranges of row groups ``[start, end)`` and of the footer."""
    parts = read_parts(stream)
    groups = [
        (part.start + group.start, part.start + group.end)
        for part in parts
        for group in (part.footer.groups if part.footer else [])
    ]
    if len(groups) < end or not all(part.footer for part in parts):
        return [(0, parts[-1].end)]
    footers = [(part.start + part.footer.start, part.end) for part in parts if part.footer]
    return [*groups[start:end], *footers]
