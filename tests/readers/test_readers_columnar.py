"""Parquet and Arrow: values of any type, ranges, fields, refusals."""

import decimal
import json

import pyarrow as pa
import pytest
from columnar_files import FORMATS, PAGE_INDEX, octets_of, read, table, write
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import (
    FieldMap,
    ReadOptions,
    digest_range,
    format_of,
    plan_ranges,
    read_batches,
)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("split_bytes", [1, 300, 1 << 30])
def test_ranges_add_up_to_the_file(tmp_path, form, split_bytes):
    data = table(20)
    path = write(data, tmp_path / "x", form)
    rows, bad = read(path, split_bytes=split_bytes)
    assert rows == data.select(["id", "url", "text"]).to_pylist()
    assert not bad
    ranges = plan_ranges(path, split_bytes=split_bytes)
    assert (len(ranges) > 1) == (form != "stream" and split_bytes < 1 << 30)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([["parquet"], ["arrow"], ["stream"], ["arrow", "stream"]]),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.sampled_from([1, 1 << 30]),
    st.data(),
)
def test_files_put_together(tmp_path_factory, forms, counts, split_bytes, draw):
    """As by ``cat``: each row of each is read once, in order, whatever they are next to."""
    path = tmp_path_factory.mktemp("m") / "x"
    parts = [table(count, seed) for seed, count in enumerate(counts)]
    octets = b""
    for part in parts:
        form = draw.draw(st.sampled_from(forms))
        options = PAGE_INDEX if form == "parquet" and draw.draw(st.booleans()) else {}
        octets += octets_of(part, form, **options)
        if form == "stream" and draw.draw(st.booleans()):
            octets = octets[:-8]  # the end mark is optional
        if form != "parquet":
            octets += bytes(draw.draw(st.integers(0, 70)))
    path.write_bytes(octets)
    rows, bad = read(str(path), split_bytes=split_bytes)
    columns = ["id", "url", "text"]
    assert rows == [row for part in parts for row in part.select(columns).to_pylist()]
    assert not bad
    for piece in plan_ranges(str(path), split_bytes=split_bytes):
        digest_range(piece)


@pytest.mark.parametrize("options", [{}, PAGE_INDEX])
def test_text_that_looks_like_the_border_of_two_parquet_files(tmp_path, options):
    data = pa.table({"text": ["PAR1PAR1" * 9, "PAR1"] * 20, "id": [str(i) for i in range(40)]})
    options = options | {"compression": "none"}
    one = octets_of(data, "parquet", **options)
    for count in (1, 2):
        (tmp_path / "x").write_bytes(one * count)
        rows, bad = read(str(tmp_path / "x"), split_bytes=1)
        assert [row["text"] for row in rows] == data["text"].to_pylist() * count
        assert not bad


@pytest.mark.parametrize("form", FORMATS)
def test_a_later_part_without_the_text_column(tmp_path, form):
    """Of a stream that is only found out when it is read; of Parquet it is refused before."""
    other = pa.table({"content": ["a"]})
    (tmp_path / "x").write_bytes(octets_of(table(9), form) + octets_of(other, form))
    if form == "parquet":
        with pytest.raises(ValueError, match=r"\['content'\].*--field text="):
            plan_ranges(str(tmp_path / "x"), fields=FieldMap())
        return
    rows, bad = read(str(tmp_path / "x"))
    assert len(rows) == 9
    assert [record.reason for record in bad] == ["missing_text"]
    assert "'content'" in bad[0].content


@pytest.mark.parametrize("form", FORMATS)
def test_types(tmp_path, form):
    texts = ["a", None, "", "ü" * 10]
    columns = {
        "text": pa.array(texts, pa.large_string()),
        "id": pa.array([1, 2, None, -(2**60)], pa.int64()),
        "url": pa.array([b"x", b"y", None, b"z"], pa.binary()),
        "floats": pa.array([1.5, 2.0, None, 1e300]),
        "flags": pa.array([True, False, None, True]),
        "lists": pa.array([[1], [], None, [2, 3]], pa.list_(pa.int64())),
        "dicts": pa.array(["p", "q", "p", None]).dictionary_encode(),
        "money": pa.array([decimal.Decimal("1.10"), None, None, None]),
        "structs": pa.array([{"a": "é"}, None, {"a": None}, {}]),
        "nothing": pa.nulls(4),
    }
    metadata = (*list(columns)[3:], "absent")
    path = write(pa.table(columns), tmp_path / "x", form)
    rows, bad = read(path, FieldMap(metadata=metadata))
    assert [(b.position, b.unit, b.reason) for b in bad] == [(1, "record", "missing_text")]
    assert [row["text"] for row in rows] == ["a", "", "ü" * 10]
    assert [row["id"] for row in rows] == ["1", None, str(-(2**60))]
    assert [row["url"] for row in rows] == ["x", None, "z"]
    assert float(rows[2]["floats"]) == 1e300
    assert [row["flags"] for row in rows] == ["true", None, "true"]
    assert [row["lists"] for row in rows] == ["[1]", None, "[2, 3]"]
    assert [row["dicts"] for row in rows] == ["p", "p", None]
    assert [row["money"] for row in rows] == ["1.10", None, None]
    assert json.loads(rows[0]["structs"]) == {"a": "é"}
    assert {row["nothing"] for row in rows} | {row["absent"] for row in rows} == {None}


