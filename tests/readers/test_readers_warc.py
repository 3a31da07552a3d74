"""WARC and WET: framing, HTTP, character sets, damage."""

import gzip
import io
import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import FieldMap, ReadOptions, ReadReport, plan_ranges, read_batches
from pipeline.readers.contract import Quarantine, Reading
from pipeline.readers.decoders import zstd
from pipeline.readers.inflate import Damage, inflate
from pipeline.readers.web.record_source import RecordSource
from pipeline.readers.web.warc import WARC, read_warc

MAX_BYTES = 1 << 20


def record(kind, block, number=0, **headers):
    lines = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{number}>",
        "WARC-Target-URI": f"http://example.org/{number}",
        "WARC-Date": "2024-01-01T00:00:00Z",
        "Content-Length": str(len(block)),
    }
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n"


def wet(text, number=0, **headers):
    return record("conversion", text.encode(), number, **headers)


def http(body, kind="text/html; charset=utf-8", status="200 OK", **headers):
    lines = {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def records(pieces, quarantine, max_bytes):
    """Every record that can be read, one by one and without the kernel; others are reported."""
    source = RecordSource(pieces, WARC, quarantine, max_bytes)
    while source.at_record():
        if found := source.next_record():
            yield found


PAGE = "<html><head><title>T</title></head><body><p>Größe 中文 &amp; more</p></body></html>"


def read(path, data, **kwargs):
    path.write_bytes(data)
    bad, report = [], ReadReport()
    fields = kwargs.pop("fields", FieldMap())
    rows = []
    for piece in plan_ranges(str(path)):
        for batch in read_batches(piece, fields, on_quarantine=bad.append, report=report, **kwargs):
            batch.validate(full=True)
            rows += batch.to_pylist()
    return rows, bad, report.skipped


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.warc.gz"


def test_every_kind_of_record(path):
    data = b"".join(
        [
            record("warcinfo", b"software: x\r\n"),
            record("request", b"GET / HTTP/1.1\r\n\r\n"),
            record("response", http(PAGE.encode()), 1),
            record("response", http(b"\x89PNG", "image/png"), 2),
            record("response", http(PAGE.encode(), status="404 Not Found"), 3),
            record("response", http(b"<html><script>x</script></html>"), 4),
            record("response", http(PAGE.encode(), None), 5),
            record("response", b"example.org. 1 A 1.2.3.4", Content_Type="text/dns"),
            record("revisit", b""),
            record("strange", b""),
            wet("plain text\n", 6),
        ]
    )
    fields = FieldMap(metadata=("WARC-Date", "no-such-header"))
    for stored in (data, gzip.compress(data), zstd.compress(data)):
        rows, bad, skipped = read(path, stored, fields=fields)
        assert not bad
        assert [row["id"] for row in rows] == [f"<urn:uuid:{i}>" for i in (1, 5, 6)]
        assert rows[0]["url"] == "http://example.org/1"
        assert [row["text"] for row in rows] == ["Größe 中文 & more"] * 2 + ["plain text\n"]
        assert rows[0]["WARC-Date"] == "2024-01-01T00:00:00Z"
        assert rows[0]["no-such-header"] is None
        assert skipped == {
            "warcinfo": 1,
            "request": 1,
            "not_html": 1,
            "not_http": 1,
            "http_status": 1,
            "no_text": 1,
            "revisit": 1,
            "other": 1,
        }


PLAIN = "Größe & <b> 中文\r\nzwei\n"


@pytest.mark.parametrize("wanted", [True, False])
def test_plain_text_and_resources(path, wanted):
    """Text is what it is, whatever kind of record brings it; pages and binaries may say text."""
    plain, latin = "text/plain; charset=utf-8", "text/plain; charset=ISO-8859-1"
    data = b"".join(
        [
            record("response", http(PLAIN.encode(), plain), 1),
            record("response", http("Größe\n".encode("latin-1"), latin), 2),
            record("response", http(gzip.compress(b"packed"), plain, Content_Encoding="gzip"), 3),
            record("response", http(b"\n <!doctype html>" + PAGE.encode(), plain), 4),
            record("response", http(b"\x7fELF\x02\x01\x01\0\0\0", "text/plain"), 5),
            record("response", http(b" \n", "text/plain"), 6),
            record("response", http(PLAIN.encode(), plain, "404 Not Found"), 7),
            record("resource", PAGE.encode(), 8, Content_Type="text/html"),
            record("resource", "Größe".encode("latin-1"), 9, Content_Type=latin),
            record("resource", b"\xff\xd8\xff", 10, Content_Type="image/jpeg"),
            record("resource", b"no type at all", 11),
        ]
    )
    path.write_bytes(data)
    report = ReadReport()
    batches = read_batches(
        plan_ranges(str(path))[0], FieldMap(), options=ReadOptions(plain_text=wanted), report=report
    )
    found = {row["id"][10:-1]: row["text"] for batch in batches for row in batch.to_pylist()}
    page, text = "Größe 中文 & more", PLAIN.replace("\r\n", "\n").strip()
    plain_texts = {"1": text, "2": "Größe", "3": "packed", "9": "Größe"}
    assert found == {"4": page, "8": page} | (plain_texts if wanted else {})
    skipped = {"http_status": 1, "not_html": 2}
    if wanted:
        assert report.kinds == {"html": 2, "plain_text": 4}
        assert report.skipped == skipped | {"binary": 1, "no_text": 1}
    else:
        assert report.kinds == {"html": 2}
        assert report.skipped == skipped | {"plain_text": 6}


def test_lenient_where_files_are(path):
    unfolded = wet("one", 1).replace(b"\r\n", b"\n")
    folded = wet("two", 2).replace(b"WARC-Date: ", b"WARC-Date:\r\n  ")
    tight = wet("three", 3)[:-4]
    lower = wet("four", 4).replace(b"Content-Length", b"CONTENT-length")
    rows, bad, _ = read(
        path, unfolded + folded + tight + lower, fields=FieldMap(metadata=("WARC-Date",))
    )
    assert [row["text"] for row in rows] == ["one", "two", "three", "four"]
    assert {row["WARC-Date"] for row in rows} == {"2024-01-01T00:00:00Z"}
    assert not bad


@pytest.mark.parametrize("length", ["3", "9", "4000", "999999999999", "-1", "x", "", "٣", None])
@pytest.mark.parametrize("packed", [False, True])
def test_a_wrong_length_costs_one_record(path, length, packed):
    parts = [wet("first", 1), wet("damaged one", 2, Content_Length=length), wet("third", 3)]
    data = b"".join(gzip.compress(part) for part in parts) if packed else b"".join(parts)
    rows, bad, _ = read(path, data, options=ReadOptions(5000))
    assert [row["text"] for row in rows] == ["first", "third"]
    expected = "too_long" if length == "999999999999" else "bad_warc"
    assert [(b.reason, b.position, b.unit) for b in bad] == [(expected, len(parts[0]), "byte")]
    assert bad[0].content.startswith("WARC/1.0\r\n")


def test_truncated_without_compression(path):
    parts = [wet("first", 1), wet("second", 2)]
    for cut in range(1, len(parts[1]) - 4):
        rows, bad, _ = read(path, parts[0] + parts[1][:cut])
        assert [row["text"] for row in rows] == ["first"]
        assert [(b.reason, b.position) for b in bad] == [("bad_warc", len(parts[0]))]


def test_garbage_between_records(path):
    parts = [wet("first", 1), b"garbage" * 1000 + b"\r\n", wet("second", 2)]
    rows, bad, _ = read(path, b"".join(parts))
    assert [row["text"] for row in rows] == ["first", "second"]
    assert [(b.reason, b.position) for b in bad] == [("bad_warc", len(parts[0]))]


def test_bad_content_costs_its_record(path):
    binary = http(bytes(range(256)) * 4, "text/html")
    parts = [wet("", 1), *(record("response", block) for block in (b"", binary))]
    parts += [record("conversion", b"caf\xe9"), wet("x\0y", 3)]
    rows, bad, _ = read(path, b"".join(parts))
    assert [row["text"] for row in rows] == ["x\0y"]
    assert [b.reason for b in bad] == ["missing_text", "bad_http", "not_html", "invalid_utf8"]


def test_too_long_takes_bounded_memory(path):
    def pieces():
        yield wet("first", 1)
        yield record("conversion", b"", 2, Content_Length=str(400 << 20))[:-4]
        for _ in range(400):
            yield b"y" * (1 << 20)
        yield b"\r\n\r\n" + wet("last", 3)

    bad = []
    largest = 0
    for found in records(pieces(), Quarantine("x", bad.append), MAX_BYTES):
        largest = max(largest, len(found.block))
    assert [b.reason for b in bad] == ["too_long"]
    assert found.block == b"last"
    assert largest < 10


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=400) | st.just(b"\r\n\r\nWARC/1.0\r\n\r\n"), max_size=6),
    st.sampled_from(["plain", "member each", "one member", "zstd"]),
    st.lists(st.integers(0, 3000), max_size=5),
)
def test_records_are_those_of_fastwarc(blocks, packing, places):
    parts = [record("resource", block, i) for i, block in enumerate(blocks)]
    data = b"".join(parts)
    ends = sorted({0, len(data), *(place for place in places if place < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(ends)]
    if packing != "plain":
        pack = zstd.compress if packing == "zstd" else gzip.compress
        stored = b"".join(map(pack, [data] if packing == "one member" else parts))
        codec = "zstd" if packing == "zstd" else "gzip"
        pieces = inflate(io.BytesIO(stored), codec, "x", lambda p: io.BytesIO(stored))
    bad = []
    ours = list(records(iter(pieces), Quarantine("x", bad.append), MAX_BYTES))
    theirs = [
        (r.record_id, r.reader.read()) for r in ArchiveIterator(io.BytesIO(data), parse_http=False)
    ]
    assert [(r.headers["warc-record-id"], r.block) for r in ours] == theirs
    assert len(theirs) == len(blocks)
    assert not bad
    assert [r.offset for r in ours] == [len(b"".join(parts[:i])) for i in range(len(parts))]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 255), st.booleans())
