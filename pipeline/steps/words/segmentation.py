"""Words of scripts that have no white space between them: every letter is one.

A letter of such a script (Han, kana, Thai, Lao, Khmer, Myanmar, … as the classifier's normaliser
and near-duplicates have them, :mod:`winnow.text.words`) is a word with the marks and punctuation
behind it: ``日本です。`` has the four words ``日``, ``本``, ``で`` and ``す。``. Where letters of
other scripts or digits meet it, a new word begins. Unicode's default (UAX #29) does the same, but
for katakana, whose runs are one word there. A dictionary would find longer words, at a hundredth of
the speed, and others in its next version.
"""

import numba as nb
import numpy as np
import pyarrow as pa

from pipeline.steps.contract import Counts
from pipeline.steps.words.characters import ALPHANUMERIC, SPACE, classes, decode
from winnow.text.buffers import Octets, Offsets, large_strings, string_buffers
from winnow.text.words import SOLO, TABLE, Table


def separate(text: pa.Array) -> pa.Array:
    """The texts with a space between words that have no white space between them.

    Args:
        text: string or large_string [n] without nulls; may be a slice.

    Returns:
        large_string [n].
    """
    octets, offsets = string_buffers(text)
    out = np.empty(2 * int(offsets[-1] - offsets[0]), np.uint8)  # a letter of these has 3 bytes
    ends = np.zeros(len(text) + 1, np.int64)
    _separate(octets, offsets, classes(), TABLE, out, ends)
    return large_strings(out, ends)


@nb.njit(nogil=True, cache=True)
def _separate(
    octets: Octets, offsets: Offsets, classes: Octets, table: Table, out: Octets, ends: Counts
) -> None:
    written = 0
    for i in range(len(offsets) - 1):
        at, end = int(offsets[i]), int(offsets[i + 1])
        begun = alone = False  # of the word: has it a letter or digit, is the last one a word
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
