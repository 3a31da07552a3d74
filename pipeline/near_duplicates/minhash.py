"""MinHash-LSH on Arrow's text buffers: from text to the hashes of bands.

Broder (1997): of two sets with Jaccard similarity s, the smallest element under a random order is
the same with probability s. Here the sets are the n-grams of a document's words, and the orders are
``(a h + b) mod 2**32`` of their hashes h, one pair (a, b) for each of ``bands * rows`` hash
functions. Two documents share a band if the ``rows`` minima in it are all equal, and are candidates
if they share any, so a pair is found with probability ``1 - (1 - s**rows) ** bands`` (Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, section 3.4). FineWeb (Penedo et al. 2024, section
3.4) takes 14 bands of 8 and n = 5.

Words are the classifier's (:mod:`winnow.text.words`), but punctuation and symbols only separate. A
document of fewer than n words is not compared, as in datatrove.
"""

import functools
import itertools
import unicodedata

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from pipeline.near_duplicates.settings import Settings
from quality_classifier.features.ngrams import MOST_WORDS, next_words
from winnow.text.buffers import Octets, Offsets, string_buffers
from winnow.text.n_grams import Hashes, mix, roll, top
from winnow.text.words import SEPARATOR, SOLO, TABLE, Table, nfc

Minima = npt.NDArray[np.uint32]

_SEED = 0x6E656172
_AT_ONCE = 2048  # hashes that stay in the first-level cache, with the minima
_LARGEST = np.uint32(0xFFFFFFFF)


def band_hashes(text: pa.Array, settings: Settings) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """The band hashes of m documents (string or large_string [m], no nulls): uint64 [m, bands].

    Also returns bool [m], false where a document has fewer than n words and its row means nothing.
    """
    octets, offsets = string_buffers(nfc(text))
    bands = np.empty((len(text), settings.bands), np.uint64)
    compared = np.empty(len(text), np.bool_)
    factors, shifts = _functions(settings.bands * settings.rows)
    _bands(octets, offsets, _table(), settings.words, top(settings.words), factors, shifts,
           bands, compared)  # fmt: skip
    return bands, compared


def signatures(text: pa.Array, settings: Settings) -> Minima:
    """The minima of m documents: uint32 [m, bands * rows]; the maximum without n-grams."""
    octets, offsets = string_buffers(nfc(text))
    factors, shifts = _functions(settings.bands * settings.rows)
    out = np.empty((len(text), len(factors)), np.uint32)
    for i in range(len(text)):
        _minima(octets, offsets[i], offsets[i + 1], _table(), settings.words, top(settings.words),
                factors, shifts, np.empty(_AT_ONCE, np.uint32), out[i])  # fmt: skip
    return out


def shingles(text: pa.Array, n: int) -> list[Hashes]:
    """The distinct hashes of each document's n-grams, ascending, for exact similarities."""
    octets, offsets = string_buffers(nfc(text))
    return [
        np.unique(_shingles(octets, first, last, _table(), n, top(n)))
        for first, last in itertools.pairwise(offsets)
    ]


def _functions(count: int) -> tuple[Minima, Minima]:
    """Odd factors and shifts of hash functions: uint32 [count] each."""
    generator = np.random.Generator(np.random.Philox(_SEED))
    drawn = generator.integers(0, 1 << 32, (count, 2), np.uint32)  # the first ones never change
    return drawn[:, 0] | np.uint32(1), drawn[:, 1].copy()


@functools.cache
def _table() -> Table:
    """The classifier's table of words, with punctuation and symbols as separators."""
    table = TABLE.copy()
    alone = np.flatnonzero(TABLE & SOLO).tolist()
    table[[code for code in alone if unicodedata.category(chr(code))[0] in "PS"]] = SEPARATOR
    return table


@njit(nogil=True, cache=True)
def _bands(
    octets: Octets,
    offsets: Offsets,
    table: Table,
    n: int,
    top: np.uint64,
    factors: Minima,
    shifts: Minima,
    bands: Hashes,
    compared: npt.NDArray[np.bool_],
) -> None:
    minima = np.empty(len(factors), np.uint32)
    room = np.empty(_AT_ONCE, np.uint32)
    rows = len(factors) // bands.shape[1]
    for i in range(len(compared)):
        compared[i] = _minima(
            octets, offsets[i], offsets[i + 1], table, n, top, factors, shifts, room, minima
        )
        for band in range(bands.shape[1]):
            state = mix(np.uint64(band + 1))
            for row in range(rows):
                state = mix(state ^ np.uint64(minima[band * rows + row]))
            bands[i, band] = state


@njit(nogil=True, cache=True)
def _minima(
    octets: Octets,
    first: int,
    last: int,
    table: Table,
    n: int,
    top: np.uint64,
    factors: Minima,
    shifts: Minima,
    room: Minima,
    minima: Minima,
) -> bool:
    """Fill in the minima of a document; returns whether it has an n-gram."""
    minima[:] = _LARGEST
    recent = np.zeros(n, np.uint64)  # the last n words, in a ring
    entries = table.ctypes.data
    block = np.empty(MOST_WORDS, np.uint64)
    address = block.ctypes.data
    position = octets.ctypes.data + np.int64(first)
    end = octets.ctypes.data + np.int64(last)
    state = np.uint64(0)
    words = 0
    at = 0
    held = 0
    while position < end:
        found, position = next_words(position, end, entries, address, False)
        for word in block[:found]:
            state = roll(state, word, recent[at], top)
            recent[at] = word
            at = at + 1 if at + 1 < n else 0
            words += 1
            if words >= n:
                room[held] = np.uint32(mix(state) >> np.uint64(32))
                held += 1
                if held == len(room):
                    _lower(room, factors, shifts, minima)
                    held = 0
    _lower(room[:held], factors, shifts, minima)
    return words >= n


@njit(nogil=True, cache=True)
def _lower(hashes: Minima, factors: Minima, shifts: Minima, minima: Minima) -> None:
    """Lower the minima by more hashes. The inner loop is vectorised."""
    for k in range(len(minima)):
        factor = factors[k]
        shift = shifts[k]
        least = minima[k]
        for j in range(len(hashes)):
            least = min(least, np.uint32(factor * hashes[j] + shift))
        minima[k] = least


@njit(nogil=True, cache=True)
def _shingles(
    octets: Octets, first: int, last: int, table: Table, n: int, top: np.uint64
) -> Hashes:
    recent = np.zeros(n, np.uint64)
    entries = table.ctypes.data
    block = np.empty(MOST_WORDS, np.uint64)
    address = block.ctypes.data
    position = octets.ctypes.data + np.int64(first)
    end = octets.ctypes.data + np.int64(last)
    out = np.empty(last - first, np.uint64)
    state = np.uint64(0)
    words = 0
    while position < end:
        found, position = next_words(position, end, entries, address, False)
        for word in block[:found]:
            state = roll(state, word, recent[words % n], top)
            recent[words % n] = word
            words += 1
            if words >= n:
                out[words - n] = mix(state)
    return out[: max(words - n + 1, 0)].copy()
