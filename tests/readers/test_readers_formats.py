"""Recognition by content, refusals, digests, quarantine, every format under random damage."""

import bz2
import gzip
import json
import lzma
import os
import random
from collections import Counter

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import (
    FieldMap,
    InputRange,
    ReadReport,
    digest_range,
    plan_ranges,
    read_batches,
)
from pipeline.readers.decoders import zstd

TEXTS = [f"text {i} é " + "x" * (i * 13 % 40) for i in range(12)]


def jsonl():
    return "".join(
        json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(TEXTS)
    ).encode()


def json_array(indent=1):
    return json.dumps(
        [{"text": text, "id": i} for i, text in enumerate(TEXTS)], indent=indent
    ).encode()


def wet():
    out = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 3\r\n\r\nx\r\n\r\n\r\n"
    for i, text in enumerate(TEXTS):
        block = text.encode()
        head = f"WARC-Type: conversion\r\nWARC-Record-ID: {i}\r\nContent-Length: {len(block)}"
        out += b"WARC/1.0\r\n" + head.encode() + b"\r\n\r\n" + block + b"\r\n\r\n"
    return out


def table():
    return pa.table({"id": [str(i) for i in range(len(TEXTS))], "text": TEXTS})


def parquet():
    sink = pa.BufferOutputStream()
    pq.write_table(table(), sink, row_group_size=4)
    return sink.getvalue().to_pybytes()


def arrow(new=pa.ipc.new_file):
    sink = pa.BufferOutputStream()
    with new(sink, table().schema) as writer:
        writer.write_table(table(), max_chunksize=4)
    return sink.getvalue().to_pybytes()


def warc_with_dictionary():
    """A frame a record, and before them their dictionary (IIPC's .warc.zst)."""
    records = [b"WARC/1.0" + record for record in wet().split(b"WARC/1.0")[1:]]
    dictionary = zstd.train_dict(records * 20, 1000)
    content = dictionary.dict_content
    first = b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
    return first + b"".join(zstd.compress(record, zstd_dict=dictionary) for record in records)


CONTENT = {
    "x.jsonl": jsonl(),
    "x.jsonl.gz": gzip.compress(jsonl(), mtime=0),
    "x.jsonl.zst": zstd.compress(jsonl()),
    "x.jsonl.bz2": bz2.compress(jsonl()),
    "x.jsonl.xz": lzma.compress(jsonl()),
    "x.jsonl.lz4": lz4.frame.compress(jsonl()),
    "x.json": json_array(),
    "x.json.gz": gzip.compress(json_array(None), mtime=0),
    "x.warc": wet(),
    "x.warc.gz": gzip.compress(wet(), mtime=0),
    "x.warc.zst": zstd.compress(wet()),
    "dictionary.warc.zst": warc_with_dictionary(),
    "x.parquet": parquet(),
    "x.arrow": arrow(),
    "x.arrows": arrow(pa.ipc.new_stream),
}


def read(path, split_bytes=1 << 30):
    """Rows, quarantined records and skipped counts of all ranges of a file."""
    rows, bad, report = [], [], ReadReport()
    for piece in plan_ranges(str(path), split_bytes=split_bytes):
        digest = xxhash.xxh3_128()
        for batch in read_batches(
            piece, FieldMap(), on_quarantine=bad.append, report=report, digest=digest
        ):
            batch.validate(full=True)
            rows += batch.to_pylist()
        assert digest.hexdigest() == digest_range(piece)
    return rows, bad, report.skipped