@pytest.mark.parametrize("form", FORMATS)
def test_fields_of_structs(tmp_path, form):
    """As dolma and datatrove keep the URL; a column whose name has dots comes first."""
    rows = [
        {"doc": {"body": f"t{i}", "n": i}, "meta": {"url": {"raw": f"u{i}"}}, "meta.id": str(i)}
        for i in range(9)
    ]
    rows[4]["meta"] = None
    rows[5]["doc"] = None
    path = write(pa.Table.from_pylist(rows), tmp_path / "x", form)
    with open(path, "rb") as stream:
        there = format_of(path).column_names(stream)
    assert {"doc.body", "meta.url.raw", "meta.id"} <= set(there)
    fields = FieldMap(
        text="doc.body", url="meta.url.raw", id="meta.id", metadata=("doc.n", "doc.z")
    )
    found, bad = read(path, fields, split_bytes=1)
    assert [(b.position, b.reason) for b in bad] == [(5, "missing_text")]
    assert found == [
        {
            "id": row["meta.id"],
            "url": row["meta"] and row["meta"]["url"]["raw"],
            "text": row["doc"]["body"],
            "doc.n": str(row["doc"]["n"]),
            "doc.z": None,
        }
        for row in rows
        if row["doc"]
    ]
    with pytest.raises(ValueError, match=r"no column 'doc\.text'; it has \['doc', 'doc\.body'"):
        read(path, FieldMap(text="doc.text"))
    path = write(pa.Table.from_pylist([{"doc": [{"text": "a"}]}]), tmp_path / "y", form)
    with pytest.raises(ValueError, match=r"\('doc' is list<.*struct<text: string>>, not struct\)"):
        read(path, FieldMap(text="doc.text"))


@pytest.mark.parametrize("form", ["arrow", "stream"])
def test_fields_of_structs_that_are_encoded(tmp_path, form):
    metas = pa.array([{"url": "u"}, None, {"url": None}, {"url": "v"}])
    texts = pa.array([{"body": "s"}, {"body": "t"}, None])
    table = pa.table(
        {
            "meta": pa.DictionaryArray.from_arrays(pa.array([3, 0, None, 1, 2, 0, 3]), metas),
            "doc": pa.RunEndEncodedArray.from_arrays(pa.array([2, 6, 7], pa.int32()), texts),
        }
    )
    for part in (table, table.slice(1)):
        path = write(part, tmp_path / "x", form)
        rows, bad = read(path, FieldMap(text="doc.body", url="meta.url"))
        assert [row["text"] for row in rows] == list("sstttt")[-len(rows) :]
        assert [row["url"] for row in rows] == ["v", "u", None, None, None, "u"][-len(rows) :]
        assert [(b.position, b.reason) for b in bad] == [(len(rows), "missing_text")]
        assert len(rows) == len(part) - 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_name_with_dots_comes_before_a_field_of_that_path(tmp_path, form):
    rows = [{"doc.text": f"column {i}", "doc": {"text": f"field {i}", "n": i}} for i in range(9)]
    path = write(pa.Table.from_pylist(rows), tmp_path / "x", form)
    found, bad = read(path, FieldMap(text="doc.text", id="doc.n"), split_bytes=1)
    assert not bad
    assert [(row["text"], row["id"]) for row in found] == [
        (f"column {i}", str(i)) for i in range(9)
    ]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_binary())])
def test_a_list_of_strings_is_a_text_on_request(tmp_path, form, kind):
    texts = [["a", "é"], [], None, ["b", None], ["c"] * 500]
    path = write(pa.table({"text": pa.array(texts, kind)}), tmp_path / "x", form)
    rows, bad = read(path, FieldMap(list_separator="\n"))
    assert [row["text"] for row in rows] == ["a\né", "", "\n".join(["c"] * 500)]
    assert [(b.position, b.reason) for b in bad] == [(2, "missing_text"), (3, "missing_text")]
    with pytest.raises(ValueError, match=r"--list-separator"):
        read(path)


