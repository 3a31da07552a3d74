"""Counts against Python's str, ids and content hashes against the xxhash library."""

import pyarrow as pa
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.identity import content_hashes, hexadecimal, identify
from winnow.text.counts import measure

texts = st.lists(
    st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \t\n\x1c\x85\xa0   　a"))),
    max_size=20,
)


@given(texts, st.integers(0, 3), st.integers(1, 9))
@settings(deadline=None)
def test_counts_are_those_of_str(values, skip, times):
    values = [value * times for value in values]  # long ones are counted by the block
    array = pa.array(values, pa.large_string())[skip:]
    values = values[skip:]
    octets, characters, words = measure(array)
    assert octets.tolist() == [len(v.encode()) for v in values]
    assert characters.tolist() == [len(v) for v in values]
    assert words.tolist() == [len(v.split()) for v in values]


def test_every_white_space_character_and_its_neighbours_are_told_apart():
    spaces = [c for c in map(chr, range(0x110000)) if c.isspace()]
    near = {
        chr(ord(c) + d)
        for c in spaces
        for d in (-64, -1, 0, 1, 64, 4096)
        if 0 <= ord(c) + d < 0xD800
    }
    values = [f"a{c}b" for c in sorted(near)]
    # Within a block of bytes that are counted at once, and across its end.
    values += [f"{'x' * n}{c}b{'y' * 70}" for c in sorted(near) for n in range(28, 33)]
    words = measure(pa.array(values, pa.large_string()))[2]
    assert words.tolist() == [len(v.split()) for v in values]


@given(texts)
@settings(deadline=None)
def test_content_hashes_and_ids_are_xxh3_128(values):
    text = pa.array(values, pa.large_string())
    hashes = content_hashes(text)
    assert hashes.to_pylist() == [xxhash.xxh3_128_digest(v.encode()) for v in values]
    assert hexadecimal(hashes[1:]).to_pylist() == [
        xxhash.xxh3_128_hexdigest(v.encode()) for v in values[1:]
    ]
    own = pa.array(["mine" if i % 2 else None for i in range(len(values))], pa.string())
    url = pa.array([f"http://{i}" if i % 3 else None for i in range(len(values))], pa.string())
    expected = []
    for i, value in enumerate(values):
        digest = xxhash.xxh3_128_hexdigest(value.encode())
        key = f"web\n{f'http://{i}' if i % 3 else ''}\n{digest}"
        expected.append("mine" if i % 2 else xxhash.xxh3_128_hexdigest(key.encode()))
    assert identify(own, "web", url, hashes).to_pylist() == expected