def test_a_damaged_member_is_counted_once(tmp_path_factory, place, flip, cut):
    """Each of five records is yielded or quarantined; the other four are yielded."""
    rng = random.Random(place)
    texts = [" ".join(str(rng.random()) for _ in range(100)) for _ in range(5)]
    members = [gzip.compress(wet(text, i), mtime=0) for i, text in enumerate(texts)]
    index = place % 5
    inside = place // 5 % len(members[index])
    bad_member = bytearray(members[index])
    if cut:
        del bad_member[max(inside, 1) :]
    else:
        bad_member[inside] ^= flip
    stored = b"".join([*members[:index], bytes(bad_member), *members[index + 1 :]])
    rows, bad, skipped = read(tmp_path_factory.mktemp("m") / "x.warc.gz", stored)
    found = [row["text"] for row in rows]
    others = texts[:index] + texts[index + 1 :]
    assert [text for text in found if text in others] == others
    if not bad:  # a header bit without meaning
        assert found == texts
    else:
        assert found == others
        assert all("gzip" in b.reason for b in bad) or cut
    assert not skipped


@pytest.mark.parametrize("index", range(3))
def test_a_wrong_checksum_is_noticed_before_the_record_is_given_out(path, index):
    members = [bytearray(gzip.compress(wet(f"text {i}", i))) for i in range(3)]
    members[index][-6] ^= 1
    rows, bad, _ = read(path, b"".join(members))
    assert [row["text"] for row in rows] == [f"text {i}" for i in range(3) if i != index]
    assert [b.reason for b in bad] == ["corrupt_gzip"]
    assert f"text {index}" in bad[0].content


