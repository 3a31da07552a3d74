"""Drops documents that share a word n-gram with evaluation files.

Follows GPT-3 (Brown et al. 2020, appendix C): 13-grams of lower-cased words, split at white space,
without punctuation. GPT-3 removes the text around a hit and drops only documents that fall into
many pieces; here one hit drops the document. Evaluation texts of fewer than n words match nothing.

Words are normalised to their letters and digits, in lower case (Unicode's simple mapping), without
accents and with Hangul as jamo, so composed and decomposed text (NFC, NFD) match. Words without
letters or digits are ignored. A false hit needs a collision of 64-bit hashes.
"""

import functools
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.steps.contract import Codes, Counts, Flags, Step
from pipeline.steps.evaluation_files import EvaluationFile, read_evaluation_file
from pipeline.steps.words.characters import (
    ALPHANUMERIC,
    MAXIMUM,
    SPACE,
    Hashes,
    classes,
    decode,
    hash_set,
    holds,
    mix,
)
from winnow.filesystem import inputs, storage
from winnow.text.buffers import Octets, Offsets, string_buffers

CodePoints = npt.NDArray[np.uint32]

LONGEST = 1000  # words of the longest n-gram

_BASE = np.uint64(0x9E3779B97F4A7C15)
_HANGUL, _HANGUL_END = 0xAC00, 0xD7A4


@dataclass
class Decontamination(Step):
    """Drops documents with an n-gram of the evaluation files."""

    files: list[str]  # globs of files for pipeline.steps.evaluation_files
    fields: list[str]  # of their records; none: all strings, at any depth
    n: int

    reasons: ClassVar[tuple[str, ...]] = ("contaminated",)
    input_files: ClassVar[tuple[str, ...]] = ("files",)

    def __post_init__(self) -> None:
        if not 1 <= self.n <= LONGEST:
            raise ValueError(f"n is from 1 to {LONGEST}, not {self.n}")
        if not self.files:
            raise ValueError("no evaluation files are given: name some under files")
        self.notes: list[str] = []
        found = inputs.spellings(path for glob in self.files for path in storage.find(glob))
        parts = [self._n_grams(read_evaluation_file(path, self.fields)) for path, *_ in found]
        self._known = hash_set(np.concatenate(parts))

    def _n_grams(self, file: EvaluationFile) -> Hashes:
        """The distinct hashes of a file's n-grams; adds notes for the user."""
        hashes, counts = n_gram_hashes(pa.array(file.texts, pa.large_string()), self.n)
        if len(hashes) == 0:
            raise ValueError(
                f"no text of {file.path} has {self.n} words, so it protects nothing: check its"
                " fields, lower n or leave it out"
            )
        hashes = np.unique(hashes)
        where, records = f"decontamination: {file.path}:", f"{file.records:,} record"
        plural = "s" * (file.records != 1)
        self.notes.append(f"{where} {len(hashes):,} {self.n}-grams of {records}{plural}")
        lacking = {f"no field {name!r}": count for name, count in file.lacking.items()}
        short = np.bincount(file.owners, counts, file.records) == 0
        lacking[f"no text of {self.n} words"] = int(short.sum())
        for what, count in lacking.items():
            if count:
                self.notes.append(f"warning: {where} {count:,} of {records}s have {what}")
        return hashes

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        return batch, overlaps(batch["text"], self._known, self.n).astype(np.int8)


def n_gram_set(texts: pa.Array, n: int) -> Hashes:
    """The hashes of the texts' word n-grams as a hash set for :func:`overlaps`.

    Raises:
        ValueError: no text has n words.
    """
    hashes, _ = n_gram_hashes(texts, n)
    if len(hashes) == 0:
        raise ValueError(f"no evaluation text has {n} words: check files and fields, or lower n")
    return hash_set(hashes)


def n_gram_hashes(texts: pa.Array, n: int) -> tuple[Hashes, Counts]:
    """The hashes of m texts' word n-grams (uint64), and the number of each text (int64 [m])."""
    return _all_hashes(*string_buffers(texts), _normal(), n)


def overlaps(text: pa.Array, known: Hashes, n: int) -> Flags:
    """Which documents (string or large_string [m] without nulls) hold a known n-gram: bool [m]."""
    return _overlaps(*string_buffers(text), _normal(), known, n)


