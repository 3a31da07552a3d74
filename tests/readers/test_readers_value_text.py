"""One text for a value, whatever holds it: against plain Python, and against the same JSON line."""

import datetime
import decimal
import json
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import FieldMap, plan_ranges, read_batches
from pipeline.readers.columnar.value_text import text_octets, text_sizes

DAYS = st.dates()
TIMES = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))
DECIMALS = st.decimals(-999, 999, places=2)
LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def binary(octets):
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.hex()


# What a value of a type is as JSON, in plain Python. A string is its own text.
SCALARS = {
    pa.bool_(): (st.booleans(), bool),
    pa.int8(): (st.integers(-128, 127), int),
    pa.uint64(): (st.integers(0, 2**64 - 1), int),
    pa.float64(): (st.floats(), float),
    pa.string(): (LETTERS, str),
    pa.large_string(): (LETTERS, str),
    pa.string_view(): (LETTERS, str),
    pa.json_(): (LETTERS, str),
    pa.binary(): (LETTERS.map(str.encode) | st.binary(max_size=5), binary),
    pa.large_binary(): (st.binary(max_size=40), binary),
    pa.binary_view(): (st.binary(max_size=40), binary),
    pa.binary(3): (st.binary(min_size=3, max_size=3), bytes.hex),
    pa.binary(0): (st.just(b""), bytes.hex),
    pa.uuid(): (st.uuids().map(lambda value: value.bytes), lambda b: str(uuid.UUID(bytes=b))),
    pa.decimal64(5, 2): (DECIMALS, str),
    pa.decimal128(5, 2): (DECIMALS, str),
    pa.date32(): (DAYS, str),
    pa.timestamp("us"): (TIMES, lambda t: t.isoformat(" ", "microseconds")),
    pa.timestamp("us", "America/New_York"): (
        TIMES,
        lambda t: t.isoformat(" ", "microseconds") + "Z",  # naive is UTC for Arrow
    ),
    pa.timestamp("s", "No/Such_Zone"): (
        TIMES.map(lambda t: t.replace(microsecond=0)),
        lambda t: t.isoformat(" ", "seconds") + "Z",
    ),
    pa.time64("us"): (st.times(), lambda t: t.isoformat("microseconds")),
}


