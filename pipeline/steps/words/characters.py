"""Character classes, words, lines, hashes and hash sets for the kernels of the steps.

Definitions for all steps:

- A *character* is a Unicode code point.
- A *word* is what ``str.split()`` returns, with punctuation: the papers leave tokenisation open.
  Scripts without spaces (Chinese, Japanese, Thai) have few, long words: drop such documents with
  the ``language`` step, or do not use rules that count words on them.
- A *line* is the stripped text between newlines. Blank lines do not count. A *paragraph* is a run
  of lines without a blank one.
"""

import functools
from typing import Final

import numba as nb
import numpy as np
import numpy.typing as npt

from winnow.text.buffers import Octets, load_u8, load_u64, multiply_high

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int32]

SPACE: Final = 1
LETTER: Final = 2
ALPHANUMERIC: Final = 4
OTHER: Final = 8
MARK: Final = 16

NEWLINE: Final = 10
MAXIMUM: Final = 0x110000

_ODD_1 = np.uint64(0x9E3779B97F4A7C15)
_ODD_2 = np.uint64(0xD6E8FEB86659FD93)


@functools.cache
def classes(marks: str = "") -> Octets:
    """The classes of every code point, as bits: uint8 [0x110000].

    ``SPACE``, ``LETTER`` and ``ALPHANUMERIC`` are ``str.isspace``, ``isalpha`` and ``isalnum``;
    ``OTHER`` is neither space nor alphanumeric; ``MARK`` is one of the characters ``marks``.
    """
    every = np.arange(MAXIMUM, dtype=np.uint32).view("U1")
    space = np.strings.isspace(every)
    alphanumeric = np.strings.isalnum(every)
    bits = SPACE * space + LETTER * np.strings.isalpha(every) + ALPHANUMERIC * alphanumeric
    bits += OTHER * ~(space | alphanumeric)
    bits[[ord(mark) for mark in marks]] |= MARK
    return bits.astype(np.uint8)


@nb.njit(nogil=True, cache=True)
def decode(octets: Octets, at: int) -> tuple[int, int]:
    """The code point at byte ``at`` of valid UTF-8, and its number of bytes."""
    first = int(octets[at])
    if first < 0x80:
        return first, 1
    second = int(octets[at + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = int(octets[at + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, 3
    fourth = int(octets[at + 3]) & 0x3F
    return (first & 0x07) << 18 | second << 12 | third << 6 | fourth, 4


@nb.njit(nogil=True, cache=True)
def character_before(octets: Octets, at: int) -> int:
    """The code point that ends before byte ``at`` of valid UTF-8."""
    at -= 1
    while octets[at] & 0xC0 == 0x80:
        at -= 1
    return decode(octets, at)[0]


@nb.njit(nogil=True, cache=True)
def read_word(octets: Octets, at: int, end: int, classes: Octets) -> tuple[int, int, int, int]:
    """The end, characters, union of their classes and last one's class of the word at ``at``."""
    characters = kinds = last = 0
    while at < end:
        code, width = decode(octets, at)
        kind = int(classes[code])
        if kind & SPACE:
            break
        last = kind
        kinds |= kind
        characters += 1
        at += width
    return at, characters, kinds, last


@nb.njit(nogil=True, cache=True)
def read_line(
    octets: Octets, at: int, end: int, classes: Octets, hashes: Hashes, ends: Integers
) -> tuple[int, int, int, int, int, int]:
    """The stripped line at byte ``at``.

    Unless ``hashes`` is empty, it gets each word's hash, and ``ends[1:]`` the number of characters
    up to the end of each word, without white space.

    Returns:
        Its first byte and the one after its last, its characters (0 if it is empty), its words,
        the classes of its last character, and the byte after its newline.
    """
    first = last = at
    characters = words = gap = kind = 0  # gap: the white space after the last word
    while at < end:
        code, width = decode(octets, at)
        if classes[code] & SPACE:
            at += width
            if code == NEWLINE:
                return first, last, characters, words, kind, at
            gap += 1
            continue
        if words == 0:
            first = at
            gap = 0
        last, more, _, kind = read_word(octets, at, end, classes)
        if len(hashes):
            hashes[words] = hash_bytes(octets, at, last)
            ends[words + 1] = ends[words] + more
        characters += gap + more
        words += 1
        gap = 0
        at = last
    return first, last, characters, words, kind, at + 1


@nb.njit(nogil=True, cache=True)
def mix(state: np.uint64, value: np.uint64) -> np.uint64:
    """A 64-bit hash of a state and a value, which folds both halves of a 128-bit product."""
    a = state ^ value ^ _ODD_1
    turned = state << np.uint64(1) | state >> np.uint64(63)
    return (a * _ODD_2) ^ multiply_high(a, _ODD_2) ^ turned


@nb.njit(nogil=True, cache=True)
def hash_bytes(octets: Octets, start: int, end: int) -> np.uint64:
    """A 64-bit hash of ``octets[start:end]``; never 0, which marks a free slot in a set."""
    base = octets.ctypes.data
    state = np.uint64(end - start)
    at = start
    while at + 8 <= end:
        state = mix(state, load_u64(base + at))
        at += 8
    tail = np.uint64(0)
    if at + 8 <= len(octets):
        # Reading past the end and masking is faster.
        tail = load_u64(base + at) & ((np.uint64(1) << np.uint64(8 * (end - at))) - np.uint64(1))
    else:
        for k in range(end - at):
            tail |= np.uint64(load_u8(base + at + k)) << np.uint64(8 * k)
    state = mix(mix(state, tail), np.uint64(0))
    return state | np.uint64(state == 0)


@nb.njit(nogil=True, cache=True)
def table_size(entries: int) -> int:
    """The number of slots of a hash table: a power of two, at most 3/4 full."""
    size = 4
    while 3 * size < 4 * entries:
        size *= 2
    return size


@nb.njit(nogil=True, cache=True)
def add(table: npt.NDArray[np.uint64], mask: int, key: np.uint64) -> bool:
    """Add a key other than 0 to a set of ``mask + 1`` slots; True if it is new."""
    slot = np.int64(key & np.uint64(mask))
    while table[slot] != 0:
        if table[slot] == key:
            return False
        slot = (slot + 1) & mask
    table[slot] = key
    return True


def hash_set(hashes: Hashes) -> Hashes:
    """A set for :func:`holds` of hashes other than 0."""
    hashes = np.unique(hashes)
    # At most 3/8 full: nearly every look-up of an unknown hash ends at its first slot.
    return _filled(np.zeros(table_size(2 * len(hashes)), np.uint64), hashes)


@nb.njit(nogil=True, cache=True)
def _filled(table: Hashes, hashes: Hashes) -> Hashes:
    for key in hashes:
        add(table, len(table) - 1, key)
    return table


@nb.njit(nogil=True, cache=True)
def holds(table: npt.NDArray[np.uint64], mask: int, key: np.uint64) -> bool:
    """Whether a key other than 0 is in a set of ``mask + 1`` slots."""
    slot = np.int64(key & np.uint64(mask))
    while table[slot] != 0:
        if table[slot] == key:
            return True
        slot = (slot + 1) & mask
    return False
