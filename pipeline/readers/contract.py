"""The interface of readers: what they take and return in any format."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO, Literal, Protocol

import pyarrow as pa

from winnow.defaults import HTML_EXTRACTOR, MAX_DOCUMENT_BYTES, PLAIN_TEXT, TEXT_DOCUMENT

Reason = Literal[
    "bad_csv",  # a row of a table has too many or too few values, or a quote is never closed
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
    "bad_json": "JSON lines hold one value a line, as `jq -c . FILE` writes them",
    "encrypted_parquet": "encrypted Parquet: decrypt it first, keys can't be given here",
    "feather_v1": "Feather version 1: pyarrow.feather reads it, and writes Arrow",
    "missing_text": "if the text is in another field, name it: --field {source}.text=FIELD",
    "not_an_object": 'a JSON line must be an object, as {{"text": "…"}}',
    "wrong_type": "if the text is in another field, name it: --field {source}.text=FIELD; if it is"
    r" a list of strings, say what to put between them: --list-separator '\n'",
    "zstd_dictionary": "zstd with a dictionary that is not in the file: unpack it with zstd -D",
    "zstd_window": "zstd of a window that memory is too small for: pack it with --long=27 or less",
}
"""Advice for some of the reasons; ``{source}`` stands for the source's name."""

Unit = Literal["byte", "compressed byte", "record"]
"""What a position counts: bytes of the decompressed stream, bytes of the file as it is stored, or
records (rows) from the start of the file. All count from 0."""

CONTENT_CHARACTERS = 1000  # how much of a quarantined record is kept for people to look at


def document_schema(metadata: Sequence[str] = ()) -> pa.Schema:
    """The schema of the batches that every reader yields.

    ``id`` and ``url`` are null where the record has none. ``metadata`` names further input fields
    to carry along, each a nullable string column of the same name.
    """
    text = pa.field("text", pa.large_string(), nullable=False)
    return pa.schema(
        [("id", pa.string()), ("url", pa.string()), text, *((m, pa.string()) for m in metadata)]
    )


