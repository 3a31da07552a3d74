"""Counts the stop words of a list in texts.

Words are split at white space, stripped of punctuation, and folded character by character as by the
classifier's normaliser (:mod:`winnow.text.words`), so case does not matter. They are not normalised
otherwise: a list may have a word in both of Unicode's forms.
"""

import functools
import unicodedata
from collections.abc import Sequence

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import Counts
from pipeline.steps.words.characters import ALPHANUMERIC, MARK, SPACE, Hashes, classes, decode, mix
from winnow.text.buffers import Octets, Offsets, string_buffers
from winnow.text.words import FOLDED, IGNORED, TABLE, Table


class StopWords:
    """A list of stop words. Raises ValueError if one is not a word."""

    def __init__(self, words: Sequence[str]) -> None:
        for word in words:
            if len(word.split()) != 1 or not any(c.isalnum() for c in word):
                raise ValueError(f"stop_words are words, and {word!r} is not one")
        self._words = list(words)
        text = pa.array(self._words, pa.large_string())
        hashes = np.zeros((len(text), 1), np.uint64)
        nothing = np.empty(0, np.uint64)
        counts = np.zeros(len(text), np.int64)
        _find(*string_buffers(text), _classes(), TABLE, nothing, 0, hashes, counts)
        self._hashes = np.unique(hashes)

    def count(self, text: pa.Array, enough: int) -> Counts:
        """The number (int64 [n]) of different stop words in each of n texts, at most ``enough``."""
        counts = np.zeros(len(text), np.int64)
        nothing = np.empty((0, 1), np.uint64)
        tables = (_classes(), TABLE, self._hashes)
        _find(*string_buffers(text), *tables, min(enough, len(self._hashes)), nothing, counts)
        return counts

    def count_anywhere(self, text: pa.Array) -> Counts:
        """The same for scripts without white space: of stop words anywhere in each text."""
        counts = np.zeros(len(text), np.int64)
        for word in self._words:
            counts += pc.match_substring(text, word, ignore_case=True).to_numpy(False)
        return counts


@functools.cache
def _classes() -> Octets:
    """The classes of characters, with Unicode's marks as ``MARK``: they belong to words."""
    points = map(chr, range(0x300, 0x1F000))
    return classes("".join(point for point in points if unicodedata.category(point)[0] == "M"))


@nb.njit(nogil=True, cache=True)
def _find(
    octets: Octets,
    offsets: Offsets,
    classes: Octets,
    table: Table,
    known: Hashes,
    enough: int,
    first: npt.NDArray[np.uint64],
    counts: Counts,
) -> None:
    """Count the ``known`` words of each text, or write the hash of its first word to ``first``."""
    seen = np.zeros(len(known), np.bool_)
    for i in range(len(offsets) - 1):
        at, end = int(offsets[i]), int(offsets[i + 1])
        seen[:] = False
        whole = bare = np.uint64(0)  # hashes of the word, up to here and to its last letter
        while at <= end:
            code, width = 32, 1  # the end of the text ends its last word
            if at < end:
                code, width = decode(octets, at)
            at += width
            kind = classes[code]
            if not kind & SPACE:
                folded = table[code] & FOLDED
                inside = kind & (ALPHANUMERIC | MARK)
                if folded != IGNORED and (inside or bare != 0):
                    whole = mix(whole, np.uint64(folded if inside else code))
                    if inside:
                        bare = whole
                continue
            if bare != 0:
                if len(first):
                    first[i, 0] = bare
                    break
                k = np.searchsorted(known, bare)
                if k < len(known) and known[k] == bare and not seen[k]:
                    seen[k] = True
                    counts[i] += 1
                    if counts[i] >= enough:
                        break
                whole = bare = np.uint64(0)
