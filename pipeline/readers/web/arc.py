"""ARC files, the predecessor of WARC, and the framing of their records.

Follows the Internet Archive's "Arc File Format" (1996), versions 1 and 2. A record is a line
(URL, IP address, date, media type and, in version 2, four words more; last its length), as many
bytes, and a newline. The first one describes the file.
"""

import re
from collections.abc import Iterator

import pyarrow as pa

from pipeline.readers.contract import Reading
from pipeline.readers.inflate import Damage
from pipeline.readers.web.record_source import Framing
from pipeline.readers.web.warc import read_warc

MAGIC = b"filedesc://"

_MOST_BYTES = 1 << 12  # of a line
_LINE = (
    rb"([A-Za-z][A-Za-z0-9+.-]*:[^\r\n]{1,4000}) ([0-9A-Fa-f.:]{2,45}) (\d{8,14}) ([^ \r\n]+)"
    rb"(?: [^ \r\n]+ [^ \r\n]+ [^ \r\n]+ [^ \r\n]+ [^ \r\n]+)? (\d{1,18})[ \t]*\r?\n"
)
_HEADER = re.compile(_LINE)
_NEXT_RECORD = re.compile(rb"\n(?=" + _LINE + rb")")


def _headers(line: re.Match[bytes]) -> dict[str, str]:
    url, address, date, kind, length = (group.decode("utf-8", "replace") for group in line.groups())
    is_http = url.lower().startswith(("http:", "https:"))
    return {
        "warc-type": "warcinfo" if url.startswith(MAGIC.decode()) else "response",
        "warc-target-uri": url,
        "warc-ip-address": address,
        "warc-date": _iso(date),
        "content-type": "application/http; msgtype=response" if is_http else kind,
        "content-length": length,
    }


def _iso(date: str) -> str:
    """The date ``20010203040506`` in the form of WARC."""
    parts = [date[:4], *(date[i : i + 2] or "00" for i in range(4, 14, 2))]
    return "{}-{}-{}T{}:{}:{}Z".format(*parts)


def _may_follow(after: bytes) -> bool:
    return after[:1] in (b"", b"\r", b"\n")


ARC = Framing(
    _HEADER,
    _NEXT_RECORD,
    start_bytes=_MOST_BYTES,
    look_ahead=1,
    headers=_headers,
    may_follow=_may_follow,
)


def read_arc(pieces: Iterator[bytes | Damage], reading: Reading) -> Iterator[pa.RecordBatch]:
    """The documents of an ARC file: pages and plain text, as :func:`read_warc` reads them."""
    return read_warc(pieces, reading, ARC)
