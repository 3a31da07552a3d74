"""The footer of an Arrow IPC file and the metadata of its messages.

pyarrow does not expose the offsets of record batches, so they are read from the flatbuffers here
(format/File.fbs and Message.fbs of Apache Arrow).
"""

import struct
from typing import BinaryIO, NamedTuple

MAGIC = b"ARROW1"
STREAM_START = 8  # the padded magic; a stream follows
SLACK = 64  # bytes between the end mark of the batches and the footer
SCHEMA, _DICTIONARY = 1, 2  # of the union MessageHeader, Message.fbs
_FREE_BYTES = 1 << 30
_MAX_RATIO = 64
"""A batch that unpacks to more than both is damaged or a bomb: text compresses 2 to 4 times."""

MAX_METADATA = 64 << 20  # of a message or footer; only damaged lengths are larger


class Block(NamedTuple):
    """The location of a message: its metadata (with the length prefix), then its body."""

    offset: int
    metadata: int
    body: int

    @property
    def size(self) -> int:
        return self.metadata + self.body


class Footer(NamedTuple):
    start: int
    dictionaries: list[Block]
    batches: list[Block]


def read_footer(stream: BinaryIO) -> Footer | None:
    """The footer of a file; None for a stream, or if its locations are inconsistent."""
    end = stream.seek(0, 2) - 4 - len(MAGIC)
    if end < STREAM_START:
        return None
    stream.seek(end)
    length, magic = struct.unpack("<i6s", stream.read(10))
    if magic != MAGIC or not 0 < length <= end - STREAM_START:
        return None
    stream.seek(end - length)
    data = stream.read(length)
    try:
        root = Table.root(data)
        footer = Footer(end - length, _blocks(root, 2), _blocks(root, 3))
    except struct.error:
        return None
    blocks = footer.dictionaries + footer.batches
    good = all(
        b.offset >= STREAM_START and b.metadata > 0 and b.body >= 0 and b.offset + b.size <= end
        for b in blocks
    )
    return footer if good and _is_of(stream, footer) else None


def _blocks(root: "Table", index: int) -> list[Block]:
    # struct Block { offset: long; metaDataLength: int; bodyLength: long; }
    return [Block(*values) for values in root.structs(index, "<qi4xq")]


def _is_of(stream: BinaryIO, footer: Footer) -> bool:
    """Whether a footer directly follows its last batch; not if damaged or of a later file."""
    blocks = footer.dictionaries + footer.batches
    try:
        end = max((block.offset + block.size for block in blocks), default=0)
        if not end:
            schema, body = message_at(stream, STREAM_START)
            end = body + max(schema.number(3, "<q"), 0)
    except struct.error:
        return False
    if not end <= footer.start <= end + SLACK:
        return False
    stream.seek(end)
    return not stream.read(footer.start - end).strip(b"\0\xff")


def row_count(stream: BinaryIO, block: Block) -> int:
    """The number of rows of a record batch by its metadata; 0 if that is damaged."""
    try:
        header = message_at(stream, block.offset)[0].table(2)
        return max(header.number(0, "<q"), 0) if header else 0
    except struct.error:
        return 0


def check_ratio(stream: BinaryIO, at: int) -> None:
    """Raise ValueError if the record batch at ``at``, or a dictionary before it, is a bomb."""
    kind = _DICTIONARY
    while kind == _DICTIONARY:
        try:
            message, body = message_at(stream, at)
            kind = message.number(1, "<B")
            header = message.table(2)
            if kind == _DICTIONARY and header:
                header = header.table(1)  # its values are a record batch of one column
            size = max(message.number(3, "<q"), 0)
            unpacked = _unpacked(stream, header, body) if header and header.field(3) else 0
        except struct.error:
            return  # damaged: pyarrow will report it
        if unpacked > max(_FREE_BYTES, _MAX_RATIO * size):
            raise ValueError(f"{size:,} bytes unpack to {unpacked:,}")
        at = body + size


def message_at(stream: BinaryIO, at: int) -> tuple["Table", int]:
    """The metadata of the message at ``at``, and the start of its body, or struct.error."""
    stream.seek(at)
    prefix = stream.read(8)
    size, start = _number(prefix, 0, "<i"), at + 4
    if size == -1:  # since Arrow 0.15
        size, start = _number(prefix, 4, "<i"), at + 8
    stream.seek(start)
    size = max(size, 0)
    if size > MAX_METADATA:
        raise struct.error("more than metadata can be")
    return Table.root(stream.read(size)), start + size


def _unpacked(stream: BinaryIO, batch: "Table", body: int) -> int:
    """The unpacked size of a compressed record batch, by its buffers' headers."""
    total = 0
    for offset, length in batch.structs(2, "<qq"):  # Buffer { offset: long; length: long; }
        if length >= 8:
            stream.seek(body + max(offset, 0))
            total += max(_number(stream.read(8), 0, "<q"), 0)
    return total


class Table(NamedTuple):
    """A flatbuffer table, at ``at``."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> "Table":
        return cls(data, _number(data, 0, "<I"))

    def field(self, index: int) -> int:
        """The position of a field; 0 if it is absent."""
        offsets = self.at - _number(self.data, self.at, "<i")
        place = 4 + 2 * index
        if place >= _number(self.data, offsets, "<H"):
            return 0
        inside = _number(self.data, offsets + place, "<H")
        return self.at + inside if inside else 0

    def number(self, index: int, form: str) -> int:
        at = self.field(index)
        return _number(self.data, at, form) if at else 0

    def table(self, index: int) -> "Table | None":
        at = self.field(index)
        return Table(self.data, at + _number(self.data, at, "<I")) if at else None

    def structs(self, index: int, form: str) -> list[tuple[int, ...]]:
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
