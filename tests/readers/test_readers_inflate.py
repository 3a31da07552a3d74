"""Decompression that survives damage, against what the whole file and its members hold."""

import bz2
import gzip
import io
import lzma
import random
import zlib

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers.decoders import compression_of, zstd
from pipeline.readers.inflate import Damage, inflate


def gzip_(data):
    return gzip.compress(data, 6, mtime=0)


def zstd_(data):
    """With a checksum, as the command line tool writes; without one a flipped bit can pass."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


def bzip2(data):
    return bz2.compress(data, 1)


def xz(data):
    return lzma.compress(data, preset=0)


def lz4_(data):
    """With checksums, as the command line tool writes."""
    return lz4.frame.compress(data, content_checksum=True, block_checksum=True)


PACK = {"gzip": gzip_, "zstd": zstd_, "bzip2": bzip2, "xz": xz, "lz4": lz4_}
BLOCK = {"gzip": 0, "zstd": 1 << 17, "bzip2": 100_000, "xz": 1 << 16, "lz4": 1 << 16}
"""How much of the data, or of the file, one decision of the decoder can be about."""

codecs = st.sampled_from(sorted(PACK))


def run(stored, codec):
    """All bytes, and the damage, with how many bytes came before each."""
    out, damage = bytearray(), []
    for piece in inflate(io.BytesIO(stored), codec, "x", lambda path: io.BytesIO(stored)):
        if isinstance(piece, Damage):
            damage.append((len(out), piece))
        else:
            assert len(piece) <= 1 << 20
            out += piece
    return bytes(out), damage


def noise(size, seed=0):
    """Text of a small alphabet: it compresses, and to blocks of many kinds."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(1, 9)).hex() for _ in range(200)]
    return " ".join(rng.choice(words) for _ in range(size // 9)).encode()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), codecs, st.integers(0, 3))
def test_members_and_padding(members, codec, padding):
    stored = b"".join(PACK[codec](member) + bytes(padding) for member in members)
    assert run(stored, codec) == (b"".join(members), [])


@pytest.mark.parametrize("codec", sorted(PACK))
@pytest.mark.parametrize("size", [(1 << 16) - 1, 5 << 20])
def test_large_members(codec, size):
    data = noise(size)
    assert run(PACK[codec](data) * 2, codec) == (data * 2, [])
    # What expands a thousandfold comes in pieces all the same.
    assert run(PACK[codec](bytes(size)), codec) == (bytes(size), [])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), codecs)
def test_what_is_cut_off_is_all_that_is_lost(place, codec):
    data, after = noise(60_000), b"the next member"
    stored = PACK[codec](data)
    cut = stored[: place % len(stored)]
    out, damage = run(cut, codec)
    assert data.startswith(out)
    if codec == "gzip":
        # zlib delivers all that can be known; ISA-L may keep its last symbol, a match of 258 bytes.
        known = zlib.decompressobj(31).decompress(cut)
        assert known.startswith(out)
        assert len(known) - len(out) <= 258
    if cut:
        ((at, found),) = damage
        assert (found.reason, at) == (f"truncated_{codec}", len(out)) or (
            found.reason == f"corrupt_{codec}" and len(cut) < 6
        )
        assert found.produced == len(out)
    again, damage = run(cut + PACK[codec](after), codec)
    assert again.endswith(after)
    assert bool(damage) == bool(cut)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255), codecs)
def test_a_flipped_bit_never_hides_the_other_members(place, flip, codec):
    members = [noise(3000, seed) for seed in range(5)]
    packed = [PACK[codec](member) for member in members]
    index = place % 5
    inside = place % len(packed[index])
    bad = bytearray(packed[index])
    bad[inside] ^= flip
    out, damage = run(b"".join([*packed[:index], bytes(bad), *packed[index + 1 :]]), codec)
    before, after = b"".join(members[:index]), b"".join(members[index + 1 :])
    assert out.startswith(before)
    assert out.endswith(after)
    middle = out[len(before) : len(out) - len(after)]
    # Some header bits mean nothing; else it is reported, at its place.
    assert damage or middle == members[index]
    start = sum(map(len, packed[:index]))
    for _, found in damage:
        assert start <= found.offset <= start + len(bad) + len(b"".join(packed[index + 1 :]))
        # A flipped bit may also make a frame name a dictionary, or a huge window.
        reasons = (f"corrupt_{codec}", f"truncated_{codec}", "zstd_dictionary", "zstd_window")
        assert found.reason in reasons[: 4 if codec == "zstd" else 2]
        assert found.produced <= len(middle)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), codecs, st.integers(0, 2**32))
def test_garbage_ends(garbage, codec, seed):
    magic = PACK[codec](b"")[: 6 if codec == "xz" else 4]
    rng = random.Random(seed)
    stored = bytearray(magic + garbage + magic + PACK[codec](noise(500)) + garbage)
    for _ in range(5):
        stored[rng.randrange(len(stored))] = rng.randrange(256)
    run(bytes(stored), codec)


@pytest.mark.parametrize("codec", sorted(PACK))
def test_garbage_between_members(codec):
    stored = PACK[codec](b"first") + b"garbage" * 30_000 + PACK[codec](b"second")
    out, damage = run(stored, codec)
    assert out == b"firstsecond"
    assert [found.offset for _, found in damage] == [len(PACK[codec](b"first"))]


def test_skippable_frames_are_skipped():
    skippable = b"\x53\x2a\x4d\x18\x05\x00\x00\x00abcde"
    stored = skippable + zstd.compress(b"a") + skippable + zstd.compress(b"b")
    assert compression_of(stored) == "zstd"
    assert run(stored, "zstd") == (b"ab", [])


