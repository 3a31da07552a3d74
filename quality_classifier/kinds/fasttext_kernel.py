"""Sum the table of a fastText model over the words, n-grams and subwords of a text.

As in ``dictionary.cc`` of fastText 0.9: bytes, those above 127 as negative numbers, are hashed by
32-bit FNV-1a, and the hashes of a word n-gram are combined by a 64-bit polynomial.
"""

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from quality_classifier.features.ngrams import prefetch
from winnow.text.buffers import Octets, Offsets, load_u8

Rules = tuple[int, int, int, int]
"""Longest word n-gram, buckets, shortest and longest subword in characters (0: none)."""

Slots = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]

_BASIS, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_NEGATIVE = np.uint32(0xFFFFFF00)
_FACTOR = np.uint64(116049371)
_SPACE = 32
_BEGIN, _END = 60, 62  # < and >, around a word before it is split into subwords
_WAITING = 64
_ADDED = 1e-5
"""fastText adds this to every probability before the logarithm."""


@njit(nogil=True, cache=True)
def probabilities(
    data: Octets,
    offsets: Offsets,
    rows: Rows,
    counts: npt.NDArray[np.int32],
    slots: Slots,
    words: Octets,
    bounds: Integers,
    end_row: int,
    rules: Rules,
) -> Sums:
    """See :meth:`quality_classifier.kinds.fasttext_table.FastTextTable.probabilities`."""
    longest, buckets, _, most = rules
    n_words = len(counts)
    width = rows.shape[1]
    base, first_row, first_slot = data.ctypes.data, rows.ctypes.data, slots.ctypes.data
    # Prefetched values arrive from memory while other words are hashed.
    waiting = np.empty(_WAITING * longest, np.int64)
    hashes = np.empty(_WAITING, np.uint32)
    starts, sizes = np.empty((2, _WAITING), np.int64)
    running = np.zeros(longest, np.uint64)
    scratch = np.empty(0, np.uint8)
    sums = np.empty(width, np.float64)
    out = np.empty(len(offsets) - 1, np.float64)
    end_hash = _hash(np.array([60, 47, 115, 62], np.uint8))
    for i in range(len(out)):
        position = base + np.int64(offsets[i])
        end = base + np.int64(offsets[i + 1])
        sums[:] = 0.0
        count = place = 0
        ended = False
        while not ended:
            tokens = size = 0
            while tokens < _WAITING and not ended:
                position, start, value = _next_word(position, end)
                ended = position == start
                if ended:
                    value = end_hash
                else:
                    hashes[tokens], starts[tokens], sizes[tokens] = value, start, position - start
                    prefetch(int(first_slot + 8 * (np.int64(value) & (len(slots) - 1))))
                    tokens += 1
                signed = np.uint64(np.int64(np.int32(value)))
                for k in range(max(0, place - longest + 1), place):
                    gram = running[k % longest] * _FACTOR + signed
                    running[k % longest] = gram
                    waiting[size] = n_words + np.int64(gram % np.uint64(buckets))
                    prefetch(first_row + 4 * width * waiting[size])
                    size += 1
                running[place % longest] = signed
                place += 1
            count += size
            for k in range(tokens):
                row = _lookup(hashes[k], starts[k], sizes[k], slots, words, bounds)
                if row >= 0:
                    prefetch(first_row + 4 * width * row)
                    count += counts[row]
                elif most > 0:
                    if len(scratch) < sizes[k] + 2:
                        scratch = np.empty(2 * sizes[k] + 2, np.uint8)
                    for octet in range(sizes[k]):
                        scratch[octet + 1] = load_u8(starts[k] + octet)
                    count += _sum_parts(scratch, sizes[k] + 2, rows, n_words, rules, sums)
                starts[k] = row
            for k in range(size):
                for label in range(width):
                    sums[label] += rows[waiting[k], label]
            for k in range(tokens):
                if starts[k] >= 0:
                    for label in range(width):
                        sums[label] += rows[starts[k], label]
        if end_row >= 0:
            count += 1
            for label in range(width):
                sums[label] += rows[end_row, label]
        others = 0.0
        for label in range(width):
            others += math.exp(sums[label] / max(count, 1))
        out[i] = 1 / (1 + others) + _ADDED if count > 0 else 0.0
    return out


