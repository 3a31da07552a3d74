"""Recognise formats by content, split files into ranges, and read each range by its format."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

import pyarrow as pa
import xxhash

from pipeline.readers.columnar import arrow_files, parquet
from pipeline.readers.columnar.csv_table import read_csv
from pipeline.readers.columnar.parquet_footer import ENCRYPTED
from pipeline.readers.contract import (
    Digest,
    FieldMap,
    Format,
    InputRange,
    OnQuarantine,
    OpenInput,
    Quarantine,
    Reading,
    ReadOptions,
    ReadReport,
    StreamFormat,
    TableFormat,
    open_local,
    refuse,
)
from pipeline.readers.decoders import Compression, compression_of
from pipeline.readers.inflate import Damage, inflate
from pipeline.readers.json_values import value_lines
from pipeline.readers.jsonl import after_first_newline, range_pieces, read_jsonl
from pipeline.readers.text_files import read_text
from pipeline.readers.user_formats import user_format
from pipeline.readers.web.html_text import read_page
from pipeline.readers.web.warc import ARC_MAGIC, read_arc, read_warc
from winnow.defaults import SPLIT_BYTES

Batches = Iterator[pa.RecordBatch]

_READ_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_AS_USUAL = ReadOptions()
_ENOUGH = 1 << 10  # decompressed bytes that identify a file
_LANGUAGE_FIELDS = ("language", "lang")


def _whole(
    read: Callable[[Iterator[bytes | Damage], Reading], Batches],
) -> Callable[[Iterator[bytes | Damage], int, Reading], Batches]:
    """A reader of files that are never split, so every stream starts at 0."""
    return lambda pieces, offset, reading: read(pieces, reading)


_ARROW = TableFormat(
    "arrow",
    (b"ARROW1\0\0", arrow_files.FEATHER_V1),
    arrow_files.read_arrow,
    arrow_files.batch_sizes,
    arrow_files.regions,
    arrow_files.column_names,
    ("arrow", "feather"),
)

_PAGE = StreamFormat("html", None, _whole(read_page), ("html", "htm", "xhtml"), own_places=True)

FORMATS: list[Format] = [
    TableFormat(
        "parquet",
        (b"PAR1", ENCRYPTED),
        parquet.read_parquet,
        parquet.group_sizes,
        parquet.regions,
        parquet.column_names,
        ("parquet",),
    ),
    _ARROW,
    replace(_ARROW, name="arrow stream", magic=(b"\xff\xff\xff\xff",), endings=()),
    # Arrays of objects (other arrays may be a line of JSON lines), and objects of several lines.
    StreamFormat(
        "json",
        rb"\[\s*[{\]]|\{(?:[^\n]*[,{\[])?[ \t\r]*\n\s*\"",
        lambda pieces, at, to: read_jsonl(value_lines(pieces, to.quarantine), at, to),
    ),
    StreamFormat("jsonl", rb"\{\s*[\"}]", read_jsonl, ("json", "jsonl", "ndjson"), lines=True),
    StreamFormat("warc", rb"WARC/", _whole(read_warc), ("warc", "wet"), own_places=True),
    StreamFormat("arc", re.escape(ARC_MAGIC), _whole(read_arc), ("arc",), own_places=True),
    StreamFormat("csv", None, _whole(read_csv), ("csv", "tsv")),
    StreamFormat("text", None, _whole(read_text), ("txt", "text"), own_places=True),
    _PAGE,
]
"""All formats, in the order in which they are tried."""

_UTF_16 = rb"\xff\xfe|\xfe\xff|[{\[]\0[\"\s{]\0"
_HTML = rb"(?i)\s*<(?:!doctype|html|\?xml)"
_FOREIGN: dict[bytes, str] = {
    rb"PK\x03\x04": "zip: unpack it",
    rb"7z\xbc\xaf\x27\x1c": "7-Zip: unpack it",
    rb"(?s:.{257})ustar": "tar: unpack it",
    rb"ORC(?![ -~])": "ORC: convert it to Parquet",
    rb"Obj\x01": "Avro: convert it to Parquet",
    rb"SQLite format 3\0": "SQLite: export its table to JSON lines",
    rb"\x89HDF\r\n": "HDF5: convert it to Parquet",
    rb"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
    rb"\x02\x21\x4c\x18": "lz4's legacy format: unpack it with lz4 -d",
    rb"\x5d\0\0[\0-\x80]": "lzma, the predecessor of xz: unpack it with xz -d",
    rb"\x1f\x9d": "from compress: unpack it with gzip -d",
    _HTML: "HTML or XML, perhaps a failed download: fetch it again, or name it .html if it is a"
    " document",
    _UTF_16: "UTF-16: convert it to UTF-8",
}
"""First bytes of unsupported formats, and what to do about each."""

_PACKED: dict[str, Compression] = {
    "gz": "gzip",
    "zst": "zstd",
    "zstd": "zstd",
    "bz2": "bzip2",
    "xz": "xz",
    "lz4": "lz4",
}


@dataclass(frozen=True)
class _File:
    format: Format | None  # None for an empty file
    compression: Compression
    size: int

    @property
    def cut_by_lines(self) -> bool:
        lines = isinstance(self.format, StreamFormat) and self.format.lines
        return lines and self.compression == "none"


def plan_ranges(
    path: str,
    open_input: OpenInput = open_local,
    split_bytes: int = SPLIT_BYTES,
    fields: FieldMap | None = None,
    options: ReadOptions = _AS_USUAL,
) -> list[InputRange]:
    """Split a file into ranges of about ``split_bytes``, if its format allows it.

    Plain JSONL is split by bytes, Parquet by row groups, Arrow by record batches; the rest is one
    range per file: compressed files, JSON arrays, WARC, Arrow streams.

    Raises:
        ValueError: the format is unknown, or a Parquet or Arrow file lacks the text column.
        OSError: the file cannot be read.
    """
    with open_input(path) as stream:
        found = _recognise(stream, path, open_input, options)
        cuts = []
        stored: Sequence[int] = range(found.size + 1)  # bytes before each place to split at
        if found.cut_by_lines:
            count = -(-found.size // split_bytes)
            cuts = [found.size * i // count for i in range(count + 1)]
        elif isinstance(found.format, TableFormat):
            sizes = found.format.part_sizes(stream, path, fields)
            stored = [0, *itertools.accumulate(sizes)]
            cuts = _cuts(sizes, split_bytes)
    if len(cuts) <= 2:
        return [InputRange(path, 0, None, found.size)]
    return [
        InputRange(path, start, end, stored[end] - stored[start])
        for start, end in itertools.pairwise(cuts)
    ]


def format_of(
    path: str, open_input: OpenInput = open_local, options: ReadOptions = _AS_USUAL
) -> Format | None:
    """The format of a file, None if empty; ValueError if unknown, OSError if unreadable."""
    with open_input(path) as stream:
        return _recognise(stream, path, open_input, options).format


def language_field(
    path: str, fields: FieldMap, open_input: OpenInput, options: ReadOptions = _AS_USUAL
) -> str | None:
    """The field with the language of a file's first documents, or None. WARC has no fields."""
    found = format_of(path, open_input, options)
    if isinstance(found, StreamFormat) and found.own_places:
        return None
    batches = read_batches(
        InputRange(path, 0, None, 0),
        replace(fields, metadata=_LANGUAGE_FIELDS, language=None),
        options,
        on_quarantine=lambda record: None,
        open_input=open_input,
    )
    for first in batches:
        return next((n for n in _LANGUAGE_FIELDS if first[n].null_count < len(first)), None)
    return None


