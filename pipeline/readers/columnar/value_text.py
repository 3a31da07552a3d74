"""The text of a value, whatever its Arrow type, so that an id has the same draw in any format.

| type | text |
|---|---|
| strings, JSON | as they are |
| binary | as it is if UTF-8; else, in ids and metadata, lower-case hex digits |
| fixed-size binary | lower-case hex digits |
| UUID | 8-4-4-4-12 lower-case hex digits |
| Boolean, integers, floats | as Python's ``json`` writes them |
| decimals, dates, times, durations | as Arrow casts them; with a zone: UTC and a Z |
| lists, structs, maps | as Python's ``json`` writes them (maps as lists of pairs) |

Values inside dictionaries, run-end encoding and extension types are treated the same.
"""

import binascii
import json

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.readers.utf8 import utf8_rows

_STRINGS = {kind.id for kind in (pa.string(), pa.large_string(), pa.string_view())}
_BINARIES = {kind.id for kind in (pa.binary(), pa.large_binary(), pa.binary_view())}
_NESTED = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
_LISTS = {pa.list_(pa.null(), 1).id, *(list_of(pa.null()).id for list_of in _NESTED)}
_NO_TEXT = b"\xff"  # replaces a value whose strings are not UTF-8; it is not UTF-8 either
_UUID_DASHES = (8, 13, 18, 23)


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are strings, or bytes that may be."""
    return plain_type(kind).id in _STRINGS | _BINARIES


def is_text_list(kind: pa.DataType) -> bool:
    """Whether values of a type are lists of strings."""
    kind = plain_type(kind)
    return kind.id in _LISTS and is_text(kind.value_type)


def joined_octets(column: pa.Array, separator: bytes) -> pa.Array:
    """The strings of each list, joined by ``separator``; null if one is null: large_binary [n]."""
    lists = _plain(column).cast(pa.large_list(pa.large_binary()))
    return pc.binary_join(lists, pa.scalar(separator, pa.large_binary()))


def text_octets(column: pa.Array, hexadecimal: bool) -> pa.Array:
    """The text of each value: large_binary [n], because strings may be invalid UTF-8.

    With ``hexadecimal``, binary values that are not UTF-8 become hex digits.
    """
    column = _plain(column)
    kind = column.type
    if kind.id in _STRINGS:
        return column.cast(pa.large_binary())
    if kind.id in _BINARIES:
        column = column.cast(pa.large_binary())
        return _readable(column) if hexadecimal else column
    if pa.types.is_fixed_size_binary(kind):
        return _hexadecimal(column)
    if pa.types.is_floating(kind):
        return _floats(column)
    if pa.types.is_nested(kind) or pa.types.is_interval(kind):
        return _json(column)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    return column.cast(pa.large_string()).cast(pa.large_binary())


def text_sizes(column: pa.Array) -> npt.NDArray[np.int64]:
    """The decoded size of each of n values (int64 [n]); 0 for small types."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return text_sizes(column.storage)
    if pa.types.is_run_end_encoded(kind):
        return text_sizes(column.values)[_runs(column)]
    if pa.types.is_dictionary(kind):
        sizes = np.append(text_sizes(column.dictionary), 0)
        return sizes[pc.fill_null(column.indices.cast(pa.int64()), len(sizes) - 1).to_numpy()]
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        # A view is 16 bytes; the first four are the length, which pyarrow 25 does not expose.
        views = np.frombuffer(column.buffers()[1], "<i4")[::4]
        lengths = views[column.offset : column.offset + len(column)].astype(np.int64)
        return np.where(column.is_null().to_numpy(zero_copy_only=False), 0, lengths)
    if pa.types.is_fixed_size_binary(kind):
        return np.full(len(column), 2 * kind.byte_width, np.int64)
    if is_text_list(kind):
        lists = column.cast(pa.large_list(kind.value_type))
        ends = np.append(0, np.cumsum(text_sizes(lists.values)))
        return np.diff(ends[lists.offsets.to_numpy()])
    if not is_text(kind):
        return np.zeros(len(column), np.int64)
    return pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the same values without dictionary, run-end and extension types."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    return kind


