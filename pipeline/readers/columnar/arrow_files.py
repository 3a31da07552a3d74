"""Arrow IPC: files, by record batches, and streams. Several of them in one are read to the last.

The footer of a file says where its record batches are; pyarrow does not tell, so the few numbers
are read from its flatbuffer here (format/File.fbs and Message.fbs of Apache Arrow).
"""

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from pipeline.readers.columnar.columns import (
    all_names,
    check_end,
    check_whole,
    documents,
    pick,
    wanted_columns,
)
from pipeline.readers.columnar.source import DAMAGE, Source
from pipeline.readers.contract import FieldMap, InputRange, Reading

FEATHER_V1 = b"FEA1"
_MAGIC = b"ARROW1"
_STREAM_START = 8  # the magic, padded; what follows is a stream
_FREE_BYTES = 1 << 30
_MAX_RATIO = 64
"""A record batch that unpacks to more than both is damaged, or a bomb; text packs 2 to 4 times."""

_MAX_METADATA = 64 << 20
"""No message's metadata, nor a footer, is larger; garbage may say so."""

_SLACK = 64  # between the end mark of the batches and the footer

_SCHEMA, _DICTIONARY = 1, 2  # Message.fbs: of the union MessageHeader


class _Block(NamedTuple):
    """Where a message is: its metadata (with its length prefix), then its body."""

    offset: int
    metadata: int
    body: int

    @property
    def size(self) -> int:
        return self.metadata + self.body


class _Footer(NamedTuple):
    start: int
    dictionaries: list[_Block]
    batches: list[_Block]


def read_arrow(stream: BinaryIO, piece: InputRange, reading: Reading) -> Iterator[pa.RecordBatch]:
    """The documents of some record batches of a file, or of a whole stream.

    A damaged batch of a file is one quarantined record, and the next is read. In a stream, in a
    file without its footer (its writer was stopped), and in several streams or files that were put
    together, reading ends at the damage.

    Raises:
        ValueError: the text column is not there, or is no string.
        OSError: the file cannot be read.
    """
    quarantine = reading.quarantine
    source = Source(stream)
    opened = _open(stream, source)
    stream.seek(0)
    if stream.read(len(FEATHER_V1)) == FEATHER_V1:
        check_whole(piece)
        quarantine.add(0, "byte", "feather_v1", "Feather version 1, which is no Arrow IPC")
        return
    if opened is None:
        check_whole(piece)
        yield from _read_parts(stream, source, piece.path, reading)
        return
    footer, file = opened
    columns = wanted_columns(file.schema, piece.path, reading.fields)
    row = sum(_row_count(stream, block) for block in footer.batches[: piece.start])
    end = check_end(piece, len(footer.batches))
    for index in range(piece.start, end):
        block = footer.batches[index]
        try:
            for message in (*footer.dictionaries, block):
                _check_ratio(stream, message.offset)
            table = _sound(file.get_batch(index), columns)
        except DAMAGE as error:
            source.check()
            content = f"record batch {index}: {error}"
            quarantine.add(block.offset, "byte", "corrupt_arrow", content)
            row += _row_count(stream, block)
        else:
            yield from documents(table, row, reading)
            row += len(table)


def _open(stream: BinaryIO, source: Source) -> tuple[_Footer, pa.ipc.RecordBatchFileReader] | None:
    """A file that can be read by record batches; None for any other, and for a stream."""
    footer = _footer(stream)
    if footer is None:
        return None
    try:
        file = pa.ipc.open_file(source.arrow())
        _ = file.schema.names  # decodes them
    except DAMAGE:
        source.check()
        return None
    return (footer, file) if file.num_record_batches == len(footer.batches) else None


def _read_parts(
    stream: BinaryIO, source: Source, path: str, reading: Reading
) -> Iterator[pa.RecordBatch]:
    """The documents of streams and files, one after another, from start to end."""
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
                _check_ratio(stream, at)
                file.seek(at)
                table = _sound(batches.read_next_batch(), columns)
            except StopIteration:
                end = file.tell()
                break
            except DAMAGE as error:
                source.check()
                end = _past_padding(stream, at)
                if _ends_part(stream, end):  # the end mark of a stream may be left out
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
            if sound:  # else it is said already
                quarantine.add(part, "byte", "corrupt_arrow", f"all after row {row}: no Arrow data")
            return
        if part == stream.seek(0, 2):
            return


def _ends_part(stream: BinaryIO, at: int) -> bool:
    """Whether a place is the end, or the start of a file or a stream."""
    stream.seek(at)
    if stream.read(len(_MAGIC)) in (_MAGIC, b""):
        return True
    try:
        return _message(stream, at)[0].number(1, "<B") == _SCHEMA
    except struct.error:
        return False


