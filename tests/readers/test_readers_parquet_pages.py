"""Parquet files that lie: however few bytes stand for how many, memory is bounded."""

import io
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.limits import call
from hypothesis import given, settings
from hypothesis import strategies as st
from parquet_by_hand import (
    DELTA,
    DELTA_LENGTH,
    PLAIN,
    RLE,
    RLE_DICTIONARY,
    data_page,
    dictionary_page,
    equal_lengths,
    equal_values,
    file,
    plain,
    read,
    thrift,
    varint,
)

from pipeline.readers import FieldMap, plan_ranges, read_batches
from pipeline.readers.columnar import parquet_pages as pages_module
from pipeline.readers.columnar.parquet_footer import Column, Compact, read_footer
from pipeline.readers.columnar.parquet_pages import Leaf, Pages, TooMuchError, read_header

SPARE_BYTES = 700 << 20
SECONDS = 30
LONG = 10 << 20
ROWS = 80


def index_page(rows: int) -> bytes:
    """All rows are the dictionary's first value."""
    return data_page(rows, RLE_DICTIONARY, b"\0" + varint(rows << 1))


def lie(name: str) -> bytes:
    """A few hundred bytes, or as many pages, that stand for gigabytes."""
    value = b"a" * LONG
    shared = data_page(ROWS, DELTA, equal_values(ROWS, value))
    match name:
        case "encoding":
            return file([shared], ROWS, [RLE, PLAIN], LONG)
        case "size":
            return file([shared], ROWS, [RLE, DELTA], 1)
        case "size of many pages":
            return file([data_page(1, PLAIN, plain(value))] * ROWS, ROWS, [RLE, PLAIN], 1)
        case "where the dictionary is":
            pages = [data_page(1, PLAIN, plain(b"x")), dictionary_page(1, plain(value))]
            return file([*pages, index_page(ROWS - 1)], ROWS, [RLE, PLAIN], 100)
    raise AssertionError(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["encoding", "size", "size of many pages", "where the dictionary is"]
)
def test_what_a_footer_hides_is_found_and_read_in_small_pieces(name):
    assert call(read, lie(name), spare_bytes=SPARE_BYTES, seconds=SECONDS) == (ROWS, [])


def test_files_by_hand_are_as_pyarrow_reads_them():
    values = ["abc"] * 400
    for page in (
        data_page(400, DELTA, equal_values(400, b"abc")),
        data_page(400, DELTA_LENGTH, equal_lengths(400, 3, 3) + b"abc" * 400),
        data_page(400, PLAIN, plain(*[b"abc"] * 400)),
    ):
        found = pq.read_table(io.BytesIO(file([page], 400, [PLAIN], 1)))
        assert found["text"].to_pylist() == values
        assert read(file([page], 400, [PLAIN], 1)) == (400, [])


