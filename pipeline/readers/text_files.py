"""Plain text files: one document per file, or per line."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.readers.columnar.columns import documents
from pipeline.readers.contract import Quarantine, Quarantined, Reading
from pipeline.readers.inflate import Damage
from pipeline.readers.jsonl import line_blocks

Integers = npt.NDArray[np.int64]

_NEWLINE, _RETURN = ord("\n"), ord("\r")
_BOM = b"\xef\xbb\xbf"


def read_text(pieces: Iterable[bytes | Damage], reading: Reading) -> Iterator[pa.RecordBatch]:
    """The document of a file, or of each non-empty line, as ``options.text_document`` says."""
    if reading.options.text_document == "line":
        yield from _lines(pieces, reading)
    elif (text := whole(pieces, reading)) is not None:
        yield from text_documents(pa.array([text.removeprefix(_BOM)], pa.large_binary()), reading)


def _lines(pieces: Iterable[bytes | Damage], reading: Reading) -> Iterator[pa.RecordBatch]:
    quarantine = reading.quarantine
    first = 0
    for block in line_blocks(pieces, 0, quarantine, reading.options.max_document_bytes):
        data = np.frombuffer(block.data, np.uint8)[block.start : block.stop]
        ends = np.flatnonzero(data == _NEWLINE)
        in_text = np.ones(len(data), np.bool_)
        in_text[ends] = False
        in_text[ends[(ends > 0) & (data[ends - 1] == _RETURN)] - 1] = False
        offsets = np.append(0, np.cumsum(in_text)[ends])
        numbers = np.flatnonzero(np.diff(offsets))
        offsets = np.append(0, offsets[1:][numbers])
        numbers += first

        def in_file(record: Quarantined, numbers: Integers = numbers) -> None:
            quarantine.on_quarantine(replace(record, position=int(numbers[record.position])))

        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[in_text])]
        lines = pa.Array.from_buffers(pa.large_binary(), len(numbers), buffers)
        moved = replace(reading, quarantine=Quarantine(quarantine.path, in_file))
        yield from text_documents(lines, moved)
        first += len(ends)


def text_documents(texts: pa.Array, reading: Reading) -> Iterator[pa.RecordBatch]:
    """Documents of n texts (large_binary or string [n]) without id, URL or metadata."""
    table = pa.RecordBatch.from_arrays([texts], names=[reading.fields.text])
    yield from documents(table, 0, reading)


def whole(pieces: Iterable[bytes | Damage], reading: Reading) -> bytes | None:
    """All bytes of a file; None, and quarantined, if it is damaged or too long."""
    quarantine, max_bytes = reading.quarantine, reading.options.max_document_bytes
    data = bytearray()
    damage: Damage | None = None
    for piece in pieces:  # to the end, because the digest covers the whole file
        if isinstance(piece, Damage):
            damage = damage or piece
        elif len(data) <= max_bytes:
            data += piece
    if damage:
        quarantine.add(damage.offset, "compressed byte", damage.reason, bytes(data))
        return None
    if len(data) > max_bytes:
        quarantine.add(0, "byte", "too_long", bytes(data))
        return None
    return bytes(data)
