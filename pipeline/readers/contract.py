"""The interface of readers: what they take and return, whatever the format."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO, Literal, Protocol

import pyarrow as pa

from winnow.defaults import HTML_EXTRACTOR, MAX_DOCUMENT_BYTES, PLAIN_TEXT, TEXT_DOCUMENT

Reason = Literal[
    "bad_csv",  # a row has too many or too few values, or a quote is never closed
    "bad_html",  # the page cannot be parsed or its text extracted
    "bad_http",  # the body cannot be dechunked or decompressed as its HTTP headers say
    "bad_json",  # the line is not a JSON value
    "bad_warc",  # a WARC record with a wrong header or length
    "corrupt_arrow",
    "corrupt_bzip2",
    "corrupt_gzip",
    "corrupt_lz4",
    "corrupt_parquet",
    "corrupt_xz",
    "corrupt_zstd",
    "empty_file",
    "encrypted_parquet",  # of a file, or of a column of a row group
    "feather_v1",  # the old format, which is not Arrow IPC
    "invalid_utf8",
    "lone_surrogate",  # half of a \ud83d\ude00 pair, which has no UTF-8 form
    "missing_text",  # the text field is absent or null
    "not_an_object",  # the line is JSON, but not an object
    "not_html",  # declared as HTML, but the bytes are binary
    "too_long",  # a document longer than max_document_bytes
    "truncated_bzip2",
    "truncated_gzip",
    "truncated_lz4",
    "truncated_xz",
    "truncated_zstd",
    "unknown_charset",  # the page is in a charset that no browser knows
    "wrong_type",  # the text field is not a string
    "zstd_dictionary",  # needed by a frame, but missing from the file or damaged
    "zstd_window",  # a frame's window is too large for memory or for any decoder
]
"""Why something was quarantined."""

ADVICE: dict[Reason, str] = {
    "bad_json": "JSON lines hold one value per line, as `jq -c . FILE` writes them",
    "encrypted_parquet": "encrypted Parquet: decrypt it first; Winnow takes no keys",
    "feather_v1": "Feather version 1: convert it to Arrow with pyarrow.feather",
    "missing_text": "if the text is in another field, name it: --field {source}.text=FIELD",
    "not_an_object": 'a JSON line must be an object, as {{"text": "…"}}',
    "wrong_type": "if the text is in another field, name it: --field {source}.text=FIELD; if it is"
    r" a list of strings, say what to put between them: --list-separator '\n'",
    "zstd_dictionary": "zstd whose dictionary is not in the file: decompress it with zstd -D",
    "zstd_window": "zstd with a window larger than memory: compress it with --long=27 or less",
}
"""Advice for some of the reasons; ``{source}`` is replaced by the source's name."""

Unit = Literal["byte", "compressed byte", "record"]
"""What a position counts, from 0: bytes of the decompressed stream, stored bytes, or records."""

CONTENT_CHARACTERS = 1000  # kept of a quarantined record


def document_schema(metadata: Sequence[str] = ()) -> pa.Schema:
    """The schema of the batches that every reader yields; all but ``text`` may be null.

    ``metadata`` names further input fields to carry along, each a string column of the same name.
    """
    text = pa.field("text", pa.large_string(), nullable=False)
    return pa.schema(
        [("id", pa.string()), ("url", pa.string()), text, *((m, pa.string()) for m in metadata)]
    )


