"""The quality rules of MassiveText: Rae et al. 2021 (Gopher), appendix A1.1, "Quality Filtering".

Words and lines are those of :mod:`pipeline.steps.words.characters`. Where the paper is vague: a
bullet point is ``•`` or ``-`` (as in datatrove), an ellipsis is ``...`` or ``…``, and a stop word
counts in any case and next to punctuation (``The`` and ``“with”,`` count). Where letters are words,
stop words count anywhere in the text. datatrove's spaCy tokens make words of punctuation marks, so
many more documents fall short of its share of alphabetic words.
"""

import math
import string
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import Codes, Counts, Step, first_failing, ratio
from pipeline.steps.words.characters import (
    ALPHANUMERIC,
    LETTER,
    MARK,
    NEWLINE,
    OTHER,
    SPACE,
    classes,
    decode,
    read_word,
)
from pipeline.steps.words.english_tokens import separate
from pipeline.steps.words.stop_words import StopWords
from pipeline.steps.words.word_kinds import CHARACTERS, DATATROVE, separator
from winnow.text.buffers import Octets, Offsets, string_buffers

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_STOP_CODES = np.array([int.from_bytes(word.encode(), "big") for word in STOP_WORDS], np.int64)
_SYMBOLS = (
    string.punctuation
    + "«»–—’“”„…∶´━►、。〈〉《》「」【】！％（），．１：；？～"
    + "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
)
"""What datatrove calls punctuation, without the full stops of other scripts."""
_HASH, _HYPHEN, _STOP, _BULLET, _ELLIPSIS = (ord(character) for character in "#-.•…")


class Statistics(NamedTuple):
    """What the rules look at, for n documents: each int64 [n]."""

    words: Counts
    counted_words: Counts  # those that count for the number of words and their mean length
    word_characters: Counts  # of the counted words
    alphabetic_words: Counts
    stop_words: Counts
    hashes: Counts
    ellipses: Counts
    lines: Counts
    bullet_lines: Counts
    ellipsis_lines: Counts


def measure(text: pa.Array) -> Statistics:
    """Count in each text (string or large_string [n] without nulls) what the rules need."""
    octets, offsets = string_buffers(text)
    counts = np.zeros((len(Statistics._fields), len(text)), np.int64)
    _measure(octets, offsets, classes("#.…"), _STOP_CODES, counts)
    return Statistics(*counts)


def measure_as_datatrove(text: pa.Array) -> Statistics:
    """The same as datatrove counts it: spaCy's words, lower-case stop words, blank lines too."""
    counts = np.zeros((5, len(text)), np.int64)
    _measure_tokens(*string_buffers(separate(text)), classes(_SYMBOLS), _STOP_CODES, counts)
    lines = pc.count_substring_regex(text, r"\n|[^\n]\z").to_numpy()
    of_words = dict(zip(Statistics._fields, counts, strict=False))  # the first five
    return measure(text)._replace(**of_words, lines=lines)


@dataclass
class GopherQuality(Step):
    """Drops documents that break a rule."""

    min_words: float
    max_words: float
    min_mean_word_characters: float
    max_mean_word_characters: float
    max_hash_ratio: float
    max_ellipsis_ratio: float
    max_bullet_lines: float
    max_ellipsis_lines: float
    min_alphabetic_words: float
    min_stop_words: float
    words: str
    stop_words: list[str] = field(default_factory=lambda: list(STOP_WORDS))

    reasons: ClassVar[tuple[str, ...]] = (
        "gopher_word_count",
        "gopher_word_length",
        "gopher_hashes",
        "gopher_ellipses",
        "gopher_bullet_lines",
        "gopher_ellipsis_lines",
        "gopher_alphabetic_words",
        "gopher_stop_words",
    )

    def __post_init__(self) -> None:
        self._separate = separator(self.words)
        own = self.words == CHARACTERS or tuple(self.stop_words) != STOP_WORDS
        if own and self.words == DATATROVE:
            raise ValueError(f"stop_words are English with words: {DATATROVE}: leave them out")
        if own and self.min_stop_words > len(self.stop_words):
            raise ValueError(
                f"min_stop_words is {self.min_stop_words}, and stop_words has"
                f" {len(self.stop_words)}: no document could pass"
            )
        self._stop_words = StopWords(self.stop_words) if own else None

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        s = self._measure(batch["text"])
        length = ratio(s.word_characters, s.counted_words)
        return batch, first_failing(
            (s.counted_words < self.min_words) | (s.counted_words > self.max_words),
            (length < self.min_mean_word_characters) | (length > self.max_mean_word_characters),
            ratio(s.hashes, s.words) > self.max_hash_ratio,
            ratio(s.ellipses, s.words) > self.max_ellipsis_ratio,
            ratio(s.bullet_lines, s.lines) > self.max_bullet_lines,
            ratio(s.ellipsis_lines, s.lines) > self.max_ellipsis_lines,
            ratio(s.alphabetic_words, s.words) < self.min_alphabetic_words,
            s.stop_words < self.min_stop_words,
        )

    def _measure(self, text: pa.Array) -> Statistics:
        if self.words == DATATROVE:
            return measure_as_datatrove(text)
        s = measure(self._separate(text) if self._separate else text)
        if self._stop_words is None:
            return s
        if self.words == CHARACTERS:
            return s._replace(stop_words=self._stop_words.count_anywhere(text))
        enough = math.ceil(max(1, min(self.min_stop_words, len(self.stop_words))))
        return s._replace(stop_words=self._stop_words.count(text, enough))