@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize("name", ["x", "x.json.gz", "x.parquet", "x.jsonl", "x.txt.zst"])
def test_content_wins_over_the_name(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(CONTENT[content])
    rows, bad, skipped = read(path)
    assert [row["text"] for row in rows] == TEXTS
    assert [row["id"] for row in rows] == [str(i) for i in range(len(TEXTS))]
    assert not bad
    assert skipped == ({"warcinfo": 1} if "warc" in content else {})


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n", b"some text\n", b"[1, 2]\n", gzip.compress(b"text", mtime=0)]
)
def test_an_unknown_format_is_refused(tmp_path, content):
    path = tmp_path / "x.dat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.dat: unknown format.*WET, WARC"):
        plan_ranges(str(path))
    with pytest.raises(ValueError, match="unknown format"):
        list(read_batches(InputRange(str(path), 0, None, 0), FieldMap()))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (gzip.compress(bytes(257) + b"ustar", mtime=0), "tar: unpack it"),
        (b"PK\x03\x04", "zip: unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer: fetch"),
        (b"\n<!doctype html><title>404</title>", "HTML or XML, perhaps a failed download: fetch"),
        (b"<?xml version='1.0'?><Error>AccessDenied", "HTML or XML, perhaps a failed download"),
        (b"ORC\x08", "ORC: convert it to Parquet"),
        (b"Obj\x01\x04", "Avro: convert it to Parquet"),
        (gzip.compress(gzip.compress(jsonl())), "gzip within gzip: unpack it once"),
        (zstd.compress(gzip.compress(jsonl())), "gzip within zstd: unpack it once"),
        (jsonl().decode().encode("utf-16"), "UTF-16: convert it to UTF-8"),
        (jsonl().decode().encode("utf-16-le"), "UTF-16: convert it to UTF-8"),
        (b"\xfe\xff" + jsonl().decode().encode("utf-16-be"), "UTF-16: convert it to UTF-8"),
        (gzip.compress(jsonl().decode().encode("utf-16")), "UTF-16: convert it to UTF-8"),
        (lzma.compress(jsonl(), lzma.FORMAT_ALONE), "lzma, the predecessor of xz: unpack it"),
        (b"\x02\x21\x4c\x18\x0b\0\0\0", "lz4's legacy format: unpack it"),
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.dat", "x.parquet", "x.warc.gz"])
def test_known_formats_that_are_not_read_are_named(tmp_path, start, said, name):
    (tmp_path / name).write_bytes(start)
    with pytest.raises(ValueError, match=f"{name} is {said}"):
        plan_ranges(str(tmp_path / name))


def test_feather_version_1_is_named(tmp_path):
    for name in ("x.feather", "x"):
        (tmp_path / name).write_bytes(b"FEA1" + bytes(100) + b"FEA1")
        rows, bad, _ = read(tmp_path / name)
        assert ([record.reason for record in bad], rows) == (["feather_v1"], [])


def test_packed_parquet_is_refused(tmp_path):
    path = tmp_path / "x.parquet.gz"
    path.write_bytes(gzip.compress(parquet()))
    with pytest.raises(ValueError, match="unpack it"):
        plan_ranges(str(path))


