"""JSON lines, one document each.

Bytes are collected into blocks of whole lines, which a compiled kernel turns into Arrow buffers.
Only bad lines return to Python.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.readers import jsonl_kernel
from pipeline.readers.contract import Quarantine, Reading, Reason, document_schema
from pipeline.readers.inflate import Damage
from winnow.text.vectors import BLOCK as SPARE

_READ_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20
_MAX_ROWS = 1 << 16
_MAX_BAD = 1 << 10
_BOM = b"\xef\xbb\xbf"

_REASONS: dict[int, Reason] = {
    jsonl_kernel.BAD_JSON: "bad_json",
    jsonl_kernel.NOT_AN_OBJECT: "not_an_object",
    jsonl_kernel.MISSING_TEXT: "missing_text",
    jsonl_kernel.WRONG_TYPE: "wrong_type",
    jsonl_kernel.LONE_SURROGATE: "lone_surrogate",
    jsonl_kernel.INVALID_UTF8: "invalid_utf8",
    jsonl_kernel.TOO_LONG: "too_long",
}


def read_jsonl(
    pieces: Iterable[bytes | Damage], offset: int, reading: Reading
) -> Iterator[pa.RecordBatch]:
    """The documents of a stream of lines that starts ``offset`` bytes into the file.

    A line is bad if ``json.loads`` refuses it, if it is not an object or not UTF-8, if its text is
    missing or not a string, or if it is longer than ``max_document_bytes``. Blank lines are
    ignored. In ``id``, ``url`` and metadata columns a value other than a string becomes its JSON
    text; null and missing values are null. ``a.b`` is the key ``a.b``, or else ``b`` in ``a``.
    """
    parser = _Parser(reading)
    max_bytes = reading.options.max_document_bytes
    for block in line_blocks(pieces, offset, reading.quarantine, max_bytes):
        yield from parser.parse(block)


def range_pieces(stream: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
    """The stored bytes that determine the lines whose first byte is in ``[start, end)``.

    They start one byte before ``start``, to see whether a line starts there, and end with the
    newline of the last line, or at ``end`` if no line starts in the range.
    """
    at = max(start - 1, 0)
    stream.seek(at)
    owns_line = start == 0
    piece = b""
    while end is None or at < end:
        piece = stream.read(_READ_BYTES if end is None else min(_READ_BYTES, end - at))
        if not piece:
            return
        owns_line = owns_line or b"\n" in piece
        at += len(piece)
        yield piece
    if piece.endswith(b"\n") or not owns_line:
        return
    while piece := stream.read(_READ_BYTES):
        newline = piece.find(b"\n")
        if newline >= 0:
            yield piece[: newline + 1]
            return
        yield piece


def after_first_newline(pieces: Iterable[bytes], offset: int) -> tuple[Iterator[bytes], int]:
    """A stream after its first newline, and the offset of that position."""
    pieces = iter(pieces)
    for piece in pieces:
        newline = piece.find(b"\n")
        if newline >= 0:
            return itertools.chain([piece[newline + 1 :]], pieces), offset + newline + 1
        offset += len(piece)
    return iter(()), offset


@dataclass(frozen=True)
class Block:
    """Whole lines: ``data[start:stop]``, each with its newline; ``data[0]`` is at ``offset``."""

    data: bytearray
    start: int
    stop: int
    offset: int


def line_blocks(
    pieces: Iterable[bytes | Damage], offset: int, quarantine: Quarantine, max_bytes: int
) -> Iterator[Block]:
    """Collect pieces into blocks; report damage and lines longer than ``max_bytes``.

    The next block reuses the memory, which grows with the longest line up to about ``max_bytes``.
    """
    data = bytearray(_BLOCK_BYTES + _READ_BYTES + SPARE)
    filled = 0
    clean = 0  # leading bytes of data that hold no newline
    too_long = False  # inside a line that was already reported

    def whole_lines() -> Iterator[Block]:
        nonlocal filled, clean, offset
        stop = data.rfind(b"\n", clean, filled) + 1
        if stop:
            yield Block(data, _bom(data, offset), stop, offset)
            data[: filled - stop] = data[stop:filled]
            filled -= stop
            offset += stop
        clean = filled

    for piece in pieces:
        if isinstance(piece, Damage):
            yield from whole_lines()
            # The rest is a line that the damage truncated.
            content = bytes(data[: min(filled, _READ_BYTES)])
            quarantine.add(piece.offset, "compressed byte", piece.reason, content)
            offset += filled
            filled = clean = 0
            too_long = False
            continue
        start = 0
        if too_long:
            start = piece.find(b"\n") + 1
            if start == 0:
                offset += len(piece)
                continue
            offset += start
            too_long = False
        needed = filled + len(piece) - start
        if needed + SPARE > len(data):
            larger = bytearray(max(needed, 2 * filled) + SPARE)
            larger[:filled] = data[:filled]
            data = larger
        data[filled:needed] = memoryview(piece)[start:]
        filled = needed
        if filled < _BLOCK_BYTES:
            continue
        yield from whole_lines()
        start = _bom(data, offset)
        if filled - start > max_bytes:
            content = bytes(data[start : start + _READ_BYTES])
            quarantine.add(offset + start, "byte", "too_long", content)
            offset += filled
            filled = clean = 0
            too_long = True
    if filled:
        data[filled] = ord("\n")
        yield Block(data, _bom(data, offset), filled + 1, offset)


def _bom(data: bytearray, offset: int) -> int:
    return len(_BOM) if offset == 0 and data.startswith(_BOM) else 0


class _Parser:
    def __init__(self, reading: Reading) -> None:
        fields = reading.fields
        self._quarantine = reading.quarantine
        self._max_bytes = reading.options.max_document_bytes
        self._schema = document_schema(fields.metadata)
        # A field may fill several columns; the kernel looks up each key once.
        keys = list(dict.fromkeys(fields.inputs))
        self._column_keys = [keys.index(name) for name in fields.inputs]
        joins = fields.list_separator is not None
        separator = (fields.list_separator or "").encode()
        options = np.frombuffer(bytes([joins]) + separator, np.uint8)
        self._wanted = jsonl_kernel.Wanted(*_tree(keys), keys.index(fields.text), options)
        # JSON has three bytes or more between two strings of a list.
        self._growth = max(1, -(-len(separator) // 3))
        self._columns = jsonl_kernel.Columns(
            np.empty((len(keys) + 1, 0), np.uint8),
            np.zeros((len(keys), _MAX_ROWS + 1), np.int64),
            np.empty((len(keys), _MAX_ROWS), np.bool_),
        )
        self._bad = np.empty((_MAX_BAD, 3), np.int64)

    def parse(self, block: Block) -> Iterator[pa.RecordBatch]:
        # Unescaped text is never longer than its JSON; a block copy may write SPARE more.
        fields, room = self._columns.values.shape
        if room < block.stop * self._growth + 2 * SPARE:
            room = len(block.data) * self._growth + 2 * SPARE
            self._columns = self._columns._replace(values=np.empty((fields, room), np.uint8))
        data = np.frombuffer(block.data, np.uint8)
        at = block.start
        while at < block.stop:
            at, rows, bads = jsonl_kernel.parse_lines(
                data, at, block.stop, self._wanted, self._max_bytes, self._columns, self._bad
            )
            for start, end, kind in self._bad[:bads].tolist():
                content = bytes(block.data[start : min(end, start + _READ_BYTES)])
                self._quarantine.add(block.offset + start, "byte", _REASONS[kind], content)
            if rows:
                yield self._batch(rows)

    def _batch(self, rows: int) -> pa.RecordBatch:
        columns = []
        for key, field in zip(self._column_keys, self._schema, strict=True):
            ends = self._columns.offsets[key, : rows + 1]
            width = np.int64 if pa.types.is_large_string(field.type) else np.int32
            valid = np.packbits(self._columns.valid[key, :rows], bitorder="little")
            # Copies: the kernel reuses its buffers.
            parts = (valid, ends.astype(width), self._columns.values[key, : ends[-1]].copy())
            columns.append(pa.Array.from_buffers(field.type, rows, [*map(pa.py_buffer, parts)]))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _tree(keys: list[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The ``names`` and ``nodes`` of ``Wanted``: of each key, and of its parts between dots."""
    nodes = {(0, key): [field, 0] for field, key in enumerate(keys)}
    scopes = itertools.count(1)
    for field, key in enumerate(keys):
        *outer, last = key.split(".")
        scope = 0
        for part in outer:
            node = nodes.setdefault((scope, part), [-1, 0])
            node[1] = scope = node[1] or next(scopes)
        if outer:
            nodes[scope, last] = [field, nodes.get((scope, last), [-1, 0])[1]]
    names = [name.encode() for _, name in nodes]
    ends = np.cumsum([len(name) for name in names])
    rows = [(key[0], end, *node) for (key, node), end in zip(nodes.items(), ends, strict=True)]
    return np.frombuffer(b"".join(names) + bytes(SPARE), np.uint8), np.array(rows, np.int64)
