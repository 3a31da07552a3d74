"""Decompression that survives damage: it resumes at the next member that decodes.

A member is one of the compressed streams that a file concatenates, such as one per WARC record. A
zstd file may carry the dictionary for its frames in a skippable frame before them (IIPC, "Zstandard
Compression for WARC Files 1.0").
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.readers.contract import OpenInput, Reason
from pipeline.readers.decoders import (
    CODECS,
    DICTIONARY_FRAME,
    FRAME,
    Codec,
    Compression,
    Decoder,
    zstd,
    zstd_decoder,
)

_INPUT_BYTES = 1 << 16
_OUTPUT_BYTES = 1 << 20
_TRIAL_BYTES = 1 << 10
_HEADER_BYTES = 18  # the longest header of a zstd frame
_MAX_DICTIONARY = 128 << 20  # decoders must take 8 MiB


@dataclass(frozen=True)
class Damage:
    """Where decoding failed. The stream continues with a later member."""

    reason: Reason
    offset: int  # in bytes of the compressed file
    produced: int  # the last bytes before this, which came from the damaged member


def inflate(
    stream: BinaryIO, compression: Compression, path: str, open_input: OpenInput
) -> Iterator[bytes | Damage]:
    """Yield the decoded bytes of ``stream`` in pieces of at most 1 MiB, and :class:`Damage`.

    ``open_input(path)`` reopens the file, to examine the bytes around damage.
    """
    if compression == "none":
        while piece := stream.read(_OUTPUT_BYTES):
            yield piece
        return
    plain = codec = CODECS[compression]
    source = _Input(stream, lambda: open_input(path))
    while source.at_data(_HEADER_BYTES):
        start = source.offset
        if not source.data.startswith(codec.starts):
            yield Damage(codec.corrupt, start, 0)
            source.move_to(_next_member(source, codec, start + 1))
            continue
        if DICTIONARY_FRAME.match(source.data):
            try:
                codec = codec._replace(new=functools.partial(zstd_decoder, _dictionary(source)))
            except (ValueError, zstd.ZstdError):
                yield Damage("zstd_dictionary", start, 0)
                codec = plain
                # Skip the dictionary's own frame: it holds no text.
                source.move_to(_next_member(source, codec, start + 9))
            continue
        used = plain if codec is not plain and _stands_alone(source.data, plain) else codec
        produced = 0
        try:
            for piece in _decode(source, used.new()):
                produced += len(piece)
                yield piece
        except EOFError:
            failure = codec.truncated
        except codec.error as error:
            failure = _reason(error, codec)
        else:
            continue
        # By now the first decoder, whose window may take 2 GiB, is freed.
        after = _next_member(source, codec, max(start + 1, source.offset - codec.swallowed))
        if failure == codec.corrupt:
            yield from _until_damage(source, used, start, produced, after)
        else:
            yield Damage(failure, source.offset, produced)
        source.move_to(after)


def _reason(error: Exception, codec: Codec) -> Reason:
    """The reason, from the message: zstd's exceptions have no codes."""
    if "Dictionary mismatch" in str(error):
        return "zstd_dictionary"
    return "zstd_window" if "memory" in str(error) else codec.corrupt


def _dictionary(source: "_Input") -> zstd.ZstdDict:
    size = int.from_bytes(source.data[4:8], "little")
    if size > _MAX_DICTIONARY:
        raise ValueError(f"a dictionary of {size:,} bytes")
    content = source.ahead(8 + size)[8:]
    if len(content) < size:
        raise ValueError("cut off")
    if content.startswith(FRAME):
        decoder = zstd_decoder()
        content = decoder.decompress(content, _MAX_DICTIONARY)
        if not decoder.eof:
            raise ValueError("cut off, or too large")
    dictionary = zstd.ZstdDict(content)
    zstd_decoder(dictionary)  # validates it
    source.use(8 + size)
    return dictionary


def _stands_alone(head: bytes, plain: Codec) -> bool:
    """Whether a frame needs no dictionary, with which it would decode to other bytes."""
    try:
        return not zstd.get_frame_info(head).dictionary_id and _decodes(plain, head)
    except zstd.ZstdError:
        return False


