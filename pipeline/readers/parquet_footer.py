"""The few numbers of a Parquet footer that say where its row groups are.

pyarrow tells them too, but asking it about a column chunk of a damaged footer ends the process
(pyarrow 25: the C++ exception of RowGroupMetaData.column is not caught), so they are read here. A
footer is a Thrift struct in the compact protocol (thrift-compact-protocol.md of Apache Thrift),
with the fields of parquet.thrift of Apache Parquet.
"""

from typing import BinaryIO, NamedTuple

MAGIC = b"PAR1"

_MAX_DEPTH = 16  # FileMetaData needs 6
_PAGE_HEADER = 1 << 10  # bytes; statistics of a dictionary's page are rare and short
_DICTIONARY_PAGE = 2  # parquet.thrift: PageType
_DELTA_BYTE_ARRAY = 7  # parquet.thrift: Encoding

Value = int | bytes | list["Value"] | dict[int, "Value"]


class Column(NamedTuple):
    """A column of a row group: where its first page is, its size before rows share values, and
    whether it stores values by what they have in common with the one before.
    """

    start: int
    size: int
    delta: bool


class RowGroup(NamedTuple):
    """``[start, end)`` are its stored bytes."""

    rows: int
    start: int
    end: int
    columns: dict[str, Column]


class Footer(NamedTuple):
    """``start`` is where the footer itself starts."""

    start: int
    groups: list[RowGroup]


def read_footer(stream: BinaryIO) -> Footer | None:
    """The footer of a file; None if it makes no sense."""
    size = stream.seek(0, 2)
    if size < 12:
        return None
    stream.seek(size - 8)
    tail = stream.read(8)
    start = size - 8 - int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or start < len(MAGIC):
        return None
    stream.seek(start)
    try:
        metadata = _Compact(stream.read(size - 8 - start)).struct(0)
        groups = [_row_group(group) for group in _list(metadata, 4)]
    except (ValueError, IndexError, KeyError, TypeError):
        return None
    good = all(0 <= g.start <= g.end <= start and g.rows >= 0 for g in groups)
    return Footer(start, groups) if good else None


def _row_group(group: Value) -> RowGroup:
    starts, ends, columns = [], [], {}
    for chunk in _list(group, 1):
        column = _struct(chunk)[3]
        # The dictionary's page comes first; 0 stands for a page that is not there.
        pages = [at for at in (_int(column, 9), _int(column, 11, 0)) if at > 0]
        start = min(pages, default=0)
        starts.append(start)
        ends.append(start + _int(column, 7))
        name = b".".join(part for part in _list(column, 3) if isinstance(part, bytes))
        delta = _DELTA_BYTE_ARRAY in _list(column, 2)
        columns[name.decode()] = Column(start, _int(column, 6), delta)
    return RowGroup(_int(group, 3), min(starts, default=0), max(ends, default=0), columns)


def largest_value(stream: BinaryIO, column: Column) -> int:
    """How many bytes a value that many rows share may have, at most; 0 if they share none."""
    if column.delta:
        return column.size
    stream.seek(column.start)
    try:
        page = _Compact(stream.read(_PAGE_HEADER)).struct(0)
        return _int(page, 2) if page[1] == _DICTIONARY_PAGE else 0
    except (ValueError, IndexError, KeyError, TypeError):
        return 0  # damaged: pyarrow says how


def _struct(value: Value) -> dict[int, Value]:
    if not isinstance(value, dict):
        raise TypeError("no struct")
    return value


def _list(value: Value, field: int) -> list[Value]:
    inner = _struct(value)[field]
    if not isinstance(inner, list):
        raise TypeError("no list")
    return inner


def _int(value: Value, field: int, default: int | None = None) -> int:
    inner = _struct(value).get(field, default)
    if not isinstance(inner, int):
        raise TypeError("no number")
    return inner


class _Compact:
    """Decodes any Thrift struct: field numbers to values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, depth: int) -> dict[int, Value]:
        out: dict[int, Value] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            # The value of a boolean field is its type.
            out[field] = int(kind == 1) if kind in (1, 2) else self._value(kind, depth)
        return out

    def _value(self, kind: int, depth: int) -> Value:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._unsigned())
            case 9 | 10:
                head = self._byte()
                count = head >> 4 if head >> 4 < 15 else self._unsigned()
                return [self._value(head & 15, depth + 1) for _ in range(count)]
            case 12:
                return self.struct(depth + 1)
            case _:  # maps: Parquet has none
                raise ValueError(f"type {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise IndexError("bytes beyond the end")
        return self._data[self._at - count : self._at]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
