"""Reads evaluation sets in any published format, recognised by content, else by name.

These are JSON (an array, an object, or concatenated values such as JSON lines), Parquet, Arrow, CSV
and TSV, plain or compressed; anything else is plain text.
"""

import codecs
import contextlib
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.readers.columnar.source import DAMAGE
from pipeline.readers.decoders import compression_of
from pipeline.readers.inflate import Damage, inflate
from winnow.filesystem import storage

_BOMS = {  # UTF-32 first: its mark begins with that of UTF-16
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_PARQUET = b"PAR1"
_ARROW_FILE = b"ARROW1"
_ARROW_STREAM = b"\xff\xff\xff\xff"

_NAME = re.compile(r"\.(?P<kind>\w+)(?:\.(?:gz|gzip|zst|zstd))?$")
_JSON_NAMES = ("json", "jsonl", "jsonlines", "ndjson")
_SEPARATED_NAMES = ("csv", "tsv", "tab")
_DELIMITERS = "\t;,|"
_COLUMN_NAME = re.compile(r"\w[\w.-]*")
_ARRAY = re.compile(r'\[\s*\{\s*"')
_BLANK = re.compile(r"[\s\ufeff]*")


@dataclass
class EvaluationFile:
    path: str
    texts: list[str] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)  # the number of each text's record
    records: int = 0
    lacking: dict[str, int] = field(default_factory=dict)  # records without each field


def read_evaluation_file(path: str, fields: Sequence[str]) -> EvaluationFile:
    """The texts in ``fields`` of each record, at any depth; without fields, all strings.

    Raises:
        ValueError: the file is damaged, is not text, looks like JSON or CSV but is not, or no
            record has one of the fields.
        OSError: it cannot be read.
    """
    found = EvaluationFile(path, lacking=dict.fromkeys(fields, 0))
    try:
        for record in _records(path, fields):
            found.records += 1
            if fields and not isinstance(record, dict):
                number = found.records
                raise ValueError(f"record {number} of {path} has no fields: set fields to []")
            if fields:
                record = {name: list(_named(record, name)) for name in fields}
                for name, values in record.items():
                    found.lacking[name] += not values
            found.texts.extend(_strings(record))
            found.owners += [found.records - 1] * (len(found.texts) - len(found.owners))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply: flatten it") from error
    missing = [name for name, count in found.lacking.items() if count == found.records]
    if missing:
        raise ValueError(f"no record of {path} has the fields {missing}: name others")
    return found


def read_json_records(path: str) -> list[Any]:
    """The records of a JSON file, perhaps compressed; ValueError if damaged, or OSError."""
    return list(_json(path, _decoded(path, _inflated(path))))


def _records(path: str, fields: Sequence[str]) -> Iterable[Any]:
    content = _inflated(path)
    if content.startswith((_PARQUET, _ARROW_FILE, _ARROW_STREAM)):
        return _rows(path, content)
    text = _decoded(path, content)
    name = _NAME.search(path.lower())
    kind = name["kind"] if name else ""
    if kind in _JSON_NAMES or _is_json(text):
        return _json(path, text)
    if kind not in _SEPARATED_NAMES and text.startswith(("[", '"')):
        with contextlib.suppress(ValueError):  # plain text may start like that
            return list(_json(path, text))
    if kind in _SEPARATED_NAMES or _is_separated(text, fields):
        return _separated(path, text, fields)
    if fields:
        raise ValueError(f"{path} is plain text, which has no fields: set fields to []")
    return [text]


def _inflated(path: str) -> bytes:
    with storage.open_input(path) as stream:
        head = stream.read(1 << 16)
        stream.seek(0)
        pieces = []
        for piece in inflate(stream, compression_of(head), path, storage.open_input):
            if isinstance(piece, Damage):
                raise ValueError(
                    f"the evaluation file {path} is damaged at byte {piece.offset}: fetch it again"
                )
            pieces.append(piece)
    return b"".join(pieces)


def _decoded(path: str, content: bytes) -> str:
    """The text of a file, stripped of white space and byte order marks."""
    encoding = next((name for name, marks in _BOMS.items() if content.startswith(marks)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"the evaluation file {path} is not UTF-8: convert it") from error
    if "\0" in text:
        raise ValueError(f"the evaluation file {path} is not text: unpack or convert it")
    return text.strip(" \t\r\n\ufeff")


def _is_json(text: str) -> bool:
    """Whether a text starts with an array of JSON objects, or an object that ends a line."""
    if _ARRAY.match(text):
        return True
    if not text.startswith("{"):
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return False
    return not text[end : end + 1000].partition("\n")[0].strip()


def _json(path: str, text: str) -> Iterator[Any]:
    """The records in concatenated JSON values: each value, or each item of an array."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"line {error.lineno} of {path} is not JSON: fix or remove it"
            ) from error
        yield from value if isinstance(value, list) else [value]
        at = _BLANK.match(text, end).end()  # type: ignore[union-attr]


def _is_separated(text: str, fields: Sequence[str]) -> bool:
    """Whether the first line has the fields, or names for rows of equal width."""
    try:
        rows = _cells(text)
        header = next(rows, [])
        if fields and set(fields) <= set(header):
            return True
        width = len(header)
        return width > 1 and _are_names(header) and all(len(row) == width for row in rows)
    except csv.Error:
        return False


def _are_names(header: Sequence[str]) -> bool:
    return all(_COLUMN_NAME.fullmatch(name) for name in header)


def _separated(path: str, text: str, fields: Sequence[str]) -> Iterator[Any]:
    """The rows by the names in the first one, which may itself be data."""
    try:
        rows = _cells(text)
        header = next(rows, [])
        if not fields and not _are_names(header):
            yield header
        for number, row in enumerate(rows, 2):
            if any(row[len(header) :]):
                raise ValueError(
                    f"row {number} of {path} has {len(row)} cells, not {len(header)} as the first:"
                    " quote cells that contain the delimiter"
                )
            yield dict(zip(header, row, strict=False)) if fields else row
    except csv.Error as error:
        raise ValueError(f"{path} can't be read as CSV ({error}): fix or convert it") from error


def _cells(text: str) -> Iterator[list[str]]:
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return (row for row in rows if row)


def _rows(path: str, content: bytes) -> Iterator[Any]:
    for magic, padding in ((_PARQUET, b""), (_ARROW_FILE, b"\0\0")):
        if content.startswith(magic) and magic + magic + padding in content:
            raise ValueError(f"the evaluation file {path} is several files in one: split it")
    source = pa.BufferReader(content)
    try:
        if content.startswith(_PARQUET):
            for batch in pq.ParquetFile(source).iter_batches():
                yield from batch.to_pylist()
        elif content.startswith(_ARROW_FILE):
            yield from pa.ipc.open_file(source).read_all().to_pylist()
        else:
            while source.tell() < len(content):
                for batch in pa.ipc.open_stream(source):
                    yield from batch.to_pylist()
    except DAMAGE as error:
        raise ValueError(f"the evaluation file {path} can't be read: {error}") from error


def _named(value: Any, name: str) -> Iterator[Any]:
    """The outermost non-null values with that name."""
    if isinstance(value, dict):
        if value.get(name) is not None:
            yield value[name]
            return
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _named(part, name)


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value.encode("utf-8", "replace").decode()  # an escape may be half a character
        case bytes():  # as some writers of Parquet leave it
            yield value.decode("utf-8", "replace")
        case dict():
            yield from _strings(list(value.values()))
        case list() | tuple():
            for part in value:
                yield from _strings(part)