MANY = 1 << 30
BOMBS = {
    "a page": (
        lambda: file([data_page(1, PLAIN, plain(b"a" * (1200 << 20)))], 1, [PLAIN], 100),
        "takes 1,258,29",
    ),
    "a dictionary": (
        lambda: file(
            [dictionary_page(MANY >> 4, bytes(MANY >> 2)), index_page(400)], 400, [PLAIN], 100
        ),
        "takes 1,342,177,280",
    ),
    "a dictionary's size": (
        lambda: file([dictionary_page(MANY, bytes(8)), index_page(400)], 400, [PLAIN], 100),
        "takes 17,179,869,201",
    ),
    "lengths": (
        lambda: file([data_page(400, DELTA_LENGTH, equal_lengths(MANY, 0, 0))], 400, [PLAIN], 100),
        "1073741824 lengths of 400 values",
    ),
    "lengths of what is shared": (
        lambda: file([data_page(400, DELTA, equal_lengths(MANY, 0, 0))], 400, [PLAIN], 100),
        "1073741824 lengths of 400 values",
    ),
    "lengths of what is not": (
        lambda: file(
            [data_page(400, DELTA, equal_lengths(400, 0, 3) + equal_lengths(MANY, 0, 0))],
            400,
            [PLAIN],
            100,
        ),
        "1073741824 lengths of 400 values",
    ),
    "values": (
        lambda: file([data_page(MANY, DELTA, equal_lengths(MANY, 0, 0) * 2)], MANY, [PLAIN], 100),
        "takes 17,179,869,2",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_what_is_out_of_all_proportion_is_refused_before_it_is_decoded(name):
    make, said = BOMBS[name]
    documents, (content,) = call(read, make(), spare_bytes=SPARE_BYTES, seconds=SECONDS)
    assert documents == 0
    assert content.startswith("rows 0 to ")
    assert said in content


def test_values_of_a_fixed_huge_size_are_refused(tmp_path):
    """Nulls of it take its room too."""
    huge = pa.array([None] * 3, pa.binary(200 << 20))
    pq.write_table(pa.table({"text": ["a"] * 3, "id": huge}), tmp_path / "x.parquet")
    (piece,) = plan_ranges(str(tmp_path / "x.parquet"))
    bad = []
    assert list(read_batches(piece, FieldMap(), on_quarantine=bad.append)) == []
    assert "values of 209,715,200 bytes" in bad[0].content


def test_a_row_of_a_list_without_end_is_refused(tmp_path):
    zeros = pa.array(np.zeros(40_000_000, np.int8))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, len(zeros)], pa.int32()), zeros)
    pq.write_table(pa.table({"text": ["a", "b"], "n": lists}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    (piece,) = plan_ranges(str(tmp_path / "x.parquet"))
    bad = []
    fields = FieldMap(metadata=("n",))
    rows = [row for b in read_batches(piece, fields, on_quarantine=bad.append) for row in b["text"]]
    assert len(rows) + len(bad) <= 2
    assert "bytes" in bad[0].content


KINDS = [
    {"use_dictionary": True},
    {"use_dictionary": False, "column_encoding": "PLAIN"},
    {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
    {"use_dictionary": False, "column_encoding": "DELTA_LENGTH_BYTE_ARRAY"},
]
OPTIONS = {
    "compression": st.sampled_from(["none", "snappy", "gzip", "brotli", "zstd", "lz4"]),
    "data_page_version": st.sampled_from(["1.0", "2.0"]),
    "data_page_size": st.sampled_from([100, 500, 1 << 20]),
    "write_batch_size": st.sampled_from([1, 7, 1024]),
    "write_statistics": st.booleans(),
    "write_page_checksum": st.booleans(),
    "row_group_size": st.integers(1, 300),
}
LONG_TEXTS = [random.Random(i // 2).randbytes(1500).hex() + str(i) for i in range(4)]
TEXTS = st.none() | st.sampled_from(["", "a", "ab" * 40, *LONG_TEXTS])


def written(texts, kind, options):
    table = pa.table(
        {
            "id": pa.array([str(i) for i in range(len(texts))], pa.string()),
            "text": pa.array(texts, pa.string()),
            "url": pa.array([None] * len(texts), pa.string()),
            "labels": pa.array(
                [["x", None, "y" * 9][: 1 + i % 3] for i in range(len(texts))],
                pa.list_(pa.string()),
            ),
        }
    )
    kind = dict(kind)
    if "column_encoding" in kind:
        names = ["id", "text", "url"]
        kind["column_encoding"] = dict.fromkeys(names, kind["column_encoding"])
    sink = io.BytesIO()
    pq.write_table(table, sink, **kind, **options)
    return table, sink.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXTS, max_size=60), options=st.fixed_dictionaries(OPTIONS))
def test_every_packing_is_read_whole_however_small_the_pieces(kind, texts, options):
    table, data = written(texts * 5, kind, options)
    expected = [(row["id"], row["text"]) for row in table.to_pylist() if row["text"] is not None]
    for limit in (20_000, 128 << 20):
        rows, bad = [], []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pages_module, "PIECE_BYTES", limit)
            patch.setattr("pipeline.readers.columnar.parquet.PIECE_BYTES", limit)
            for piece in plan_ranges("x", lambda _: io.BytesIO(data)):
                for batch in read_batches(
                    piece,
                    FieldMap(metadata=("labels",)),
                    on_quarantine=bad.append,
                    open_input=lambda _: io.BytesIO(data),
                ):
                    rows += [(row["id"], row["text"]) for row in batch.to_pylist()]
        assert rows == expected
        assert {record.reason for record in bad} <= {"missing_text"}
        assert len(rows) + len(bad) == len(table)


def test_lists_of_strings_that_share_their_beginnings(monkeypatch):
    labels = [["abc" * 9, None, "abc" * 8], [], ["abc"]] * 40
    table = pa.table({"text": ["a"] * len(labels), "labels": labels})
    sink = io.BytesIO()
    encoding = {"text": "PLAIN", "labels.list.element": "DELTA_BYTE_ARRAY"}
    pq.write_table(table, sink, use_dictionary=False, column_encoding=encoding)
    fields = FieldMap(metadata=("labels",))

    def rows():
        (piece,) = plan_ranges("x", lambda _: io.BytesIO(sink.getvalue()))
        for batch in read_batches(piece, fields, open_input=lambda _: io.BytesIO(sink.getvalue())):
            yield from batch["labels"].to_pylist()

    assert [json.loads(row) for row in rows()] == labels
    # 40 times 54 letters, 16 bytes for each of 200 places in lists, and the page.
    monkeypatch.setattr(pages_module, "_MAX_RATIO", 0)
    monkeypatch.setattr(pages_module, "PIECE_BYTES", 40 * 54 + 200 * 16 + 4000)
    assert len(list(rows())) == len(labels)
    monkeypatch.setattr(pages_module, "PIECE_BYTES", 40 * 54 + 200 * 16 - 1)
    with pytest.raises(ValueError, match="corrupt_parquet"):
        list(rows())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=60), options=st.fixed_dictionaries(OPTIONS))
