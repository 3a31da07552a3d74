"""Bytes, characters and words of n documents, computed on Arrow's buffers."""

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from winnow.text.buffers import Offsets, string_buffers
from winnow.text.vectors import BLOCK, continuing, may_be_space, ones, trailing_zeros, white_space

Counts = npt.NDArray[np.int64]

_ALL = np.uint32(0xFFFFFFFF)


def measure(text: pa.Array) -> tuple[Counts, Counts, Counts]:
    """UTF-8 bytes, code points and words of n texts without nulls: three int64 [n].

    Words are those of ``str.split()``: runs of anything but Unicode white space.
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
        n_words = 0
        after_space = np.uint32(1)
        while at < end:
            ahead = trailing_zeros(may_be_space(base + at)) if end - at >= BLOCK else 0
            if ahead > 0:
                inside = _ALL >> np.uint32(BLOCK - ahead)
                spaces = white_space(base + at)
                n_characters += ones(inside & ~continuing(base + at))
                n_words += ones(inside & ~spaces & (spaces << np.uint32(1) | after_space))
                after_space = spaces >> np.uint32(ahead - 1) & np.uint32(1)
                at += ahead
                continue
            byte = octets[at]
            if 0x80 <= byte < 0xC0:  # the rest of a character that a block has counted
                at += 1
                continue
            if byte < 0x80:
                space = byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31
                width = 1
            else:
                space, width = _wide(octets, at)
            n_characters += 1
            n_words += int(after_space != 0 and not space)
            after_space = np.uint32(space)
            at += width
        characters[i] = n_characters
        words[i] = n_words


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
