"""The kernel against a plain reference: unicodedata, str methods and Python's integers."""

import math
import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_features import words_of

from quality_classifier.features.hashed_features import FeatureConfig, _chunk, hashed_features
from quality_classifier.kinds.linear import HashedLinear
from winnow.text.buffers import string_buffers
from winnow.text.words import nfc

SMALL = FeatureConfig(log2_buckets=18)
FACTOR = 0x9E3779B97F4A7C15
MODULUS = 2**64


def hash_of(word: str) -> int:
    octets = b"".join(ord(c).to_bytes(1 if c.isascii() else 3, "little") for c in word)
    state = 0
    for start in range(0, len(octets), 8):
        state = (state ^ int.from_bytes(octets[start : start + 8], "little")) * FACTOR % MODULUS
        state ^= state >> 32
    return state


def buckets_of(text: str, config: FeatureConfig) -> list[int]:
    hashes = [hash_of(word) for word in words_of(text)]
    pairs = [(0, word) for word in hashes]
    if config.max_ngram == 2:
        pairs += pairwise(hashes)
    shift = 64 - config.log2_buckets
    return [(before * FACTOR + word) * FACTOR % MODULUS >> shift for before, word in pairs]


def reference(texts: list[str], config: FeatureConfig) -> sp.csr_array:
    matrix = sp.dok_array((len(texts), config.buckets), dtype=np.float32)
    for row, text in enumerate(texts):
        buckets = buckets_of(text, config)
        for column in set(buckets):
            for _ in range(buckets.count(column)):
                matrix[row, column] += np.float32(1 / math.sqrt(len(buckets)))
    result = matrix.tocsr()
    result.sort_indices()
    return result


def assert_same(actual: sp.csr_array, expected: sp.csr_array) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual.indptr, expected.indptr)
    np.testing.assert_array_equal(actual.indices, expected.indices)
    np.testing.assert_array_equal(actual.data, expected.data)


# Unassigned code points (Cn) are tried below: Python, Arrow and the table may know other versions.
ANYTHING = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=60)
MIXED = st.text(
    st.sampled_from(
        "aZz09 \n\t\0.,-_'’éÉİıſßẞΣςσЖжա漢かカㇰกิ่가각ᄀK½²🙂"
        "\u0301\u0323\u200b\u00ad\ufeff\ufe0f\u00a0\u3000"
    )
)
ASCII = st.text(st.characters(max_codepoint=127), max_size=80)
LONG = st.text(st.sampled_from("aZ9bcdefgh  ,.-\n\0é’Ж漢"), min_size=60, max_size=300)


@settings(max_examples=120, deadline=None)
@given(texts=st.lists(ANYTHING | MIXED | ASCII | LONG, max_size=5), bigrams=st.booleans())
@example(texts=["", "\0", " ", "a", "abcdefgh", "abcdefghi", "abcdefg é", "ABCDEFG"], bigrams=True)
@example(texts=[f"{'aB9' * 11:.{n}}{c}{'z' * 9} -" for n in range(34) for c in " .é"], bigrams=True)
@example(texts=["a" * 64, "\u00ad" * 9, "a\u00adb", "é" * 9, "don’t stop", "x\u0301"], bigrams=True)
def test_features_equal_the_reference(texts: list[str], bigrams: bool) -> None:
    config = FeatureConfig(log2_buckets=18, max_ngram=2 if bigrams else 1)
    assert_same(hashed_features(pa.array(texts, pa.string()), config), reference(texts, config))


@settings(max_examples=120, deadline=None)
@given(texts=st.lists(ANYTHING | MIXED | ASCII | LONG, max_size=5), seed=st.integers(0, 1000))
@example(texts=["one two three " * 30, "a " * 32, "a " * 33, "one é, " * 500], seed=0)
def test_margins_equal_features_times_weights(texts: list[str], seed: int) -> None:
    weights = np.random.default_rng(seed).standard_normal(SMALL.buckets).astype(np.float32)
    text = pa.array(texts, pa.large_string())
    expected = hashed_features(text, SMALL).astype(np.float64) @ weights.astype(np.float64) + 0.25
    found = HashedLinear(SMALL, weights, 0.25).margins(text)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_every_code_point_as_in_unicodedata() -> None:
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip("the table is Unicode 14")
    points = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    texts = [f"x{chr(p)}y" for p in points]
    matrix = hashed_features(pa.array(texts, pa.string()), FeatureConfig(18, max_ngram=1))
    for row, text in enumerate(texts):
        found = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
        expected = sorted(set(buckets_of(text, FeatureConfig(18, max_ngram=1))))
        assert found.tolist() == expected, hex(points[row])


def same_features(*texts: str) -> bool:
    rows = hashed_features(pa.array(texts), SMALL).toarray()
    return bool((rows == rows[0]).all())


