"""Parquet and Arrow: values of any type, ranges, damage."""

import base64
import decimal
import io
import json
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.readers import (
    FieldMap,
    ReadOptions,
    digest_range,
    format_of,
    plan_ranges,
    read_batches,
)
from pipeline.readers.columnar.parquet_footer import read_footer
from pipeline.readers.documents import document_schema

FORMATS = ("parquet", "arrow", "stream")


def write(table, path, form, rows=3, **kwargs):
    match form:
        case "parquet":
            pq.write_table(table, path, row_group_size=rows, **kwargs)
        case "arrow":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=rows)
        case "stream":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=rows)
    return str(path)


def read(path, fields=None, split_bytes=1 << 30, **kwargs):
    fields = fields or FieldMap()
    rows, bad = [], []
    for piece in plan_ranges(path, split_bytes=split_bytes):
        for batch in read_batches(piece, fields, on_quarantine=bad.append, **kwargs):
            batch.validate(full=True)
            assert batch.schema == document_schema(fields.metadata)
            rows += batch.to_pylist()
    return rows, bad


def table(count, seed=0):
    return pa.table(
        {
            "id": [f"{seed}-{i}" for i in range(count)],
            "url": [None if i % 3 else f"http://x/{i}" for i in range(count)],
            "other": list(range(count)),
            "text": [f"text {i} " + "é" * (i * 7 % 50) for i in range(count)],
        }
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


def octets_of(data, form, **kwargs):
    sink = io.BytesIO()
    write(data, sink, form, **kwargs)
    return sink.getvalue()


PAGE_INDEX = {"write_page_index": True, "bloom_filter_options": {"text": {"ndv": 9}}}


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
def test_what_follows_is_no_such_file(tmp_path, form):
    one = octets_of(table(9), form)
    (tmp_path / "x").write_bytes(one + b"garbage" * 5)
    rows, bad = read(str(tmp_path / "x"))
    assert len(rows) == (0 if form == "parquet" else 9)
    place = (0, "record") if form == "parquet" else (len(one), "byte")
    assert [(record.position, record.unit) for record in bad] == [place]
    assert bad[0].reason == ("corrupt_parquet" if form == "parquet" else "corrupt_arrow")


@pytest.mark.parametrize("form", FORMATS)
def test_what_follows_is_cut_off_or_damaged(tmp_path, form):
    first, second = octets_of(table(9), form), octets_of(table(6, 2), form)
    (tmp_path / "x").write_bytes(first + second[: len(second) // 2])
    rows, bad = read(str(tmp_path / "x"))
    assert form == "parquet" or [row["id"] for row in rows][:9] == [f"0-{i}" for i in range(9)]
    assert len(bad) == 1
    at = len(first) // 2 if form == "parquet" else first.index(b"0-4") - 200
    (tmp_path / "x").write_bytes(first[:at] + bytes(30) + first[at + 30 :] + second)
    rows, bad = read(str(tmp_path / "x"))
    assert bad
    if form == "parquet":
        assert [row["id"] for row in rows][-6:] == [f"2-{i}" for i in range(6)]


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
    with pytest.raises(ValueError, match=r"\('doc' is list<.*struct<text: string>>, no struct\)"):
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


class Keys(encryption.KmsClient):
    """Keeps keys by writing them down."""

    def __init__(self, *_):
        super().__init__()

    def wrap_key(self, key, _):
        return base64.b64encode(key)

    def unwrap_key(self, key, _):
        return base64.b64decode(key)


def encrypted(path, columns, plaintext_footer):
    config = encryption.EncryptionConfiguration(
        footer_key="a", column_keys={"b": columns}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(Keys)
    keys = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    data = table(9)
    with pq.ParquetWriter(path, data.schema, encryption_properties=keys) as writer:
        writer.write_table(data, row_group_size=5)
    return str(path)


def test_encrypted_parquet_is_named(tmp_path):
    whole = encrypted(tmp_path / "x.parquet", ["text"], plaintext_footer=False)
    assert plan_ranges(whole, split_bytes=1, fields=FieldMap())[0].end is None
    rows, bad = read(whole)
    assert ([(b.reason, b.position) for b in bad], rows) == ([("encrypted_parquet", 0)], [])
    octets = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x").write_bytes(octets[:-20])  # cut off, and without its name
    assert [b.reason for b in read(str(tmp_path / "x"))[1]] == ["encrypted_parquet"]
    for columns, reasons in ((["text"], ["encrypted_parquet"] * 2), (["other"], [])):
        path = encrypted(tmp_path / "x", columns, plaintext_footer=True)
        rows, bad = read(path)
        assert [b.reason for b in bad] == reasons
        assert len(rows) == (0 if reasons else 9)


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
def test_a_file_that_shrank_since_it_was_planned_is_refused(tmp_path, form):
    path = write(table(20), tmp_path / "x", form)
    last = plan_ranges(path, split_bytes=1)[-1]
    write(table(5), tmp_path / "x", form)
    with pytest.raises(ValueError, match="has changed"):
        list(read_batches(last, FieldMap()))


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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 9), st.booleans(), st.sampled_from(["none", "zstd"]))
@example(0, 1, True, "none")  # no data page, but one of the dictionary
def test_footers_are_read_as_pyarrow_reads_them(rows, size, dictionary, compression):
    columns = {f"c{i}": [None if i % 3 else "x" * i] * rows for i in range(20)}
    sink = io.BytesIO()
    nested = pa.array([{"a": [1]}] * rows, pa.struct([("a", pa.list_(pa.int64()))]))
    data = pa.table({**columns, "text": pa.array(["é" * 99] * rows, pa.string()), "s": nested})
    pq.write_table(
        data, sink, row_group_size=size, use_dictionary=dictionary, compression=compression
    )
    theirs = pq.read_metadata(sink)
    ours = read_footer(sink)
    assert len(sink.getvalue()) - 8 - ours.start == theirs.serialized_size
    assert len(ours.groups) == theirs.num_row_groups
    for i, group in enumerate(ours.groups):
        chunks = [theirs.row_group(i).column(j) for j in range(theirs.num_columns)]
        starts = [c.dictionary_page_offset or c.data_page_offset for c in chunks]
        ends = [a + c.total_compressed_size for a, c in zip(starts, chunks, strict=True)]
        assert group.rows == theirs.row_group(i).num_rows
        assert (group.start, group.end) == (min(starts), max(ends))
        sizes = {column.path: column.size for column in group.columns}
        assert sizes == {c.path_in_schema: c.total_uncompressed_size for c in chunks}
        stored = {column.path: column.stored for column in group.columns}
        assert stored == {c.path_in_schema: c.total_compressed_size for c in chunks}


def test_a_damaged_footer_does_not_end_the_process(tmp_path):
    """pyarrow itself aborts at some of these."""
    path = tmp_path / "x"
    write(table(9), path, "parquet")
    octets = path.read_bytes()
    footer = len(octets) - 8 - int.from_bytes(octets[-8:-4], "little")
    # A list in a list in a list …
    path.write_bytes(octets[:footer] + b"\x19" * 5000 + (5000).to_bytes(4, "little") + b"PAR1")
    assert [b.reason for b in read(str(path))[1]] == ["corrupt_parquet"]
    for at in range(footer, len(octets), 11):
        path.write_bytes(octets[:at] + bytes([octets[at] ^ 16]) + octets[at + 1 :])
        try:
            rows, bad = read(str(path), split_bytes=1)
        except ValueError as refusal:
            assert "--field" in str(refusal)  # noqa: PT017
        else:
            assert len(rows) == 9 or bad


def damaged(octets, at):
    out = bytearray(octets)
    for i in range(at, min(at + 30, len(out))):
        out[i] ^= 0x5A
    return bytes(out)


@pytest.mark.parametrize("form", FORMATS)
def test_damage_within_the_data(tmp_path, form):
    data = table(300)
    path = tmp_path / "x"
    write(data, path, form, rows=100)
    octets = path.read_bytes()
    # In the second of three parts: of Parquet a page header, of Arrow the offsets.
    if form == "parquet":
        at = pq.read_metadata(path).row_group(1).column(3).dictionary_page_offset
    else:
        at = octets.index(b"text 100 ") - 200
    path.write_bytes(damaged(octets, at))
    rows, bad = read(str(path))
    assert [b.reason for b in bad] == ["corrupt_parquet" if form == "parquet" else "corrupt_arrow"]
    texts = [row["text"] for row in rows]
    expected = data["text"].to_pylist()
    assert texts[:100] == expected[:100]
    assert texts[100:] == ([] if form == "stream" else expected[200:])


@pytest.mark.parametrize("form", FORMATS)
def test_what_cannot_be_opened_is_one_record(tmp_path, form):
    path = tmp_path / "x"
    write(table(30), path, form)
    octets = path.read_bytes()
    path.write_bytes(octets[:60])
    rows, bad = read(str(path))
    assert not rows
    assert [b.reason for b in bad] == ["corrupt_parquet" if form == "parquet" else "corrupt_arrow"]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_file_that_cannot_be_read_in_parts_is_not_read_once_for_every_part(tmp_path, form):
    """The footer tells where the parts are, but pyarrow cannot decode the schema in it."""
    path = write(table(30), tmp_path / "x", form)
    pieces = plan_ranges(path, split_bytes=1)
    assert len(pieces) > 5
    octets = bytearray((tmp_path / "x").read_bytes())
    if form == "parquet":
        octets[octets.rindex(b"ARROW:schema") + 20] = ord("!")  # no base64
    else:
        octets[octets.rindex(b"other")] = 0xFF  # no UTF-8
    (tmp_path / "x").write_bytes(octets)
    rows, bad = read(path, split_bytes=1)
    assert [row["id"] for row in rows] == ([f"0-{i}" for i in range(30)] if form == "arrow" else [])
    assert len(bad) == 1
    for piece in pieces:
        with pytest.raises(ValueError, match="changed since the run started"):
            list(read_batches(piece, FieldMap(), on_quarantine=bad.append))


def test_a_footer_that_lists_too_few_batches_loses_none(tmp_path):
    """The count of a vector in a flatbuffer is one number, and zero is as good as another."""
    path = write(table(30), tmp_path / "x", "arrow", rows=10)
    octets = bytearray((tmp_path / "x").read_bytes())
    blocks = struct.pack("<i", 3)  # before three blocks of 24 bytes; the first starts after 0
    start = len(octets) - 10 - int.from_bytes(octets[-10:-6], "little")
    at = next(
        i
        for i in range(start, len(octets) - 76, 4)
        if octets[i : i + 4] == blocks
        and 0 < int.from_bytes(octets[i + 4 : i + 12], "little") < start
    )
    for count in (0, 1):
        octets[at : at + 4] = struct.pack("<i", count)
        (tmp_path / "x").write_bytes(octets)
        rows, bad = read(path)
        assert [row["id"] for row in rows] == [f"0-{i}" for i in range(30)]
        assert [record.reason for record in bad] in ([], ["corrupt_arrow"])


@pytest.mark.parametrize("at", range(0, 4))
def test_a_parquet_index_beyond_the_dictionary_is_damage(tmp_path, at):
    """pyarrow 25 hands it out where the file says that the column was a dictionary."""
    text = pa.array([f"text {i % 5}" for i in range(64)]).dictionary_encode()
    path = write(pa.table({"text": text}), tmp_path / "x", "parquet", rows=64, compression="none")
    octets = bytearray((tmp_path / "x").read_bytes())
    # The data page ends where the footer starts: 3 bits an index, here some of them are 7.
    end = len(octets) - 8 - int.from_bytes(octets[-8:-4], "little")
    octets[end - 8 + at] = 0xFF
    (tmp_path / "x").write_bytes(octets)
    rows, bad = read(path)
    assert [record.reason for record in bad] == ["corrupt_parquet"]
    assert not rows


def test_an_arrow_file_whose_writer_was_stopped(tmp_path):
    path = tmp_path / "x"
    data = table(30)
    write(data, path, "arrow", rows=10)
    octets = path.read_bytes()
    path.write_bytes(octets[: octets.index(b"text 25")])
    rows, bad = read(str(path))
    assert [row["text"] for row in rows] == data["text"].to_pylist()[:20]
    assert [b.reason for b in bad] == ["corrupt_arrow"]


def test_a_failing_disk_is_no_damage(tmp_path):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 100:
                raise OSError(5, "Input/output error", "x")
            return super().read(size)

    for form in FORMATS:
        path = tmp_path / "x"
        write(table(300), path, form, rows=100)
        octets = path.read_bytes()
        (piece,) = plan_ranges(str(path))
        with pytest.raises(OSError, match="Input/output error"):
            list(read_batches(piece, FieldMap(), open_input=lambda p, o=octets: Failing(o)))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=3)), max_size=4),
    st.none() | st.integers(0, 10**6),
    st.sampled_from([1, 1 << 30]),
)
def test_mutations_never_crash(tmp_path_factory, form, patches, cut, split_bytes):
    """Whatever the bytes: rows come, or quarantined records, or a clear refusal."""
    path = tmp_path_factory.mktemp("m") / f"x.{'parquet' if form == 'parquet' else 'arrow'}"
    write(table(9), path, form)
    octets = bytearray(path.read_bytes())
    for at, patch in patches:
        at %= len(octets)
        octets[at : at + len(patch)] = patch
    if cut is not None:
        del octets[cut % len(octets) :]
    path.write_bytes(octets)
    try:
        rows, bad = read(str(path), split_bytes=split_bytes)
    except ValueError as refusal:
        assert "--field" in str(refusal) or "unknown format" in str(refusal)  # noqa: PT017
        return
    assert len(rows) == 9 or bad or form == "stream"