def array(values, kind):
    """Of any type, those that ``pa.array`` makes none of included."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    if pa.types.is_timestamp(kind) and kind.tz:
        return pa.array(values, pa.timestamp(kind.unit)).view(pa.int64()).view(kind)
    return pa.array(values, kind)


def text(value):
    """The text that a JSON value has as the id of a JSON line."""
    if value is None:
        return None
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()


def check(column, expected):
    column.validate(full=True)
    out = text_octets(column, hexadecimal=True)
    out.validate(full=True)
    assert out.type == pa.large_binary()
    assert out.to_pylist() == [text(value) for value in expected]
    assert len(text_sizes(column)) == len(expected)


def encoded(draw, column, expected):
    """The same values as a slice, a dictionary, or runs."""
    ways = ["plain", "slice", "dictionary", "runs"]
    rows = len(column)
    match draw(st.sampled_from(ways)):
        case "slice":
            start = draw(st.integers(0, rows))
            end = draw(st.integers(start, rows))
            return column[start:end], expected[start:end]
        case "dictionary":
            picks = draw(st.lists(st.none() | st.integers(0, rows - 1), max_size=9)) if rows else []
            indices = pa.array(picks, pa.int32())
            values = [None if i is None else expected[i] for i in picks]
            return pa.DictionaryArray.from_arrays(indices, column), values
        case "runs":
            lengths = draw(st.lists(st.integers(1, 4), min_size=rows, max_size=rows))
            ends = pa.array(np.cumsum(lengths), pa.int32())
            runs = pa.RunEndEncodedArray.from_arrays(ends, column)
            values = [v for v, n in zip(expected, lengths, strict=True) for _ in range(n)]
            start = draw(st.integers(0, len(values)))
            end = draw(st.integers(start, len(values)))
            return runs[start:end], values[start:end]
        case _:
            return column, expected


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(SCALARS)), st.data())
def test_scalars_in_any_encoding(kind, data):
    values, plain = SCALARS[kind]
    rows = data.draw(st.lists(st.none() | values, max_size=6))
    expected = [None if value is None else plain(value) for value in rows]
    check(*encoded(data.draw, array(rows, kind), expected))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(SCALARS)), st.data())
def test_lists_structs_and_maps(kind, data):
    values, plain = SCALARS[kind]

    def json_of(value):
        return None if value is None else plain(value)

    form = data.draw(st.sampled_from(["list", "large", "view", "large view", "fixed", "map"]))
    length = st.lists(st.none() | values, max_size=3)
    if form == "fixed":
        length = st.lists(st.none() | values, min_size=2, max_size=2)
    rows = data.draw(st.lists(st.none() | length, max_size=5))
    lengths = [0 if row is None else len(row) for row in rows]
    flat = array([value for row in rows if row is not None for value in row], kind)
    ends = pa.array(np.append(0, np.cumsum(lengths)), pa.int64())
    mask = pa.array([row is None for row in rows], pa.bool_())
    expected = [None if row is None else [json_of(value) for value in row] for row in rows]
    match form:
        case "list":
            column = pa.ListArray.from_arrays(ends.cast(pa.int32()), flat, mask=mask)
        case "large":
            column = pa.LargeListArray.from_arrays(ends, flat, mask=mask)
        case "view":
            starts = ends[:-1].cast(pa.int32())
            sizes = pa.array(lengths, pa.int32())
            column = pa.ListViewArray.from_arrays(starts, sizes, flat, mask=mask)
        case "large view":
            sizes = pa.array(lengths, pa.int64())
            column = pa.LargeListViewArray.from_arrays(ends[:-1], sizes, flat, mask=mask)
        case "fixed":
            twice = array([v for row in rows for v in (row or [None, None])], kind)
            column = pa.FixedSizeListArray.from_arrays(twice, 2, mask=mask)
        case "map":
            keys = pa.array([str(i) for i in range(len(flat))])
            column = pa.MapArray.from_arrays(ends.cast(pa.int32()), keys, flat, mask=mask)
            number = iter(range(len(flat)))
            expected = [row and [[str(next(number)), v] for v in row] for row in expected]
    if data.draw(st.booleans()):
        column = pa.StructArray.from_arrays([column, pa.array(range(len(rows)))], ["é", "n"])
        expected = [{"é": row, "n": i} for i, row in enumerate(expected)]
    start = data.draw(st.integers(0, len(rows)))
    check(column[start:], expected[start:])


def test_other_extension_types():
    eight = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8()))
    check(eight, [True, False, None])
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(4).reshape(2, 2))
    check(tensor, [[0, 1], [2, 3]])
    check(pa.array([0.1, 1, 2.5], pa.float32()), [0.1, 1.0, 2.5])
    check(pa.array([pa.MonthDayNano([1, 2, 3]), None]), [[1, 2, 3], None])


def test_strings_within_that_are_no_utf8():
    inner = pa.array([b"a", b"\xff", None]).view(pa.string())
    column = pa.StructArray.from_arrays([inner], ["x"])
    assert text_octets(column, hexadecimal=True).to_pylist() == [
        b'{"x": "a"}',
        b"\xff",  # which the reader then finds to be no UTF-8
        b'{"x": null}',
    ]


def read(path, fields):
    bad = []
    rows = []
    for piece in plan_ranges(str(path), fields=fields):
        for batch in read_batches(piece, fields, on_quarantine=bad.append):
            rows += batch.to_pylist()
    return rows, bad


IDS = [uuid.UUID(int=i * 77777777777777777777777777) for i in range(1, 6)]


@pytest.mark.parametrize("form", ["arrow", "stream", "parquet"])
def test_the_same_documents_as_json_lines(tmp_path, form):
    """Whatever type a column has, ids and metadata are those of the same documents as JSON."""
    octets = [value.bytes for value in IDS]
    money = [decimal.Decimal(i) / 4 for i in range(5)]
    huge = [2**64 - 1 - i for i in range(5)]
    reals = [1.0, 123456789012.0, 0.1, 1e-7, 1e22]
    days = [datetime.date(2024, 1, i + 1) for i in range(5)]
    columns = {
        "uuid": (array(octets, pa.uuid()), [str(value) for value in IDS]),
        "hash": (pa.array(octets, pa.binary(16)), [value.hex for value in IDS]),
        "bytes": (pa.array(octets, pa.binary()), [binary(value) for value in octets]),
        "names": (pa.array([b"a", b"b", b"c", b"d", b"\xc3\xa9"]), ["a", "b", "c", "d", "é"]),
        "small": (pa.array(range(5), pa.int16()), list(range(5))),
        "large": (pa.array(huge, pa.uint64()), huge),
        "real": (pa.array(reals), reals),
        "exact": (pa.array(money, pa.decimal128(9, 2)), [f"{value:.2f}" for value in money]),
        "day": (pa.array(days), [str(day) for day in days]),
        "lists": (pa.array([[1.5, i] for i in range(5)]), [[1.5, float(i)] for i in range(5)]),
        "keyed": (pa.array(list("abbab")).dictionary_encode(), list("abbab")),
    }
    if form != "parquet":  # which has no such types
        columns["runs"] = (pc.run_end_encode(pa.array(list("aabbb"))), list("aabbb"))
        columns["views"] = (pa.array(list("abcde"), pa.string_view()), list("abcde"))
    texts = [f"text {i}" for i in range(5)]
    table = pa.table({"text": texts} | {name: column for name, (column, _) in columns.items()})
    match form:
        case "parquet":
            pq.write_table(table, tmp_path / "x", row_group_size=2)
        case "arrow":
            with pa.ipc.new_file(tmp_path / "x", table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
        case "stream":
            with pa.ipc.new_stream(tmp_path / "x", table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
    values = {"text": texts} | {name: values for name, (_, values) in columns.items()}
    lines = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in columns:
        fields = FieldMap(id=name, metadata=tuple(columns))
        found, bad = read(tmp_path / "x", fields)
        assert (found, bad) == (read(tmp_path / "x.jsonl", fields)[0], [])
        assert len(found) == 5


@pytest.mark.parametrize("form", ["runs", "dictionary", "json"])
def test_text_in_any_encoding(tmp_path, form):
    """Also of large texts, that many rows share: they are decoded a few at a time."""
    texts = pa.array(["a" * (3 << 20), "b", None])
    match form:
        case "runs":
            ends = pa.array([5, 6, 8], pa.int32())
            text = pa.RunEndEncodedArray.from_arrays(ends, texts)
        case "dictionary":
            text = pa.DictionaryArray.from_arrays(pa.array([0] * 5 + [1, 2, 2]), texts)
        case "json":
            rows = texts.take(pa.array([0] * 5 + [1, 2, 2]))
            text = pa.ExtensionArray.from_storage(pa.json_(), rows)
    table = pa.table({"text": text, "id": pa.array(range(8))})
    with pa.ipc.new_stream(tmp_path / "x", table.schema) as writer:
        writer.write_table(table)
    bad = []
    (piece,) = plan_ranges(str(tmp_path / "x"), fields=FieldMap())
    batches = list(read_batches(piece, FieldMap(), on_quarantine=bad.append))
    assert [row["id"] for batch in batches for row in batch.to_pylist()] == list("012345")
    assert [(record.position, record.reason) for record in bad] == [
        (6, "missing_text"),
        (7, "missing_text"),
    ]
    assert len(batches) > 2
    assert max(batch.nbytes for batch in batches) < 9 << 20


def test_bytes_that_are_no_utf8_are_digits_in_ids_and_damage_in_texts_and_urls(tmp_path):
    octets = pa.array([b"a", b"\xff", b"c"])
    for bad_column, rows in (("id", ["a", "ff", "c"]), ("text", ["a", "c"]), ("url", ["a", "c"])):
        columns = {
            "id": pa.array([b"x"] * 3),
            "text": pa.array([b"x"] * 3),
            "url": pa.array(["u"] * 3),
        }
        table = pa.table(columns | {bad_column: octets})
        pq.write_table(table, tmp_path / "x")
        found, bad = read(tmp_path / "x", FieldMap())
        assert [row[bad_column] for row in found] == rows
        assert [record.reason for record in bad] == ["invalid_utf8"] * (3 - len(rows))