@pytest.mark.parametrize(
    "texts",
    [
        ("Straße", "STRAẞE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("ЖУРНАЛ", "журнал"),
        ("ՀԱՅ", "հայ"),
        ("ＦＵＬＬ", "ｆｕｌｌ"),
        ("ÅNGSTRÖM", "a\u030angstro\u0308m"),
        ("co\u00adoperate", "cooperate", "\ufeffcooperate"),
        ("one two", "one\u00a0two", "one\u3000two", "one\r\ntwo", "one\0two", "\tone\u2028two\n"),
        ("日本", "日 本"),
        ("กาแฟ", "ก า แ ฟ"),
        ("(a)", "( a )"),
    ],
)
def test_written_differently_but_the_same(texts: tuple[str, ...]) -> None:
    assert same_features(*texts)


@pytest.mark.parametrize(
    "texts",
    [("a b", "b a"), ("ab", "a b"), ("naive", "naïve"), ("a.", "a"), ("a", "a a"), ("1", "2")],
)
def test_different(texts: tuple[str, str]) -> None:
    assert not same_features(*texts)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(ANYTHING | MIXED))
def test_nfc_of_every_document(texts: list[str]) -> None:
    expected = [unicodedata.normalize("NFC", text) for text in texts]
    assert nfc(pa.array(texts, pa.large_string())).to_pylist() == expected
    decomposed = pa.array([unicodedata.normalize("NFD", text) for text in texts], pa.string())
    assert nfc(decomposed).to_pylist() == expected


def test_text_in_nfc_is_not_copied() -> None:
    text = pa.array(["plain", "déjà vu", "Tiếng Việt", "कर्म", "กำลัง", "한국어", "日本語"])
    assert nfc(text) is text


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_and_chunks(kind: pa.DataType, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Document {i}: " + "word é " * (i % 7) for i in range(100)]
    whole = hashed_features(pa.array(texts, kind), SMALL)
    monkeypatch.setattr("quality_classifier.features.hashed_features._CHUNK_BYTES", 64)
    part = hashed_features(pa.array(texts, kind).slice(30, 50), SMALL)
    assert_same(part, whole[30:80])
    assert hashed_features(pa.array([], kind), SMALL).shape == (0, SMALL.buckets)


@settings(max_examples=120, deadline=None)
@given(octets=st.binary(max_size=40))
def test_a_document_that_is_not_utf8_is_read_within_its_bounds(octets: bytes) -> None:
    """Such an array breaks Arrow's contract; the neighbour's bytes must not matter even so."""
    offsets = pa.py_buffer(np.array([0, len(octets), len(octets) + 9], np.int32))
    rows = []
    for neighbour in (b"abcdefghi", b"\xbf" * 9):
        content = pa.py_buffer(octets + neighbour)
        text = pa.StringArray.from_buffers(2, offsets, content).slice(0, 1)
        rows.append(_chunk(*string_buffers(text), SMALL))
    assert (rows[0] != rows[1]).nnz == 0


def test_unassigned_and_private_code_points_part_words() -> None:
    assert same_features("a b", "a\u0378b", "a\ue000b", "a\U00100000b")


def test_buckets_are_spread_evenly() -> None:
    """As many distinct buckets as throwing the n-grams at random would give, within 4 sigma."""
    config = FeatureConfig(log2_buckets=18)
    words = [
        f"{a}{b}{c}" for a in "bcdfglmnprst" for b in "aeiou" for c in ("", "n", "tion", "ness")
    ]
    texts = pa.array([" ".join([*words, *(f"w{i}" for i in range(10_000)), *words[::-1]])])
    distinct_ngrams = set()
    tokens = texts[0].as_py().split()
    distinct_ngrams |= set(tokens) | set(pairwise(tokens))
    n, m = len(distinct_ngrams), config.buckets
    expected = m * (1 - (1 - 1 / m) ** n)
    sigma = math.sqrt(m * (math.exp(-n / m) - (1 + n / m) * math.exp(-2 * n / m)))
    assert abs(hashed_features(pa.array([" ".join(tokens)]), config).nnz - expected) < 4 * sigma


@pytest.mark.parametrize(
    "values", [{"log2_buckets": 17}, {"log2_buckets": 23}, {"max_ngram": 3}, {"normaliser": 2}]
)
def test_config_out_of_range(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values)).split("_")[0]):
        FeatureConfig(**values)


def test_what_holds_no_text_is_refused() -> None:
    for wrong in (pa.array([1]), pa.array(["a", None])):
        with pytest.raises(ValueError, match=r"large_string|null"):
            hashed_features(wrong, SMALL)
    with pytest.raises(ValueError, match="float32 weights"):
        HashedLinear(SMALL, np.zeros(5, np.float32), 0.0)
