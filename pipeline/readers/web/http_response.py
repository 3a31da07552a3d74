"""Parses stored HTTP responses: status, headers and decoded body.

Follows RFC 9110 and 9112, but tolerates what real servers get wrong.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.readers.contract import Unreadable
from pipeline.readers.web.http_body import decode_body

_STATUS = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:HTTP/\d+(?:\.\d+)?|ICY)[ \t]+(\d{3})[^\r\n]*(\r*\n|\r)",
    re.IGNORECASE,
)
_HEADERS = re.compile(rb"(|.*?\n)\r*\n", re.DOTALL)
_HEADERS_OF_OLD_MACS = re.compile(rb"(|.*?\r)\r", re.DOTALL)
_LINES = re.compile(r"\r*\n|\r")
_NO_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head)\b", re.IGNORECASE)
_CHARSET = re.compile(r"(?:^|[;,\s])charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
_MAX_HEAD = 1 << 18


@dataclass(frozen=True)
class Response:
    """``headers`` has every value of a name in lower case; ``body`` no encoding but its text's.

    ``truncated``: the body is shorter than its encoding or length says.
    """

    status: int
    headers: Mapping[str, Sequence[str]]
    body: bytes
    truncated: bool

    @property
    def content_types(self) -> list[str]:
        """The media types, in lower case, without parameters; servers may send several."""
        return _media_types(self.headers)

    @property
    def charset(self) -> str | None:
        """The charset parameter of the content type; of several, the last one counts."""
        for value in reversed(self.headers.get("content-type", ())):
            if match := _CHARSET.search(value):
                return match.group(1)
        return None


def parse_response(message: bytes, max_bytes: int) -> Response:
    """Parse a stored HTTP response. Only the body of a success is decoded.

    Interim responses before it (``100 Continue``, a proxy's ``200 Connection established``) are
    passed over. A page without status line and headers is one of HTTP/0.9.

    Raises:
        Unreadable: ``bad_http`` or, decoded, over ``max_bytes``: ``too_long``.
    """
    status, headers, start = _head(message)
    body = message[start:]
    if not 200 <= status < 300:
        return Response(status, headers, body, truncated=False)
    encodings = _encodings(headers)
    types = _media_types(headers)
    is_page = not types or any("html" in kind for kind in types)
    content, truncated = decode_body(body, encodings, max_bytes, is_page)
    if not encodings and (lengths := headers.get("content-length")) and lengths[-1].isdecimal():
        truncated |= len(body) < int(lengths[-1])
    return Response(status, headers, content, truncated)


def _head(message: bytes) -> tuple[int, dict[str, list[str]], int]:
    """The status and headers of the last response in a message, and where its body starts."""
    found: tuple[int, dict[str, list[str]], int] | None = None
    start = 0
    while line := _STATUS.match(message, start, start + _MAX_HEAD):
        ends = _HEADERS_OF_OLD_MACS if line.group(2) == b"\r" else _HEADERS
        head = ends.match(message, line.end(), line.end() + _MAX_HEAD)
        if head is None:
            raise Unreadable("bad_http")
        start = head.end()
        found = int(line.group(1)), _headers(head.group(1)), start
    if found is None and _NO_HEAD.match(message):
        return 200, {}, 0
    if found is None:
        raise Unreadable("bad_http")
    return found


def _headers(lines: bytes) -> dict[str, list[str]]:
    """The values of each header; latin-1 leaves no byte undecodable."""
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


def _media_types(headers: Mapping[str, Sequence[str]]) -> list[str]:
    return [kind for kind in _listed(headers, "content-type") if kind]


def _listed(headers: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """The members of a header that is a list, in one line or several, without parameters."""
    members = ",".join(headers.get(name, ())).split(",")
    return [member.partition(";")[0].strip(" \t\"'").lower() for member in members]


def _encodings(headers: Mapping[str, Sequence[str]]) -> list[str]:
    """The encodings of the body, in the order they were applied."""
    transfer = _listed(headers, "transfer-encoding")
    # Bodies are chunked once: a second mention comes from a second server.
    chunked = ["chunked"] if "chunked" in transfer else []
    others = [token for token in transfer if token != "chunked"]
    encodings = _listed(headers, "content-encoding") + others + chunked
    return [token for token in encodings if token not in ("", "identity")]
