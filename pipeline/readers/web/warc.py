"""WARC and WET files: from a stream of bytes to records, and from records to documents.

Framing is our own: a header and a length are all there is to it, and FastWARC ends at the first
damage, hands out a record that is cut off as if it were whole, and lets a wrong length swallow the
next record (docs/log.md). Here each costs one record, which is reported with its place.

Written from the WARC 1.1 specification (ISO 28500:2017), more lenient where files are: lines may
end in a bare newline, and the empty lines between records may be missing. Runs of plain text
records, which is nearly all of a WET file, go through a compiled kernel.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.readers.columnar.columns import BATCH_BYTES
from pipeline.readers.contract import FieldMap, Quarantine, ReadReport, Reason, Unreadable
from pipeline.readers.documents import document_schema
from pipeline.readers.inflate import Damage
from pipeline.readers.web import warc_kernel
from pipeline.readers.web.html_text import check_extractor, page_text
from pipeline.readers.web.http_response import Response, parse_response
from winnow.defaults import PLAIN_TEXT
from winnow.text.buffers import Octets

_MAX_ROWS = 1 << 12
_LOOK_AHEAD = 16  # the empty lines after a record, and how the next one starts
_HEADER = re.compile(rb"WARC/\d{1,2}\.\d{1,2}[ \t]*\r?\n(.*?\n|)\r?\n", re.DOTALL)
_NEXT_RECORD = re.compile(rb"\n(?=WARC/\d{1,2}\.\d{1,2}[ \t]*\r?\n)")
_EMPTY_LINES = re.compile(rb"[\r\n]*")
_RECORD_END = b"\r\n\r\n"
_START_BYTES = 32  # more than _NEXT_RECORD spans
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_HTTP = "application/http"
TRUNCATED = "warc-truncated"
"""The header, in lower case, of a record that lacks its end."""
_OTHER_TYPES = ("warcinfo", "request", "metadata", "revisit", "continuation")


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
    plain_text: bool = PLAIN_TEXT,
) -> Iterator[pa.RecordBatch]:
    """The documents of a WARC or WET file.

    ``conversion`` records are text as they are; ``response`` records of success, and ``resource``
    records, become the text of their page or plain text; all others are counted in ``report`` by
    kind. The id is WARC-Record-ID,
    the URL WARC-Target-URI, and ``fields.metadata`` names further record headers. Among these
    WARC-Truncated is ``unspecified`` where the record does not say that its body was cut short.

    Raises:
        ValueError: there is no such ``html_extractor``.
    """
    check_extractor(html_extractor)
    how = _Reading(html_extractor, plain_text, max_document_bytes)
    schema = document_schema(fields.metadata)
    headers = ["warc-record-id", "warc-target-uri", *(name.lower() for name in fields.metadata)]
    source = _Source(pieces)
    plain = _PlainRecords(headers, schema, max_document_bytes, report)
    rows: list[tuple[str | None, ...]] = []
    size = 0
    while source.at_record(quarantine):
        batch = plain.read(source)
        if batch:
            if rows:
                yield _batch(rows, schema)
                rows, size = [], 0
            yield batch
            continue
        record = _next_record(source, quarantine, max_document_bytes)
        if record is None:
            continue
        try:
            text, truncated = _text(record, how, report)
        except Unreadable as error:
            quarantine.add(record.offset, "byte", error.reason, record.block)
            continue
        if text is None:
            continue
        report.truncated += truncated is not None
        identifier, url, *metadata = (
            truncated if name == TRUNCATED else record.headers.get(name) for name in headers
        )
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


@dataclass(frozen=True)
class _Reading:
    """How the text is taken from a record."""

    extractor: str
    plain_text: bool
    max_bytes: int


def _text(record: Record, how: _Reading, report: ReadReport) -> tuple[str | None, str | None]:
    """The text of a record, None (and counted) if it is no document; and why it was cut short.

    Raises:
        Unreadable: it should be a document, but is damaged.
    """
    truncated = record.headers.get(TRUNCATED)
    match record.headers.get("warc-type", "").lower():
        case "conversion":
            if not record.block:
                raise Unreadable("missing_text")
            try:
                converted = record.block.decode()
            except UnicodeDecodeError:
                raise Unreadable("invalid_utf8") from None
            report.kinds["conversion"] += 1
            return converted, truncated
        case "response":
            if not record.headers.get("content-type", _HTTP).lower().startswith(_HTTP):
                report.skipped["not_http"] += 1  # crawlers also keep what DNS told them
                return None, None
            response = parse_response(record.block, how.max_bytes)
        case "resource":
            kind = record.headers.get("content-type", "")
            response = Response(200, {"content-type": [kind]}, record.block, truncated=False)
        case kind:
            report.skipped[kind if kind in _OTHER_TYPES else "other"] += 1
            return None, None
    text, kind = page_text(response, how.extractor, how.plain_text)
    (report.skipped if text is None else report.kinds)[kind] += 1
    if truncated is None and response.truncated:
        truncated = "unspecified"  # the standard's word
    return text, truncated


class _PlainRecords:
    """Reads runs of plain text records; its buffer is used again for every batch."""

    def __init__(
        self, headers: list[str], schema: pa.Schema, max_bytes: int, report: ReadReport
    ) -> None:
        self._schema = schema
        self._max_bytes = max_bytes
        self._report = report
        # A header may serve several columns, so their order is the schema's: text comes third.
        encoded = [name.encode() for name in (*headers, TRUNCATED)]
        self._names = np.frombuffer(b"".join(encoded), np.uint8)
        self._name_ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._spans = np.empty((len(encoded) + 1, _MAX_ROWS, 2), np.int64)
        # Compiles the kernels. On that occasion numba holds on to the arguments for a while, and a
        # bytearray that somebody holds cannot be changed.
        nothing = np.empty(0, np.uint8)
        self._find(nothing)
        self._batch(nothing, 0)

    def read(self, source: "_Source") -> pa.RecordBatch | None:
        """The plain records that come next, about a batch of them; None if the next one is not."""
        source.read_ahead(BATCH_BYTES)
        if source.damage:
            return None
        data = np.frombuffer(source.data, np.uint8)
        end, rows = self._find(data)
        batch = None
        if rows:
            batch = self._batch(data, rows)
            self._report.kinds["conversion"] += rows
        del data  # it would keep the bytearray from being changed
        source.use(end)
        return batch

    def _find(self, data: Octets) -> tuple[int, int]:
        return warc_kernel.plain_records(
            data, self._names, self._name_ends, self._max_bytes, self._spans
        )

    def _batch(self, data: Octets, rows: int) -> pa.RecordBatch:
        identifier, url, *metadata, truncated, text = self._spans[:, :rows]
        self._report.truncated += int(np.count_nonzero(truncated[:, 0] != warc_kernel.ABSENT))
        columns = [
            _column(data, spans, field.type)
            for spans, field in zip([identifier, url, text, *metadata], self._schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _column(data: Octets, spans: npt.NDArray[np.int64], kind: pa.DataType) -> pa.Array:
    offsets, values = warc_kernel.gather(data, spans)
    width = np.int64 if pa.types.is_large_string(kind) else np.int32
    present = np.packbits(spans[:, 0] != warc_kernel.ABSENT, bitorder="little")
    buffers = [pa.py_buffer(buffer) for buffer in (present, offsets.astype(width), values)]
    return pa.Array.from_buffers(kind, len(spans), buffers)


def _next_record(source: "_Source", quarantine: Quarantine, max_bytes: int) -> Record | None:
    """The record that comes next; None if it had to be reported.

    A record's length is right if two empty lines, another record or the end follow its block. If it
    is not, or the header makes no sense, reading goes on at the next start of a record, be it
    within the block that the wrong length claims. Records over ``max_bytes`` are reported and
    passed over in the same way.
    """
    match = source.header()
    if match is None:
        source.give_up(quarantine, "bad_warc")
        return None
    headers = _headers(match.group(1))
    length = headers.get("content-length", "")
    if not _LENGTH.fullmatch(length):
        source.give_up(quarantine, "bad_warc")
        return None
    if int(length) > max_bytes:
        source.give_up(quarantine, "too_long")
        return None
    end = match.end() + int(length)
    if not source.holds(match.end(), end):
        source.give_up(quarantine, "bad_warc")
        return None
    block = bytes(memoryview(source.data)[match.end() : end])
    record = Record(source.offset, headers, block)
    source.use(end)
    return record


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
        self._ahead: Damage | None = None
        self._ended = False

    def fill(self, enough: int) -> bool:
        """Make ``enough`` bytes ready; False if damage or the end comes before."""
        self.read_ahead(enough)
        if len(self.data) < enough and self._ahead:
            self.damage, self._ahead = self._ahead, None
        return len(self.data) >= enough

    def read_ahead(self, enough: int) -> None:
        """Make ``enough`` bytes ready, or what there is before damage, which stays unnoticed."""
        while len(self.data) < enough and not (self._ended or self.damage or self._ahead):
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            elif isinstance(piece, Damage):
                self._ahead = piece
            else:
                self.data += piece

    def use(self, count: int) -> None:
        """Step over ``count`` bytes."""
        del self.data[:count]
        self.offset += count

    def at_record(self, quarantine: Quarantine) -> bool:
        """Whether anything but empty lines is left; reports the damage before it."""
        while True:
            while self.fill(1):
                self.use(_EMPTY_LINES.match(self.data).end())  # type: ignore[union-attr]
                if self.data:
                    return True
            if self.damage is None:
                return False
            self.report(quarantine)

    def header(self) -> re.Match[bytes] | None:
        """The header that ``data`` starts with."""
        size = 1 << 10
        while True:
            more = self.fill(size)
            # A copy, as a match would keep the bytearray from being changed.
            match = _HEADER.match(bytes(self.data[:size]))
            if match or not more or size >= warc_kernel.MAX_HEADER:
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
        at, content = self.offset, bytes(self.data[: warc_kernel.MAX_HEADER])
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
