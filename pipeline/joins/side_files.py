"""Files of annotations as Arrow batches: Parquet, Arrow, JSON lines and CSV.

Unlike further fields of documents (:mod:`pipeline.readers`), values keep their types. A CSV column
has the first type that fits all of its values: integer, float, boolean, else text.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from pipeline.readers.decoders import compression_of
from pipeline.readers.inflate import Damage, inflate
from winnow import heartbeat
from winnow.filesystem import storage

PIECE_BYTES = 16 << 20
"""Of JSON lines or CSV rows, parsed together."""

OpenPieces = Callable[[], Iterator[bytes]]

_ROWS = 1 << 16
_ROW_BYTES = 64  # of a key alone
_PACKED = 6  # JSON lines of scores compress to a sixth at best
_FORMS = "Parquet, Arrow, JSON lines (.jsonl, .json, .ndjson) or CSV (.csv, .tsv)"


def batches(path: str, fields: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """The rows of a file with the columns ``fields``, or all.

    Batches of JSON lines may differ in types and lack columns; see :func:`common`.

    Raises:
        ValueError: the format is unknown, or the file is damaged or (but for JSON) lacks a column.
        OSError: it can't be read.
    """
    with storage.open_input(path) as stream:
        head = stream.read(8)
    try:
        if head.startswith(b"PAR1"):
            yield from _parquet(path, fields)
        elif head.startswith(b"ARROW1\0\0"):
            yield from _arrow(path, fields)
        else:
            yield from _text(path, fields)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error


def decoded_bytes(path: str) -> int:
    """A rough estimate of a file's size in memory."""
    with storage.open_input(path) as stream:
        head = stream.read(16)
        if head.startswith(b"PAR1"):
            with pq.ParquetFile(stream) as file:
                about = file.metadata
                groups = (about.row_group(i).total_byte_size for i in range(about.num_row_groups))
                return max(sum(groups), about.num_rows * _ROW_BYTES)
        packed = compression_of(head) != "none"
    return storage.size(path) * (_PACKED if packed else 1)


def common(types: Sequence[pa.DataType], what: str) -> pa.DataType:
    """One type for the values of several: integers become floats, and nulls have any type.

    Raises:
        ValueError: there is none.
    """
    schemas = [pa.schema([("value", kind)]) for kind in dict.fromkeys(types)]
    try:
        unified = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        found = ", ".join(str(schema.field(0).type) for schema in schemas)
        raise ValueError(f"{what} is of several types ({found}): give it one") from error
    kind = unified.field(0).type
    return pa.string() if pa.types.is_null(kind) else kind


def _checked(names: Sequence[str], fields: Sequence[str] | None, path: str) -> list[str]:
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise ValueError(f"{path} has several columns {', '.join(twice)}")
    if lacking := [name for name in fields or () if name not in names]:
        raise ValueError(f"{path} has no column {', '.join(lacking)}: it has {', '.join(names)}")
    return list(names if fields is None else fields)


