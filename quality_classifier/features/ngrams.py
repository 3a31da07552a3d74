"""The kernel: from word to word through UTF-8 text, and the bucket of a word or a pair of words.

A word is the sequence of its folded characters (``words.py``), each written as one byte if ASCII
and else as three, the code point with its low byte first. Its hash h starts at 0 and takes these
bytes 8 at a time, the last ones filled up with zeros, as a little-endian number c (all arithmetic
modulo 2**64)::

    h = (h ^ c) * FACTOR
    h = h ^ (h >> 32)

The bucket of a word after another (``before``, which is 0 for the word alone) is the upper
``log2_buckets`` bits of ``(before * FACTOR + h) * FACTOR``.

Words of up to 15 ASCII letters and digits, which is most of them, are hashed without a branch that
depends on their length; any other goes through the table, character by character, to the same hash.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from winnow.text.buffers import load_u8, load_u64
from winnow.text.vectors import WORD, letters_and_digits, trailing_zeros
from winnow.text.words import FOLDED, IGNORED, SEPARATOR, SOLO, next_entry

FACTOR = np.uint64(0x9E3779B97F4A7C15)
NO_WORD = np.uint64(0)

_LOWER_CASE = np.uint64(0x2020202020202020)  # set in all of a-z and 0-9; makes A-Z lower case
_SPACE = 32


@njit(nogil=True, cache=True)
def bucket(before: np.uint64, word: np.uint64, shift: np.uint64) -> np.int64:
    """The bucket of a word after another or after ``NO_WORD``; shift is 64 - log2_buckets."""
    return np.int64((before * FACTOR + word) * FACTOR >> shift)


@njit(nogil=True, cache=True, forceinline=True)
def next_word(position: int, end: int, table: int) -> tuple[np.uint64, int]:
    """The hash of the first word from an address on, or ``NO_WORD``, and where to go on.

    ``table`` is an address too: numba would count references to an array at every word, which takes
    as long as the rest.
    """
    while position < end:
        start = position
        if position + WORD < end:
            length = trailing_zeros(~letters_and_digits(position))
            following = load_u8(position + length)
            if 0 < length < WORD and following < 0x80:
                position += length
                word = _absorb(NO_WORD, _lower(start, min(length, 8)))
                longer = _absorb(word, _lower(start + 8, length - 8))
                return longer if length > 8 else word, position + (following == _SPACE)
        entry, position = next_entry(start, end, table)
        value = entry & FOLDED
        if value != SEPARATOR and value != IGNORED:
            if entry & SOLO:
                return _absorb(NO_WORD, np.uint64(value)), position
            return _any_word(start, end, table)
    return NO_WORD, position


@njit(nogil=True, cache=True)
def _lower(start: int, length: int) -> np.uint64:
    """The first 1 to 8 bytes at an address, of a word of ASCII, in lower case."""
    shift = np.uint64(64 - 8 * length) & np.uint64(63)
    return (load_u64(start) | _LOWER_CASE) & (~np.uint64(0) >> shift)


@njit(nogil=True, cache=True)
def _any_word(position: int, end: int, table: int) -> tuple[np.uint64, int]:
    """The same for the word that starts here, in whatever script."""
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


def _prefetch(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        instruction = builder.module.declare_intrinsic("llvm.prefetch.p0", (), shape)
        read, keep, not_code = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(instruction, [pointer, read, keep, not_code])
        return context.get_dummy_value()

    return types.void(types.int64), generate


prefetch = cast(Callable[[int], None], intrinsic(_prefetch))
"""Ask for the cache line at an address, which need not be valid, without waiting for it."""
