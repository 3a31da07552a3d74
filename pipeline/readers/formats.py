"""Tells formats apart by content, cuts files into ranges, and hands each range to its reader."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

import pyarrow as pa
import xxhash

from pipeline.readers.columnar import arrow_files, parquet
from pipeline.readers.columnar.parquet_footer import ENCRYPTED
from pipeline.readers.contract import (
    Digest,
    FieldMap,
    InputRange,
    OnQuarantine,
    OpenInput,
    Quarantine,
    ReadReport,
    open_local,
    refuse,
)
from pipeline.readers.inflate import Compression, Damage, compression_of, inflate
from pipeline.readers.json_array import array_lines
from pipeline.readers.jsonl import after_first_newline, range_pieces, read_jsonl
from pipeline.readers.web.warc import read_warc
from winnow.defaults import HTML_EXTRACTOR, MAX_DOCUMENT_BYTES, PLAIN_TEXT, SPLIT_BYTES

Kind = Literal["empty", "jsonl", "json array", "warc", "parquet", "arrow", "arrow stream"]

_READ_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_ENOUGH = 1 << 10  # to know what a file is
_COLUMNAR: dict[bytes, Kind] = {
    b"PAR1": "parquet",
    ENCRYPTED: "parquet",
    b"ARROW1\0\0": "arrow",
    arrow_files.FEATHER_V1: "arrow",
    b"\xff\xff\xff\xff": "arrow stream",
}
_LINES: dict[bytes, Kind] = {b"{": "jsonl", b"WARC/": "warc"}
_ARRAY = re.compile(rb"\[\s*[{\]]")  # of objects; a line may be another array
_FOREIGN: dict[bytes, str] = {
    rb"BZh[1-9]": "bzip2: unpack it, or pack it with gzip or zstd",
    rb"\xfd7zXZ\0": "xz: unpack it, or pack it with gzip or zstd",
    rb"\x04\x22\x4d\x18": "lz4: unpack it, or pack it with gzip or zstd",
    rb"PK\x03\x04": "zip: unpack it",
    rb"7z\xbc\xaf\x27\x1c": "7-Zip: unpack it",
    rb"(?s:.{257})ustar": "tar: unpack it",
    rb"ORC": "ORC: convert it to Parquet",
    rb"Obj\x01": "Avro: convert it to Parquet",
    rb"SQLite format 3\0": "SQLite: export its table to JSON lines",
    rb"\x89HDF\r\n": "HDF5: convert it to Parquet",
    rb"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
    rb"(?i)\s*<(?:!doctype|html|\?xml)": "HTML or XML, maybe of a failed download: fetch it again",
    rb"(?:\xff\xfe)?[{\[]\0[\"\s{]\0|\xfe\xff\0[{\[]\0": "UTF-16: convert it to UTF-8",
}
"""How files start that we do not read, and what to do with them."""

_NAMES: dict[str, Kind] = {
    "json": "jsonl",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "parquet": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "warc": "warc",
    "wet": "warc",
}
_PACKED: dict[str, Compression] = {"gz": "gzip", "zst": "zstd", "zstd": "zstd"}


@dataclass(frozen=True)
class _Format:
    kind: Kind
    compression: Compression
    size: int


def plan_ranges(
    path: str,
    open_input: OpenInput = open_local,
    split_bytes: int = SPLIT_BYTES,
    fields: FieldMap | None = None,
) -> list[InputRange]:
    """Cut a file into ranges of about ``split_bytes``, if its format lets it be cut.

    Plain JSONL is cut by bytes, Parquet by row groups, an Arrow file by record batches. What is
    compressed as a whole, JSON arrays, WARC and Arrow streams are one range.

    Raises:
        ValueError: the format is unknown, or a Parquet or Arrow file lacks the text column that
            ``fields`` names.
        OSError: the file cannot be read.
    """
    with open_input(path) as stream:
        found = _recognise(stream, path, open_input)
        match found.kind:
            case "jsonl" if found.compression == "none":
                count = -(-found.size // split_bytes)
                cuts = [found.size * i // count for i in range(count + 1)]
                sizes = None
            case "parquet":
                sizes = parquet.group_sizes(stream, path, fields)
            case "arrow" | "arrow stream":
                sizes = arrow_files.batch_sizes(stream, path, fields)
            case _:
                sizes = []
    if sizes is not None:
        cuts = _cuts(sizes, split_bytes)
    if len(cuts) <= 2:
        return [InputRange(path, 0, None, found.size)]
    return [
        InputRange(path, start, end, end - start if sizes is None else sum(sizes[start:end]))
        for start, end in itertools.pairwise(cuts)
    ]


def kind_of(path: str, open_input: OpenInput = open_local) -> Kind:
    """What a file is.

    Raises:
        ValueError: neither its content nor its name says that.
        OSError: the file cannot be read.
    """
    with open_input(path) as stream:
        return _recognise(stream, path, open_input).kind


def column_names(path: str, open_input: OpenInput = open_local) -> list[str] | None:
    """The columns of a Parquet or Arrow file, and the fields of structs; None if it is damaged.

    Raises:
        OSError: the file cannot be read.
    """
    with open_input(path) as stream:
        found = _recognise(stream, path, open_input)
        module = parquet if found.kind == "parquet" else arrow_files
        return module.column_names(stream)


def _cuts(sizes: list[int], split_bytes: int) -> list[int]:
    """Where to cut a list so that the pieces sum up to ``split_bytes`` or little more."""
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
    *,
    on_quarantine: OnQuarantine = refuse,
    open_input: OpenInput = open_local,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
    html_extractor: str = HTML_EXTRACTOR,
    plain_text: bool = PLAIN_TEXT,
    digest: Digest | None = None,
    report: ReadReport | None = None,
) -> Iterator[pa.RecordBatch]:
    """The documents of a range, in batches of some megabytes (``document_schema``).

    Every record of the file is yielded, or given to ``on_quarantine``, or counted as skipped in
    ``report``, once. ``digest`` is fed what :func:`digest_range` hashes, if all batches are read.

    Raises:
        ValueError: the format is unknown, a Parquet or Arrow file has no such text column, or
            ``html_extractor`` is unknown.
        OSError: the file cannot be read.
    """
    quarantine = Quarantine(piece.path, on_quarantine)
    digest = digest or xxhash.xxh3_128()
    report = report or ReadReport()
    with open_input(piece.path) as stream:
        found = _recognise(stream, piece.path, open_input)
        match found.kind:
            case "jsonl" if found.compression == "none":
                stored = _fed(_stored(stream, found, piece), digest)
                offset = max(piece.start - 1, 0)
                if piece.start:
                    stored, offset = after_first_newline(stored, offset)
                yield from read_jsonl(stored, offset, fields, quarantine, max_document_bytes)
            case "jsonl" | "json array" | "warc":
                stream.seek(0)
                raw = cast(BinaryIO, _Fed(stream, digest))
                pieces = inflate(raw, found.compression, piece.path, open_input)
                if found.kind == "json array":
                    pieces = array_lines(pieces, quarantine)
                if found.kind != "warc":
                    yield from read_jsonl(pieces, 0, fields, quarantine, max_document_bytes)
                else:
                    yield from read_warc(
                        pieces,
                        fields,
                        quarantine,
                        max_document_bytes,
                        html_extractor,
                        report,
                        plain_text,
                    )
            case "empty":
                quarantine.add(0, "byte", "empty_file")
                for _ in _fed(_stored(stream, found, piece), digest):
                    pass
            case _:
                for _ in _fed(_stored(stream, found, piece), digest):
                    pass
                read = parquet.read_parquet if found.kind == "parquet" else arrow_files.read_arrow
                yield from read(stream, piece, fields, quarantine, max_document_bytes)


def digest_range(
    piece: InputRange, open_input: OpenInput = open_local, digest: Digest | None = None
) -> str:
    """The xxh3-128, as hex, of the stored bytes that decide what a range holds.

    For a whole file these are its bytes; for a range of lines see ``jsonl.range_pieces``; for row
    groups and record batches they are their own bytes and the file's footer.

    Raises:
        ValueError: the format is unknown.
        OSError: the file cannot be read.
    """
    digest = digest or xxhash.xxh3_128()
    with open_input(piece.path) as stream:
        found = _recognise(stream, piece.path, open_input)
        for _ in _fed(_stored(stream, found, piece), digest):
            pass
    return digest.hexdigest()


def _stored(stream: BinaryIO, found: _Format, piece: InputRange) -> Iterator[bytes]:
    """The stored bytes of a range."""
    if found.kind == "jsonl" and found.compression == "none":
        yield from range_pieces(stream, piece.start, piece.end)
        return
    regions = [(0, found.size)]
    if piece.end is not None:
        module = parquet if found.kind == "parquet" else arrow_files
        regions = module.regions(stream, piece.start, piece.end)
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
    """A stream whose bytes are hashed as they are read."""

    def __init__(self, stream: BinaryIO, digest: Digest) -> None:
        self._stream = stream
        self._digest = digest

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        return data


def _recognise(stream: BinaryIO, path: str, open_input: OpenInput) -> _Format:
    """What a file is, by its first bytes; by its name if these are damaged or no known start.

    Raises:
        ValueError: neither says what it is.
    """
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
            elif piece:
                head += piece
                if len(head) >= _ENOUGH:
                    break
    for magic, kind in _COLUMNAR.items():
        if head.startswith(magic):
            if compression != "none":
                raise ValueError(
                    f"{path} is {kind} within {compression}, so it cannot be read in parts: "
                    f"unpack it, {kind} files have compression of their own"
                )
            return _Format(kind, compression, size)
    if not head and not damaged:
        return _Format("empty", compression, size)
    if compression != "none" and (inner := compression_of(head)) != "none":
        raise ValueError(f"{path} is {inner} within {compression}: unpack it once")
    for start, advice in _FOREIGN.items():
        if re.match(start, head):
            raise ValueError(f"{path} is {advice}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, kind in _LINES.items():
        if text.startswith(magic):
            return _Format(kind, compression, size)
    if _ARRAY.match(text):
        return _Format("json array", compression, size)
    stem, _, ending = path.lower().rpartition(".")
    if ending in _PACKED:
        # Its first bytes may be damaged, and the rest sound.
        compression = _PACKED[ending]
        _, _, ending = stem.rpartition(".")
    known = _NAMES.get(ending)
    if known and (compression == "none" or known in _LINES.values()):
        return _Format(known, compression, size)
    raise ValueError(
        f"{path}: unknown format (it starts with {head[:16]!r}): known are WET, WARC, JSON lines "
        "and JSON arrays (plain, gzip, zstd), Parquet and Arrow; JSON lines that start with no "
        "object are known by their name, as .jsonl"
    )