@njit(nogil=True, cache=True)
def _next_word(position: int, end: int) -> tuple[int, int, np.uint32]:
    """Where the next word ends and begins (the same place if there is none), and its hash."""
    while position < end and load_u8(position) == _SPACE:
        position += 1
    start = position
    value = _BASIS
    while position < end:
        byte = load_u8(position)
        if byte == _SPACE:
            break
        value = _absorb(value, byte)
        position += 1
    return position, start, value


@njit(nogil=True, cache=True)
def hash_table(words: Octets, bounds: Integers) -> Slots:
    """The words by linear probing, 2**k slots: hash << 32 | (number + 1); 0 is empty."""
    size = 16
    while size < 2 * len(bounds):
        size *= 2
    slots = np.zeros(size, np.uint64)
    for word in range(len(bounds) - 1):
        value = _hash(words[bounds[word] : bounds[word + 1]])
        at = np.int64(value) & (size - 1)
        while slots[at] != 0:
            at = (at + 1) & (size - 1)
        slots[at] = np.uint64(value) << np.uint64(32) | np.uint64(word + 1)
    return slots


@njit(nogil=True, cache=True)
def find(word: Octets, slots: Slots, words: Octets, bounds: Integers) -> int:
    """The number of a word, or -1."""
    return _lookup(_hash(word), word.ctypes.data, len(word), slots, words, bounds)


@njit(nogil=True, cache=True)
def add_parts(
    rows: Rows,
    counts: npt.NDArray[np.int32],
    words: Octets,
    bounds: Integers,
    end_row: int,
    rules: Rules,
) -> None:
    """Add to each word's row those of its subwords, except for the word that ends lines."""
    sums = np.empty(rows.shape[1], np.float64)
    for word in range(len(counts)):
        if word == end_row:
            continue
        size = bounds[word + 1] - bounds[word] + 2
        scratch = np.empty(size, np.uint8)
        scratch[1 : size - 1] = words[bounds[word] : bounds[word + 1]]
        sums[:] = rows[word]
        counts[word] += _sum_parts(scratch, size, rows, len(counts), rules, sums)
        rows[word] = sums


@njit(nogil=True, cache=True)
def _sum_parts(word: Octets, size: int, rows: Rows, n_words: int, rules: Rules, sums: Sums) -> int:
    """Add the rows of a word's subwords to sums; returns their number.

    Overwrites the first and last byte of ``word``. Subwords include < and > around the word.
    """
    _, buckets, least, most = rules
    word[0], word[size - 1] = _BEGIN, _END
    count = 0
    for start in range(size):
        if word[start] & 0xC0 == 0x80:
            continue
        value = _BASIS
        end = start
        length = 1
        while end < size and length <= most:
            value = _absorb(value, word[end])
            end += 1
            while end < size and word[end] & 0xC0 == 0x80:
                value = _absorb(value, word[end])
                end += 1
            if length >= least and not (length == 1 and (start == 0 or end == size)):
                row = n_words + np.int64(value) % buckets
                for label in range(len(sums)):
                    sums[label] += rows[row, label]
                count += 1
            length += 1
    return count


@njit(nogil=True, cache=True)
def _lookup(
    value: np.uint32, start: int, size: int, slots: Slots, words: Octets, bounds: Integers
) -> int:
    """The number of the word at an address with a known hash, or -1."""
    mask = len(slots) - 1
    known = words.ctypes.data
    at = np.int64(value) & mask
    while slots[at] != 0:
        if slots[at] >> np.uint64(32) == np.uint64(value):
            word = np.int64(slots[at] & np.uint64(0xFFFFFFFF)) - 1
            if bounds[word + 1] - bounds[word] == size and _same(start, known + bounds[word], size):
                return int(word)
        at = (at + 1) & mask
    return -1


@njit(nogil=True, cache=True)
def _same(a: int, b: int, size: int) -> bool:
    same = 0
    while same < size and load_u8(a + same) == load_u8(b + same):
        same += 1
    return same == size


@njit(nogil=True, cache=True)
def _hash(word: Octets) -> np.uint32:
    value = _BASIS
    for k in range(len(word)):
        value = _absorb(value, word[k])
    return value


@njit(nogil=True, cache=True)
def _absorb(value: np.uint32, byte: np.uint8) -> np.uint32:
    signed = np.uint32(byte) | _NEGATIVE if byte >= 0x80 else np.uint32(byte)
    return np.uint32((value ^ signed) * _PRIME)
