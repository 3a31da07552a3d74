"""Signatures against sets of tuples of words, exact Jaccard, and the formula of banding."""

import math
import random
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_features import words_of

from pipeline.near_duplicates import minhash
from pipeline.near_duplicates.settings import Settings
from winnow.text.n_grams import mixed, n_gram_hashes

FINEWEB = Settings(bands=14, rows=8, words=5)


def grams(words, n):
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def compared_words(text):
    """Words as the classifier has them, without marks."""
    return [w for w in words_of(text) if not (len(w) == 1 and unicodedata.category(w)[0] in "PS")]


def large(*texts):
    return pa.array(texts, pa.large_string())


@given(
    st.lists(st.text("abAB .,'-\n漢字かなไทยé́€\u200d1", max_size=40), min_size=1, max_size=4),
    st.integers(1, 6),
)
@example(["Straße, straße! 漢字。", "STRASSE"], 1)
@settings(deadline=None)
def test_documents_share_as_many_shingles_as_they_share_n_grams_of_words(texts, n):
    found = minhash.shingles(large(*texts), n)
    expected = [grams(compared_words(text), n) for text in texts]
    for hashes, tuples in zip(found, expected, strict=True):
        assert len(hashes) == len(tuples)
        common = np.intersect1d(found[0], hashes)
        assert len(common) == len(expected[0] & tuples)


def edited(rng, n_words, share):
    """Two texts of random words, the second with a share of the first one's replaced."""
    words = [str(rng.randrange(10**9)) for _ in range(n_words)]
    changed = [str(rng.randrange(10**9)) if rng.random() < share else word for word in words]
    return " ".join(words), " ".join(changed)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.1])
def test_minima_agree_as_often_as_the_similarity_says_and_bands_as_its_power(share):
    """4096 hash functions: binomial, of the exact Jaccard similarity."""
    a, b = edited(random.Random(share), 600, share)
    one, other = (grams(text.split(), 5) for text in (a, b))
    s = len(one & other) / len(one | other)
    many = Settings(bands=512, rows=8, words=5)
    first, second = minhash.signatures(large(a, b), many)
    assert abs((first == second).mean() - s) <= 4 * math.sqrt(s * (1 - s) / 4096)
    bands, compared = minhash.band_hashes(large(a, b), many)
    assert compared.all()
    p = s**8
    assert abs((bands[0] == bands[1]).mean() - p) <= 4 * math.sqrt(p * (1 - p) / 512) + 1e-12
    assert len(np.unique(bands[0])) == 512


def test_pairs_are_found_as_often_as_banding_says():
    """FineWeb's 14 bands of 8, over pairs that share no word with one another."""
    rng = random.Random(7)
    pairs = [edited(rng, 150, rng.choice([0.01, 0.02, 0.03, 0.05])) for _ in range(1500)]
    sets = [[grams(text.split(), 5) for text in pair] for pair in pairs]
    similarity = [len(a & b) / len(a | b) for a, b in sets]
    bands, _ = minhash.band_hashes(large(*(text for pair in pairs for text in pair)), FINEWEB)
    found = (bands[0::2] == bands[1::2]).any(axis=1)
    chance = np.array([FINEWEB.chance(s) for s in similarity])
    deviation = (found - chance).sum() / math.sqrt((chance * (1 - chance)).sum())
    assert 0.2 < chance.mean() < 0.8
    assert abs(deviation) < 3.5
    strangers = bands[0::2][:-1] == bands[0::2][1:]
    assert not strangers.any()


def test_documents_of_fewer_words_than_an_n_gram_are_compared_with_none():
    texts = [
        "one two three four",
        "one two three four five",
        "",
        "... !!! ...  - - -",
        "漢字仮名文",
    ]
    bands, compared = minhash.band_hashes(large(*texts), FINEWEB)
    assert compared.tolist() == [False, True, False, False, True]
    assert bands.shape == (5, 14)


def test_slices_long_documents_and_case_and_marks():
    """More n-grams than are looked at at once; and a slice of an array is its values."""
    rng = random.Random(1)
    words = [rng.choice("abcdefgh") * rng.randrange(1, 9) for _ in range(6000)]
    texts = large("x", " ".join(words), ", ".join(words).upper() + "!", "y")
    bands, _ = minhash.band_hashes(texts, FINEWEB)
    assert (bands[1] == bands[2]).all()
    again, _ = minhash.band_hashes(texts.slice(1, 2), FINEWEB)
    assert (again == bands[1:3]).all()
    least = minhash.shingles(texts, 5)[1] >> np.uint64(32)
    factors, shifts = minhash._functions(112)
    every = least.astype(np.uint32)[:, None] * factors + shifts
    assert (minhash.signatures(texts, FINEWEB)[1] == every.min(axis=0)).all()


@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=6), st.integers(1, 4))
@settings(deadline=None)
def test_n_grams_of_numbers_are_told_apart_within_each_sequence(sequences, n):
    units = mixed(np.array([u for sequence in sequences for u in sequence], np.int64))
    counts = np.array([len(sequence) for sequence in sequences], np.int64)
    hashes, found = n_gram_hashes(units, counts, n)
    expected = [
        tuple(sequence[i : i + n]) for sequence in sequences for i in range(len(sequence) - n + 1)
    ]
    assert found.tolist() == [max(len(sequence) - n + 1, 0) for sequence in sequences]
    assert len(hashes) == len(expected)
    assert len(set(zip(hashes.tolist(), expected, strict=True))) == len(set(expected))
    assert len(set(hashes.tolist())) == len(set(expected))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bands": 0}, "bands must be at least 1"),
        ({"rows": 0}, "rows must be at least 1"),
        ({"bands": 1000}, "8000 hash functions"),
        ({"words": 0}, "words is from 1"),
    ],
)
def test_settings_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        Settings(**({"bands": 14, "rows": 8, "words": 5} | values))