@dataclass(frozen=True)
class FieldMap:
    """Which input field holds what.

    JSON keys and columns go by their names in the file. ``metadata.url`` is the field ``url`` of
    the object or struct ``metadata``, unless some field has exactly that name. A text that is a
    list of strings is joined by ``list_separator``. In WARC and WET files the format defines text,
    id and URL, and ``metadata`` names record headers (``WARC-Date``).

    Raises:
        ValueError: ``metadata`` repeats a name or uses the name of an output column.
    """

    text: str = "text"
    id: str = "id"
    url: str = "url"
    metadata: tuple[str, ...] = ()
    list_separator: str | None = None
    language: str | None = None  # the one of ``metadata`` that tells the language, where one does

    def __post_init__(self) -> None:
        columns = Counter(["id", "url", "text", *self.metadata])
        if twice := sorted(name for name, count in columns.items() if count > 1):
            raise ValueError(
                f"metadata fields {twice} are given twice: a document has id, url and text anyway,"
                " and every other field once"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input field of each column of ``document_schema(metadata)``, in that order."""
        return (self.id, self.url, self.text, *self.metadata)


@dataclass(frozen=True)
class ReadOptions:
    """How files of all sources are read.

    Records longer than ``max_document_bytes`` are quarantined. ``html_extractor`` extracts the text
    of pages, ``plain_text`` says whether plain text in WARC files is read beside them,
    ``text_document`` whether a document of a text file is the ``file`` or a ``line``, and
    ``reader`` names the user's formats by their dotted paths.

    Raises:
        ValueError: ``text_document`` is neither.
    """

    max_document_bytes: int = MAX_DOCUMENT_BYTES
    html_extractor: str = HTML_EXTRACTOR
    plain_text: bool = PLAIN_TEXT
    text_document: str = TEXT_DOCUMENT
    reader: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Any) -> "ReadOptions":
        """The options in a config that has fields of their names."""
        options = {field.name: getattr(config, field.name) for field in fields(cls)}
        return cls(**options | {"reader": tuple(options["reader"])})

    def __post_init__(self) -> None:
        if self.text_document not in ("file", "line"):
            raise ValueError(f"--text-document is 'file' or 'line', not {self.text_document!r}")


@dataclass(frozen=True)
class InputRange:
    """A part of a file that one task reads. ``(0, None)`` is the whole file.

    ``start`` and ``end`` count bytes for plain JSONL (a line belongs to the range that holds its
    first byte), row groups for Parquet and record batches for Arrow files. ``size`` is the stored
    bytes of the range, for progress reports.
    """

    path: str
    start: int
    end: int | None
    size: int


@dataclass(frozen=True)
class Quarantined:
    r"""A record that could not be read, or the damage that hid an unknown number of records.

    ``content`` is clipped; bytes that are not UTF-8 are written as ``\xff``.
    """

    path: str
    position: int
    unit: Unit
    reason: Reason
    content: str


OpenInput = Callable[[str], BinaryIO]  # opens the raw bytes of a path for reading, seekable

OnQuarantine = Callable[[Quarantined], None]


class Digest(Protocol):
    """Takes the raw bytes of an input, as the hashes of ``hashlib`` and ``xxhash`` do."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass
class ReadReport:
    """Counts of a reader besides documents: ``skipped`` counts records that hold none, by kind.

    Kinds are the WARC record types without text (``request``, ``warcinfo``, …), and for responses
    and resources ``not_http`` (``text/dns``), ``http_status`` (not a success), ``not_html``
    (another media type), ``binary`` (declared as plain text), ``plain_text`` (if not wanted) and
    ``no_text`` (only menus, forms and scripts). ``kinds`` counts the documents of web archives and
    HTML files by origin: ``html``, ``plain_text`` or ``conversion``. ``truncated`` counts documents
    that were truncated when they were crawled or stored; what is left of them is read.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    truncated: int = 0


def open_local(path: str) -> BinaryIO:
    """Open a local file.

    Raises:
        ValueError: it is a directory.
        OSError: it cannot be opened.
    """
    try:
        return open(path, "rb")
    except IsADirectoryError:
        raise ValueError(f"{path} is a directory: name its files, as in {path}/*") from None


def refuse(record: Quarantined) -> None:
    """The default ``on_quarantine``: fail at the first bad record.

    Raises:
        ValueError: always.
    """
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
        text = text[:CONTENT_CHARACTERS]
        self.on_quarantine(Quarantined(self.path, position, unit, reason, text))


@dataclass(frozen=True)
class Reading:
    """The input of a reader besides the bytes."""

    fields: FieldMap
    quarantine: Quarantine
    options: ReadOptions
    report: ReadReport


@dataclass(frozen=True)
class StreamFormat:
    """A format that is read sequentially; files may be plain or compressed.

    Attributes:
        name: for messages.
        starts: a pattern for the first bytes, after a byte order mark and white space; None for a
            format that is known by its file names only.
        read: turns pieces of decompressed bytes, with :class:`pipeline.readers.inflate.Damage`
            between them where decoding failed, and the offset of the first into documents
            (:func:`pipeline.readers.document_schema`).
        endings: of file names, for files whose first bytes do not identify them.
        lines: whether records are lines, so that a plain file can be split between any two.
        own_places: whether the format itself defines id, url and metadata, so that ``--field`` does
            not apply.
    """

    name: str
    starts: bytes | None
    read: Callable[[Iterator[Any], int, Reading], Iterator[pa.RecordBatch]]
    endings: tuple[str, ...] = ()
    lines: bool = False
    own_places: bool = False


@dataclass(frozen=True)
class TableFormat:
    """A format with an index of its parts, so that any of them can be read alone.

    Attributes:
        name: for messages.
        magic: the first bytes of a file: one of these.
        read: the documents of the parts in a range.
        part_sizes: stored bytes of each part; empty if the file cannot be split. Refuses a file
            without the text column.
        regions: the byte ranges of parts ``[start, end)`` and of the index.
        column_names: of the file; None if it is damaged.
        endings: of file names, for files whose first bytes are damaged.
    """

    name: str
    magic: tuple[bytes, ...]
    read: Callable[[BinaryIO, InputRange, Reading], Iterator[pa.RecordBatch]]
    part_sizes: Callable[[BinaryIO, str, FieldMap | None], list[int]]
    regions: Callable[[BinaryIO, int, int], list[tuple[int, int]]]
    column_names: Callable[[BinaryIO], list[str] | None]
    endings: tuple[str, ...] = ()


Format = StreamFormat | TableFormat
