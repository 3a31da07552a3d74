"""The setting ``words`` of steps: which words they count.

With ``characters``, every letter of a script without white space between words (Han, kana, Thai,
Lao, Khmer, Myanmar, … as in :mod:`winnow.text.words`) is a word, with the marks and punctuation
after it: ``日本です。`` has the words ``日``, ``本``, ``で`` and ``す。``. Next to other letters or
digits a new word begins. Unicode's default (UAX #29) is the same except for runs of katakana, which
are one word there. A dictionary would find longer words, but a hundred times as slowly, and others
in its next version.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numba as nb
import numpy as np
import pyarrow as pa

from pipeline.steps.contract import Counts
from pipeline.steps.words import english_tokens
from pipeline.steps.words.characters import ALPHANUMERIC, SPACE, classes, decode
from winnow.text.buffers import Octets, Offsets, large_strings, string_buffers
from winnow.text.words import SOLO, TABLE, Table

WHITESPACE: Final = "whitespace"
DATATROVE: Final = "datatrove"
CHARACTERS: Final = "characters"

Separate = Callable[[pa.Array], pa.Array]


def separator(words: str, *without: str) -> Separate | None:
    """The function that puts spaces between words, or None if there are any, by setting ``words``.

    Raises:
        ValueError: the setting has no such value, or the step is ``without`` it.
    """
    known = [name for name in _SEPARATE if name not in without]
    if words not in known:
        raise ValueError(f"words is {' or '.join(map(repr, known))}, not {words!r}")
    return _SEPARATE[words]


def separate_letters(text: pa.Array) -> pa.Array:
    """The n texts (no nulls) with a space between letters that are words, as large_string."""
    octets, offsets = string_buffers(text)
    out = np.empty(2 * int(offsets[-1] - offsets[0]), np.uint8)  # a letter of these has 3 bytes
    ends = np.zeros(len(text) + 1, np.int64)
    _separate(octets, offsets, classes(), TABLE, out, ends)
    return large_strings(out, ends)


_SEPARATE: Mapping[str, Separate | None] = {
    WHITESPACE: None,
    DATATROVE: english_tokens.separate,
    CHARACTERS: separate_letters,
}


@nb.njit(nogil=True, cache=True)
def _separate(
    octets: Octets, offsets: Offsets, classes: Octets, table: Table, out: Octets, ends: Counts
) -> None:
    written = 0
    for i in range(len(offsets) - 1):
        at, end = int(offsets[i]), int(offsets[i + 1])
        begun = alone = False  # whether the word has a letter or digit, and the last one is a word
        while at < end:
            code, width = decode(octets, at)
            kind = classes[code]
            if kind & SPACE:
                begun = alone = False
            elif kind & ALPHANUMERIC:
                solo = table[code] & SOLO != 0
                if begun and (solo or alone):
                    out[written] = 32
                    written += 1
                begun = True
                alone = solo
            for k in range(width):
                out[written + k] = octets[at + k]
            written += width
            at += width
        ends[i + 1] = written
