"""HTTP bodies: every encoding, several members and frames, and those that were cut short."""

import gzip
import random
import zlib

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import FieldMap, ReadReport, plan_ranges, read_batches
from pipeline.readers.contract import Unreadable
from pipeline.readers.decoders import zstd
from pipeline.readers.web.http_response import decode_body, parse_response

MAX_BYTES = 1 << 20


def raw_deflate(content):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


def chunked(content, size=7, extension=b""):
    pieces = [content[i : i + size] for i in range(0, len(content), size)]
    chunks = [b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join([*chunks, b"0\r\n\r\n"])


def skippable(content):
    return b"\x5a\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "chunked": chunked,
}
NOISE = random.Random(1).randbytes(3000)
PAGE = b"<html><p>" + b" ".join(b"word%d" % i for i in range(2000))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.sampled_from(["gzip", "zstd"]))
@settings(max_examples=60, deadline=None)
def test_all_members_are_read(parts, encoding):
    """Against Python's own gzip, and what was put into the frames; empty ones count too.

    As no page, whose content would be decoded once more if it began as gzip does.
    """
    body = b"".join(map(PACKERS[encoding], parts))
    if encoding == "gzip":
        assert gzip.decompress(body) == b"".join(parts)
    assert decode_body(body, [encoding], MAX_BYTES, False) == (b"".join(parts), False)