def test_plain_bytes_pass():
    data = noise(3 << 20)
    assert run(data, "none") == (data, [])
    assert compression_of(b'{"text":') == "none"


@pytest.mark.parametrize("codec", sorted(PACK))
def test_what_comes_before_the_damage_is_delivered(codec):
    data = noise(600_000)
    stored = bytearray(PACK[codec](data))
    place = len(stored) * 3 // 4
    stored[place : place + 40] = bytes(40)
    out, damage = run(bytes(stored), codec)
    same = next((i for i, (a, b) in enumerate(zip(out, data, strict=False)) if a != b), len(out))
    assert same > len(data) * 0.7 - BLOCK[codec]
    assert damage[0][1].offset >= place - BLOCK[codec]
    assert damage[0][1].produced == damage[0][0]


# Dictionaries, as of the IIPC's "Zstandard Compression for WARC Files 1.0"


RECORDS = [f"WARC/1.0 record {i}: {i * 7919 % 1000} and the rest".encode() for i in range(500)]
DICTIONARY, OTHER = (zstd.train_dict(records, 2000) for records in (RECORDS, RECORDS[::3]))


def skippable(content, low=0x5D):
    return bytes([low]) + b"\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def frame(data, dictionary=None, named=True):
    options = {
        zstd.CompressionParameter.checksum_flag: 1,
        zstd.CompressionParameter.dict_id_flag: int(named),
    }
    return zstd.compress(data, options=options, zstd_dict=dictionary)


def with_dictionary(records, dictionary=DICTIONARY, packed=False):
    content = dictionary.dict_content
    first = skippable(frame(content) if packed else content)
    return first + b"".join(frame(record, dictionary) for record in records)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(RECORDS) | st.binary(max_size=300)), st.booleans(), st.booleans())
def test_a_dictionary_in_the_first_frame(records, packed, extended):
    stored = with_dictionary(records, packed=packed)
    if extended:
        stored += skippable(b"an extension", 0x5E) + frame(b"the last", DICTIONARY)
    assert compression_of(stored) == "zstd"
    assert run(stored, "zstd") == (b"".join(records) + b"the last" * extended, [])


def test_each_dictionary_is_for_the_frames_after_it():
    """Files put together, also such as name no dictionary, and such as have none."""
    stored = [
        frame(RECORDS[0]),
        with_dictionary(RECORDS[1:3]),
        frame(RECORDS[3], DICTIONARY, named=False),
        # Were it started with the dictionary's offsets, it would be another text.
        frame(b"abcabc" * 9 + b"abcd" * 9),
        with_dictionary(RECORDS[4:6], OTHER, packed=True),
    ]
    text = b"".join(RECORDS[:4]) + b"abcabc" * 9 + b"abcd" * 9 + b"".join(RECORDS[4:6])
    assert run(b"".join(stored), "zstd") == (text, [])


def test_a_large_dictionary():
    content = DICTIONARY.dict_content + noise(300_000)
    dictionary = zstd.ZstdDict(content)
    data = noise(200_000)
    assert run(with_dictionary([data], dictionary), "zstd") == (data, [])


def reasons(stored):
    out, damage = run(stored, "zstd")
    return out, [(found.reason, found.offset) for _, found in damage]


def test_a_dictionary_that_is_not_there_or_another():
    packed = [frame(record, DICTIONARY) for record in RECORDS[:2]]
    assert reasons(b"".join(packed)) == (b"", [("zstd_dictionary", 0)])
    first = skippable(OTHER.dict_content)
    assert reasons(first + packed[0] + frame(b"x")) == (b"x", [("zstd_dictionary", len(first))])


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_dictionary(packed):
    whole = with_dictionary(RECORDS[:3], packed=packed)
    size = len(whole) - sum(len(frame(record, DICTIONARY)) for record in RECORDS[:3])
    cut = whole[: size - 9]
    assert reasons(cut) == (b"", [("zstd_dictionary", 0)])
    out, found = reasons(cut + frame(b"next"))
    assert (out, len(found)) == (b"next" * packed, 1)
    bad = bytearray(whole)
    bad[20:40] = bytes(20)
    out, found = reasons(bytes(bad) + whole)
    assert out == b"".join(RECORDS[:3])
    assert found[0] == ("zstd_dictionary", 0)
    huge = skippable(b"\x37\xa4\x30\xec")[:4] + b"\xff\xff\xff\xff\x37\xa4\x30\xec"
    assert reasons(huge + frame(b"next")) == (b"next", [("zstd_dictionary", 0)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_damage_to_one_of_many_frames_with_a_dictionary(place):
    data = noise(50_000)
    packed = [frame(record, DICTIONARY) for record in (RECORDS[0], data, RECORDS[1])]
    cut = packed[1][: place % len(packed[1])]
    out, damage = run(skippable(DICTIONARY.dict_content) + packed[0] + cut + packed[2], "zstd")
    assert out.startswith(RECORDS[0])
    assert out.endswith(RECORDS[1])
    assert data.startswith(out[len(RECORDS[0]) : len(out) - len(RECORDS[1])])
    assert bool(damage) == bool(cut)


@pytest.mark.parametrize("log", [27, 28, 31])
def test_windows_of_any_size(log):
    """As of ``zstd --long=31``, which writes the size of the window and not of the content."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
    stored = packer.compress(b"some text " * 9) + packer.flush()
    assert stored[5] >> 3 == log - 10  # Window_Descriptor
    assert run(stored + frame(b"next"), "zstd") == (b"some text " * 9 + b"next", [])


def test_a_window_that_nothing_can_decode():
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 31})
    stored = bytearray(packer.compress(b"some text") + packer.flush())
    stored[5] = 0xFF  # 3.75 TiB
    assert reasons(bytes(stored) + frame(b"next")) == (b"next", [("zstd_window", 0)])
