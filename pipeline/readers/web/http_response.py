"""Parses stored HTTP responses: status, headers and decoded body.

Follows RFC 9110 and 9112, but tolerates what real servers get wrong, bodies that a crawler stored
decoded under the headers of the encoded ones, and truncated bodies.
"""

import contextlib
import io
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import brotli

from pipeline.readers.contract import Unreadable
from pipeline.readers.decoders import compression_of
from pipeline.readers.inflate import Damage, inflate

_STATUS = re.compile(
    rb"(?i)(?:\xef\xbb\xbf)?\s*(?:HTTP/\d+(?:\.\d+)?|ICY)[ \t]+(\d{3})[^\r\n]*(\r*\n|\r)"
)
_HEADERS = re.compile(rb"(|.*?\n)\r*\n", re.DOTALL)
_HEADERS_OF_OLD_MACS = re.compile(rb"(|.*?\r)\r", re.DOTALL)
_LINES = re.compile(r"\r*\n|\r")
_NO_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head)\b", re.IGNORECASE)
_CHARSET = re.compile(r"(?:^|[;,\s])charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
_MAX_HEAD = 1 << 18
_MAX_ENCODINGS = 8  # a crafted body can decompress to itself forever
_EMPTY_LINES = re.compile(rb"[\r\n]*")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHUNK_END = re.compile(rb"\r?(?:\n|\Z)")
_CUT_SIZE = re.compile(rb"(?:[ \t]*[0-9a-fA-F]+[ \t]*(?:;[^\n]*)?)?\r?")
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SAMPLE = 1 << 10


@dataclass(frozen=True)
class Response:
    """A response with its body decoded to HTML, text or binary data."""

    status: int
    headers: Mapping[str, Sequence[str]]  # by name in lower case, with every value
    body: bytes
    truncated: bool  # the body is shorter than its encoding or length says

    @property
    def content_types(self) -> list[str]:
        """The media types, in lower case, without parameters; servers may send several."""
        return [kind for kind in _listed(self.headers, "content-type") if kind]

    @property
    def charset(self) -> str | None:
        """The charset parameter of the content type; the last of several."""
        for value in reversed(self.headers.get("content-type", ())):
            if match := _CHARSET.search(value):
                return match.group(1)
        return None


def parse_response(message: bytes, max_bytes: int) -> Response:
    """Parse a stored HTTP response. Only the body of a success is decoded.

    Skips interim responses (``100 Continue``, a proxy's ``200 Connection established``). A page
    without status line and headers is HTTP/0.9.

    Raises:
        Unreadable: ``bad_http``, or ``too_long`` if over ``max_bytes`` once decoded.
    """
    status, headers, start = _head(message)
    response = Response(status, headers, message[start:], truncated=False)
    if not 200 <= status < 300:
        return response
    encodings = _encodings(headers)
    types = response.content_types
    is_page = not types or any("html" in kind for kind in types)
    content, truncated = decode_body(response.body, encodings, max_bytes, is_page)
    if not encodings and (lengths := headers.get("content-length")) and lengths[-1].isdecimal():
        truncated |= len(response.body) < int(lengths[-1])
    return replace(response, body=content, truncated=truncated)


def _head(message: bytes) -> tuple[int, dict[str, list[str]], int]:
    """The status and headers of the last response in a message, and where its body starts."""
    found = None
    start = 0
    while line := _STATUS.match(message, start, start + _MAX_HEAD):
        ends = _HEADERS_OF_OLD_MACS if line.group(2) == b"\r" else _HEADERS
        head = ends.match(message, line.end(), line.end() + _MAX_HEAD)
        if head is None:
            raise Unreadable("bad_http")
        start = head.end()
        found = int(line.group(1)), _headers(head.group(1)), start
    if found:
        return found
    if _NO_HEAD.match(message):
        return 200, {}, 0
    raise Unreadable("bad_http")


def _headers(lines: bytes) -> dict[str, list[str]]:
    """The values of each header, as latin-1, which decodes any byte."""
    headers: dict[str, list[str]] = {}
    values: list[str] = []
    for line in _LINES.split(lines.decode("latin-1")):
        if line[:1] in (" ", "\t") and values:  # folded, as old servers do
            values[-1] = f"{values[-1]} {line.strip()}".strip()
            continue
        name, _, value = line.partition(":")
        values = headers.setdefault(name.strip().lower(), [])
        values.append(value.strip())
    return headers


def _listed(headers: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """The members of a list header, in one line or several, without parameters."""
    members = ",".join(headers.get(name, ())).split(",")
    return [member.partition(";")[0].strip(" \t\"'").lower() for member in members]


def _encodings(headers: Mapping[str, Sequence[str]]) -> list[str]:
    """The encodings of the body, in the order they were applied."""
    transfer = _listed(headers, "transfer-encoding")
    # Bodies are chunked once: a second server adds a second mention.
    chunked = ["chunked"] if "chunked" in transfer else []
    others = [token for token in transfer if token != "chunked"]
    encodings = _listed(headers, "content-encoding") + others + chunked
    return [token for token in encodings if token not in ("", "identity")]


class Body(NamedTuple):
    content: bytes
    truncated: bool = False  # the data ended before its encoding does


def decode_body(content: bytes, encodings: Sequence[str], max_bytes: int, is_page: bool) -> Body:
    """Undo the ``encodings`` of a body, and of a page also compression that no header declares.

    Raises:
        Unreadable: ``bad_http``, or ``too_long`` if over ``max_bytes``.
    """
    if len(encodings) > _MAX_ENCODINGS:
        raise Unreadable("bad_http")
    decoders = [_DECODERS[name] for name in reversed(encodings) if name in _DECODERS]
    truncated = False
    for decode in decoders + [_unpack] * (_MAX_ENCODINGS * is_page):
        content, cut = decode(content, max_bytes)
        truncated |= cut
    return Body(content, truncated)


def _dechunk(body: bytes, max_bytes: int) -> Body:
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
    """Deflate means zlib, but some servers send the bare stream."""
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
    # The decoder also fails on data after the end, without saying so. Byte by byte we see the end.
    for pieces in ([body], (body[i : i + 1] for i in range(len(body)))):
        with contextlib.suppress(brotli.error):
            content, ended = _from_brotli(pieces, max_bytes)
            return _checked(body, content, ended, max_bytes)
    return _checked(body, None, False, max_bytes)


def _from_brotli(pieces: Iterable[bytes], max_bytes: int) -> tuple[bytes, bool]:
    """The decoded pieces, and whether the stream ended."""
    decoder = brotli.Decompressor()
    out: list[bytes] = []
    size = 0
    for piece in pieces:
        out.append(decoder.process(piece, output_buffer_limit=max_bytes + 1))
        size += len(out[-1])
        if decoder.is_finished() or size > max_bytes:
            break
    # Flushes the rest of truncated data.
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
    """Whether a body is already decoded: compressed data soon has bytes that are never in text."""
    sample = body[:_SAMPLE]
    if _NO_TEXT.search(sample):
        return False
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.end == len(sample) == _SAMPLE  # cut within a character
    return True


_DECODERS: dict[str, Callable[[bytes, int], Body]] = {
    "chunked": _dechunk,
    "gzip": _unpack,
    "x-gzip": _unpack,
    "zstd": _unpack,
    "deflate": _inflate,
    "br": _unbrotli,
}
