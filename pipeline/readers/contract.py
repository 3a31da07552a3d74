"""What goes into a reader and what comes out of it, whatever the format."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol

import pyarrow as pa

from winnow.defaults import HTML_EXTRACTOR, MAX_DOCUMENT_BYTES, PLAIN_TEXT, TEXT_DOCUMENT

Reason = Literal[
    "bad_csv",  # a row of a table has too many or too few values, or a quote is never closed
    "bad_html",  # the page cannot be parsed or its text extracted
    "bad_http",  # the body cannot be dechunked or decompressed as its HTTP headers say
    "bad_json",  # the line is no JSON value
    "bad_warc",  # a WARC record whose header or length is wrong
    "corrupt_arrow",
    "corrupt_bzip2",
    "corrupt_gzip",
    "corrupt_lz4",
    "corrupt_parquet",
    "corrupt_xz",
    "corrupt_zstd",
    "empty_file",
    "encrypted_parquet",  # of a file, or of a column of a row group
    "feather_v1",  # the old format, which is no Arrow
    "invalid_utf8",
    "lone_surrogate",  # half of a \ud83d\ude00 pair: no Unicode text, so no UTF-8 either
    "missing_text",  # the text field is absent or null
    "not_an_object",  # the line is JSON, but no object
    "not_html",  # said to be HTML, but the bytes are binary
    "too_long",  # a document over max_document_bytes
    "truncated_bzip2",
    "truncated_gzip",
    "truncated_lz4",
    "truncated_xz",
    "truncated_zstd",
    "unknown_charset",  # the page is in a charset that nobody reads
    "wrong_type",  # the text field is no string
    "zstd_dictionary",  # of a frame: it is not in the file, or damaged
    "zstd_window",  # a frame looks back further than memory, or any decoder, allows
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
"""What a user can do about some reasons, where ``{source}`` is the source's name."""

Unit = Literal["byte", "compressed byte", "record"]
"""What a position counts: bytes of the decompressed stream, bytes of the file as it is stored, or
records (rows) from the start of the file. All count from 0."""

CONTENT_CHARACTERS = 1000
"""How much of a quarantined record is kept for a person to look at."""


