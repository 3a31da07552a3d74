"""The numbers of a Parquet footer that locate its row groups.

pyarrow exposes them too, but on a damaged footer RowGroupMetaData.column crashes the process
(pyarrow 25 does not catch the C++ exception). A footer is a Thrift struct in the compact protocol
(thrift-compact-protocol.md of Apache Thrift) with the fields of parquet.thrift (Apache Parquet).
"""

import re
from typing import BinaryIO, NamedTuple, TypeVar

MAGIC = b"PAR1"
ENCRYPTED = b"PARE"  # the magic of files with an encrypted footer

_MAX_DEPTH = 16  # FileMetaData needs 6

Value = int | bytes | list["Value"] | dict[int, "Value"]
_T = TypeVar("_T")


class Column(NamedTuple):
    path: str  # a.b for a column of that name and for the field b of a struct a
    start: int  # of the first page
    stored: int  # bytes of all pages
    size: int  # bytes of all pages, unpacked
    codec: int
    encrypted: bool = False


class RowGroup(NamedTuple):
    """A row group at the bytes ``[start, end)``; columns are in the schema's order."""

    rows: int
    start: int
    end: int
    columns: list[Column]


class Footer(NamedTuple):
    start: int
    data_end: int  # of everything that the footer refers to
    groups: list[RowGroup]


def read_footer(stream: BinaryIO, end: int | None = None) -> Footer | None:
    """The footer of a file, or of the bytes before ``end``; None if it is invalid."""
    size = stream.seek(0, 2) if end is None else end
    if size < 12:
        return None
    stream.seek(size - 8)
    tail = stream.read(8)
    start = size - 8 - int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or start < len(MAGIC):
        return None
    stream.seek(start)
    try:
        metadata = Compact(stream.read(size - 8 - start)).struct()
        found = get(metadata, 4, list)
        groups = [_row_group(group) for group in found]
        indices = (_indices(chunk) for group in found for chunk in get(group, 1, list))
        data_end = max((*indices, *(group.end for group in groups)), default=len(MAGIC))
    except (ValueError, IndexError, TypeError):
        return None
    good = all(0 <= g.start <= g.end <= start and g.rows >= 0 for g in groups)
    return Footer(start, data_end, groups) if good else None


class Part(NamedTuple):
    """A Parquet file at ``[start, end)``; offsets in its footer count from ``start``."""

    start: int
    end: int
    footer: Footer | None


def read_parts(stream: BinaryIO) -> list[Part]:
    """The concatenated files; nearly always just one.

    A footer's offsets count from the start of its file, so the gap between the data it refers to
    and itself is nearly the size of the files before.
    """
    parts: list[Part] = []
    end = stream.seek(0, 2)
    while end or not parts:
        footer = read_footer(stream, end)
        start = _last_start(stream, footer.start - footer.data_end) if footer else 0
        if footer:
            footer = footer._replace(start=footer.start - start)
        parts.insert(0, Part(start, end, footer))
        end = start
    return parts


def _last_start(stream: BinaryIO, most: int) -> int:
    """The start of the last file, at most at ``most``; 0 if it is the only one."""
    found = at = 0
    window = b""
    if most <= 0:
        return 0
    stream.seek(0)
    while more := stream.read(min(1 << 20, max(most + len(MAGIC) - at, 0))):
        window = window[-2 * len(MAGIC) + 1 :] + more
        at += len(more)
        for match in re.finditer(rb"PAR1(?=PAR1)", window):
            place = at - len(window) + match.end()
            if _ends(stream, place):
                found = place
        stream.seek(at)
    return found


def _ends(stream: BinaryIO, end: int) -> bool:
    """Whether a file may end here: its declared footer length fits."""
    stream.seek(max(end - 8, 0))
    length = int.from_bytes(stream.read(4), "little")
    return 0 < length <= end - 12


def _indices(chunk: Value) -> int:
    """The end of a column's page indices and Bloom filter; 0 if it has none."""
    column = get(chunk, 3, dict)
    parts = ((chunk, 4, 5), (chunk, 6, 7), (column, 14, 15))
    return max(get(of, start, int, 0) + get(of, length, int, 0) for of, start, length in parts)


def _row_group(group: Value) -> RowGroup:
    columns = []
    for chunk in get(group, 1, list):
        column = get(chunk, 3, dict)
        # The dictionary page comes first; 0 means none.
        pages = [at for at in (get(column, 9, int), get(column, 11, int, 0)) if at > 0]
        path = b".".join(part for part in get(column, 3, list) if isinstance(part, bytes)).decode()
        stored, size, codec = (get(column, field, int) for field in (7, 6, 4))
        columns.append(Column(path, min(pages, default=0), stored, size, codec, 8 in chunk))
    start = min((column.start for column in columns), default=0)
    end = max((column.start + column.stored for column in columns), default=0)
    return RowGroup(get(group, 3, int), start, end, columns)


def get(value: Value, field: int, kind: type[_T], default: _T | None = None) -> _T:
    """A field of a struct; TypeError if it is missing, has another type or this is no struct."""
    found = value.get(field, default) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise TypeError(f"no {kind.__name__} {field}")
    return found


class Compact:
    """Decodes the Thrift struct at ``at`` into a mapping of field numbers to values.

    Of repeated fields other decoders use the last one of the expected type; this one refuses them.

    Raises:
        IndexError: by any method: the data ends too early.
        ValueError: by any method: it is not a valid struct.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    def struct(self, depth: int = 0) -> dict[int, Value]:
        out: dict[int, Value] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self.signed()
            if field in out or not 0 <= field < 1 << 15:
                raise ValueError(f"field {field}")
            kind = head & 15
            # The value of a boolean field is its type.
            out[field] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return out

    def _value(self, kind: int, depth: int) -> Value:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self.signed()
            case 7:
                return self.octets(8)
            case 8:
                return self.octets(self.unsigned())
            case 9 | 10:
                head = self._byte()
                count = head >> 4 if head >> 4 < 15 else self.unsigned()
                return [self._value(head & 15, depth + 1) for _ in range(count)]
            case 12:
                return self.struct(depth + 1)
            case _:  # maps: Parquet has none
                raise ValueError(f"type {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def octets(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self._data):
            raise IndexError("bytes beyond the end")
        return self._data[self.at - count : self.at]

    def unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def signed(self) -> int:
        value = self.unsigned()
        return value >> 1 ^ -(value & 1)