def _past_padding(stream: BinaryIO, at: int) -> int:
    """The first place from ``at`` on that holds no zero byte, or the end."""
    stream.seek(at)
    while data := stream.read(1 << 16):
        rest = data.lstrip(b"\0")
        at += len(data) - len(rest)
        if rest:
            break
    return at


def _past_footer(stream: BinaryIO, at: int) -> tuple[int, bool]:
    """Where a file ends whose batches end at ``at``, and whether its footer is there and sound."""
    stream.seek(at)
    data = stream.read(_MAX_METADATA)
    for match in re.finditer(rb"(?s:(.{4}))" + _MAGIC, data):
        start = match.start() - int.from_bytes(match[1], "little")
        if 0 <= start <= _SLACK:
            footer = _MAGIC.ljust(_STREAM_START, b"\0") + data[start : match.end()]
            try:
                _ = pa.ipc.open_file(footer).schema.names
            except DAMAGE:
                return at + match.end(), False
            return at + match.end(), True
    return at, False


def _stream_start(source: Source, part: int = 0) -> tuple[pa.NativeFile, int]:
    """The file, where the stream of its part at ``part`` starts, and that place."""
    file = source.arrow()
    file.seek(part)
    start = part + _STREAM_START if file.read(len(_MAGIC)) == _MAGIC else part
    file.seek(start)
    return file, start


def _open_stream(file: pa.NativeFile) -> pa.ipc.RecordBatchStreamReader:
    reader = pa.ipc.open_stream(file)
    _ = reader.schema.names  # decodes them
    return reader


def batch_sizes(stream: BinaryIO, path: str, fields: FieldMap | None) -> list[int]:
    """The stored bytes of each record batch; empty if it can only be read from start to end.

    Raises:
        ValueError: the file lacks the text column of ``fields``.
    """
    source = Source(stream)
    opened = _open(stream, source)
    if fields:
        try:
            schema = opened[1].schema if opened else _open_stream(_stream_start(source)[0]).schema
        except DAMAGE:
            source.check()
            return []
        wanted_columns(schema, path, fields)
    return [block.size for block in opened[0].batches] if opened else []


def column_names(stream: BinaryIO) -> list[str] | None:
    """The columns of a file or stream and the fields of its structs; None if it can't be opened."""
    source = Source(stream)
    try:
        opened = _open(stream, source)
        reader = opened[1] if opened else _open_stream(_stream_start(source)[0])
        return all_names(reader.schema)
    except DAMAGE:
        source.check()
        return None