def _cuts(sizes: list[int], split_bytes: int) -> list[int]:
    """Where to split a list so that each part adds up to at least ``split_bytes``."""
    cuts = [0]
    gathered = 0
    for i, size in enumerate(sizes):
        if gathered >= split_bytes:
            cuts.append(i)
            gathered = 0
        gathered += size
    return [*cuts, len(sizes)]


def read_batches(
    piece: InputRange,
    fields: FieldMap,
    options: ReadOptions = _AS_USUAL,
    *,
    on_quarantine: OnQuarantine = refuse,
    open_input: OpenInput = open_local,
    digest: Digest | None = None,
    report: ReadReport | None = None,
) -> Iterator[pa.RecordBatch]:
    """The documents of a range, in batches of a few megabytes (``document_schema``).

    Every record is yielded, passed to ``on_quarantine`` or counted as skipped in ``report``,
    exactly once. In the end ``digest`` has hashed the same bytes as :func:`digest_range`.

    Raises:
        ValueError: the format, the text column or the HTML extractor is unknown.
        OSError: the file cannot be read.
    """
    quarantine = Quarantine(piece.path, on_quarantine)
    digest = digest or xxhash.xxh3_128()
    reading = Reading(fields, quarantine, options, report or ReadReport())
    with open_input(piece.path) as stream:
        found = _recognise(stream, piece.path, open_input, options)
        if isinstance(found.format, StreamFormat) and not found.cut_by_lines:
            raw = cast(BinaryIO, _Fed(stream, digest))
            pieces = inflate(raw, found.compression, piece.path, open_input)
            yield from found.format.read(pieces, 0, reading)
            return
        stored = _fed(_stored(stream, found, piece), digest)
        if isinstance(found.format, StreamFormat):
            offset = max(piece.start - 1, 0)
            if piece.start:
                stored, offset = after_first_newline(stored, offset)
            yield from found.format.read(stored, offset, reading)
            return
        for _ in stored:
            pass
        if found.format is None:
            quarantine.add(0, "byte", "empty_file")
        else:
            yield from found.format.read(stream, piece, reading)


