r"""The custom rules of FineWeb: Penedo et al. 2024, section 3.6, and their code in datatrove.

The paper has three rules; the fourth (newlines per word: lists) is only in FineWeb's code. Lines
are those of :mod:`pipeline.steps.words.characters`: datatrove's without the white space at their
ends, so ``\r\n`` gives the same as ``\n``.
"""

import operator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.steps.contract import Codes, Counts, Step, first_failing, ratio
from pipeline.steps.words.characters import (
    MARK,
    NEWLINE,
    SPACE,
    add,
    classes,
    hash_bytes,
    read_line,
    table_size,
)
from pipeline.steps.words.word_kinds import DATATROVE, Separate, separator
from winnow.text.buffers import Octets, Offsets, string_buffers
from winnow.text.counts import measure as measure_counts


class Statistics(NamedTuple):
    """What the rules look at, for n documents: each int64 [n]."""

    words: Counts
    newlines: Counts
    lines: Counts
    punctuated_lines: Counts
    short_lines: Counts
    line_characters: Counts
    repeated_characters: Counts  # of lines that equal an earlier line of the document


def measure(
    text: pa.Array,
    line_ends: str,
    short_line: int,
    as_datatrove: bool = False,
    separate: Separate | None = None,
) -> Statistics:
    """Count in each text (string or large_string [n] without nulls) what the rules need.

    ``line_ends`` are the punctuation marks at the end of a line, ``short_line`` the most characters
    of a short one; ``as_datatrove`` counts white space at the ends of lines, and ``separate``
    separates words if white space does not.
    """
    octets, offsets = string_buffers(text)
    counts = np.zeros((len(Statistics._fields), len(text)), np.int64)
    _measure(octets, offsets, classes(line_ends), short_line, as_datatrove, counts)
    if separate is not None:
        counts[0] = measure_counts(separate(text))[2]
    return Statistics(*counts)


@dataclass
class FineWeb(Step):
    """Drops documents that break a rule."""

    line_ends: str
    min_punctuated_lines: float
    short_line_characters: int
    max_short_lines: float
    max_repeated_characters: float
    max_newlines_per_word: float
    words: str

    reasons: ClassVar[tuple[str, ...]] = (
        "fineweb_line_punctuation",
        "fineweb_short_lines",
        "fineweb_repeated_lines",
        "fineweb_newlines",
    )

    def __post_init__(self) -> None:
        self._separate = separator(self.words)
        self._as_datatrove = self.words == DATATROVE

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        limits = (self.line_ends, self.short_line_characters)
        s = measure(batch["text"], *limits, self._as_datatrove, self._separate)
        below, above = operator.le, operator.ge  # the paper drops documents at a limit
        if self._as_datatrove:
            below, above = operator.lt, operator.gt
        repeated = ratio(s.repeated_characters, s.line_characters)
        return batch, first_failing(
            below(ratio(s.punctuated_lines, s.lines), self.min_punctuated_lines),
            above(ratio(s.short_lines, s.lines), self.max_short_lines),
            above(repeated, self.max_repeated_characters),
            ratio(s.newlines, s.words) > self.max_newlines_per_word,
        )


@nb.njit(nogil=True, cache=True)
def _measure(
    octets: Octets,
    offsets: Offsets,
    classes: Octets,
    short_line: int,
    as_datatrove: bool,
    counts: npt.NDArray[np.int64],
) -> None:
    no_hashes = np.empty(0, np.uint64)
    no_ends = np.empty(0, np.int32)
    seen = np.empty(1024, np.uint64)
    for i in range(len(offsets) - 1):
        start, end = int(offsets[i]), int(offsets[i + 1])
        newlines = 0
        for at in range(start, end):
            newlines += octets[at] == NEWLINE
        size = table_size(newlines + 1)
        if size > len(seen):
            seen = np.empty(size, np.uint64)
        seen[:size] = 0

        words = lines = punctuated_lines = short_lines = 0
        line_characters = repeated_characters = 0
        at = start
        while at <= end:  # the end of the text ends its last line
            start = at
            first, last, length, more, kind, at = read_line(
                octets, at, end, classes, no_hashes, no_ends
            )
            words += more
            if length == 0:
                continue
            if as_datatrove:
                length += _characters(octets, start, first) + _characters(octets, last, at - 1)
                if last < at - 1:
                    kind = SPACE
                first, last = start, at - 1
            lines += 1
            punctuated_lines += (kind & MARK) != 0
            short_lines += length <= short_line
            line_characters += length
            if not add(seen, size - 1, hash_bytes(octets, first, last)):
                repeated_characters += length
        of_lines = lines, punctuated_lines, short_lines, line_characters, repeated_characters
        counts[:, i] = (words, newlines) + of_lines  # noqa: RUF005 (numba has no star here)


@nb.njit(nogil=True, cache=True)
def _characters(octets: Octets, start: int, end: int) -> int:
    n = 0
    for at in range(start, end):
        n += octets[at] & 0xC0 != 0x80
    return n
