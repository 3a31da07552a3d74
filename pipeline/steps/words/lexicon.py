"""Searches columns of text for many strings, or words, in one pass.

Text and strings are compared in NFKC (decomposed and full-width characters match the plain ones),
in lower case by Unicode's simple mapping, with all white space as spaces.

A *word* begins and ends at a boundary. There is one between any two characters, unless both are
letters, digits or ``_`` of scripts that put spaces between words, or both are Katakana, or the
second combines with the first. So ``re`` is not a word in ``résumé``, and a Chinese, Japanese or
Thai word is found in running text.

The strings form a trie whose nodes are hashes of their paths, in one hash set. A false hit needs a
collision of 64-bit hashes.
"""

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import Flags
from pipeline.steps.words.characters import (
    MAXIMUM,
    SPACE,
    Hashes,
    classes,
    decode,
    hash_set,
    holds,
    mix,
)
from winnow.text.buffers import Octets, Offsets, string_buffers

CodePoints = npt.NDArray[np.uint32]

_APART: Final = 0
_SPACED: Final = 1
_KATAKANA: Final = 2
_MARK: Final = 3

_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Tai_Le}\p{New_Tai_Lue}"
    r"\p{Tai_Tham}\p{Tai_Viet}\p{Javanese}\p{Balinese}"
)


class Lexicon(NamedTuple):
    """Strings to look for, as two hash sets: see :func:`lexicon`."""

    nodes: Hashes  # of all prefixes of the strings
    ends: Hashes  # of the strings


def lexicon(strings: Sequence[str]) -> Lexicon:
    """The strings as :func:`contains` takes them."""
    nodes, ends = _trie(*string_buffers(_normal(pa.array(strings, pa.large_string()))), _folded())
    return Lexicon(hash_set(nodes), hash_set(ends))


def contains(values: pa.Array, wanted: Lexicon, words: bool) -> Flags:
    """Which values (n strings) contain one of the strings, with ``words`` as a word: bool [n].

    Nulls contain none. Time is at worst the length of the text times that of the longest string.
    """
    if not wanted.ends.any():
        return np.zeros(len(values), np.bool_)
    octets, offsets = string_buffers(_normal(pc.fill_null(values, "")))
    kinds = _kinds() if words else np.empty(0, np.uint8)
    return _contains(octets, offsets, _folded(), kinds, wanted)


def _normal(values: pa.Array) -> pa.Array:
    plain = pc.all(pc.string_is_ascii(values), min_count=0).as_py()
    return values if plain else pc.utf8_normalize(values, form="NFKC")


@functools.cache
def _folded() -> CodePoints:
    """The normal form of every code point: lower case, or a space (uint32 [0x110000])."""
    every = np.arange(MAXIMUM, dtype=np.uint32)
    lower = np.strings.lower(every.view("U1")).view(np.uint32)
    lower[ord("ς")] = ord("σ")
    return np.where(classes() & SPACE, np.uint32(ord(" ")), lower)


@functools.cache
def _kinds() -> Octets:
    """The kind of every code point, for word boundaries (uint8 [0x110000])."""
    every = np.arange(MAXIMUM, dtype=np.uint32)
    surrogate = (every >= 0xD800) & (every < 0xE000)
    text = pa.array(np.where(surrogate, np.uint32(ord(" ")), every).view("U1"))
    kinds = np.full(MAXIMUM, _APART, np.uint8)
    for kind, characters in (
        (_SPACED, r"\pL\pN_"),
        (_APART, _UNSPACED),
        (_KATAKANA, r"\p{Katakana}ー"),
        (_MARK, r"\pM\p{Cf}ﾞﾟ"),
        (_APART, "\u200b"),  # a zero-width space
    ):
        kinds[pc.match_substring_regex(text, f"[{characters}]").to_numpy(False)] = kind
    return kinds


@nb.njit(nogil=True, cache=True)
def _step(state: np.uint64, code: np.uint32) -> np.uint64:
    """The child of a node; 0 is the root."""
    state = mix(state, np.uint64(code))
    return state | np.uint64(state == 0)


@nb.njit(nogil=True, cache=True)
def _trie(octets: Octets, offsets: Offsets, folded: CodePoints) -> tuple[Hashes, Hashes]:
    nodes = np.empty(offsets[-1] - offsets[0], np.uint64)
    ends = np.empty(len(offsets) - 1, np.uint64)
    found = 0
    for i in range(len(offsets) - 1):
        at, end = int(offsets[i]), int(offsets[i + 1])
        state = np.uint64(0)
        while at < end:
            code, width = decode(octets, at)
            at += width
            state = _step(state, folded[code])
            nodes[found] = state
            found += 1
        ends[i] = state
    return nodes[:found], ends


@nb.njit(nogil=True, cache=True)
def _parted(before: int, after: int) -> bool:
    """Whether there is a boundary between two kinds; the first is of the last non-mark."""
    return after != _MARK and (before == _APART or before != after)


@nb.njit(nogil=True, cache=True)
def _contains(
    octets: Octets, offsets: Offsets, folded: CodePoints, kinds: Octets, wanted: Lexicon
) -> Flags:
    """``kinds`` are empty if boundaries do not matter."""
    words = len(kinds) > 0
    hit = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(hit)):
        start, end = int(offsets[i]), int(offsets[i + 1])
        before = _APART
        while start < end and not hit[i]:
            code, width = decode(octets, start)
            kind = int(kinds[code]) if words else _APART
            if not words or _parted(before, kind):
                hit[i] = _begins(octets, start, end, folded, kinds, wanted)
            if kind != _MARK:
                before = kind
            start += width
    return hit


@nb.njit(nogil=True, cache=True)
def _begins(
    octets: Octets, at: int, end: int, folded: CodePoints, kinds: Octets, wanted: Lexicon
) -> bool:
    """Whether one of the strings begins at byte ``at``."""
    nodes, ends = wanted
    words = len(kinds) > 0
    state = np.uint64(0)
    last = _APART
    while at < end:
        code, width = decode(octets, at)
        state = _step(state, folded[code])
        if not holds(nodes, len(nodes) - 1, state):
            return False
        at += width
        if words and kinds[code] != _MARK:
            last = int(kinds[code])
        if holds(ends, len(ends) - 1, state):
            if not words or at == end:
                return True
            following, _ = decode(octets, at)
            if _parted(last, int(kinds[following])):
                return True
    return False
