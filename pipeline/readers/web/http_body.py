"""Decodes HTTP bodies as crawlers store them: dechunks, then decompresses.

Some crawlers store the decoded body with the headers of the encoded one; such a body is used as it
is. A truncated body gives what is there.
"""

import contextlib
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import brotli

from pipeline.readers.contract import Unreadable
from pipeline.readers.decoders import compression_of
from pipeline.readers.inflate import Damage, inflate

_MAX_ENCODINGS = 8  # a crafted body can decompress to itself forever
_EMPTY_LINES = re.compile(rb"[\r\n]*")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHUNK_END = re.compile(rb"\r?(?:\n|\Z)")
_CUT_SIZE = re.compile(rb"(?:[ \t]*[0-9a-fA-F]+[ \t]*(?:;[^\n]*)?)?\r?")
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SAMPLE = 1 << 10


class Body(NamedTuple):
    """``truncated``: the data ended before the encoding does."""

    content: bytes
    truncated: bool = False


def decode_body(stored: bytes, encodings: Sequence[str], max_bytes: int, is_page: bool) -> Body:
    """The content of a body that was encoded by ``encodings``, one after the other.

    If the result is still compressed, although no header says so, it is decompressed too.

    Raises:
        Unreadable: ``bad_http``, or ``too_long`` if it is over ``max_bytes``.
    """
    if len(encodings) > _MAX_ENCODINGS:
        raise Unreadable("bad_http")
    content, truncated = stored, False
    for encoding in reversed(encodings):
        content, cut = _decode(content, encoding, max_bytes)
        truncated |= cut
    for _ in range(_MAX_ENCODINGS if is_page else 0):
        if compression_of(content) == "none":
            break
        content, cut = _unpack(content, max_bytes)
        truncated |= cut
    return Body(content, truncated)


def _decode(body: bytes, encoding: str, max_bytes: int) -> Body:
    match encoding:
        case "chunked":
            return _dechunk(body)
        case "gzip" | "x-gzip" | "zstd":
            return _unpack(body, max_bytes)
        case "deflate":
            return _inflate(body, max_bytes)
        case "br":
            return _unbrotli(body, max_bytes)
        case _:
            return Body(body)


def _dechunk(body: bytes) -> Body:
    at = _EMPTY_LINES.match(body).end()  # type: ignore[union-attr]
    if not _CHUNK_SIZE.match(body, at):
        return Body(body)
    chunks: list[bytes] = []
    while size := _CHUNK_SIZE.match(body, at):
        length = int(size.group(1), 16)
        if length == 0:
            return Body(b"".join(chunks))
        chunks.append(body[size.end() : size.end() + length])
        end = _CHUNK_END.match(body, size.end() + length)
        if end is None:
            raise Unreadable("bad_http")
        at = end.end()
    if not _CUT_SIZE.fullmatch(body, at):
        raise Unreadable("bad_http")
    return Body(b"".join(chunks), truncated=True)


def _unpack(body: bytes, max_bytes: int) -> Body:
    """All gzip members or zstd frames; anything after them is ignored."""
    compression = compression_of(body)
    if compression == "none":
        return Body(body)
    pieces: list[bytes] = []
    size = 0
    truncated = False
    for piece in inflate(io.BytesIO(body), compression, "", lambda _: io.BytesIO(body)):
        if isinstance(piece, Damage):
            truncated = piece.reason.startswith("truncated_")
            if not truncated and (piece.produced or not pieces):
                raise Unreadable("bad_http")
            break
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise Unreadable("too_long")
    return Body(b"".join(pieces), truncated)


def _inflate(body: bytes, max_bytes: int) -> Body:
    """Deflate: zlib is meant, but some servers send the bare stream."""
    head = int.from_bytes(body[:2], "big")
    is_zlib = head & 0x8F20 == 0x0800 and head % 31 == 0
    decoder = zlib.decompressobj(15 if is_zlib else -15)
    content = None
    with contextlib.suppress(zlib.error):
        content = decoder.decompress(body, max_bytes + 1)
    if content is None and not is_zlib:
        return Body(body)
    return _checked(body, content, decoder.eof, max_bytes)


def _unbrotli(body: bytes, max_bytes: int) -> Body:
    try:
        content, ended = _from_brotli([body], max_bytes)
    except brotli.error:
        # The decoder does not say whether it failed after the end: there, any byte is one too many.
        try:
            content, ended = _from_brotli((body[i : i + 1] for i in range(len(body))), max_bytes)
        except brotli.error:
            return _checked(body, None, False, max_bytes)
    return _checked(body, content, ended, max_bytes)


def _from_brotli(pieces: Iterable[bytes], max_bytes: int) -> tuple[bytes, bool]:
    """The decoded pieces up to the end of the stream, and whether it was reached."""
    decoder = brotli.Decompressor()
    out: list[bytes] = []
    size = 0
    for piece in pieces:
        out.append(decoder.process(piece, output_buffer_limit=max_bytes + 1))
        size += len(out[-1])
        if decoder.is_finished() or size > max_bytes:
            break
    # It returns the rest of truncated data only when flushed.
    while out and out[-1] and size <= max_bytes and not decoder.is_finished():
        out.append(decoder.process(b""))
        size += len(out[-1])
    return b"".join(out), decoder.is_finished()


def _checked(body: bytes, content: bytes | None, ended: bool, max_bytes: int) -> Body:
    """``content`` is None if the body is not encoded as declared."""
    if content is not None and len(content) > max_bytes:
        raise Unreadable("too_long")
    if not ended and _is_text(body):
        return Body(body)
    if content is None:
        raise Unreadable("bad_http")
    return Body(content, truncated=not ended)


def _is_text(body: bytes) -> bool:
    """Whether a body is already decoded: compressed data soon has bytes that text never has."""
    sample = body[:_SAMPLE]
    if _NO_TEXT.search(sample):
        return False
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.end == len(sample) == _SAMPLE  # cut within a character
    return True