@pytest.mark.parametrize("form", ["arrow", "stream"])
def test_a_bad_value_within_a_struct_costs_its_row(tmp_path, form):
    values = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    path = write(
        pa.table({"doc": pa.StructArray.from_arrays([values], ["text"])}), tmp_path / "x", form
    )
    rows, bad = read(path, FieldMap(text="doc.text"))
    assert [row["text"] for row in rows] == ["a", "c"]
    assert [(b.position, b.reason) for b in bad] == [(1, "invalid_utf8")]


@pytest.mark.parametrize("form", ["arrow", "stream"])
@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary(), pa.large_binary(), pa.string()])
def test_text_of_every_string_type(tmp_path, form, kind):
    texts = ["a" * i for i in range(20)]
    path = write(pa.table({"text": pa.array(texts).cast(kind)}), tmp_path / "x", form)
    rows, bad = read(path)
    assert ([row["text"] for row in rows], bad) == (texts, [])


@pytest.mark.parametrize("form", FORMATS)
def test_rows_that_are_no_documents(tmp_path, form):
    octets = [b"good", b"\xff", None, b"x" * 101, b"x" * 100, b"\xed\xa0\x80"]
    text = pa.array(octets, pa.large_binary()).view(pa.large_string())
    data = pa.table({"text": text, "id": pa.array([b"1", b"2", b"3", b"4", b"5", b"\xff"])})
    path = write(data, tmp_path / "x", form)
    for split in (1, 1 << 30):
        rows, bad = read(path, options=ReadOptions(100), split_bytes=split)
        assert [row["text"] for row in rows] == ["good", "x" * 100]
        assert [(b.position, b.reason, b.unit) for b in bad] == [
            (1, "invalid_utf8", "record"),
            (2, "missing_text", "record"),
            (3, "too_long", "record"),
            (5, "invalid_utf8", "record"),
        ]
        assert bad[0].content == "\\xff"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("count", [0, 3])
def test_a_column_of_nothing_has_no_type(tmp_path, form, count):
    """As one shard of many may have none, and pandas then says null."""
    path = write(pa.table({"text": pa.nulls(count), "id": pa.nulls(count)}), tmp_path / "x", form)
    assert len(plan_ranges(path, fields=FieldMap())) == 1
    rows, bad = read(path)
    assert not rows
    assert [(b.position, b.reason) for b in bad] == [(i, "missing_text") for i in range(count)]


@pytest.mark.parametrize("form", FORMATS)
def test_a_missing_text_column_is_refused(tmp_path, form):
    path = write(pa.table({"content": ["a"], "n": [1]}), tmp_path / "x", form)
    with pytest.raises(ValueError, match=r"\['content', 'n'\].*--field text="):
        read(path)
    with pytest.raises(ValueError, match=r"'n' is int64.*--field text="):
        read(path, FieldMap(text="n"))
    assert read(path, FieldMap(text="content"))[0][0]["text"] == "a"


@pytest.mark.parametrize("form", FORMATS)
def test_a_missing_text_column_is_refused_before_anything_is_read(tmp_path, form):
    path = write(pa.table({"content": ["a"]}), tmp_path / "x", form)
    with pytest.raises(ValueError, match=r"\['content'\].*--field text="):
        plan_ranges(path, fields=FieldMap())
    assert len(plan_ranges(path, fields=FieldMap(text="content"))) == 1
    octets = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(octets[:60])  # no schema any more: nothing to refuse
    assert len(plan_ranges(path, fields=FieldMap())) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_column_name_that_is_not_unique_is_refused(tmp_path, form):
    both = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    path = write(both, tmp_path / "x", form)
    with pytest.raises(ValueError, match=r"several columns named \['text'\]"):
        read(path)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_batches_are_of_some_megabytes(tmp_path, form):
    data = pa.table({"text": ["word " * 5000] * 1000})
    path = write(data, tmp_path / "x", form, rows=1000)
    batches = list(read_batches(plan_ranges(path)[0], FieldMap()))
    assert sum(map(len, batches)) == 1000
    assert max(len(batch) for batch in batches) * 25_000 <= 8 << 20


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_digest_notices_its_own_range(tmp_path, form):
    first, second = table(12, 1), table(12, 2)
    options = {"compression": "none", "use_dictionary": False} if form == "parquet" else {}
    paths = [
        write(data, tmp_path / name, form, rows=3, **options)
        for data, name in ((first, "a"), (pa.concat_tables([first[:9], second[9:]]), "b"))
    ]
    ranges = [plan_ranges(path, split_bytes=1) for path in paths]
    assert [len(r) for r in ranges] == [4, 4]
    digests = [[digest_range(piece) for piece in pieces] for pieces in ranges]
    assert digests[0][3] != digests[1][3]
    if form == "arrow":  # a Parquet footer holds statistics of every row group
        assert digests[0][:3] == digests[1][:3]