@nb.njit(nogil=True, cache=True)
def _measure(
    octets: Octets,
    offsets: Offsets,
    classes: Octets,
    stop_codes: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    for i in range(len(offsets) - 1):
        words = word_characters = alphabetic_words = hashes = ellipses = 0
        lines = bullet_lines = ellipsis_lines = 0
        stop_words = 0  # a bit for each one seen
        in_line = ends_in_ellipsis = False
        at, end = int(offsets[i]), int(offsets[i + 1])
        while at < end:
            code, width = decode(octets, at)
            if classes[code] & SPACE:
                if code == NEWLINE and in_line:
                    ellipsis_lines += ends_in_ellipsis
                    in_line = False
                at += width
                continue
            start = at
            at, characters, kinds, _ = read_word(octets, at, end, classes)
            words += 1
            word_characters += characters
            alphabetic_words += (kinds & LETTER) != 0
            if not in_line:
                in_line = True
                lines += 1
                bullet_lines += code in (_BULLET, _HYPHEN)
            ends_in_ellipsis = False
            if kinds & MARK:
                more_hashes, more_ellipses, ends_in_ellipsis = _symbols(octets, start, at)
                hashes += more_hashes
                ellipses += more_ellipses
            stop = at
            if kinds & OTHER:
                start, stop = _bare(octets, start, at, classes)
            if 2 <= stop - start <= 4:
                stem = 0
                for k in range(start, stop):
                    stem = stem << 8 | int(octets[k]) | 32  # ASCII letters in lower case
                for k in range(len(stop_codes)):
                    stop_words |= int(stop_codes[k] == stem) << k
        ellipsis_lines += in_line and ends_in_ellipsis
        of_words = words, words, word_characters, alphabetic_words, _bits(stop_words)
        of_lines = hashes, ellipses, lines, bullet_lines, ellipsis_lines
        counts[:, i] = of_words + of_lines


@nb.njit(nogil=True, cache=True)
def _measure_tokens(
    octets: Octets,
    offsets: Offsets,
    classes: Octets,
    stop_codes: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    for i in range(len(offsets) - 1):
        words = counted_words = word_characters = alphabetic_words = stop_words = 0
        at, end = int(offsets[i]), int(offsets[i + 1])
        while at < end:
            code, width = decode(octets, at)
            if classes[code] & SPACE:
                at += width
                continue
            start = at
            characters = kinds = symbols = stem = 0
            while at < end:
                code, width = decode(octets, at)
                kind = int(classes[code])
                if kind & SPACE:
                    break
                kinds |= kind
                characters += 1
                symbols += (kind & MARK) != 0
                at += width
            words += 1
            alphabetic_words += (kinds & LETTER) != 0
            if symbols < characters:
                counted_words += 1
                word_characters += characters
            if 2 <= at - start <= 4:
                for k in range(start, at):
                    stem = stem << 8 | int(octets[k])
                for k in range(len(stop_codes)):
                    stop_words |= int(stop_codes[k] == stem) << k
        stops = _bits(stop_words)
        counts[:, i] = words, counted_words, word_characters, alphabetic_words, stops


@nb.njit(nogil=True, cache=True)
def _symbols(octets: Octets, at: int, end: int) -> tuple[int, int, bool]:
    """The numbers of ``#`` and ellipses in a word, and whether it ends in an ellipsis."""
    hashes = ellipses = dots = code = 0
    while at < end:
        code, width = decode(octets, at)
        at += width
        hashes += code == _HASH
        dots = dots + 1 if code == _STOP else 0
        ellipses += (dots > 0 and dots % 3 == 0) or code == _ELLIPSIS
    return hashes, ellipses, dots >= 3 or code == _ELLIPSIS


@nb.njit(nogil=True, cache=True)
def _bare(octets: Octets, start: int, end: int, classes: Octets) -> tuple[int, int]:
    """The word's bytes from its first letter or digit to its last."""
    first = last = end
    at = start
    while at < end:
        code, width = decode(octets, at)
        if classes[code] & ALPHANUMERIC:
            first = min(first, at)
            last = at + width
        at += width
    return first, last


@nb.njit(nogil=True, cache=True)
def _bits(value: int) -> int:
    n = 0
    while value:
        n += value & 1
        value >>= 1
    return n
