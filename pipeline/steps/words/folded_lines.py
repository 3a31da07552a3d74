"""Hashes of folded lines, to compare lines across documents, and removal of lines.

A line is the text between newlines. It is folded as CCNet folds paragraphs to deduplicate them
(Wenzek et al. 2020, "Deduplication"): letters lose case and accents, every digit becomes 0, and
punctuation is dropped. Inner white space becomes one blank; the ends are stripped.
"""

import functools
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import Counts, Flags
from pipeline.steps.words.characters import MAXIMUM, NEWLINE, SPACE, classes, decode, mix
from winnow.text.buffers import Octets, Offsets, large_strings, string_buffers
from winnow.text.groups import NONE, domain
from winnow.text.hashing import xxh3_64

Keys = npt.NDArray[np.uint64]

BLANK = np.uint64(0)  # the key of blank lines, and of all lines of documents without a host

_BLANK_CHARACTER = np.uint64(ord(" "))
_CHANGED_BY_FOLDING = (range(0x20000), range(0x2F800, 0x2FA20), range(0xE0000, 0xE0200))


class Folds(NamedTuple):
    """Code point c folds to ``codes[starts[c]:starts[c + 1]]``."""

    starts: npt.NDArray[np.int32]  # [0x110001]
    codes: npt.NDArray[np.uint32]


def line_keys(text: pa.Array, url: pa.Array) -> tuple[Keys, Counts]:
    """A hash of host and folded line for every line of n documents, and their number of lines.

    ``text`` is string or large_string [n] without nulls, ``url`` string [n]. Hashes are uint64,
    :data:`BLANK` where there is nothing to compare; numbers are int64 [n], at least 1.
    """
    host = domain(url)
    octets, offsets = string_buffers(text)
    breaks = np.count_nonzero(octets[offsets[0] : offsets[-1]] == NEWLINE)
    keys = np.empty(breaks + len(text), np.uint64)
    lines = np.empty(len(text), np.int64)
    named = pc.not_equal(host, NONE).to_numpy(zero_copy_only=False)
    _hash_lines(octets, offsets, xxh3_64(host), named, classes(), folds(), keys, lines)
    return keys, lines


def without(text: pa.Array, removed: Flags) -> pa.Array:
    """The n texts (large_string) without the flagged lines (bool, for the lines of all texts)."""
    octets, offsets = string_buffers(text)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    ends = np.zeros(len(text) + 1, np.int64)
    _copy_lines(octets, offsets, removed, out, ends)
    return large_strings(out, ends)


@functools.cache
def folds() -> Folds:
    """The table for the Unicode version of this Python."""
    lengths = np.ones(MAXIMUM, np.int32)
    changed = list(_changed())
    lengths[[code for code, _ in changed]] = [len(folded) for _, folded in changed]
    starts = np.zeros(MAXIMUM + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    codes = np.repeat(np.arange(MAXIMUM, dtype=np.uint32), lengths)
    for code, folded in changed:
        codes[starts[code] : starts[code + 1]] = [ord(character) for character in folded]
    return Folds(starts, codes)


def _changed() -> Iterator[tuple[int, str]]:
    """The code points that fold to something else."""
    for codes in _CHANGED_BY_FOLDING:
        for code in codes:
            character = chr(code)
            parts = unicodedata.normalize("NFD", character.casefold())
            folded = "".join(map(_folded, parts))
            if folded != character:
                yield code, folded


def _folded(character: str) -> str:
    kind = unicodedata.category(character)
    return "0" if kind == "Nd" else "" if kind == "Mn" or kind[0] == "P" else character


@nb.njit(nogil=True, cache=True)
def _hash_lines(
    octets: Octets,
    offsets: Offsets,
    seeds: Keys,
    named: Flags,
    classes: Octets,
    folds: Folds,
    keys: Keys,
    lines: Counts,
) -> None:
    line = 0
    for i in range(len(lines)):
        first = line
        state = seeds[i]
        empty = True
        gap = False
        at = offsets[i]
        while at < offsets[i + 1]:
            code, width = decode(octets, at)
            at += width
            if code == NEWLINE:
                keys[line] = _finished(state, named[i] and not empty)
                line += 1
                state = seeds[i]
                empty = True
                gap = False
            elif classes[code] & SPACE:
                gap = not empty
            else:
                for k in range(folds.starts[code], folds.starts[code + 1]):
                    if gap:
                        state = mix(state, _BLANK_CHARACTER)
                        gap = False
                    state = mix(state, np.uint64(folds.codes[k]))
                    empty = False
        keys[line] = _finished(state, named[i] and not empty)
        line += 1
        lines[i] = line - first


@nb.njit(nogil=True, cache=True)
def _finished(state: np.uint64, something: bool) -> np.uint64:
    return state | np.uint64(state == BLANK) if something else BLANK


@nb.njit(nogil=True, cache=True)
def _copy_lines(
    octets: Octets, offsets: Offsets, removed: Flags, out: Octets, ends: Counts
) -> None:
    line = written = 0
    for i in range(len(ends) - 1):
        at = offsets[i]
        first = True
        while True:
            end = at
            while end < offsets[i + 1] and octets[end] != NEWLINE:
                end += 1
            if not removed[line]:
                if not first:
                    out[written] = NEWLINE
                    written += 1
                out[written : written + end - at] = octets[at:end]
                written += end - at
                first = False
            line += 1
            if end == offsets[i + 1]:
                break
            at = end + 1
        ends[i + 1] = written
