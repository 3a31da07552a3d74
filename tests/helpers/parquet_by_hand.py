"""Parquet files whose headers and footers may say anything (thrift-compact-protocol.md)."""

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.readers import FieldMap, plan_ranges, read_batches

PLAIN, RLE, DELTA_LENGTH, DELTA, RLE_DICTIONARY = 0, 3, 6, 7, 8
BYTE_ARRAY = 6

Fields = Mapping[int, tuple[str, Any]]


def read(data: bytes) -> tuple[int, list[str]]:
    """The number of documents in a file, and what is said of the rest of it."""
    documents = 0
    bad: list[str] = []
    for piece in plan_ranges("x.parquet", lambda _: io.BytesIO(data)):
        for batch in read_batches(
            piece,
            FieldMap(),
            on_quarantine=lambda record: bad.append(record.content),
            open_input=lambda _: io.BytesIO(data),
        ):
            documents += len(batch)
    return documents, bad


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def thrift(fields: Fields) -> bytes:
    """A struct: numbers of fields to the types and values of their content."""
    out = b""
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        code, data = _value(kind, value)
        out += bytes([(number - last) << 4 | code]) + data
        last = number
    return out + b"\0"


def _value(kind: str, value: Any) -> tuple[int, bytes]:
    match kind:
        case "i32" | "i64":
            return (5 if kind == "i32" else 6), varint(value << 1 ^ value >> 63)
        case "binary":
            return 8, varint(len(value)) + value
        case "struct":
            return 12, thrift(value)
    parts = [_value(kind.removeprefix("list of "), part) for part in value]
    return 9, bytes([len(parts) << 4 | parts[0][0]]) + b"".join(data for _, data in parts)


def data_page(values: int, encoding: int, content: bytes) -> bytes:
    about: Fields = {i + 1: ("i32", n) for i, n in enumerate((values, encoding, RLE, RLE))}
    return _page(0, 5, about, content)


def dictionary_page(values: int, content: bytes) -> bytes:
    return _page(2, 7, {1: ("i32", values), 2: ("i32", PLAIN)}, content)


def _page(kind: int, field: int, about: Fields, content: bytes) -> bytes:
    packed = pa.compress(content, "zstd", asbytes=True)
    header: Fields = {
        1: ("i32", kind),
        2: ("i32", len(content)),
        3: ("i32", len(packed)),
        field: ("struct", about),
    }
    return thrift(header) + packed


def plain(*values: bytes) -> bytes:
    return b"".join(struct.pack("<i", len(value)) + value for value in values)


def equal_lengths(count: int, first: int, rest: int) -> bytes:
    """DELTA_BINARY_PACKED: a length, and then others that are all the same.

    They are of one block, as large as need be. Its one part holds differences of no bits, or,
    where the first length is another one, of 32.
    """
    block = max(-(-count // 128) * 128, 128)
    head = varint(block) + varint(1) + varint(count) + varint(first << 1)
    if first == rest:
        return head + b"\0\0"
    smallest = min(rest - first, 0)
    differences = struct.pack("<I", rest - first - smallest)
    differences += struct.pack("<I", -smallest) * (block - 1)
    return head + varint(smallest << 1 ^ smallest >> 63) + bytes([32]) + differences


def equal_values(count: int, value: bytes) -> bytes:
    """DELTA_BYTE_ARRAY: the value, and then all of it again and again."""
    shared = equal_lengths(count, 0, len(value))
    return shared + equal_lengths(count, len(value), 0) + value


def file(pages: Sequence[bytes], rows: int, encodings: Sequence[int], size: int) -> bytes:
    """One row group of one column of strings; ``size`` is what it is said to unpack to."""
    stored = b"".join(pages)
    column: Fields = {
        1: ("i32", BYTE_ARRAY),
        2: ("list of i32", encodings),
        3: ("list of binary", [b"text"]),
        4: ("i32", 6),  # zstd
        5: ("i64", rows),
        6: ("i64", size),
        7: ("i64", len(stored)),
        9: ("i64", 4),
    }
    group: Fields = {
        1: ("list of struct", [{2: ("i64", 0), 3: ("struct", column)}]),
        2: ("i64", size),
        3: ("i64", rows),
    }
    root: Fields = {4: ("binary", b"schema"), 5: ("i32", 1)}
    leaf: Fields = {1: ("i32", BYTE_ARRAY), 3: ("i32", 0), 4: ("binary", b"text"), 6: ("i32", 0)}
    footer = thrift(
        {
            1: ("i32", 2),
            2: ("list of struct", [root, leaf]),
            3: ("i64", rows),
            4: ("list of struct", [group]),
        }
    )
    return b"PAR1" + stored + footer + struct.pack("<i", len(footer)) + b"PAR1"
