"""WARC, WET and ARC files: byte stream to records, records to documents.

We frame records ourselves: FastWARC stops at the first damage, returns truncated records as
complete, and lets a wrong length swallow the next record (docs/log.md).

Follows WARC 1.1 (ISO 28500:2017), but accepts bare newlines and missing empty lines between
records, as in real files, and the Internet Archive's "Arc File Format" (1996), versions 1 and 2.
Runs of plain text records, nearly all of a WET file, go through a compiled kernel.
"""

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.readers.columnar.columns import BATCH_BYTES
from pipeline.readers.contract import Reading, ReadOptions, ReadReport, Unreadable, document_schema
from pipeline.readers.inflate import Damage
from pipeline.readers.web import warc_kernel
from pipeline.readers.web.html_text import check_extractor, page_text
from pipeline.readers.web.http_response import Response, parse_response
from pipeline.readers.web.record_source import Framing, Record, RecordSource
from winnow.text.buffers import Octets

_MAX_ROWS = 1 << 12
_PLAIN_HEAD = 1 << 10  # bytes of a record that contain its type, as crawlers write it
ARC_MAGIC = b"filedesc://"
_ARC_LINE = (
    rb"([A-Za-z][A-Za-z0-9+.-]*:[^\r\n]{1,4000}) ([0-9A-Fa-f.:]{2,45}) (\d{8,14}) ([^ \r\n]+)"
    rb"(?: [^ \r\n]+ [^ \r\n]+ [^ \r\n]+ [^ \r\n]+ [^ \r\n]+)? (\d{1,18})[ \t]*\r?\n"
)
"""URL, IP address, date, media type, five more words in version 2, and the length."""
_HTTP = "application/http"
TRUNCATED = "warc-truncated"  # the header, in lower case, that marks a truncated record
_OTHER_TYPES = ("warcinfo", "request", "metadata", "revisit", "continuation")


def _headers(header: re.Match[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    name = ""
    for line in header.group(1).decode("utf-8", "replace").split("\n"):
        if line[:1] in (" ", "\t") and name:
            headers[name] = f"{headers[name]} {line.strip()}".strip()
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        headers[name] = value.strip()
    return headers


WARC = Framing(
    re.compile(rb"WARC/\d{1,2}\.\d{1,2}[ \t]*\r?\n(.*?\n|)\r?\n", re.DOTALL),
    re.compile(rb"\n(?=WARC/\d{1,2}\.\d{1,2}[ \t]*\r?\n)"),
    start_bytes=32,
    look_ahead=16,
    headers=_headers,
    may_follow=lambda after: (
        after.startswith(b"\r\n\r\n") or b"WARC/".startswith(after.lstrip(b"\r\n")[:5])
    ),
)


def _arc_headers(line: re.Match[bytes]) -> dict[str, str]:
    url, address, date, kind, length = (group.decode("utf-8", "replace") for group in line.groups())
    times = (date[i : i + 2] or "00" for i in range(4, 14, 2))
    is_http = url.lower().startswith(("http:", "https:"))
    return {
        "warc-type": "warcinfo" if url.startswith(ARC_MAGIC.decode()) else "response",
        "warc-target-uri": url,
        "warc-ip-address": address,
        "warc-date": "{}-{}-{}T{}:{}:{}Z".format(date[:4], *times),
        "content-type": "application/http; msgtype=response" if is_http else kind,
        "content-length": length,
    }


ARC = Framing(
    re.compile(_ARC_LINE),
    re.compile(rb"\n(?=" + _ARC_LINE + rb")"),
    start_bytes=1 << 12,
    look_ahead=1,
    headers=_arc_headers,
    may_follow=lambda after: after in (b"", b"\r", b"\n"),
)


def read_arc(pieces: Iterator[bytes | Damage], reading: Reading) -> Iterator[pa.RecordBatch]:
    """The documents of an ARC file: see :func:`read_warc`."""
    return read_warc(pieces, reading, ARC)


def read_warc(
    pieces: Iterator[bytes | Damage], reading: Reading, framing: Framing = WARC
) -> Iterator[pa.RecordBatch]:
    """The documents of a WARC or WET file, or of an ARC file by its ``framing``.

    These are ``conversion`` records, and the text of ``resource`` and successful ``response``
    records. Others are counted in ``report`` by kind. The id is WARC-Record-ID, the URL
    WARC-Target-URI, and ``fields.metadata`` names further record headers; WARC-Truncated is
    ``unspecified`` where a body was cut short and the record does not say why. An unknown HTML
    extractor raises ValueError.
    """
    fields, options, report = reading.fields, reading.options, reading.report
    check_extractor(options.html_extractor)
    schema = document_schema(fields.metadata)
    headers = ["warc-record-id", "warc-target-uri", *(name.lower() for name in fields.metadata)]
    source = RecordSource(pieces, framing, reading.quarantine, options.max_document_bytes)
    plain = _PlainRecords(headers, schema, options.max_document_bytes, report)
    rows: list[tuple[str | None, ...]] = []
    size = 0
    while source.at_record():
        batch = plain.read(source)
        if rows and (batch or size >= BATCH_BYTES or len(rows) == _MAX_ROWS):
            yield _batch(rows, schema)
            rows, size = [], 0
        if batch:
            yield batch
            continue
        record = source.next_record()
        if record is None:
            continue
        try:
            text, truncated = _text(record, options, report)
        except Unreadable as error:
            reading.quarantine.add(record.offset, "byte", error.reason, record.block)
            continue
        if text is None:
            continue
        report.truncated += truncated is not None
        identifier, url, *metadata = (
            truncated if name == TRUNCATED else record.headers.get(name) for name in headers
        )
        rows.append((identifier, url, text, *metadata))
        size += len(text)
    if rows:
        yield _batch(rows, schema)


def _batch(rows: list[tuple[str | None, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _text(
    record: Record, options: ReadOptions, report: ReadReport
) -> tuple[str | None, str | None]:
    """The text of a record, None (and counted) if it has none; and why it was truncated."""
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
                report.skipped["not_http"] += 1  # crawlers also store DNS lookups
                return None, None
            response = parse_response(record.block, options.max_document_bytes)
        case "resource":
            kind = record.headers.get("content-type", "")
            response = Response(200, {"content-type": [kind]}, record.block, truncated=False)
        case kind:
            report.skipped[kind if kind in _OTHER_TYPES else "other"] += 1
            return None, None
    text, kind = page_text(response, options.html_extractor, options.plain_text)
    (report.skipped if text is None else report.kinds)[kind] += 1
    if truncated is None and response.truncated:
        truncated = "unspecified"  # the standard's word
    return text, truncated


class _PlainRecords:
    """Reads runs of plain text records; batches reuse its buffer."""

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
        # Compile the kernels now: numba then keeps the arguments for a while, which would lock the
        # bytearray of a source.
        nothing = np.empty(0, np.uint8)
        self._find(nothing)
        self._batch(nothing, 0)

    def read(self, source: RecordSource) -> pa.RecordBatch | None:
        """The next plain records, about one batch; None if the next record is not plain."""
        source.read_ahead(_PLAIN_HEAD)
        if b"conversion" not in source.data[:_PLAIN_HEAD]:
            return None  # among pages, the batch would be buffered again and again
        source.read_ahead(BATCH_BYTES)
        if source.damage:
            return None
        data = np.frombuffer(source.data, np.uint8)
        end, rows = self._find(data)
        batch = None
        if rows:
            batch = self._batch(data, rows)
            self._report.kinds["conversion"] += rows
        del data  # it would lock the bytearray
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