def regions(stream: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """Where the bytes of record batches ``start`` to ``end`` are, dictionaries and the footer."""
    size = stream.seek(0, 2)
    footer = _footer(stream)
    if footer is None or len(footer.batches) < end:
        return [(0, size)]
    blocks = footer.dictionaries + footer.batches[start:end]
    spans = [(max(block.offset, 0), block.offset + block.size) for block in blocks]
    return [*spans, (footer.start, size)]


def _sound(table: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
    """The wanted columns, checked so that no offset points outside its buffer.

    Raises:
        pa.ArrowInvalid: one does.
    """
    table = pick(table, columns)
    checked = []
    for column in table.columns:
        # Whether text is UTF-8 is asked of each row later.
        if pa.types.is_string(column.type):
            column = column.view(pa.binary())
        elif pa.types.is_large_string(column.type):
            column = column.view(pa.large_binary())
        column.validate(full=True)
        checked.append(column)
    return pa.RecordBatch.from_arrays(checked, names=columns)


def _footer(stream: BinaryIO) -> _Footer | None:
    """The places in the footer of a file; None for a stream and where they make no sense."""
    end = stream.seek(0, 2) - 4 - len(_MAGIC)
    if end < _STREAM_START:
        return None
    stream.seek(end)
    length, magic = struct.unpack("<i6s", stream.read(10))
    if magic != _MAGIC or not 0 < length <= end - _STREAM_START:
        return None
    stream.seek(end - length)
    data = stream.read(length)
    try:
        root = _Table.root(data)
        footer = _Footer(end - length, root.blocks(2), root.blocks(3))
    except struct.error:
        return None
    blocks = footer.dictionaries + footer.batches
    good = all(
        b.offset >= _STREAM_START and b.metadata > 0 and b.body >= 0 and b.offset + b.size <= end
        for b in blocks
    )
    return footer if good and _is_of(stream, footer) else None


def _is_of(stream: BinaryIO, footer: _Footer) -> bool:
    """Whether a footer comes right after the last batch that it has.

    Else its count is damaged, or it counts from the start of the last of several files.
    """
    blocks = footer.dictionaries + footer.batches
    try:
        end = max((block.offset + block.size for block in blocks), default=0)
        if not end:
            schema, body = _message(stream, _STREAM_START)
            end = body + max(schema.number(3, "<q"), 0)
    except struct.error:
        return False
    stream.seek(end)
    return end <= footer.start <= end + _SLACK and not stream.read(footer.start - end).strip(
        b"\0\xff"
    )


def _row_count(stream: BinaryIO, block: _Block) -> int:
    """The rows of a record batch, from its metadata; 0 where that is damaged."""
    try:
        header = _message(stream, block.offset)[0].table(2)
        return max(header.number(0, "<q"), 0) if header else 0
    except struct.error:
        return 0


def _check_ratio(stream: BinaryIO, at: int) -> None:
    """Refuse a bomb: the record batch at ``at``, or the dictionaries that come before it.

    Raises:
        ValueError: it unpacks to more than :data:`_FREE_BYTES` and :data:`_MAX_RATIO` allow.
    """
    kind = _DICTIONARY
    while kind == _DICTIONARY:
        try:
            message, body = _message(stream, at)
            kind = message.number(1, "<B")
            header = message.table(2)
            if kind == _DICTIONARY and header:
                header = header.table(1)  # its values are a record batch of one column
            size = max(message.number(3, "<q"), 0)
            unpacked = _unpacked(stream, header, body) if header and header.field(3) else 0
        except struct.error:
            return  # damaged: pyarrow says how
        if unpacked > max(_FREE_BYTES, _MAX_RATIO * size):
            raise ValueError(f"{size:,} bytes unpack to {unpacked:,}")
        at = body + size


def _message(stream: BinaryIO, at: int) -> tuple["_Table", int]:
    """The metadata of the message at ``at``, and where its body starts.

    Raises:
        struct.error: there is none.
    """
    stream.seek(at)
    prefix = stream.read(8)
    size = _number(prefix, 0, "<i")
    start = at + 4
    if size == -1:  # since Arrow 0.15
        size = _number(prefix, 4, "<i")
        start = at + 8
    stream.seek(start)
    size = max(size, 0)
    if size > _MAX_METADATA:
        raise struct.error("more than metadata can be")
    return _Table.root(stream.read(size)), start + size


def _unpacked(stream: BinaryIO, batch: "_Table", body: int) -> int:
    """The bytes of a compressed record batch once it is unpacked, as each of its buffers says."""
    total = 0
    for offset, length in batch.pairs(2):
        if length >= 8:
            stream.seek(body + max(offset, 0))
            total += max(_number(stream.read(8), 0, "<q"), 0)
    return total


class _Table(NamedTuple):
    """A flatbuffer table: its fields are found through a table of offsets."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, _number(data, 0, "<I"))

    def field(self, index: int) -> int:
        """Where a field is; 0 if the table does not have it."""
        offsets = self.at - _number(self.data, self.at, "<i")
        place = 4 + 2 * index
        if place >= _number(self.data, offsets, "<H"):
            return 0
        inside = _number(self.data, offsets + place, "<H")
        return self.at + inside if inside else 0

    def number(self, index: int, form: str) -> int:
        at = self.field(index)
        return _number(self.data, at, form) if at else 0

    def table(self, index: int) -> "_Table | None":
        at = self.field(index)
        return _Table(self.data, at + _number(self.data, at, "<I")) if at else None

    def blocks(self, index: int) -> list[_Block]:
        # struct Block { offset: long; metaDataLength: int; bodyLength: long; }
        return [_Block(*values) for values in self._structs(index, "<qi4xq")]

    def pairs(self, index: int) -> list[tuple[int, ...]]:
        # struct Buffer { offset: long; length: long; }
        return self._structs(index, "<qq")

    def _structs(self, index: int, form: str) -> list[tuple[int, ...]]:
        at = self.field(index)
        if not at:
            return []
        at += _number(self.data, at, "<I")
        count = _number(self.data, at, "<I")
        size = struct.calcsize(form)
        if count * size > len(self.data):
            raise struct.error("more than the table has room for")
        return [struct.unpack_from(form, self.data, at + 4 + i * size) for i in range(count)]


def _number(data: bytes, at: int, form: str) -> int:
    if at < 0:
        raise struct.error("a place before the start")
    return int(struct.unpack_from(form, data, at)[0])
