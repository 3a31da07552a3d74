"""The repetition rules of MassiveText: Rae et al. 2021 (Gopher), appendix A1.1 and table A1.

Lines, paragraphs and words are those of :mod:`pipeline.steps.words.characters`. Where the paper is
vague we follow datatrove. All but the first of repeated lines, paragraphs and n-grams count.
N-grams are read from left to right, and reading resumes after a repeated one, so no character
counts twice. Shares are of all characters of the document. The most frequent n-gram counts as often
as it occurs, with single spaces between its words; of equally frequent ones the first counts, even
if all occur once, so very short documents fail these rules.

An n-gram's *name* is the place where it first occurs. A pair of words is identified by the hashes
of both, a longer n-gram at place p by the names of the (n - 1)-grams at p and p + 1. It can only
repeat where both of these do, so few places remain soon, and n = 3 … 10 together take less time
than n = 2. N-grams whose 64-bit hashes collide count as equal.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.steps.contract import Codes, Counts, Step, first_failing, ratio
from pipeline.steps.words.characters import (
    NEWLINE,
    Hashes,
    Integers,
    add,
    classes,
    hash_bytes,
    mix,
    read_line,
    table_size,
)
from pipeline.steps.words.word_kinds import Separate, separator
from winnow.text.buffers import Octets, Offsets, string_buffers
from winnow.text.counts import measure as measure_counts

LONGEST_TOP = 4  # rules on the most frequent n-gram have n = 2 to this
LONGEST = 10  # rules on repeated n-grams have n = LONGEST_TOP + 1 to this

_LINE_COUNTS = 6


class Statistics(NamedTuple):
    """What the rules look at, for n documents: each int64, [n] or for n-grams [*, n]."""

    characters: Counts
    lines: Counts
    repeated_lines: Counts
    repeated_line_characters: Counts
    paragraphs: Counts
    repeated_paragraphs: Counts
    repeated_paragraph_characters: Counts
    top: Counts  # characters of the most frequent n-gram, times how often it occurs: n = 2, 3, 4
    repeated: Counts  # characters of repeated n-grams: n = 5 … 10


def measure(text: pa.Array, separate: Separate | None = None) -> Statistics:
    """Count in each text (string or large_string [n] without nulls) what the rules need.

    ``separate`` separates the words of n-grams if white space does not.
    """
    counts = _count(text)
    if separate is not None:
        counts[_LINE_COUNTS:] = _count(separate(text))[_LINE_COUNTS:]
    n_grams = counts[_LINE_COUNTS:]
    fields = [*counts[:_LINE_COUNTS], n_grams[: LONGEST_TOP - 1], n_grams[LONGEST_TOP - 1 :]]
    return Statistics(measure_counts(text)[1], *fields)


def _count(text: pa.Array) -> npt.NDArray[np.int64]:
    octets, offsets = string_buffers(text)
    counts = np.zeros((_LINE_COUNTS + LONGEST - 1, len(text)), np.int64)
    _measure(octets, offsets, classes(), measure_counts(text)[2], counts)
    return counts


@dataclass
class GopherRepetition(Step):
    """Drops documents that break a rule. Lists hold a value for each n, in order."""

    max_repeated_lines: float
    max_repeated_paragraphs: float
    max_repeated_line_characters: float
    max_repeated_paragraph_characters: float
    max_top_n_gram: list[float]
    max_repeated_n_grams: list[float]
    words: str

    reasons: ClassVar[tuple[str, ...]] = (
        "gopher_repeated_lines",
        "gopher_repeated_paragraphs",
        "gopher_repeated_line_characters",
        "gopher_repeated_paragraph_characters",
        *(f"gopher_top_{n}_gram" for n in range(2, 5)),
        *(f"gopher_repeated_{n}_grams" for n in range(5, 11)),
    )

    def __post_init__(self) -> None:
        for name, low, high in (("max_top_n_gram", 2, 4), ("max_repeated_n_grams", 5, 10)):
            if len(getattr(self, name)) != (n := high - low + 1):
                raise ValueError(f"{name} needs {n} values, for n from {low} to {high}")
        self._separate = separator(self.words)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        s = measure(batch["text"], self._separate)
        parts = [s.repeated_line_characters, s.repeated_paragraph_characters, *s.top, *s.repeated]
        limits = [self.max_repeated_line_characters, self.max_repeated_paragraph_characters]
        limits += [*self.max_top_n_gram, *self.max_repeated_n_grams]
        return batch, first_failing(
            ratio(s.repeated_lines, s.lines) > self.max_repeated_lines,
            ratio(s.repeated_paragraphs, s.paragraphs) > self.max_repeated_paragraphs,
            *(ratio(part, s.characters) > most for part, most in zip(parts, limits, strict=True)),
        )


@nb.njit(nogil=True, cache=True)
def _measure(
    octets: Octets,
    offsets: Offsets,
    classes: Octets,
    words: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    longest = words.max() if len(words) else 0
    hashes = np.empty(longest, np.uint64)  # of each word
    ends = np.zeros(longest + 1, np.int32)  # characters of all words before each word
    names = np.empty(longest, np.int32)
    times = np.empty(longest, np.int32)
    places = np.empty(longest, np.int32)
    keys = np.empty(table_size(longest), np.uint64)
    firsts = np.empty(len(keys), np.int32)
    seen = np.empty(1024, np.uint64)
    for i in range(len(offsets) - 1):
        start, end = int(offsets[i]), int(offsets[i + 1])
        newlines = 0
        for at in range(start, end):
            newlines += octets[at] == NEWLINE
        size = 2 * table_size(newlines + 2)  # lines in one half, paragraphs in the other
        if size > len(seen):
            seen = np.empty(size, np.uint64)
        seen[:size] = 0
        out = counts[:, i]
        _scan(octets, start, end, classes, seen[:size], hashes, ends, out)
        n = words[i]
        _n_grams(hashes[:n], ends, names, times, places, keys, firsts, out[_LINE_COUNTS:])


@nb.njit(nogil=True, cache=True)
def _scan(
    octets: Octets,
    start: int,
    end: int,
    classes: Octets,
    seen: Hashes,
    hashes: Hashes,
    ends: Integers,
    out: npt.NDArray[np.int64],
) -> None:
    """Find the repeated lines and paragraphs; store the hash and the length of each word."""
    half = len(seen) // 2
    seen_lines = seen[:half]
    seen_paragraphs = seen[half:]
    lines = repeated_lines = repeated_line_characters = 0
    paragraphs = repeated_paragraphs = repeated_paragraph_characters = 0
    word = 0
    paragraph = np.uint64(0)  # hash of its lines
    paragraph_characters = 0
    at = start
    while at <= end + 1:  # the end of the text ends its last line, then its paragraph
        first, last, length, more, _, at = read_line(
            octets, at, end, classes, hashes[word:], ends[word:]
        )
        word += more
        if length:
            line = hash_bytes(octets, first, last)
            lines += 1
            if not add(seen_lines, half - 1, line):
                repeated_lines += 1
                repeated_line_characters += length
            paragraph = mix(paragraph, line)
            paragraph_characters += length + (paragraph_characters > 0)
        elif paragraph_characters:
            paragraphs += 1
            if not add(seen_paragraphs, half - 1, paragraph | np.uint64(paragraph == 0)):
                repeated_paragraphs += 1
                repeated_paragraph_characters += paragraph_characters
            paragraph = np.uint64(0)
            paragraph_characters = 0
    of_lines = lines, repeated_lines, repeated_line_characters
    of_paragraphs = paragraphs, repeated_paragraphs, repeated_paragraph_characters
    out[:_LINE_COUNTS] = of_lines + of_paragraphs


@nb.njit(nogil=True, cache=True)
def _n_grams(
    hashes: Hashes,
    ends: Integers,
    names: Integers,
    times: Integers,
    places: Integers,
    keys: Hashes,
    firsts: Integers,
    out: npt.NDArray[np.int64],
) -> None:
    """Fill ``out`` for n = 2 … 10 from the hashes and ends of words; the rest is scratch.

    ``names[p]`` is -1 if the n-gram at p occurs only once; ``places`` are the others, ascending;
    ``times[name]`` is the number of times that the n-gram of this name occurs.
    """
    words = len(hashes)
    n_places = words
    for n in range(2, LONGEST + 1):
        # Name the n-gram of every place.
        size = table_size(n_places)
        keys[:size] = 0
        kept = 0
        for k in range(n_places):
            place = k if n == 2 else places[k]
            if place + 1 == words or (n > 2 and names[place + 1] < 0):
                names[place] = -1
                continue
            if n == 2:
                key = mix(hashes[place], hashes[place + 1])
            else:
                key = mix(np.uint64(names[place]), np.uint64(names[place + 1]))
            key |= np.uint64(key == 0)
            slot = np.int64(key & np.uint64(size - 1))
            while keys[slot] != 0 and keys[slot] != key:
                slot = (slot + 1) & (size - 1)
            if keys[slot] == 0:
                keys[slot] = key
                firsts[slot] = place
                times[place] = 0
            names[place] = firsts[slot]
            times[firsts[slot]] += 1
            places[kept] = place
            kept += 1
        # Keep the places whose n-gram repeats.
        n_places = 0
        most = 1
        top = 0
        for k in range(kept):
            place = places[k]
            name = names[place]
            if times[name] == 1:
                names[place] = -1
                continue
            places[n_places] = place
            n_places += 1
            if times[name] > most:
                most = times[name]
                top = name
        if n <= LONGEST_TOP and words >= n:
            out[n - 2] = most * np.int64(ends[top + n] - ends[top] + n - 1)
        elif n > LONGEST_TOP:
            next_place = 0
            for k in range(n_places):
                place = places[k]
                if place < next_place:
                    continue
                if times[names[place]] == 0:  # seen: its count is no longer needed
                    out[n - 2] += ends[place + n] - ends[place]
                    next_place = place + n
                times[names[place]] = 0
