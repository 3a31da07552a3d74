"""HTTP responses as crawlers store them: status, headers, and the body as it was meant.

Written from RFC 9112. Some crawlers store the body decoded but keep the headers that say how it
was encoded; then the body is taken as it stands.
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import brotli
from backports import zstd

from pipeline.readers.contract import Unreadable

_HEAD = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})[^\n]*\n(.*?\n|)\r?\n", re.DOTALL)
_MAX_HEAD = 1 << 18
_MAX_ENCODINGS = 8  # a body can be made that unpacks to itself, again and again
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LINE_END = re.compile(rb"\r?\n")


@dataclass(frozen=True)
class Response:
    """``headers`` are in lower case; ``body`` has no encoding but that of its text."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type, in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """The charset parameter of the content type."""
        match = re.search(
            r"charset\s*=\s*[\"']?([^\s\"';,]+)", self.headers.get("content-type", "")
        )
        return match.group(1) if match else None


def parse_response(message: bytes, max_bytes: int) -> Response:
    """Take a stored HTTP response apart. The body is decoded only where the status is a success.

    Raises:
        Unreadable: ``bad_http`` or, decoded, over ``max_bytes``: ``too_long``.
    """
    match = _HEAD.match(message, 0, _MAX_HEAD)
    if match is None:
        raise Unreadable("bad_http")
    status = int(match.group(1))
    headers = _headers(match.group(2))
    body = message[match.end() :]
    if 200 <= status < 300:
        encodings = _tokens(headers, "content-encoding") + _tokens(headers, "transfer-encoding")
        if len(encodings) > _MAX_ENCODINGS:
            raise Unreadable("bad_http")
        for encoding in reversed(encodings):
            body = _decode(body, encoding, max_bytes)
    return Response(status, headers, body)


def _headers(lines: bytes) -> dict[str, str]:
    """The headers, the last of a repeated one; latin-1 leaves no byte undecodable."""
    pairs = (line.partition(":") for line in lines.decode("latin-1").split("\n"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _tokens(headers: Mapping[str, str], name: str) -> list[str]:
    return [token.strip().lower() for token in headers.get(name, "").split(",")]


def _decode(body: bytes, encoding: str, max_bytes: int) -> bytes:
    match encoding:
        case "chunked":
            return _dechunk(body)
        case "gzip" | "x-gzip":
            return _inflate(body, 31, max_bytes) if body.startswith(b"\x1f\x8b") else body
        case "deflate":
            # Meant is zlib; some servers send the bare stream, and some bodies are decoded already.
            if body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0:
                return _inflate(body, 15, max_bytes)
            try:
                return _inflate(body, -15, max_bytes)
            except Unreadable as error:
                if error.reason == "too_long":
                    raise
                return body
        case "br":
            return _unbrotli(body, max_bytes)
        case "zstd":
            if not body.startswith(b"\x28\xb5\x2f\xfd"):
                return body
            decoder = zstd.ZstdDecompressor()
            try:
                out = decoder.decompress(body, max_bytes + 1)
            except zstd.ZstdError:
                raise Unreadable("bad_http") from None
            return _whole(out, decoder.eof, max_bytes)
        case _:
            return body


def _dechunk(body: bytes) -> bytes:
    if not _CHUNK_SIZE.match(body):
        return body
    chunks: list[bytes] = []
    at = 0
    while True:
        size = _CHUNK_SIZE.match(body, at)
        if size is None:
            raise Unreadable("bad_http")
        length = int(size.group(1), 16)
        if length == 0:
            return b"".join(chunks)
        at = size.end() + length
        chunks.append(body[size.end() : at])
        end = _LINE_END.match(body, at)
        if end is None:
            raise Unreadable("bad_http")
        at = end.end()


def _inflate(body: bytes, window: int, max_bytes: int) -> bytes:
    decoder = zlib.decompressobj(window)
    try:
        out = decoder.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Unreadable("bad_http") from None
    return _whole(out, decoder.eof, max_bytes)


def _unbrotli(body: bytes, max_bytes: int) -> bytes:
    decoder = brotli.Decompressor()
    try:
        out = decoder.process(body, output_buffer_limit=max_bytes + 1)
    except brotli.error:
        # Brotli has no magic number: a body that was decoded before is text.
        try:
            body[: 1 << 10].decode()
        except UnicodeDecodeError:
            raise Unreadable("bad_http") from None
        return body
    return _whole(out, decoder.is_finished(), max_bytes)


def _whole(out: bytes, ended: bool, max_bytes: int) -> bytes:
    if len(out) > max_bytes:
        raise Unreadable("too_long")
    if not ended:
        raise Unreadable("bad_http")
    return out
