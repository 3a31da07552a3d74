"""Turns columns of Parquet, Arrow and CSV files into document batches."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.readers.columnar.value_text import (
    is_text,
    is_text_list,
    joined_octets,
    plain_type,
    struct_field,
    text_octets,
    text_sizes,
)
from pipeline.readers.contract import FieldMap, InputRange, Reading, document_schema
from pipeline.readers.utf8 import utf8_rows

BATCH_BYTES = 4 << 20  # approximate size of the text of a batch

_MAX_BYTES = 2 * BATCH_BYTES  # of all columns; slightly larger tables are not split


def wanted_columns(schema: pa.Schema, path: str, fields: FieldMap) -> list[str]:
    """The wanted fields that a file has: columns, or fields of structs (``metadata.url``).

    Raises:
        ValueError: the text is missing or not a string, or a wanted name is not unique.
    """
    text = _path(schema, fields.text)
    if text is None:
        raise ValueError(
            f"{path} has no column {fields.text!r}{_obstacle(schema, fields.text)}; it has "
            f"{all_names(schema)}: name the text column with --field text=COLUMN"
        )
    paths = {name: _path(schema, name) for name in dict.fromkeys(fields.inputs)}
    wanted = [name for name, found in paths.items() if found]
    heads = dict.fromkeys(found[0] for found in paths.values() if found)
    if twice := [head for head in heads if schema.names.count(head) > 1]:
        raise ValueError(f"{path} has several columns named {twice}: rename all but one of each")
    kind = _type(schema, text)
    # Tables without any text are often written with a null type.
    if is_text(kind) or pa.types.is_null(kind):
        return wanted
    advice = "name the text column with --field text=COLUMN"
    if is_text_list(kind):
        if fields.list_separator is not None:
            return wanted
        advice = r"say what to put between its strings, as in --list-separator '\n'"
    raise ValueError(f"{path}: column {fields.text!r} is {kind}, not string: {advice}")


def pick(table: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """The wanted fields of n rows, null where the struct is null; ArrowInvalid if damaged."""
    columns = []
    for name in names:
        path = _path(table.schema, name)
        assert path
        column = table[path[0]]
        for part in path[1:]:
            column.validate()
            column = struct_field(column, part)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=list(names))


def all_names(schema: pa.Schema) -> list[str]:
    """The names of all columns, and of all fields of structs."""
    names = []
    for field in schema:
        names.append(field.name)
        kind = plain_type(field.type)
        if pa.types.is_struct(kind):
            names += [f"{field.name}.{name}" for name in all_names(pa.schema(list(kind)))]
    return names


def _path(schema: pa.Schema, name: str) -> list[str] | None:
    """The path of a field: the column of that name, or one through structs."""
    if name in schema.names:
        return [name]
    head, *rest = path = name.split(".")
    if not rest or head not in schema.names:
        return None
    kind = plain_type(schema.field(schema.names.index(head)).type)
    for part in rest:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = plain_type(kind.field(part).type)
    return path


def _obstacle(schema: pa.Schema, name: str) -> str:
    """A note on the field within ``name`` that is not a struct, if any."""
    outer = name
    while "." in outer:
        outer = outer.rpartition(".")[0]
        if path := _path(schema, outer):
            kind = _type(schema, path)
            return "" if pa.types.is_struct(kind) else f" ({outer!r} is {kind}, not struct)"
    return ""


def _type(schema: pa.Schema, path: Sequence[str]) -> pa.DataType:
    kind = schema.field(path[0]).type
    for part in path[1:]:
        kind = plain_type(kind).field(part).type
    return plain_type(kind)


def check_end(piece: InputRange, count: int) -> int:
    """The end of a range in a file of ``count`` parts; ValueError if it ends beyond them."""
    if piece.end is None:
        return count
    if piece.end > count:
        raise ValueError(f"{piece.path} has changed since the run started: run it again")
    return piece.end


def documents(table: pa.RecordBatch, first_row: int, reading: Reading) -> Iterator[pa.RecordBatch]:
    """The valid rows as batches of about :data:`BATCH_BYTES`; bad rows are quarantined.

    ``first_row`` counts from the start of the file. A row is bad if its text is null, or if a
    wanted value is not UTF-8 or longer than ``max_document_bytes``.
    """
    for start, end in _by_size(table):
        # A few bytes may encode many rows, so rows are decoded in parts.
        batch = _documents(table.slice(start, end - start), first_row + start, reading)
        if len(batch):
            yield batch


def _documents(table: pa.RecordBatch, first_row: int, reading: Reading) -> pa.RecordBatch:
    fields, max_bytes = reading.fields, reading.options.max_document_bytes
    schema = document_schema(fields.metadata)
    octets = dict.fromkeys(fields.inputs, pa.nulls(len(table), pa.large_binary()))
    for name in octets.keys() & set(table.schema.names):
        octets[name] = text_octets(table[name], name not in (fields.text, fields.url))
    separator = fields.list_separator
    if separator is not None and is_text_list(table[fields.text].type):
        octets[fields.text] = joined_octets(table[fields.text], separator.encode())
    text = octets[fields.text]
    # Later reasons win: as for JSON lines, UTF-8 is checked before the content.
    reasons = np.full(len(table), None, object)
    reasons[text.is_null().to_numpy(zero_copy_only=False)] = "missing_text"
    for column in octets.values():
        reasons[~utf8_rows(pc.fill_null(column, b""))] = "invalid_utf8"
    for column in octets.values():
        reasons[pc.fill_null(pc.binary_length(column), 0).to_numpy() > max_bytes] = "too_long"
    good = reasons == None  # noqa: E711
    for row in np.flatnonzero(~good).tolist():
        content = text[row].as_buffer()
        head = b"" if content is None else content[: 1 << 20].to_pybytes()
        reading.quarantine.add(first_row + row, "record", reasons[row], head)
    # The bytes were validated above, so the view is safe.
    found = {name: column.filter(pa.array(good)) for name, column in octets.items()}
    columns = [
        found[name].view(pa.large_string()).cast(field.type)
        for name, field in zip(fields.inputs, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _by_size(table: pa.RecordBatch) -> Iterator[tuple[int, int]]:
    """Split n rows into parts of at most :data:`_MAX_BYTES`, or of one row."""
    ends = np.cumsum(sum(text_sizes(column) for column in table.columns))
    start = 0
    while start < len(table):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + _MAX_BYTES, "right")), start + 1)
        yield start, end
        start = end