@functools.cache
def _normal() -> CodePoints:
    """The normal form of every code point: lower case, a space, or 0 to drop it (uint32)."""
    every = np.arange(MAXIMUM, dtype=np.uint32)
    kinds = classes()
    for code in np.flatnonzero(kinds & ALPHANUMERIC).tolist():
        base, *more = list(unicodedata.normalize("NFD", chr(code)))
        if all(unicodedata.category(mark).startswith("M") for mark in more):
            every[code] = ord(base)  # without its accents
    lower = np.strings.lower(every.view("U1")).view(np.uint32)
    normal = np.where(kinds & ALPHANUMERIC, lower, 0)
    return np.where(kinds & SPACE, ord(" "), normal).astype(np.uint32)


@nb.njit(nogil=True, cache=True)
def _add(state: np.uint64, letter: int) -> np.uint64:
    state = mix(state, np.uint64(letter))
    return state | np.uint64(state == 0)


@nb.njit(nogil=True, cache=True)
def _add_syllable(state: np.uint64, syllable: int) -> np.uint64:
    """Add the jamo of a Hangul syllable: initial, vowel, and final or none (Unicode 3.12)."""
    state = _add(state, 0x1100 + syllable // 588)
    state = _add(state, 0x1161 + syllable % 588 // 28)
    return _add(state, 0x11A7 + syllable % 28) if syllable % 28 else state


@nb.njit(nogil=True, cache=True)
def _next_word(octets: Octets, at: int, end: int, normal: CodePoints) -> tuple[int, np.uint64]:
    """The end of the next word that is not empty once normalised, and its hash, or 0."""
    state = np.uint64(0)
    while at < end:
        code, width = decode(octets, at)
        at += width
        letter = normal[code]
        if letter == 32:
            if state:
                break
        elif letter < _HANGUL or letter >= _HANGUL_END:
            if letter:
                state = _add(state, letter)
        else:
            state = _add_syllable(state, letter - _HANGUL)
    return at, state


@nb.njit(nogil=True, cache=True)
def _hashes(
    octets: Octets, at: int, end: int, normal: CodePoints, n: int, words: Hashes, hashes: Hashes
) -> int:
    """Hash the n-grams of ``octets[at:end]`` into ``hashes``; returns their number.

    An n-gram's hash is mixed from the sum of word hash * BASE**age. ``words`` is scratch, n words.
    """
    oldest = np.uint64(1)
    for _ in range(n):
        oldest *= _BASE
    words[:] = 0
    rolling = np.uint64(0)
    count = slot = 0
    while at < end:
        at, word = _next_word(octets, at, end, normal)
        if word == 0:
            break
        rolling = rolling * _BASE + word - words[slot] * oldest
        words[slot] = word
        slot = slot + 1 if slot + 1 < n else 0
        count += 1
        if count >= n:
            key = mix(np.uint64(0), rolling)
            hashes[count - n] = key | np.uint64(key == 0)
    return max(count - n + 1, 0)


@nb.njit(nogil=True, cache=True)
def _all_hashes(
    octets: Octets, offsets: Offsets, normal: CodePoints, n: int
) -> tuple[Hashes, Counts]:
    hashes = np.empty(offsets[-1] - offsets[0], np.uint64)  # a word takes a byte or more
    counts = np.empty(len(offsets) - 1, np.int64)
    words = np.empty(n, np.uint64)
    found = 0
    for i in range(len(counts)):
        start, end = int(offsets[i]), int(offsets[i + 1])
        counts[i] = _hashes(octets, start, end, normal, n, words, hashes[found:])
        found += counts[i]
    return hashes[:found], counts


@nb.njit(nogil=True, cache=True)
def _overlaps(octets: Octets, offsets: Offsets, normal: CodePoints, known: Hashes, n: int) -> Flags:
    hit = np.zeros(len(offsets) - 1, np.bool_)
    words = np.empty(n, np.uint64)
    hashes = np.empty(1024, np.uint64)
    for i in range(len(hit)):
        start, end = int(offsets[i]), int(offsets[i + 1])
        if end - start > 2 * len(hashes):  # two bytes for a word and a space, but for the last
            hashes = np.empty((end - start) // 2 + 1, np.uint64)
        found = _hashes(octets, start, end, normal, n, words, hashes)
        # In a separate loop, the cache misses of many look-ups overlap.
        for k in range(found):
            hit[i] |= holds(known, len(known) - 1, hashes[k])
    return hit