def test_an_unknown_extractor_is_refused(path):
    with pytest.raises(ValueError, match="resiliparse, trafilatura"):
        read(path, wet("x"), options=ReadOptions(html_extractor="other"))


def test_kinds_of_damage_do_not_mix(path):
    """A cut member in the middle of many records: those before and after are all there."""
    texts = [f"text {i} " + "x" * i for i in range(60)]
    half = gzip.compress(b"".join(wet(text, i) for i, text in enumerate(texts[:30])))
    rest = gzip.compress(b"".join(wet(text, i) for i, text in enumerate(texts[30:], 30)))
    rows, bad, _ = read(path, half[: len(half) - 100] + rest)
    found = [row["text"] for row in rows]
    before = len(found) - 30
    assert before > 5
    assert found == texts[:before] + texts[30:]
    # What is decoded after the cut, before that is noticed, may look like a record too.
    assert Counter(b.unit for b in bad)["compressed byte"] == 1


def test_deep_pages_are_quarantined_before_they_take_minutes(path):
    deep = "<div class=x>words and words " * 50_000
    fine = "<div><p>x</p></div>" * 5_000 + "<article><p>It is a fine day in the town.</p></article>"
    rows, bad, _ = read(
        path, record("response", http(deep.encode())) + record("response", http(fine.encode()))
    )
    assert [b.reason for b in bad] == ["bad_html"]
    assert "fine day" in rows[0]["text"]


