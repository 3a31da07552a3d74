"""WARC and WET files: from a stream of bytes to records, and from records to documents.

Framing is our own: a header and a length are all there is to it, and FastWARC ends at the first
damage, hands out a record that is cut off as if it were whole, and lets a wrong length swallow the
next record (docs/log.md). Here each costs one record, which is reported with its place.

Written from the WARC 1.1 specification (ISO 28500:2017), more lenient where files are: lines may
end in a bare newline, and the empty lines between records may be missing.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.readers.columns import BATCH_BYTES
from pipeline.readers.contract import FieldMap, Quarantine, ReadReport, Reason, Unreadable
from pipeline.readers.html_text import EXTRACTORS, page_text
from pipeline.readers.inflate import Damage
from pipeline.schema import document_schema

_MAX_HEADER = 1 << 16
_MAX_ROWS = 1 << 12
_LOOK_AHEAD = 16  # the empty lines after a record, and how the next one starts
_HEADER = re.compile(rb"WARC/\d{1,2}\.\d{1,2}[ \t]*\r?\n(.*?\n|)\r?\n", re.DOTALL)
_NEXT_RECORD = re.compile(rb"\n(?=WARC/\d{1,2}\.\d{1,2}[ \t]*\r?\n)")
_EMPTY_LINES = re.compile(rb"[\r\n]*")
_RECORD_END = b"\r\n\r\n"
_START_BYTES = 32  # more than _NEXT_RECORD spans
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_HTTP = "application/http"
_OTHER_TYPES = ("warcinfo", "request", "metadata", "revisit", "resource", "continuation")


@dataclass(frozen=True)
class Record:
    """One WARC record. Header names are in lower case. ``offset`` is its place in the stream."""

    offset: int
    headers: Mapping[str, str]
    block: bytes


def read_warc(
    pieces: Iterator[bytes | Damage],
    fields: FieldMap,
    quarantine: Quarantine,
    max_document_bytes: int,
    html_extractor: str,
    report: ReadReport,
) -> Iterator[pa.RecordBatch]:
    """The documents of a WARC or WET file.

    ``conversion`` records are text as they are; ``response`` records that carry a successful HTML
    page become its text; all others are counted in ``report`` by kind. The id is WARC-Record-ID,
    the URL WARC-Target-URI, and ``fields.metadata`` names further record headers.

    Raises:
        ValueError: there is no such ``html_extractor``.
    """
    if html_extractor not in EXTRACTORS:
        raise ValueError(
            f"--html-extractor is one of {', '.join(EXTRACTORS)}, not {html_extractor!r}"
        )
    schema = document_schema(fields.metadata)
    headers = ["warc-record-id", "warc-target-uri", *(name.lower() for name in fields.metadata)]
    rows: list[tuple[str | None, ...]] = []
    size = 0
    for record in records(pieces, quarantine, max_document_bytes):
        try:
            text = _text(record, html_extractor, max_document_bytes, report)
        except Unreadable as error:
            quarantine.add(record.offset, "byte", error.reason, record.block)
            continue
        if text is None:
            continue
        identifier, url, *metadata = (record.headers.get(name) for name in headers)
        rows.append((identifier, url, text, *metadata))
        size += len(text)
        if size >= BATCH_BYTES or len(rows) == _MAX_ROWS:
            yield _batch(rows, schema)
            rows, size = [], 0
    if rows:
        yield _batch(rows, schema)


def _batch(rows: list[tuple[str | None, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _text(record: Record, extractor: str, max_bytes: int, report: ReadReport) -> str | None:
    """The text of a record; None, and counted, if it is no document.

    Raises:
        Unreadable: it should be one, but is damaged.
    """
    match record.headers.get("warc-type", "").lower():
        case "conversion":
            if not record.block:
                raise Unreadable("missing_text")
            try:
                return record.block.decode()
            except UnicodeDecodeError:
                raise Unreadable("invalid_utf8") from None
        case "response":
            if not record.headers.get("content-type", _HTTP).lower().startswith(_HTTP):
                report.skipped["not_http"] += 1  # crawlers also keep what DNS told them
                return None
            text, skipped = page_text(record.block, extractor, max_bytes)
            if skipped:
                report.skipped[skipped] += 1
            return text
        case kind:
            report.skipped[kind if kind in _OTHER_TYPES else "other"] += 1
            return None


def records(
    pieces: Iterator[bytes | Damage], quarantine: Quarantine, max_bytes: int
) -> Iterator[Record]:
    """Every record that can be read; the others, and what lies between records, are reported.

    A record's length is right if two empty lines, another record or the end follow its block. If it
    is not, or the header makes no sense, reading goes on at the next start of a record, be it
    within the block that the wrong length claims. Records over ``max_bytes`` are reported and
    passed over in the same way.
    """
    source = _Source(pieces)
    while True:
        if not source.at_data():
            if source.damage is None:
                return
            source.report(quarantine)
            continue
        match = source.header()
        if match is None:
            source.give_up(quarantine, "bad_warc")
            continue
        headers = _headers(match.group(1))
        length = headers.get("content-length", "")
        if not _LENGTH.fullmatch(length):
            source.give_up(quarantine, "bad_warc")
        elif int(length) > max_bytes:
            source.give_up(quarantine, "too_long")
        elif not source.holds(match.end(), match.end() + int(length)):
            source.give_up(quarantine, "bad_warc")
        else:
            end = match.end() + int(length)
            block = bytes(memoryview(source.data)[match.end() : end])
            record = Record(source.offset, headers, block)
            source.use(end)
            yield record


def _headers(lines: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    name = ""
    for line in lines.decode("utf-8", "replace").split("\n"):
        if line[:1] in (" ", "\t") and name:
            headers[name] = f"{headers[name]} {line.strip()}".strip()
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        headers[name] = value.strip()
    return headers


class _Source:
    """Decoded bytes up to the next damage: ``data`` is what was read and not used.

    After damage nothing is read until it is reported, so no record is glued together across it.
    """

    def __init__(self, pieces: Iterator[bytes | Damage]) -> None:
        self._pieces = pieces
        self.data = bytearray()
        self.offset = 0
        self.damage: Damage | None = None
        self._ended = False

    def fill(self, enough: int) -> bool:
        """Make ``enough`` bytes ready; False if damage or the end comes before."""
        while len(self.data) < enough:
            if self._ended or self.damage:
                return False
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            elif isinstance(piece, Damage):
                self.damage = piece
            else:
                self.data += piece
        return True

    def use(self, count: int) -> None:
        """Step over ``count`` bytes."""
        del self.data[:count]
        self.offset += count

    def at_data(self) -> bool:
        """Whether anything but empty lines is left before the next damage or the end."""
        while self.fill(1):
            self.use(_EMPTY_LINES.match(self.data).end())  # type: ignore[union-attr]
            if self.data:
                return True
        return False

    def header(self) -> re.Match[bytes] | None:
        """The header that ``data`` starts with."""
        size = 1 << 10
        while True:
            more = self.fill(size)
            # A copy, as a match would keep the bytearray from being changed.
            match = _HEADER.match(bytes(self.data[:size]))
            if match or not more or size >= _MAX_HEADER:
                return match
            size *= 4

    def holds(self, start: int, end: int) -> bool:
        """Whether a block at ``[start, end)`` is whole: read, not damaged, and rightly ended."""
        self.fill(end + _LOOK_AHEAD)
        if len(self.data) < end:
            return False
        if self.damage and self.damage.produced > len(self.data) - end:
            return False
        after = bytes(self.data[end : end + _LOOK_AHEAD])
        rest = after.lstrip(b"\r\n")
        if not rest and self.damage and self.damage.produced > len(self.data) - end:
            return False  # the last record before the damage, as where a checksum is wrong
        return after.startswith(_RECORD_END) or b"WARC/".startswith(rest[:5])

    def give_up(self, quarantine: Quarantine, reason: Reason) -> None:
        """Report the record that ``data`` starts with, and go on at the next start of one.

        If damage comes first, it is the reason, and the record needs no report of its own.
        """
        at, content = self.offset, bytes(self.data[:_MAX_HEADER])
        while True:
            match = _NEXT_RECORD.search(self.data)
            place = match.end() if match else 0
            del match  # it would keep the bytearray from being changed
            if place:
                self.use(place)
                break
            self.use(max(len(self.data) - _START_BYTES, 0))
            if not self.fill(len(self.data) + 1):
                self.use(len(self.data))
                if self.damage:
                    self.report(quarantine, content)
                    return
                break
        quarantine.add(at, "byte", reason, content)

    def report(self, quarantine: Quarantine, content: bytes = b"") -> None:
        """Report the damage that stopped reading, and read on after it."""
        assert self.damage is not None
        quarantine.add(self.damage.offset, "compressed byte", self.damage.reason, content)
        self.damage = None
