"""XXH3 over Arrow buffers against the xxhash library, value by value."""

import random

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.text.hashing import xxh3_64, xxh3_128

SEEDS = (0, 1, 0x9E3779B1, 2**63, 2**64 - 1)
EVERY_LENGTH = [random.Random(n).randbytes(n) for n in range(1101)]


def library_128(values: list[bytes]) -> bytes:
    return b"".join(xxhash.xxh3_128_digest(value) for value in values)


@pytest.mark.parametrize("seed", SEEDS)
def test_64_of_every_length(seed: int) -> None:
    expected = [xxhash.xxh3_64_intdigest(value, seed) for value in EVERY_LENGTH]
    assert xxh3_64(pa.array(EVERY_LENGTH), seed).tolist() == expected


def test_128_of_every_length() -> None:
    hashes = xxh3_128(pa.array(EVERY_LENGTH))
    assert hashes.shape == (1101, 2)
    assert hashes.astype(">u8").tobytes() == library_128(EVERY_LENGTH)


@pytest.mark.parametrize("length", [1024 * 16, 1024 * 16 + 1, 65_537, 1_000_003])
def test_long_values(length: int) -> None:
    value = random.Random(length).randbytes(length)
    assert xxh3_64(pa.array([value]), 7)[0] == xxhash.xxh3_64_intdigest(value, 7)
    assert xxh3_128(pa.array([value])).astype(">u8").tobytes() == library_128([value])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
@settings(deadline=None, max_examples=30)
@given(
    values=st.lists(st.text(max_size=300)), start=st.integers(0, 5), seed=st.integers(0, 2**64 - 1)
)
def test_any_type_and_slice(kind: pa.DataType, values: list[str], start: int, seed: int) -> None:
    array = pa.array(values, pa.string()).cast(kind).slice(start)
    encoded = [value.encode() for value in values[start:]]
    assert xxh3_64(array, seed).tolist() == [xxhash.xxh3_64_intdigest(v, seed) for v in encoded]
    assert xxh3_128(array).astype(">u8").tobytes() == library_128(encoded)


def test_dtypes_and_empty_arrays() -> None:
    for array in (pa.array([], pa.string()), pa.array(["a"]).slice(1), pa.array(["", ""])):
        assert xxh3_64(array).dtype == np.uint64
        assert xxh3_64(array).shape == (len(array),)
        assert xxh3_128(array).shape == (len(array), 2)


def test_what_cannot_be_hashed_is_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        xxh3_64(pa.array(["a", None]))
    with pytest.raises(ValueError, match="int64 array: cast"):
        xxh3_128(pa.array([1]))
    with pytest.raises(ValueError, match="seed"):
        xxh3_64(pa.array(["a"]), -1)
