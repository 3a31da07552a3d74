"""The few numbers of a Parquet footer that say where its row groups are.

pyarrow tells them too, but asking it about a column chunk of a damaged footer ends the process
(pyarrow 25: the C++ exception of RowGroupMetaData.column is not caught), so they are read here. A
footer is a Thrift struct in the compact protocol (thrift-compact-protocol.md of Apache Thrift),
with the fields of parquet.thrift of Apache Parquet.
"""

import re
from typing import BinaryIO, NamedTuple

MAGIC = b"PAR1"
ENCRYPTED = b"PARE"  # the magic of files whose footer is encrypted too

_MAX_DEPTH = 16  # FileMetaData needs 6

Value = int | bytes | list["Value"] | dict[int, "Value"]


class Column(NamedTuple):
    """A column of a row group: where its first page is, the bytes of all its pages as they are
    stored and as they are unpacked, and the number of the codec that does that.
    """

    start: int
    stored: int
    size: int
    codec: int
    encrypted: bool = False


class RowGroup(NamedTuple):
    """``[start, end)`` are its stored bytes."""

    rows: int
    start: int
    end: int
    columns: dict[str, Column]


class Footer(NamedTuple):
    """``start`` is where the footer itself starts; all that it tells of is before ``told``."""

    start: int
    told: int
    groups: list[RowGroup]


def read_footer(stream: BinaryIO, end: int | None = None) -> Footer | None:
    """The footer of a file, or of what comes before ``end``; None if it makes no sense."""
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
        groups = [_row_group(group) for group in _list(metadata, 4)]
        indices = (_indices(chunk) for group in _list(metadata, 4) for chunk in _list(group, 1))
        told = max((*indices, *(group.end for group in groups)), default=len(MAGIC))
    except (ValueError, IndexError, KeyError, TypeError):
        return None
    good = all(0 <= g.start <= g.end <= start and g.rows >= 0 for g in groups)
    return Footer(start, told, groups) if good else None


class Part(NamedTuple):
    """``[start, end)`` is a Parquet file; its footer counts from ``start``."""

    start: int
    end: int
    footer: Footer | None


def read_parts(stream: BinaryIO) -> list[Part]:
    """The files that were put together to this one; nearly always it is one itself.

    The last footer counts from the start of the last file. So before it lies as much that it tells
    nothing of as there is before that file, and little else.
    """
    parts: list[Part] = []
    end = stream.seek(0, 2)
    while end or not parts:
        footer = read_footer(stream, end)
        start = _last_start(stream, footer.start - footer.told) if footer else 0
        if footer:
            footer = footer._replace(start=footer.start - start)
        parts.insert(0, Part(start, end, footer))
        end = start
    return parts


def _last_start(stream: BinaryIO, most: int) -> int:
    """Where the last file starts, ``most`` bytes after the first or before that; 0 if it is one."""
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
    """Whether a file may end here: there is room for a footer of the length that it says."""
    stream.seek(max(end - 8, 0))
    length = int.from_bytes(stream.read(4), "little")
    return 0 < length <= end - 12


def _indices(chunk: Value) -> int:
    """Where the page indices and the Bloom filter of a column end; 0 if it has none."""
    column = structure(chunk)[3]
    parts = ((chunk, 4, 5), (chunk, 6, 7), (column, 14, 15))
    return max(integer(of, start, 0) + integer(of, length, 0) for of, start, length in parts)


def _row_group(group: Value) -> RowGroup:
    columns = {}
    for chunk in _list(group, 1):
        column = structure(chunk)[3]
        # The dictionary's page comes first; 0 stands for a page that is not there.
        pages = [at for at in (integer(column, 9), integer(column, 11, 0)) if at > 0]
        name = b".".join(part for part in _list(column, 3) if isinstance(part, bytes))
        columns[name.decode()] = Column(
            min(pages, default=0),
            integer(column, 7),
            integer(column, 6),
            integer(column, 4),
            encrypted=8 in structure(chunk),
        )
    start = min((column.start for column in columns.values()), default=0)
    end = max((column.start + column.stored for column in columns.values()), default=0)
    return RowGroup(integer(group, 3), start, end, columns)


def structure(value: Value) -> dict[int, Value]:
    """A struct's fields.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, dict):
        raise TypeError("no struct")
    return value


def integer(value: Value, field: int, default: int | None = None) -> int:
    """A number in a struct.

    Raises:
        TypeError: there is none.
    """
    inner = structure(value).get(field, default)
    if not isinstance(inner, int):
        raise TypeError("no number")
    return inner


def _list(value: Value, field: int) -> list[Value]:
    inner = structure(value)[field]
    if not isinstance(inner, list):
        raise TypeError("no list")
    return inner


class Compact:
    """Decodes any Thrift struct, from ``at`` on: field numbers to values.

    Other decoders pass over a field of a type they do not expect, and take the last of several. To
    see what they see, this one refuses a field that comes twice.

    Raises:
        IndexError: by any method: the data ends too soon.
        ValueError: by any method: it is no such struct.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    def struct(self, depth: int = 0) -> dict[int, Value]:
        """The struct that comes next."""
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
        """So many bytes."""
        self.at += count
        if self.at > len(self._data):
            raise IndexError("bytes beyond the end")
        return self._data[self.at - count : self.at]

    def unsigned(self) -> int:
        """The number that comes next."""
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return value | byte << shift

    def signed(self) -> int:
        """The number that comes next, which may be negative."""
        value = self.unsigned()
        return value >> 1 ^ -(value & 1)
