"""Arrow IPC files, read by record batches, and streams; also concatenated ones."""

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from pipeline.readers.columnar.arrow_footer import (
    MAGIC,
    MAX_METADATA,
    SCHEMA,
    SLACK,
    STREAM_START,
    Footer,
    check_ratio,
    message_at,
    read_footer,
    row_count,
)
from pipeline.readers.columnar.columns import all_names, check_end, documents, pick, wanted_columns
from pipeline.readers.columnar.source import DAMAGE, Source
from pipeline.readers.contract import FieldMap, InputRange, Reading

Opened = tuple[Footer, pa.ipc.RecordBatchFileReader]

FEATHER_V1 = b"FEA1"
_OCTETS = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}


def read_arrow(stream: BinaryIO, piece: InputRange, reading: Reading) -> Iterator[pa.RecordBatch]:
    """The documents of some record batches of a file, or of a whole stream.

    A damaged batch of a file is quarantined as one record. Streams, files without a footer (whose
    writer was killed) and concatenated files are read up to the damage.

    Raises:
        ValueError: the text column is missing, or is not a string.
        OSError: the file cannot be read.
    """
    quarantine = reading.quarantine
    source = Source(stream)
    opened = _open(stream, source)
    stream.seek(0)
    if stream.read(len(FEATHER_V1)) == FEATHER_V1:
        check_end(piece, 0)
        quarantine.add(0, "byte", "feather_v1", "Feather version 1, which is not Arrow IPC")
        return
    if opened is None:
        check_end(piece, 0)
        yield from _read_parts(stream, source, piece.path, reading)
        return
    footer, file = opened
    columns = wanted_columns(file.schema, piece.path, reading.fields)
    row = sum(row_count(stream, block) for block in footer.batches[: piece.start])
    end = check_end(piece, len(footer.batches))
    for index in range(piece.start, end):
        block = footer.batches[index]
        try:
            for message in (*footer.dictionaries, block):
                check_ratio(stream, message.offset)
            table = _sound(file.get_batch(index), columns)
        except DAMAGE as error:
            source.check()
            content = f"record batch {index}: {error}"
            quarantine.add(block.offset, "byte", "corrupt_arrow", content)
            row += row_count(stream, block)
        else:
            yield from documents(table, row, reading)
            row += len(table)


def _open(stream: BinaryIO, source: Source) -> Opened | None:
    """The footer and reader of a file; None if it is a stream or damaged."""
    if footer := read_footer(stream):
        try:
            file = pa.ipc.open_file(source.arrow())
            _ = file.schema.names  # raises if they are not UTF-8
        except DAMAGE:
            source.check()
        else:
            return (footer, file) if file.num_record_batches == len(footer.batches) else None
    return None


def _read_parts(
    stream: BinaryIO, source: Source, path: str, reading: Reading
) -> Iterator[pa.RecordBatch]:
    quarantine = reading.quarantine
    row = part = 0
    while True:
        file, start = _stream_start(source, part)
        try:
            batches = _open_stream(file)
        except DAMAGE as error:
            source.check()
            quarantine.add(start, "byte", "corrupt_arrow", f"the schema: {error}")
            return
        try:
            columns = wanted_columns(batches.schema, path, reading.fields)
        except ValueError as error:
            if not part:
                raise
            quarantine.add(start, "byte", "missing_text", f"all after row {row}: {error}")
            return
        while True:
            at = file.tell()
            try:
                check_ratio(stream, at)
                file.seek(at)
                table = _sound(batches.read_next_batch(), columns)
            except StopIteration:
                end = file.tell()
                break
            except DAMAGE as error:
                source.check()
                end = _past_padding(stream, at)
                if _ends_part(stream, end):  # a stream may lack its end mark
                    break
                message = f"all after row {row}: {error}"
                quarantine.add(at, "byte", "corrupt_arrow", message)
                return
            yield from documents(table, row, reading)
            row += len(table)
        sound = True
        if start > part:
            end, sound = _past_footer(stream, end)
            if not sound:
                quarantine.add(at, "byte", "corrupt_arrow", "no footer, or it is damaged")
        part = _past_padding(stream, end)
        if not _ends_part(stream, part):
            if sound:  # otherwise already reported
                quarantine.add(part, "byte", "corrupt_arrow", f"all after row {row}: no Arrow data")
            return
        if part == stream.seek(0, 2):
            return