def test_a_name_helps_where_the_start_is_damaged(tmp_path):
    for name, reason in (("x.jsonl", "bad_json"), ("x.warc", "bad_warc")):
        path = tmp_path / name
        path.write_bytes(b"?" + CONTENT[name][1:])
        rows, bad, _ = read(path)
        # Of the WARC file it is the warcinfo record that is lost.
        assert [row["text"] for row in rows] == TEXTS[1 if name == "x.jsonl" else 0 :]
        assert [b.reason for b in bad] == [reason]


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a directory"):
        plan_ranges(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(jsonl())
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"x\.jsonl"):
        plan_ranges(str(path))


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
        plan_ranges(str(tmp_path / "gone.jsonl"))


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_an_empty_file_of_any_name(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(2 * pack(b""))
    rows, bad, _ = read(path)
    assert not rows
    assert [b.reason for b in bad] == ["empty_file"]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(CONTENT)),
    st.lists(
        st.tuples(
            st.sampled_from(["flip", "write", "delete", "insert", "repeat", "splice"]),
            st.integers(0, 10**6),
            st.integers(0, 10**6),
            st.binary(min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([37, 1 << 30]),
    st.data(),
)
def test_any_damage_is_survived(tmp_path_factory, name, operations, split_bytes, draw):
    """It ends, says what it could not read, hashes what it read, and reads the same twice."""
    octets = bytearray(CONTENT[name])
    for operation, a, b, patch in operations:
        a %= len(octets) + 1
        b %= 200
        match operation:
            case "flip" if a < len(octets):
                octets[a] ^= 1 << (b % 8)
            case "write":
                octets[a : a + len(patch)] = patch
            case "delete":
                del octets[a : a + b]
            case "insert":
                octets[a:a] = patch
            case "repeat":
                octets[a:a] = octets[a : a + b]
            case "splice":
                other = CONTENT[draw.draw(st.sampled_from(sorted(CONTENT)))]
                octets[a : a + b] = other[b : 2 * b]
    path = tmp_path_factory.mktemp("m") / name
    path.write_bytes(octets)
    try:
        first = read(path, split_bytes)
    except ValueError as refusal:
        assert any(text in str(refusal) for text in ("unknown format", "--field", "unpack it"))  # noqa: PT017
        return
    assert read(path, split_bytes) == first
    rows, bad, skipped = first
    assert rows or bad or skipped or not octets.strip()
    if name == "x.jsonl" and octets.startswith(b"{"):
        assert len(rows) + len(bad) == sum(
            bool(line.strip(b" \t\r")) for line in octets.split(b"\n")
        )


def test_a_range_notices_every_change_that_changes_its_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    rng = random.Random(0)
    lines = [json.dumps({"text": "x" * rng.randrange(30)}) for _ in range(30)]
    data = "\n".join(lines).encode()
    path.write_bytes(data)
    ranges = plan_ranges(str(path), split_bytes=100)
    assert len(ranges) > 5

    def state():
        batches = [read_batches(r, FieldMap(), on_quarantine=lambda q: None) for r in ranges]
        rows = [[row for batch in found for row in batch.to_pylist()] for found in batches]
        return list(zip(map(digest_range, ranges), rows, strict=True))

    before = state()
    for at in range(0, len(data), 7):
        path.write_bytes(
            data[:at] + (b"\n" if data[at : at + 1] != b"\n" else b" ") + data[at + 1 :]
        )
        for (old_digest, old_rows), (digest, rows) in zip(before, state(), strict=True):
            assert rows == old_rows or digest != old_digest


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_damage_cuts_one_line_and_no_more(tmp_path, pack):
    lines = [json.dumps({"text": f"{i} " + "".join(map(chr, range(200)))}) for i in range(300)]
    first, second = ("\n".join(half) + "\n" for half in (lines[:150], lines[150:]))
    whole = pack(first.encode())
    path = tmp_path / "x.jsonl"
    path.write_bytes(whole[: len(whole) // 2] + pack(second.encode()))
    rows, bad, _ = read(path)
    texts = [row["text"] for row in rows]
    count = len(texts) - 150
    assert texts == [json.loads(line)["text"] for line in lines[:count] + lines[150:]]
    assert len(bad) == 1
    assert (bad[0].unit, bad[0].path) == ("compressed byte", str(path))
    assert bad[0].reason.split("_")[0] in ("corrupt", "truncated")


def test_a_bad_record_is_an_error_by_default(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text":"a"}\n{"text":5}\n')
    with pytest.raises(ValueError, match="byte 13: wrong_type"):
        list(read_batches(plan_ranges(str(path))[0], FieldMap()))


def test_quarantine_says_what_and_where(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text":"a"}\n{"text":"\xff' + b"y" * 5000 + b'"}\n')
    _, bad, _ = read(path)
    assert bad[0].path == str(path)
    assert (bad[0].position, bad[0].unit, bad[0].reason) == (13, "byte", "invalid_utf8")
    assert bad[0].content == ('{"text":"\\xff' + "y" * 5000)[:1000]


def test_batches_of_json_lines_are_of_some_megabytes(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    line = json.dumps({"id": "1", "text": "word " * 400}) + "\n"
    path.write_bytes(gzip.compress(line.encode() * 10_000, 1))
    sizes = [b["text"].nbytes for b in read_batches(plan_ranges(str(path))[0], FieldMap())]
    assert sum(sizes) > 20_000_000
    assert max(sizes) < 8 << 20
    assert Counter(size > 1 << 20 for size in sizes)[False] <= 1
    assert pa.total_allocated_bytes() < 100 << 20