@dataclass(frozen=True)
class FieldMap:
    """Which input field holds what.

    ``metadata.url`` is the field ``url`` of the object or struct ``metadata``, unless a field has
    exactly that name. A text that is a list of strings is joined by ``list_separator``. In WARC and
    WET files the format defines text, id and URL, and ``metadata`` names record headers
    (``WARC-Date``).

    Raises:
        ValueError: ``metadata`` repeats a name or uses the name of an output column.
    """

    text: str = "text"
    id: str = "id"
    url: str = "url"
    metadata: tuple[str, ...] = ()
    list_separator: str | None = None
    language: str | None = None  # which of ``metadata`` holds the language, if any

    def __post_init__(self) -> None:
        columns = Counter(["id", "url", "text", *self.metadata])
        if twice := sorted(name for name, count in columns.items() if count > 1):
            raise ValueError(
                f"metadata fields {twice} are given twice: a document always has id, url and text;"
                " name each other field once"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input field of each column of ``document_schema(metadata)``, in that order."""
        return (self.id, self.url, self.text, *self.metadata)


@dataclass(frozen=True)
class ReadOptions:
    """How files of all sources are read.

    Records longer than ``max_document_bytes`` are quarantined. ``plain_text`` says whether WARC
    records of plain text are read, ``text_document`` whether a document of a text file is the
    ``file`` or a ``line`` (else ValueError), and ``reader`` names user formats by dotted paths.
    """

    max_document_bytes: int = MAX_DOCUMENT_BYTES
    html_extractor: str = HTML_EXTRACTOR
    plain_text: bool = PLAIN_TEXT
    text_document: str = TEXT_DOCUMENT
    reader: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Any) -> "ReadOptions":
        """The options from a config with fields of the same names."""
        options = {field.name: getattr(config, field.name) for field in fields(cls)}
        return cls(**options | {"reader": tuple(options["reader"])})

    def __post_init__(self) -> None:
        if self.text_document not in ("file", "line"):
            raise ValueError(f"--text-document is 'file' or 'line', not {self.text_document!r}")


@dataclass(frozen=True)
class InputRange:
    """A part of a file that one task reads. ``(0, None)`` is the whole file.

    ``start`` and ``end`` count bytes for plain JSONL (a line belongs to the range of its first
    byte), row groups for Parquet and record batches for Arrow. ``size`` is in stored bytes.
    """

    path: str
    start: int
    end: int | None
    size: int


@dataclass(frozen=True)
class Quarantined:
    """A record that could not be read, or the damage that hid an unknown number of records."""

    path: str
    position: int
    unit: Unit
    reason: Reason
    content: str  # clipped; bytes that are not UTF-8 are written as \xff


OpenInput = Callable[[str], BinaryIO]  # opens the raw bytes of a path for reading, seekable

OnQuarantine = Callable[[Quarantined], None]


class Digest(Protocol):
    """A hash of raw bytes, as in ``hashlib`` and ``xxhash``."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass
class ReadReport:
    """What a reader counts besides documents.

    ``skipped`` counts records without a document by kind: the WARC record types without text
    (``request``, ``warcinfo``, …), and for responses and resources ``not_http`` (``text/dns``),
    ``http_status`` (not a success), ``not_html`` (another media type), ``binary`` (declared as
    plain text), ``plain_text`` (if not wanted) and ``no_text`` (only menus, forms and scripts).
    ``kinds`` counts the documents of web archives and HTML files by origin: ``html``,
    ``plain_text`` or ``conversion``. ``truncated`` counts documents that the crawler cut short.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    truncated: int = 0


def open_local(path: str) -> BinaryIO:
    """Open a local file; ValueError if it is a directory, OSError if it cannot be opened."""
    try:
        return open(path, "rb")
    except IsADirectoryError:
        raise ValueError(f"{path} is a directory: name its files, as in {path}/*") from None


def refuse(record: Quarantined) -> None:
    """The default ``on_quarantine``: raise ValueError at the first bad record."""
    raise ValueError(
        f"{record.path}, {record.unit} {record.position}: {record.reason}: "
        "repair the file, or pass on_quarantine to skip this record"
    )


class Unreadable(Exception):  # noqa: N818 (a state of the input, not a bug)
    """A record that should be a document cannot be read."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(frozen=True)
class Quarantine:
    """Reports the bad records of one file."""

    path: str
    on_quarantine: OnQuarantine

    def add(self, position: int, unit: Unit, reason: Reason, content: bytes | str = b"") -> None:
        """Report one record, with the start of its content."""
        if isinstance(content, bytes):
            head = content[: 4 * CONTENT_CHARACTERS]
            content = head.decode("utf-8", "backslashreplace")
        # A lone surrogate cannot be written to any file.
        text = content[:CONTENT_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        record = Quarantined(self.path, position, unit, reason, text[:CONTENT_CHARACTERS])
        self.on_quarantine(record)


@dataclass(frozen=True)
class Reading:
    """What a reader gets besides the bytes."""

    fields: FieldMap
    quarantine: Quarantine
    options: ReadOptions
    report: ReadReport


@dataclass(frozen=True)
class StreamFormat:
    """A format that is read sequentially; files may be plain or compressed.

    ``read`` turns pieces of decompressed bytes, with :class:`pipeline.readers.inflate.Damage` where
    decoding failed, and the offset of the first piece into documents (``document_schema``).
    """

    name: str  # for messages
    starts: bytes | None  # pattern of the first bytes, after BOM and white space; None: by name
    read: Callable[[Iterator[Any], int, Reading], Iterator[pa.RecordBatch]]
    endings: tuple[str, ...] = ()  # of file names, if the first bytes do not identify the file
    lines: bool = False  # records are lines, so a plain file can be split between any two
    own_places: bool = False  # it defines id, url and metadata itself: --field does not apply


@dataclass(frozen=True)
class TableFormat:
    """A format with an index of its parts, so that any of them can be read alone.

    ``read`` yields the documents of a range of parts. ``part_sizes`` are their stored bytes, empty
    if the file cannot be split; it refuses a file without the text column. ``regions`` are the byte
    ranges of parts ``[start, end)`` and of the index. ``column_names`` is None for a damaged file.
    """

    name: str  # for messages
    magic: tuple[bytes, ...]  # possible first bytes of a file
    read: Callable[[BinaryIO, InputRange, Reading], Iterator[pa.RecordBatch]]
    part_sizes: Callable[[BinaryIO, str, FieldMap | None], list[int]]
    regions: Callable[[BinaryIO, int, int], list[tuple[int, int]]]
    column_names: Callable[[BinaryIO], list[str] | None]
    endings: tuple[str, ...] = ()  # of file names, if the first bytes are damaged


Format = StreamFormat | TableFormat