class _Input:
    """Compressed bytes: ``data`` is read but not consumed, ``offset`` its position."""

    def __init__(self, stream: BinaryIO, reopen: Callable[[], BinaryIO]) -> None:
        self._stream = stream
        self.reopen = reopen
        self.data = b""
        self.offset = 0

    def at_data(self, enough: int) -> bool:
        """Skip padding (zero bytes) and buffer ``enough`` bytes; False at the end."""
        while True:
            self.use(len(self.data) - len(self.data.lstrip(b"\0")))
            if len(self.data) >= enough:
                return True
            more = self._stream.read(_INPUT_BYTES)
            self.data += more
            if not more:
                return bool(self.data)

    def ahead(self, count: int) -> bytes:
        """Peek at the next ``count`` bytes, or what is left."""
        while len(self.data) < count and (more := self._stream.read(count - len(self.data))):
            self.data += more
        return self.data[:count]

    def use(self, count: int) -> None:
        """Consume the first ``count`` bytes of ``data``."""
        self.data = self.data[count:]
        self.offset += count

    def refill(self) -> None:
        """Consume all of ``data`` and read more, none at the end of the file."""
        self.offset += len(self.data)
        self.data = self._stream.read(_INPUT_BYTES)

    def move_to(self, offset: int) -> None:
        """Continue at ``offset``, perhaps slightly before the current position."""
        end = self.offset + len(self.data)
        if offset < self.offset:
            with self.reopen() as stream:
                stream.seek(offset)
                self.data = stream.read(end - offset)
            self.offset = offset
        while offset > self.offset + len(self.data):
            self.refill()
        self.use(offset - self.offset)


def _decode(source: _Input, decoder: Decoder) -> Iterator[bytes]:
    """Decode and consume one member: EOFError if it is truncated, ``Codec.error`` if damaged."""
    piece = decoder.decompress(source.data, _OUTPUT_BYTES)
    while True:
        if piece:
            yield piece
        if decoder.eof:
            source.use(len(source.data) - len(decoder.unused_data or b""))
            return
        if decoder.needs_input:
            source.refill()
            if not source.data:
                raise EOFError
            piece = decoder.decompress(source.data, _OUTPUT_BYTES)
        else:
            piece = decoder.decompress(b"", _OUTPUT_BYTES)


def _until_damage(
    source: _Input, codec: Codec, start: int, produced: int, end: int
) -> Iterator[bytes | Damage]:
    """The bytes that the failed call had decoded but discarded, and the damage.

    Decodes the member at ``start`` again, the last input byte by byte, and yields what follows the
    first ``produced`` bytes. If it reaches ``end``, where the next member starts, this one was
    truncated there and decoding had failed on the next.
    """
    decoder = codec.new()
    old, at = produced, start
    reason = codec.truncated
    with source.reopen() as stream:
        stream.seek(start)
        try:
            while data := stream.read(min(_INPUT_BYTES, max(source.offset - at, 1), end - at)):
                piece = decoder.decompress(data, _OUTPUT_BYTES)
                while True:
                    new = piece[old:]
                    old = max(old - len(piece), 0)
                    if new:
                        produced += len(new)
                        yield new
                    if decoder.needs_input:
                        break
                    piece = decoder.decompress(b"", _OUTPUT_BYTES)
                at += len(data)
        except codec.error:
            reason = codec.corrupt
    yield Damage(reason, at, produced)


def _next_member(source: _Input, codec: Codec, start: int) -> int:
    """The offset of the first member from ``start`` on whose first bytes decode, or of the end."""
    with source.reopen() as stream:
        stream.seek(start)
        at, window, more = start, b"", b"-"
        while more:
            more = stream.read(_INPUT_BYTES)
            window += more
            last = len(window) - _TRIAL_BYTES if more else len(window)
            for match in codec.member.finditer(window):
                found = match.start()
                if found > last:
                    break
                if _decodes(codec, window[found : found + _TRIAL_BYTES]):
                    return at + found
            tried = max(last + 1, 0) if more else len(window)
            at += tried
            window = window[tried:]
        return at


def _decodes(codec: Codec, head: bytes) -> bool:
    try:
        codec.new().decompress(head, _OUTPUT_BYTES)
    except codec.error:
        return False
    return True
