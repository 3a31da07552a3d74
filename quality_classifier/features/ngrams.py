"""Kernels: the words of UTF-8 text, and the buckets of words and pairs of words.

A word is the sequence of its folded characters (``words.py``): one byte if ASCII, else the three of
its code point, lowest first. Its hash h starts at 0 and takes these bytes 8 at a time, padded with
zeros, as a little-endian number c (all arithmetic modulo 2**64)::

    h = (h ^ c) * FACTOR
    h = h ^ (h >> 32)

The bucket of a word after another (``before``, 0 for the word alone) is the upper ``log2_buckets``
bits of ``(before * FACTOR + h) * FACTOR``.

ASCII words, which are most, are found 32 bytes at a time and hashed without a branch on their
length; others go through the table, character by character, to the same hash.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types

from winnow.text.buffers import llvm, load_u8, load_u64
from winnow.text.vectors import (
    BLOCK,
    leading_zeros,
    letters_and_digits,
    not_ascii,
    store_u64,
    trailing_zeros,
    visible,
)
from winnow.text.words import FOLDED, IGNORED, SEPARATOR, SOLO, next_entry

FACTOR = np.uint64(0x9E3779B97F4A7C15)
NO_WORD = np.uint64(0)

_LOWER_CASE = np.uint64(0x2020202020202020)  # set in all of a-z and 0-9; makes A-Z lower case
_SPACE = 32


@njit(nogil=True, cache=True)
def bucket(before: np.uint64, word: np.uint64, shift: np.uint64) -> np.int64:
    """The bucket of a word after another or ``NO_WORD``; shift is 64 - log2_buckets."""
    return np.int64((before * FACTOR + word) * FACTOR >> shift)


MOST_WORDS = BLOCK
"""Limit of the words that :func:`next_words` finds."""

_ONE = np.uint32(1)
_ALL = np.uint64(0xFFFFFFFF)


def _word_masks() -> npt.NDArray[np.uint64]:
    """For 0 to 16 letters: the lower-case bits, and masks of the first and second 8 bytes."""
    masks = [
        [int(_LOWER_CASE), (1 << 8 * min(n, 8)) - 1, (1 << 8 * max(n - 8, 0)) - 1]
        for n in range(1, 17)
    ]
    return np.array([[0, 0xFF, 0], *masks], np.uint64)  # 0 letters: a sign, one byte


_MASKS = _word_masks()


@njit(nogil=True, cache=True, forceinline=True)
def next_words(position: int, end: int, table: int, words: int, signs: bool) -> tuple[int, int]:
    """The number of next words (0 only at the end), and the next position.

    Their hashes (uint64) go to the address ``words``, with room for ``MOST_WORDS``. ``table`` is an
    address, too: numba would count references to an array at every call. Punctuation marks and
    symbols are words if ``signs``, else separators.
    """
    found = 0
    while found == 0 and position < end:
        size = 0
        if load_u8(position) < 0x80 and position + BLOCK + 16 <= end:
            letters = letters_and_digits(position)
            ascii_bytes = trailing_zeros(not_ascii(position))
            # A word that continues beyond the block or ASCII is left for the next call.
            cut = leading_zeros(~np.uint32(np.uint64(letters) << np.uint64(BLOCK - ascii_bytes)))
            size = ascii_bytes - min(cut, ascii_bytes)
            starts = (visible(position) if signs else letters) & ~(letters & letters << _ONE)
            starts &= ~np.uint32(_ALL << np.uint64(size))
            while starts:
                start = trailing_zeros(starts)
                length = trailing_zeros(~(letters >> np.uint32(start)))
                store_u64(words + 8 * found, _hash_ascii(position + start, length))
                starts &= starts - _ONE
                found += 1
        if size == 0:
            word, position = _next_word(position, end, table)
            store_u64(words, word)
            found = int(word != NO_WORD)
            size = int(position < end and load_u8(position) == _SPACE)
        position += size
    return found, position


@njit(nogil=True, cache=True, forceinline=True)
def _hash_ascii(start: int, length: int) -> np.uint64:
    """The hash of a word of ``length`` ASCII letters and digits, or of a sign if 0."""
    if length > 16:
        return _hash_long(start, length)
    masks = _MASKS[np.uint64(length)]
    word = _absorb(NO_WORD, (load_u64(start) | masks[0]) & masks[1])
    return _absorb(word, (load_u64(start + 8) | _LOWER_CASE) & masks[2]) if length > 8 else word


@njit(nogil=True, cache=True)
def _hash_long(start: int, length: int) -> np.uint64:
    word = NO_WORD
    for at in range(0, length, 8):
        masks = _MASKS[np.uint64(min(length - at, 8))]
        word = _absorb(word, (load_u64(start + at) | _LOWER_CASE) & masks[1])
    return word


@njit(nogil=True, cache=True)
def _next_word(position: int, end: int, table: int) -> tuple[np.uint64, int]:
    """The hash of the next word in any script, or ``NO_WORD``, and the next position."""
    while position < end:
        start = position
        entry, position = next_entry(start, end, table)
        value = entry & FOLDED
        if value != SEPARATOR and value != IGNORED:
            if entry & SOLO:
                return _absorb(NO_WORD, np.uint64(value)), position
            return _any_word(start, end, table)
    return NO_WORD, position


@njit(nogil=True, cache=True)
def _any_word(position: int, end: int, table: int) -> tuple[np.uint64, int]:
    word = NO_WORD
    octets = np.uint64(0)
    filled = np.uint64(0)  # bits of octets
    while position < end:
        entry, following = next_entry(position, end, table)
        value = np.uint64(entry & FOLDED)
        if value == SEPARATOR or entry & SOLO:
            break
        position = following
        if value == IGNORED:
            continue
        octets |= value << filled
        size = np.uint64(8) if value < 0x80 else np.uint64(24)
        filled += size
        if filled >= 64:
            word = _absorb(word, octets)
            filled -= np.uint64(64)
            octets = value >> (size - filled)
    if filled > 0:
        word = _absorb(word, octets)
    return word, position


@njit(nogil=True, cache=True)
def _absorb(word: np.uint64, octets: np.uint64) -> np.uint64:
    mixed = (word ^ octets) * FACTOR
    return mixed ^ mixed >> np.uint64(32)


@llvm(types.void, types.int64)
def prefetch(builder: Any, address: Any) -> None:
    """Prefetch the cache line at an address, which need not be valid."""
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    number = ir.IntType(32)
    shape = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
    instruction = builder.module.declare_intrinsic("llvm.prefetch.p0", (), shape)
    read, keep, not_code = (ir.Constant(number, value) for value in (0, 3, 1))
    builder.call(instruction, [pointer, read, keep, not_code])