@pytest.mark.parametrize(
    "body",
    [
        skippable(b"abcd") + zstd.compress(PAGE),
        zstd.compress(b"") + zstd.compress(PAGE),
        zstd.compress(PAGE[:99]) + skippable(b"") + zstd.compress(PAGE[99:]),
        gzip.compress(b"") + gzip.compress(PAGE),
        gzip.compress(PAGE) + bytes(512),
        gzip.compress(PAGE) + b"\r\n",
        gzip.compress(PAGE) + b"garbage" * 99,
        zstd.compress(PAGE) + b"\r\n",
        gzip.compress(zstd.compress(PAGE)),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity", "unknown"])
def test_odd_but_whole(body, encoding):
    """Whatever is declared: the body says what it is."""
    assert decode_body(body, [encoding], MAX_BYTES, True) == (PAGE, False)


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=500),
    st.lists(st.sampled_from(["gzip", "deflate", "raw deflate", "br", "zstd"]), max_size=2),
    st.booleans(),
)
def test_bodies_are_decoded(text, encodings, in_chunks):
    body = plain = b"<p>" + text.encode()
    for name in encodings:
        body = PACKERS[name](body)
    names = [name.removeprefix("raw ") for name in encodings]
    if in_chunks:
        body = chunked(body, extension=b";x=1")
        names.append("chunked")
    assert decode_body(body, names, MAX_BYTES, True) == (plain, False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity", "unknown"])
def test_a_body_decoded_already_is_taken_as_it_is(encoding):
    assert decode_body(PAGE, [encoding, "chunked"], MAX_BYTES, True).content == PAGE


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_bombs(name):
    with pytest.raises(Unreadable, match="too_long"):
        decode_body(PACKERS[name](bytes(10 << 20)), [name], MAX_BYTES, True)


@pytest.mark.parametrize(
    "body", [b"3\r\nabcdef", b"3\r\nabcde\r\n0\r\n\r\n", b"3\r\nabc\r\nx\r\n", b"3\r\nabc\r\nx"]
)
def test_bad_chunks(body):
    with pytest.raises(Unreadable, match="bad_http"):
        decode_body(body, ["chunked"], MAX_BYTES, True)


@pytest.mark.parametrize("tail", [b"", b"\r\n", bytes(99), b"garbage" * 9, brotli.compress(b"x")])
@pytest.mark.parametrize("name", ["br", "deflate", "raw deflate"])
def test_what_follows_the_end_of_a_body_is_none_of_it(name, tail):
    body = PACKERS[name](PAGE) + tail
    assert decode_body(body, [name.removeprefix("raw ")], MAX_BYTES, True) == (PAGE, False)


@pytest.mark.parametrize("kind", ["text/html", "", "application/xhtml+xml"])
def test_a_page_that_was_compressed_without_a_word(kind):
    message = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + gzip.compress(PAGE)
    assert parse_response(message, MAX_BYTES).body == PAGE


def test_an_archive_is_left_as_it_is():
    body = gzip.compress(bytes(MAX_BYTES + 1))
    message = b"HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\n\r\n" + body
    assert parse_response(message, MAX_BYTES).body == body


@pytest.mark.parametrize("value", ["GZIP", '"gzip"', "gzip;q=1", " x-gzip , identity"])
def test_spellings_of_an_encoding(value):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: {value}\r\n\r\n"
    assert parse_response(head.encode() + gzip.compress(PAGE), MAX_BYTES).body == PAGE


def test_many_members_take_no_square_of_time():
    body = gzip.compress(b"") * 50_000 + gzip.compress(PAGE)
    assert decode_body(body, ["gzip"], MAX_BYTES, True) == (PAGE, False)


@given(st.sampled_from(sorted(PACKERS)), st.sampled_from([NOISE, PAGE]), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_a_body_that_was_cut_short(name, content, share):
    """What is there is the beginning of the content, and it is known to be no more than that."""
    whole = PACKERS[name](content)
    least = 3 if name == "chunked" else 6  # with less nothing says that this is an encoded body
    cut = min(least + int(share * (len(whole) - least)), len(whole) - 5)
    body, truncated = decode_body(whole[:cut], [name.removeprefix("raw ")], MAX_BYTES, True)
    assert truncated
    assert content.startswith(body)


@pytest.mark.parametrize("name", sorted(PACKERS))
def test_most_of_a_long_body_is_there(name):
    content = random.Random(2).randbytes(300_000)
    packed = PACKERS[name](content)
    body, truncated = decode_body(
        packed[: len(packed) // 2], [name.removeprefix("raw ")], MAX_BYTES, True
    )
    assert truncated
    assert len(body) >= 1 << 17  # zstd's blocks are this long, and there or not
    assert content.startswith(body)


def test_cut_in_both_encodings():
    whole = chunked(gzip.compress(NOISE), 500)
    body, truncated = decode_body(whole[:2000], ["gzip", "chunked"], MAX_BYTES, True)
    assert truncated
    assert 1000 < len(body) < 2000
    assert NOISE.startswith(body)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_damaged_body_is_no_text(encoding):
    body = bytearray(PACKERS[encoding](PAGE))
    if encoding == "zstd":  # here the checksum is left to the server
        body = bytearray(zstd.compress(PAGE, options={zstd.CompressionParameter.checksum_flag: 1}))
    body[len(body) // 2] ^= 0xFF
    body[len(body) // 2 + 7] ^= 0xFF
    with pytest.raises(Unreadable, match="bad_http"):
        decode_body(bytes(body), [encoding], MAX_BYTES, True)


@pytest.mark.parametrize(
    ("length", "truncated"),
    [("", False), ("x", False), (str(len(PAGE)), False), ("9", False), (str(len(PAGE) + 1), True)],
)
def test_a_body_shorter_than_its_length(length, truncated):
    message = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + PAGE
    response = parse_response(message, MAX_BYTES)
    assert (response.body, response.truncated) == (PAGE, truncated)


def record(kind, block, *lines):
    lines = ["WARC/1.0", f"WARC-Type: {kind}", *lines, f"Content-Length: {len(block)}", "", ""]
    return "\r\n".join(lines).encode() + block + b"\r\n\r\n"


def test_documents_that_were_cut_short_are_marked_and_counted(tmp_path):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
    path = tmp_path / "x.warc"
    path.write_bytes(
        record("response", head + chunked(b"<p>whole"))
        + record("response", head + chunked(b"<p>cut short here")[:-13])
        + record("response", head + chunked(b"<p>at the end")[:-5], "WARC-Truncated: length")
        + record("conversion", b"text", "WARC-Truncated: time")
        + record("conversion", b"text")
        + record("conversion", b"text" * 99, "warc-truncated: disconnect")
    )
    report = ReadReport()
    fields = FieldMap(metadata=("WARC-Truncated",))
    rows = [
        (row["text"][:8], row["WARC-Truncated"])
        for piece in plan_ranges(str(path))
        for batch in read_batches(piece, fields, report=report)
        for row in batch.to_pylist()
    ]
    assert rows == [
        ("whole", None),
        ("cut shor", "unspecified"),
        ("at the e", "length"),
        ("text", "time"),
        ("text", None),
        ("texttext", "disconnect"),
    ]
    assert report.truncated == 4
