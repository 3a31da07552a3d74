"""Bytes, characters and words of n documents, computed on Arrow's buffers."""

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from winnow.text.buffers import Offsets, load_u64, string_buffers

Counts = npt.NDArray[np.int64]

_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)


def measure(text: pa.Array) -> tuple[Counts, Counts, Counts]:
    """UTF-8 bytes, characters (code points) and words of each text: three int64 [n].

    Words are what ``str.split()`` finds: runs of anything but Unicode white space.

    Args:
        text: string or large_string [n] without nulls; may be a slice.
    """
    octets, offsets = string_buffers(text)
    characters = np.empty(len(text), np.int64)
    words = np.empty(len(text), np.int64)
    _measure(octets, offsets, characters, words)
    return np.diff(offsets).astype(np.int64), characters, words


@nb.njit(nogil=True, cache=True)
def _measure(
    octets: npt.NDArray[np.uint8], offsets: Offsets, characters: Counts, words: Counts
) -> None:
    base = octets.ctypes.data
    for i in range(len(offsets) - 1):
        end = offsets[i + 1]
        at = offsets[i]
        n_characters = 0
        n_words = np.int64(0)
        after_space = True
        while at < end:
            if end - at >= 8:
                eight = load_u64(base + at)
                if eight & _HIGH == 0:
                    starts, after_space = _word_starts(eight, after_space)
                    n_characters += 8
                    n_words += np.int64(starts)
                    at += 8
                    continue
            # Up to eight bytes one by one, then try eight at once again.
            stop = min(at + 8, end)
            while at < stop:
                byte = octets[at]
                width = 1
                if byte < 0x80:
                    space = byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31
                else:
                    space, width = _wide(octets, at)
                n_characters += 1
                n_words += after_space and not space
                after_space = space
                at += width
        characters[i] = n_characters
        words[i] = n_words


@nb.njit(nogil=True, cache=True, inline="always")
def _word_starts(eight: np.uint64, after_space: bool) -> tuple[np.uint64, bool]:
    """How many of eight ASCII bytes start a word, and whether the last one is white space.

    The high bit of each byte says what holds for it: no sum below carries into the next byte.
    """
    space = (_at_least(eight, 9) & ~_at_least(eight, 14)) | (
        _at_least(eight, 28) & ~_at_least(eight, 33)
    )
    before = (space << np.uint64(8)) | (np.uint64(0x80) if after_space else np.uint64(0))
    starts = ~space & before & _HIGH
    count = ((starts >> np.uint64(7)) * _ONES) >> np.uint64(56)
    return count, bool(space >> np.uint64(63) != 0)


@nb.njit(nogil=True, cache=True, inline="always")
def _at_least(eight: np.uint64, lowest: int) -> np.uint64:
    return (eight + np.uint64(128 - lowest) * _ONES) & _HIGH


@nb.njit(nogil=True, cache=True, inline="always")
def _wide(octets: npt.NDArray[np.uint8], at: int) -> tuple[bool, int]:
    """Whether the character of two or more bytes at ``at`` is white space, and its width."""
    first = octets[at]
    if first < 0xE0:  # U+0085, U+00A0
        return first == 0xC2 and (octets[at + 1] == 0x85 or octets[at + 1] == 0xA0), 2
    if first >= 0xF0:
        return False, 4
    if first == 0xE1:  # U+1680
        return octets[at + 1] == 0x9A and octets[at + 2] == 0x80, 3
    if first == 0xE2:  # U+2000..200A, 2028, 2029, 202F, 205F
        second, third = octets[at + 1], octets[at + 2]
        general = second == 0x80 and (
            0x80 <= third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF
        )
        return general or (second == 0x81 and third == 0x9F), 3
    return first == 0xE3 and octets[at + 1] == 0x80 and octets[at + 2] == 0x80, 3  # U+3000