def test_a_record_in_a_member_whose_end_is_damaged_is_not_given_out():
    bad = []
    last = wet("last", 2)
    pieces = [wet("first", 1), last, Damage("corrupt_zstd", 9, len(last)), wet("next", 3)]
    found = [r.block for r in records(iter(pieces), Quarantine("x", bad.append), MAX_BYTES)]
    assert found == [b"first", b"next"]
    assert [(b.reason, b.position) for b in bad] == [("corrupt_zstd", 9)]


ODD_HEADERS = [
    {},
    {"WARC_Type": "Conversion"},
    {"WARC_Type": "request"},
    {"warc_target_uri": "http://later.example/"},
    {"WARC_Target_URI": None},
    {"WARC_Target_URI": "http://exämple.org/"},
    {"WARC_Target_URI": "http://x.example/ \t"},
    {"WARC_Target_URI": ""},
    {"WARC_Date": "2024\r\n continued"},
    {"Content_Length": "0x5"},
    {"Content_Length": " 7 "},
    {"Content_Length": "9" * 19},
    {"Content_Length": "3"},
    {"Content_Length": None},
    {"X Y": "a name with a space"},
    {"": "no name"},
]


@given(
    st.lists(
        st.tuples(st.text(max_size=40), st.sampled_from(ODD_HEADERS), st.integers(0, 5)),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3)), max_size=3),
    st.integers(1, 200),
)
@settings(deadline=None, max_examples=120)
def test_the_kernel_and_the_plain_reader_agree(documents, changes, piece):
    """Whatever the headers, line ends and damage: the same documents, the same reports."""
    data = bytearray()
    for number, (text, headers, ending) in enumerate(documents):
        one = record("conversion", text.encode(), number, **headers)
        one = one.replace(b"\r\n", b"\n", 1) if ending == 1 else one
        one = one.replace(b"WARC/1.0", b"warc/1.0") if ending == 2 else one
        one = one.removesuffix(b"\r\n") if ending == 3 else one
        data += one
    for place, new in changes:
        at = int(place * len(data))
        data[at : at + len(new)] = new
    pieces = [bytes(data[i : i + piece]) for i in range(0, len(data), piece)]
    fields = FieldMap(metadata=("WARC-Date",))

    bad, report = [], ReadReport()
    quarantine = Quarantine("x", bad.append)
    batches = list(
        read_warc(iter(pieces), Reading(fields, quarantine, ReadOptions(MAX_BYTES), report))
    )
    found = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
    for batch in batches:
        batch.validate(full=True)

    expected_bad, expected, skipped = [], [], Counter()
    quarantine = Quarantine("x", expected_bad.append)
    for one in records(iter(pieces), quarantine, MAX_BYTES):
        kind = one.headers.get("warc-type", "").lower()
        names = ("warc-record-id", "warc-target-uri", "text", "warc-date")
        if kind != "conversion":
            skipped["request" if kind == "request" else "other"] += 1
        elif not one.block:
            quarantine.add(one.offset, "byte", "missing_text", one.block)
        else:
            try:
                values = {**one.headers, "text": one.block.decode()}
            except UnicodeDecodeError:
                quarantine.add(one.offset, "byte", "invalid_utf8", one.block)
                continue
            expected.append(tuple(values.get(name) for name in names))
    assert found == expected
    # How much of a record is shown depends on how far was read.
    assert [replace(b, content="") for b in bad] == [replace(b, content="") for b in expected_bad]
    assert report.skipped == skipped
