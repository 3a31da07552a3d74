"""CSV and TSV with a header, by pyarrow's parser: quoted values may hold newlines."""

import csv
import io
import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from pipeline.readers.columnar.columns import documents, wanted_columns
from pipeline.readers.contract import Quarantine, Quarantined, Reading
from pipeline.readers.inflate import Damage

_HEADER_BYTES = 1 << 16
_MOST_BYTES = 1 << 30  # of a block, which holds a row at least
_MORE_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_BYTES = "latin-1"  # decodes any byte, and encodes it again
_DELIMITERS = ",;\t"


def read_csv(pieces: Iterable[bytes | Damage], reading: Reading) -> Iterator[pa.RecordBatch]:
    """The documents of a table whose first row names the columns.

    The names are separated by commas, else by semicolons, else by tabs. A row with more or fewer
    values than names is bad, and so is one with an unclosed quote. Rows count from 0. After damage
    it is unknown where a value ends, so the rest of the file is lost.

    Raises:
        ValueError: the text column is missing, or a wanted name is not unique.
    """
    fields, quarantine = reading.fields, reading.quarantine
    stream = _Stream(pieces)
    if stream.peek(len(_BOM)) == _BOM:
        stream.read(len(_BOM))
    names, delimiter = _header(stream.peek(_HEADER_BYTES))
    schema = pa.schema([(name, pa.large_binary()) for name in names])
    wanted = wanted_columns(schema, quarantine.path, fields)
    # UTF-8 is checked row by row later: pyarrow loses bad rows that are not UTF-8. So it reads
    # every byte as a character.
    stored = {name.encode().decode(_BYTES): pa.large_binary() for name in wanted}
    bad: list[int] = []  # rows that pyarrow skipped

    def on_bad_row(row: pa_csv.InvalidRow) -> str:
        bad.append(row.number - 2)  # it counts from 1, and the header
        message = f"{row.actual_columns} values, not {row.expected_columns}: {row.text}"
        quarantine.add(bad[-1], "record", "bad_csv", message.encode(_BYTES))
        return "skip"

    def moved(record: Quarantined) -> None:
        quarantine.on_quarantine(replace(record, position=_in_file(record.position, bad)))

    good = replace(reading, quarantine=Quarantine(quarantine.path, moved))
    block_bytes = min(reading.options.max_document_bytes + _MORE_BYTES, _MOST_BYTES)
    row = 0
    try:
        batches = pa_csv.open_csv(
            stream,
            pa_csv.ReadOptions(block_size=block_bytes, use_threads=False, encoding=_BYTES),
            pa_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=on_bad_row
            ),
            pa_csv.ConvertOptions(
                include_columns=list(stored), column_types=stored, null_values=[]
            ),
        )
        for batch, after in itertools.pairwise(itertools.chain(filter(len, batches), [None])):
            columns = [_octets(column) for column in batch.columns]
            batch = pa.RecordBatch.from_arrays(columns, names=wanted)
            rest = batch.slice(len(batch) - 1)
            newline = stream.quotes % 2 and any(
                b"\n" in column[0].as_py() for column in rest.columns
            )
            if after is None and (stream.damage or newline):
                batch = batch.slice(0, len(batch) - 1)
                if not stream.damage:
                    text = rest[fields.text][0].as_py()
                    at = _in_file(row + len(batch), bad)
                    quarantine.add(at, "record", "bad_csv", b"a quote is never closed: " + text)
            yield from documents(batch, row, good)
            row += len(batch)
    except pa.ArrowInvalid as error:
        quarantine.add(_in_file(row, bad), "record", "bad_csv", f"all from here on: {error}")
    for _ in stream.pieces:  # the digest covers the whole file
        pass
    if stream.damage:
        quarantine.add(stream.damage.offset, "compressed byte", stream.damage.reason)


def _header(head: bytes) -> tuple[list[str], str]:
    text = head.decode(errors="replace")
    line = text.partition("\n")[0]
    delimiter = next((letter for letter in _DELIMITERS if letter in line), ",")
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []), delimiter


def _octets(column: pa.Array) -> pa.Array:
    """The bytes of n values of which every byte became a character: large_binary [n]."""
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset :][: len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    leads = np.flatnonzero(data >= 0xC0)  # of the characters from 128 to 255, which have two bytes
    out = data.copy()
    out[leads] = (data[leads] & 3) << 6 | data[leads + 1] & 0x3F
    kept = np.ones(len(data), np.bool_)
    kept[leads + 1] = False
    ends = np.append(0, np.cumsum(kept))[offsets - offsets[0]]
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(out[kept])]
    return pa.Array.from_buffers(pa.large_binary(), len(column), buffers)


def _in_file(row: int, bad: list[int]) -> int:
    """The number in the file of the valid row ``row``; ``bad`` are the others, ascending."""
    at = row
    while (moved := row + bisect_right(bad, at)) != at:
        at = moved
    return at


class _Stream:
    """The pieces as a file that ends at the first damage; it counts quotes."""

    closed = False

    def __init__(self, pieces: Iterable[bytes | Damage]) -> None:
        self.pieces = iter(pieces)
        self._data = bytearray()
        self.damage: Damage | None = None
        self.quotes = 0

    def peek(self, size: int) -> bytes:
        while len(self._data) < size and self.damage is None:
            piece = next(self.pieces, None)
            if piece is None:
                break
            if isinstance(piece, Damage):
                self.damage = piece
            else:
                self.quotes += int(np.count_nonzero(np.frombuffer(piece, np.uint8) == ord('"')))
                self._data += piece
        return bytes(self._data[:size])

    def read(self, size: int) -> bytes:
        data = self.peek(size)
        del self._data[:size]
        return data

    def readable(self) -> bool:
        return True

    def close(self) -> None: ...
