"""Parquet and Arrow files that are damaged, encrypted, or changed while they are read."""

import base64
import io
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest
from columnar_files import FORMATS, octets_of, read, table, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.readers import FieldMap, plan_ranges, read_batches
from pipeline.readers.columnar.parquet_footer import read_footer


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


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_file_that_shrank_since_it_was_planned_is_refused(tmp_path, form):
    path = write(table(20), tmp_path / "x", form)
    last = plan_ranges(path, split_bytes=1)[-1]
    write(table(5), tmp_path / "x", form)
    with pytest.raises(ValueError, match="has changed"):
        list(read_batches(last, FieldMap()))


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