def test_headers_are_those_of_the_file(kind, texts, options):
    """Pages lie one after the other; together they have the values and sizes of their column."""
    _, data = written(texts, kind, options)
    theirs = pq.read_metadata(io.BytesIO(data))
    for i, group in enumerate(read_footer(io.BytesIO(data)).groups):
        for j, column in enumerate(group.columns):
            chunk = theirs.row_group(i).column(j)
            at, size, values = column.start, 0, 0
            while at < column.start + column.stored:
                page, length = read_header(data[at:])
                at += length + page.stored
                size += length + page.unpacked
                values += page.values if page.kind != 2 else 0
            assert at == column.start + chunk.total_compressed_size
            assert size == chunk.total_uncompressed_size
            assert values == chunk.num_values
            assert read_header(data[column.start : column.start + 3]) is None


def test_a_field_that_comes_twice_is_refused():
    """Thrift's own decoder would take the last one, if its type is right."""
    twice = b"\x15\x02" + b"\x05\x02\x02" + b"\0"  # field 1, and field 1 by its number
    with pytest.raises(ValueError, match="field 1"):
        Compact(twice).struct()
    with pytest.raises(ValueError, match="field 65537"):
        Compact(b"\x05" + varint(65537 << 1) + b"\x02\0").struct()


@pytest.mark.parametrize(
    ("number", "value"), [(1, 9), (2, -1), (2, 1 << 32), (3, (1 << 32) + 100), (3, -5)]
)
def test_numbers_that_others_would_cut_off_are_refused(number, value):
    page = data_page(1, PLAIN, plain(b"x"))
    fields = {field: ("i64", n) for field, n in Compact(page).struct().items() if field < 4}
    fields[number] = ("i64", value)
    about = {1: ("i32", 1), 2: ("i32", PLAIN), 3: ("i32", RLE), 4: ("i32", RLE)}
    with pytest.raises(ValueError, match="page"):
        read_header(thrift({**fields, 5: ("struct", about)}))


def test_two_columns_in_one_place_and_reads_elsewhere_are_refused():
    leaf = Leaf(0, 0, None)
    first, second = Column("a", 4, 100, 100, 0), Column("b", 103, 100, 100, 0)
    with pytest.raises(ValueError, match="two columns"):
        Pages([(second, leaf), (first, leaf)], 1)
    pages = Pages([(first, leaf)], 1)
    with pytest.raises(ValueError, match="at 5"):
        pages.see(5, b"x")


def test_pages_of_one_piece_add_up_and_those_of_the_next_start_anew(monkeypatch):
    monkeypatch.setattr(pages_module, "PIECE_BYTES", 1000)
    page = data_page(1, PLAIN, plain(b"x" * 400))
    start = 4
    pages = Pages([(Column("text", start, 10 * len(page), 0, 6), Leaf(0, 0, None))], rows=2)
    for _ in range(4):
        pages.see(start, page)
        pages.see(start + len(page), page)
        start += 2 * len(page)
        pages.next_piece()
    pages.see(start, page)
    with pytest.raises(TooMuchError) as caught:
        pages.see(start + len(page), page + page)
    assert (caught.value.rows, caught.value.careful) == (1, True)


def test_rows_that_pyarrow_leaves_out_are_quarantined(tmp_path):
    """pyarrow 25 writes this file so that it cannot read it: the lists end before the texts."""
    table = pa.table({"text": ["a", "b"], "labels": [["x"], ["y"]]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1, data_page_size=1)
    (piece,) = plan_ranges(str(tmp_path / "x.parquet"))
    bad = []
    fields = FieldMap(metadata=("labels",))
    assert list(read_batches(piece, fields, on_quarantine=bad.append)) == []
    assert [record.position for record in bad] == [0, 1]
    assert "only 0 of 1 rows" in bad[0].content


def test_rows_are_as_many_as_the_pages_say_not_the_footer(monkeypatch):
    """One page of honest size may hold far more than a piece."""
    monkeypatch.setattr(pages_module, "PIECE_BYTES", 1000)
    page = data_page(10, PLAIN, plain(*[random.Random(i).randbytes(300) for i in range(10)]))
    column = Column("text", 4, len(page), 0, 6)
    with pytest.raises(TooMuchError) as caught:
        Pages([(column, Leaf(0, 0, None))], rows=8).see(4, page)
    assert (caught.value.rows, caught.value.careful) == (3, False)
    Pages([(column, Leaf(0, 0, None))], rows=3).see(4, page)
