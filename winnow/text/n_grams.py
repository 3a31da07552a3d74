"""Hashes of n-grams of words (near-duplicates) or tokens (held-out text).

The hash of w_1 … w_n, themselves 64-bit hashes, is the mixed polynomial ``w_1 B^(n-1) + … + w_n``
modulo 2**64 (Karp and Rabin 1987); the next one costs two multiplications for any n. N-grams with
equal hashes count as equal.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from winnow import compiling  # noqa: F401 tells of what is compiled

Hashes = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]

BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def n_gram_hashes(units: Hashes, counts: Counts, n: int) -> tuple[Hashes, Counts]:
    """The concatenated hashes (uint64) of the n-grams of m sequences, and their counts (int64 [m]).

    ``units`` (uint64) are the sequences' units in a row, which should use all 64 bits
    (:func:`mixed`), and ``counts`` (int64 [m]) their numbers. A sequence of fewer than n units has
    no n-gram.
    """
    found = np.maximum(counts - (n - 1), 0)
    hashes = np.empty(int(found.sum()), np.uint64)
    _fill(units, counts, n, top(n), hashes)
    return hashes, found


def mixed(units: npt.NDArray[np.integer]) -> Hashes:
    """Small numbers, such as token ids, spread over 64 bits: uint64 of the same shape."""
    spread = (units.astype(np.uint64) + np.uint64(1)) * BASE
    spread ^= spread >> np.uint64(31)
    return spread * _MIX_1


def top(n: int) -> np.uint64:
    """``BASE ** n``, for :func:`roll`."""
    return np.uint64(pow(int(BASE), n, 1 << 64))


@njit(nogil=True, cache=True)
def roll(state: np.uint64, unit: np.uint64, oldest: np.uint64, top: np.uint64) -> np.uint64:
    """The polynomial with one more unit and without the one n before it (0 without one)."""
    return state * BASE + unit - oldest * top


@njit(nogil=True, cache=True)
def mix(state: np.uint64) -> np.uint64:
    """A polynomial's hash: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    state ^= state >> np.uint64(30)
    state *= _MIX_1
    state ^= state >> np.uint64(27)
    state *= _MIX_2
    return state ^ state >> np.uint64(31)


@njit(nogil=True, cache=True)
def _fill(units: Hashes, counts: Counts, n: int, top: np.uint64, hashes: Hashes) -> None:
    start = 0
    size = 0
    for count in counts:
        state = np.uint64(0)
        for k in range(count):
            oldest = units[start + k - n] if k >= n else np.uint64(0)
            state = roll(state, units[start + k], oldest, top)
            if k >= n - 1:
                hashes[size] = mix(state)
                size += 1
        start += count
