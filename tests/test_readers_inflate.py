"""Decompression that survives damage, against what the whole file and its members hold."""

import gzip
import io
import random
import zlib

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers.inflate import Damage, compression_of, inflate


def gzip_(data):
    return gzip.compress(data, 6, mtime=0)


def zstd_(data):
    """With a checksum, as the command line tool writes; without one a flipped bit can pass."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


PACK = {"gzip": gzip_, "zstd": zstd_}
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
            found.reason == f"corrupt_{codec}" and len(cut) < 4
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
        assert found.reason in (f"corrupt_{codec}", f"truncated_{codec}")
        assert found.produced <= len(middle)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), codecs, st.integers(0, 2**32))
def test_garbage_ends(garbage, codec, seed):
    magic = PACK[codec](b"")[:4]
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
    # zstd decodes by blocks of up to 128 KiB.
    assert same > len(data) * 0.7 - (1 << 17) * (codec == "zstd")
    assert damage[0][1].offset >= place - (1 << 17) * (codec == "zstd")
    assert damage[0][1].produced == damage[0][0]