@dataclass(frozen=True)
class FieldMap:
    """Which input field holds what.

    JSON keys and columns are named as they are in the file. ``metadata.url`` is the field ``url``
    of the object or struct ``metadata``, unless a field has that very name. A text that is a list
    of strings is joined by ``list_separator``. In a WARC or WET file text, id and URL have their
    own places, and ``metadata`` names record headers (``WARC-Date``).

    Raises:
        ValueError: ``metadata`` repeats a name or uses the name of an output column.
    """

    text: str = "text"
    id: str = "id"
    url: str = "url"
    metadata: tuple[str, ...] = ()
    list_separator: str | None = None

    def __post_init__(self) -> None:
        columns = Counter(["id", "url", "text", *self.metadata])
        twice = sorted(name for name, count in columns.items() if count > 1)
        if twice:
            raise ValueError(
                f"metadata fields {twice} are there already: a document has id, url and text, "
                "and each further field once"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input field of each column of ``document_schema(metadata)``, in its order."""
        return (self.id, self.url, self.text, *self.metadata)


@dataclass(frozen=True)
class ReadOptions:
    """How files are read, whatever the source.

    Longer records than ``max_document_bytes`` are quarantined. ``html_extractor`` takes the text
    from pages, ``plain_text`` says whether plain text in WARC files is read beside them, and
    ``text_document`` whether a document of a text file is the ``file`` or a ``line``.

    Raises:
        ValueError: ``text_document`` is neither.
    """

    max_document_bytes: int = MAX_DOCUMENT_BYTES
    html_extractor: str = HTML_EXTRACTOR
    plain_text: bool = PLAIN_TEXT
    text_document: str = TEXT_DOCUMENT

    def __post_init__(self) -> None:
        if self.text_document not in ("file", "line"):
            raise ValueError(f"--text-document is 'file' or 'line', not {self.text_document!r}")


@dataclass(frozen=True)
class InputRange:
    """A part of a file that one task reads. ``(0, None)`` is the whole file.

    ``start`` and ``end`` count bytes for plain JSONL (a line belongs to the range that holds its
    first byte), row groups for Parquet and record batches for Arrow files. ``size`` is the bytes
    of the stored file that fall to this range, for showing progress.
    """

    path: str
    start: int
    end: int | None
    size: int


@dataclass(frozen=True)
class Quarantined:
    r"""A record that could not be read, or the damage that hid an unknown number of records.

    ``content`` is clipped; bytes that are no UTF-8 are written as ``\xff``.
    """

    path: str
    position: int
    unit: Unit
    reason: Reason
    content: str


OpenInput = Callable[[str], BinaryIO]
"""Opens the raw bytes of a path for reading, seekable."""

OnQuarantine = Callable[[Quarantined], None]


class Digest(Protocol):
    """Takes the raw bytes of an input, as the hashes of ``hashlib`` and ``xxhash`` do."""

    def update(self, data: bytes, /) -> None:
        """Add the next bytes."""

    def hexdigest(self) -> str:
        """The hash of all bytes so far."""


@dataclass
class ReadReport:
    """What a reader met beside whole documents: ``skipped`` counts records that are none, by kind.

    Kinds are the WARC record types without text (``request``, ``warcinfo``, …), and for responses
    and resources ``not_http`` (``text/dns``), ``http_status`` (no success), ``not_html`` (of
    another type), ``binary`` (said to be plain text), ``plain_text`` (if that is not wanted) and
    ``no_text`` (nothing but menus, forms and scripts). ``kinds`` counts the documents of WARC files
    by what they were: ``html``, ``plain_text`` or ``conversion``. ``truncated`` counts the
    documents that were cut short when they were crawled or stored: theirs is what is left of it.
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
    """The default ``on_quarantine``: a bad record is an error.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"{record.path}, {record.unit} {record.position}: {record.reason}: "
        "mend the file, or pass on_quarantine to go on without this record"
    )


class Unreadable(Exception):  # noqa: N818 (it is what happened, not a mistake of ours)
    """A record should be a document, but is damaged."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(frozen=True)
class Quarantine:
    """Reports the bad records of one file."""

    path: str
    on_quarantine: OnQuarantine

    def add(self, position: int, unit: Unit, reason: Reason, content: bytes | str = b"") -> None:
        """Report one record with as much of its content as a person wants to see."""
        if isinstance(content, bytes):
            head = content[: 4 * CONTENT_CHARACTERS]
            content = head.decode("utf-8", "backslashreplace")
        # A lone surrogate cannot be written to any file.
        text = content[:CONTENT_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        self.on_quarantine(
            Quarantined(self.path, position, unit, reason, text[:CONTENT_CHARACTERS])
        )


@dataclass(frozen=True)
class Reading:
    """What a reader is told beside the bytes."""

    fields: FieldMap
    quarantine: Quarantine
    options: ReadOptions
    report: ReadReport


@dataclass(frozen=True)
class StreamFormat:
    """A format that is read from front to back, plain or compressed.

    Attributes:
        name: in messages.
        starts: what a text of this format starts with, past a byte order mark and white space; None
            if only the name tells.
        read: documents (:func:`pipeline.readers.documents.document_schema`) from the pieces of
            decompressed bytes, between which :class:`pipeline.readers.inflate.Damage` may stand,
            and the offset of the first.
        endings: of names, for files whose first bytes do not tell.
        lines: whether records are lines, so that a plain file can be cut after any of them.
        own_places: whether id, url and metadata have places of their own, which ``--field`` can't
            change.
    """

    name: str
    starts: bytes | None
    read: Callable[[Iterator[Any], int, Reading], Iterator[pa.RecordBatch]]
    endings: tuple[str, ...] = ()
    lines: bool = False
    own_places: bool = False


@dataclass(frozen=True)
class TableFormat:
    """A format of parts that are found by an index in the file, and so are read in any order.

    Attributes:
        name: in messages.
        magic: the first bytes of a file, any of these.
        read: documents of the parts of a range.
        part_sizes: stored bytes of each part; empty if the file is one. Refuses a file without the
            text column.
        regions: from where to where the bytes of parts ``[start, end)`` and of the index lie.
        column_names: of the file, or None if it is damaged.
        endings: of names, for files whose first bytes are damaged.
    """

    name: str
    magic: tuple[bytes, ...]
    read: Callable[[BinaryIO, InputRange, Reading], Iterator[pa.RecordBatch]]
    part_sizes: Callable[[BinaryIO, str, FieldMap | None], list[int]]
    regions: Callable[[BinaryIO, int, int], list[tuple[int, int]]]
    column_names: Callable[[BinaryIO], list[str] | None]
    endings: tuple[str, ...] = ()


Format = StreamFormat | TableFormat