def struct_field(column: pa.Array, name: str) -> pa.Array:
    """A field of n structs, encoded like these; null where the struct is null."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return struct_field(column.storage, name)
    if pa.types.is_dictionary(kind):
        fields = struct_field(column.dictionary, name)
        return pa.DictionaryArray.from_arrays(column.indices, fields)
    if pa.types.is_run_end_encoded(kind):
        fields = struct_field(column.values, name)
        whole = pa.RunEndEncodedArray.from_arrays(column.run_ends, fields)
        return whole.slice(column.offset, len(column))
    return pc.struct_field(column, name)


def _plain(column: pa.Array) -> pa.Array:
    kind = column.type
    if isinstance(kind, pa.UuidType):
        return _uuids(column.storage)
    if isinstance(kind, pa.Bool8Type):
        return column.storage.cast(pa.bool_())
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(column.storage)
    if pa.types.is_run_end_encoded(kind):
        return _plain(_movable(column.values).take(pa.array(_runs(column))))
    if pa.types.is_dictionary(kind):
        return _plain(_movable(column.dictionary).take(column.indices))
    return column


def _movable(column: pa.Array) -> pa.Array:
    """The same values, in a type for which pyarrow 25 implements ``take``."""
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(column.type):
        return column.cast(pa.large_binary())
    return column


def _runs(column: pa.RunEndEncodedArray) -> npt.NDArray[np.int64]:
    """The index of each row's value: int64 [n]."""
    first, count = column.find_physical_offset(), column.find_physical_length()
    ends = column.run_ends.to_numpy()[first : first + count].astype(np.int64) - column.offset
    lengths = np.diff(np.minimum(ends, len(column)), prepend=0)
    return np.repeat(np.arange(first, first + count), lengths)


def _digits(column: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The concatenated hex digits of n values without nulls, and their n + 1 offsets."""
    # A copy, so that the buffers hold only these values.
    column = column.cast(pa.large_binary()).take(pa.array(np.arange(len(column))))
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[: len(column) + 1]
    digits = binascii.hexlify(data or b"")[: 2 * int(ends[-1])]
    return np.frombuffer(digits, np.uint8), 2 * ends


def _hexadecimal(column: pa.Array) -> pa.Array:
    digits, ends = _digits(column.drop_null())
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(digits)]
    return _spread(column, pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers))


def _spread(column: pa.Array, texts: pa.Array) -> pa.Array:
    """The texts of the values that are not null, and null elsewhere."""
    return pc.replace_with_mask(pa.nulls(len(column), texts.type), column.is_valid(), texts)


def _readable(column: pa.Array) -> pa.Array:
    """large_binary values: UTF-8 unchanged, others as hex digits."""
    unreadable = pa.array(~utf8_rows(pc.fill_null(column, b"")))
    if not unreadable.true_count:
        return column
    return pc.replace_with_mask(column, unreadable, _hexadecimal(column.filter(unreadable)))


def _uuids(column: pa.Array) -> pa.Array:
    digits = _digits(column.drop_null())[0].reshape(-1, 32)
    texts = np.insert(digits, [place - i for i, place in enumerate(_UUID_DASHES)], ord("-"), axis=1)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(texts))]
    fixed = pa.Array.from_buffers(pa.binary(36), len(texts), buffers)
    return _spread(column, fixed.cast(pa.large_binary()).cast(pa.large_string()))


def _floats(column: pa.Array) -> pa.Array:
    values = column.drop_null().to_numpy()
    texts = values.astype("U32")
    for value, text in ((np.inf, "Infinity"), (-np.inf, "-Infinity")):
        texts[values == value] = text
    texts[np.isnan(values)] = "NaN"
    return _spread(column, pa.array(texts, pa.large_string()).cast(pa.large_binary()))


def _json(column: pa.Array) -> pa.Array:
    column = _json_values(column)
    return pa.array(map(_dump, column), pa.large_binary())


def _dump(value: pa.Scalar) -> bytes | None:
    try:
        found = value.as_py()
    except UnicodeDecodeError:
        return _NO_TEXT
    if found is None:
        return None
    return json.dumps(found, ensure_ascii=False, default=str).encode()


def _json_values(column: pa.Array) -> pa.Array:
    """The same values, with text in place of those that JSON cannot hold."""
    column = _plain(column)
    kind = column.type
    if _is_known(kind) or pa.types.is_union(kind) or pa.types.is_interval(kind):
        return column
    if pa.types.is_struct(kind):
        fields = [_json_values(part) for part in column.flatten()]
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, names, mask=column.is_null())
    mask = column.is_null()
    if pa.types.is_map(kind):
        ends = column.offsets.to_numpy()
        first, count = int(ends[0]), int(ends[-1] - ends[0])
        keys, items = (
            _json_values(part.slice(first, count)) for part in (column.keys, column.items)
        )
        return pa.MapArray.from_arrays(pa.array(ends - first), keys, items, mask=mask)
    if kind.num_fields:  # a list of any kind; casts of list views go wrong in pyarrow 25
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        ends = pa.array(np.append(0, np.cumsum(lengths)), pa.int64())
        return pa.LargeListArray.from_arrays(ends, _json_values(column.flatten()), mask=mask)
    return text_octets(column, hexadecimal=True).cast(pa.large_string())


def _is_known(kind: pa.DataType) -> bool:
    """Whether JSON can hold all values of a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if kind.num_fields and not pa.types.is_run_end_encoded(kind):
        return all(_is_known(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_null(kind) or pa.types.is_boolean(kind) or kind.id in _STRINGS:
        return True
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