def digest_range(
    piece: InputRange,
    open_input: OpenInput = open_local,
    digest: Digest | None = None,
    options: ReadOptions = _AS_USUAL,
) -> str:
    """The hex xxh3-128 of the stored bytes that determine the content of a range.

    These are all bytes of a whole file, those of ``jsonl.range_pieces`` for lines, and for row
    groups and record batches their own bytes and the footer. Errors are those of ``format_of``.
    """
    digest = digest or xxhash.xxh3_128()
    with open_input(piece.path) as stream:
        found = _recognise(stream, piece.path, open_input, options)
        for _ in _fed(_stored(stream, found, piece), digest):
            pass
    return digest.hexdigest()


def _stored(stream: BinaryIO, found: _File, piece: InputRange) -> Iterator[bytes]:
    if found.cut_by_lines:
        yield from range_pieces(stream, piece.start, piece.end)
        return
    regions = [(0, found.size)]
    if piece.end is not None and isinstance(found.format, TableFormat):
        regions = found.format.regions(stream, piece.start, piece.end)
    for start, end in regions:
        stream.seek(start)
        while start < end and (data := stream.read(min(_READ_BYTES, end - start))):
            start += len(data)
            yield data


def _fed(pieces: Iterator[bytes], digest: Digest) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


class _Fed:
    """A stream that hashes its bytes as they are read."""

    def __init__(self, stream: BinaryIO, digest: Digest) -> None:
        self._stream = stream
        self._digest = digest

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        return data


def _recognise(stream: BinaryIO, path: str, open_input: OpenInput, options: ReadOptions) -> _File:
    """Recognise a file by its first bytes, or by its name if these are damaged or ambiguous.

    User-defined formats come first. Leaves the stream at its start.
    """
    formats = [*map(user_format, options.reader), *FORMATS]
    size = stream.seek(0, 2)
    stream.seek(0)
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    compression = compression_of(head)
    damaged = False
    if compression != "none":
        head = b""
        for piece in inflate(stream, compression, path, open_input):
            if isinstance(piece, Damage):
                damaged = True
            else:
                head += piece
                if len(head) >= _ENOUGH:
                    break
        stream.seek(0)
    for known in formats:
        if isinstance(known, TableFormat) and head.startswith(known.magic):
            if compression != "none":
                raise ValueError(
                    f"{path} is {known.name} within {compression}, so it cannot be read in parts:"
                    f" unpack it; {known.name} files compress their own data"
                )
            return _File(known, compression, size)
    if not head and not damaged:
        return _File(None, compression, size)
    if compression != "none" and (inner := compression_of(head)) != "none":
        raise ValueError(f"{path} is {inner} within {compression}: unpack it once")
    stem, _, packed = path.lower().rpartition(".")
    ending = stem.rpartition(".")[2] if packed in _PACKED else packed
    for start, advice in _FOREIGN.items():
        if re.match(start, head):
            if start in (_HTML, _UTF_16) and ending in _PAGE.endings:
                return _File(_PAGE, compression, size)
            raise ValueError(f"{path} is {advice}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for known in formats:
        if isinstance(known, StreamFormat) and known.starts and re.match(known.starts, text):
            return _File(known, compression, size)
    compression = _PACKED.get(packed, compression)  # only its first bytes may be damaged
    for known in formats:
        if ending in known.endings and (compression == "none" or isinstance(known, StreamFormat)):
            return _File(known, compression, size)
    raise ValueError(
        f"{path}: unknown format (it starts with {head[:16]!r}): known are WET, WARC, ARC, JSON "
        "lines and JSON arrays (plain or compressed), Parquet and Arrow; by their names also .csv, "
        ".tsv, .txt, .html, and .jsonl if it does not start with an object"
    )