def _parquet(path: str, fields: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    with storage.open_input(path) as stream, pq.ParquetFile(stream) as file:
        columns = _checked(file.schema_arrow.names, fields, path)
        for batch in file.iter_batches(_ROWS, columns=columns, use_threads=False):
            yield batch.select(columns)
            heartbeat.beat()


def _arrow(path: str, fields: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    with storage.open_input(path) as stream:
        reader = pa.ipc.open_file(pa.PythonFile(stream, mode="r"))
        columns = _checked(reader.schema.names, fields, path)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number).select(columns)
            heartbeat.beat()


def _text(path: str, fields: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """The rows of JSON lines or a CSV table, plain or compressed."""
    name = path.lower()
    for packed in (".gz", ".zst", ".zstd", ".bz2", ".xz", ".lz4"):
        name = name.removesuffix(packed)
    ending = name.rpartition(".")[2]
    if ending in ("csv", "tsv"):
        return _csv(partial(_octets, path), fields, path, "\t" if ending == "tsv" else ",")
    if ending in ("jsonl", "json", "ndjson"):
        return _json(_octets(path), fields)
    raise ValueError(f"{path} is not {_FORMS}")


def _octets(path: str) -> Iterator[bytes]:
    """The bytes of a file, decompressed."""
    with storage.open_input(path) as stream:
        compression = compression_of(stream.read(16))
        stream.seek(0)
        for piece in inflate(stream, compression, path, storage.open_input):
            if isinstance(piece, Damage):
                raise ValueError(
                    f"{path} is damaged at byte {piece.offset:,} ({piece.reason}): fetch it again"
                )
            yield piece


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines, some megabytes at a time."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= PIECE_BYTES and (end := held.rfind(b"\n") + 1):
            yield bytes(held[:end])
            del held[:end]
    if held.strip():
        yield bytes(held)


def _json(pieces: Iterator[bytes], fields: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    for lines in _lines(pieces):
        options = pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
        table = pa_json.read_json(io.BytesIO(lines), options)
        stated = pa.schema([field.with_type(_untimed(field.type)) for field in table.schema])
        if not stated.equals(table.schema):  # text that looks like a time stays text
            parse = pa_json.ParseOptions(explicit_schema=stated)
            table = pa_json.read_json(io.BytesIO(lines), options, parse)
        if fields is not None:
            table = table.select([name for name in fields if name in table.schema.names])
        yield from table.combine_chunks().to_batches()
        heartbeat.beat()


def _untimed(kind: pa.DataType) -> pa.DataType:
    """The type with text in place of times."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_untimed(kind.value_type))
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pa.struct([field.with_type(_untimed(field.type)) for field in fields])
    return kind


def _csv(
    open_pieces: OpenPieces, fields: Sequence[str] | None, path: str, delimiter: str
) -> Iterator[pa.RecordBatch]:
    """Read twice: the last value may decide the type of a column."""
    kinds: dict[str, list[pa.DataType]] = {}
    for batch in _csv_text(open_pieces(), fields, path, delimiter):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            kinds[name] = [kind for kind in kinds.get(name, _KINDS) if _may_be(column, kind)]
    for batch in _csv_text(open_pieces(), fields, path, delimiter):
        columns = [
            column.cast(kinds[name][0] if kinds[name] else pa.string())
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


_KINDS = [pa.null(), pa.int64(), pa.float64(), pa.bool_()]
"""The types of CSV columns, the narrowest first."""


def _may_be(column: pa.Array, kind: pa.DataType) -> bool:
    """Whether each of n texts (string [n]) spells a value of this type."""
    if pa.types.is_null(kind):
        return bool(column.null_count == len(column))
    if pa.types.is_boolean(kind):
        words = pa.array(["true", "false", "True", "False"])
        return bool(pc.all(pc.is_in(column.drop_null(), words), min_count=0).as_py())
    try:
        values = column.cast(kind)
    except pa.ArrowInvalid:
        return False
    if pa.types.is_floating(kind):
        return not pc.any(pc.match_substring_regex(column, r"^[+-]?0\d"), min_count=0).as_py()
    return bool(pc.all(pc.equal(values.cast(pa.string()), column), min_count=0).as_py())  # not 007


def _csv_text(
    pieces: Iterator[bytes], fields: Sequence[str] | None, path: str, delimiter: str
) -> Iterator[pa.RecordBatch]:
    """The rows with all values as text, empty ones as null."""
    reader = pa_csv.open_csv(
        pa.PythonFile(_Stream(pieces), mode="r"),
        pa_csv.ReadOptions(use_threads=False, block_size=PIECE_BYTES),
        pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        pa_csv.ConvertOptions(
            default_column_type=pa.string(), strings_can_be_null=True, null_values=[""]
        ),
    )
    columns = _checked(reader.schema.names, fields, path)
    for batch in reader:
        yield batch.select(columns)
        heartbeat.beat()


class _Stream(io.RawIOBase):
    """Pieces of bytes as a sequential file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, or fewer at the end."""
        while len(self._held) < size and (piece := next(self._pieces, None)) is not None:
            self._held += piece
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def readable(self) -> bool:
        return True