def _ends_part(stream: BinaryIO, at: int) -> bool:
    """Whether the file ends, or another file or stream starts, at a position."""
    stream.seek(at)
    if stream.read(len(MAGIC)) in (MAGIC, b""):
        return True
    try:
        return message_at(stream, at)[0].number(1, "<B") == SCHEMA
    except struct.error:
        return False


def _past_padding(stream: BinaryIO, at: int) -> int:
    """The position of the next byte that is not zero, or the end."""
    stream.seek(at)
    while data := stream.read(1 << 16):
        rest = data.lstrip(b"\0")
        at += len(data) - len(rest)
        if rest:
            break
    return at


def _past_footer(stream: BinaryIO, at: int) -> tuple[int, bool]:
    """The end of a file whose batches end at ``at``, and whether it has an intact footer."""
    stream.seek(at)
    data = stream.read(MAX_METADATA)
    for match in re.finditer(rb"(?s:(.{4}))" + MAGIC, data):
        start = match.start() - int.from_bytes(match[1], "little")
        if 0 <= start <= SLACK:
            footer = MAGIC.ljust(STREAM_START, b"\0") + data[start : match.end()]
            try:
                _ = pa.ipc.open_file(footer).schema.names
            except DAMAGE:
                return at + match.end(), False
            return at + match.end(), True
    return at, False


def _stream_start(source: Source, part: int) -> tuple[pa.NativeFile, int]:
    """The file, positioned at the start of the stream in a part, and that position."""
    file = source.arrow()
    file.seek(part)
    start = part + STREAM_START if file.read(len(MAGIC)) == MAGIC else part
    file.seek(start)
    return file, start


def _open_stream(file: pa.NativeFile) -> pa.ipc.RecordBatchStreamReader:
    reader = pa.ipc.open_stream(file)
    _ = reader.schema.names  # raises if they are not UTF-8
    return reader


def _schema(opened: Opened | None, source: Source) -> pa.Schema:
    return opened[1].schema if opened else _open_stream(_stream_start(source, 0)[0]).schema


def batch_sizes(stream: BinaryIO, path: str, fields: FieldMap | None) -> list[int]:
    """The stored bytes of each record batch, empty for a stream; ValueError without the text."""
    source = Source(stream)
    opened = _open(stream, source)
    if fields:
        try:
            schema = _schema(opened, source)
        except DAMAGE:
            source.check()
            return []
        wanted_columns(schema, path, fields)
    return [block.size for block in opened[0].batches] if opened else []


def column_names(stream: BinaryIO) -> list[str] | None:
    """The columns of a file or stream and the fields of its structs; None if it can't be opened."""
    source = Source(stream)
    try:
        return all_names(_schema(_open(stream, source), source))
    except DAMAGE:
        source.check()
        return None


def regions(stream: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """The byte ranges of record batches ``[start, end)``, of the dictionaries and of the footer."""
    size = stream.seek(0, 2)
    footer = read_footer(stream)
    if footer is None or len(footer.batches) < end:
        return [(0, size)]
    blocks = footer.dictionaries + footer.batches[start:end]
    spans = [(max(block.offset, 0), block.offset + block.size) for block in blocks]
    return [*spans, (footer.start, size)]


def _sound(table: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
    """The wanted columns, after checking their offsets."""
    table = pick(table, columns)
    checked = []
    for column in table.columns:
        # UTF-8 is checked row by row later.
        octets = _OCTETS.get(column.type)
        checked.append(column.view(octets) if octets else column)
        checked[-1].validate(full=True)
    return pa.RecordBatch.from_arrays(checked, names=columns)
