"""The rules of C4: Raffel et al. 2020, section 2.2, and their code in tensorflow_datasets.

C4 removes lines, and then pages. We drop whole documents and never change a text, so a line that
C4 would remove is left in place but counts for nothing: neither its sentences nor its brackets. A
line is out of count if it has a word of over ``max_word_characters`` or fewer than
``min_line_words`` words, does not end in one of ``line_ends`` (none given: any will do) or ends in
``...``, or holds ``javascript`` or a cookie or privacy notice. A document is dropped if a counted
line holds ``lorem ipsum`` (as in the code, also where ``javascript`` is in the line) or ``{`` (also
beside a notice), or if too few sentences are left. Citation marks such as ``[1]`` stay.

A sentence ends at ``.``, ``!`` or ``?`` before white space (closing quotes and brackets may stand
between), at the full-width marks of Chinese and Japanese anywhere, and at the end of its line. So
an abbreviation such as ``Mr.`` ends one, where the splitters of C4 and datatrove know better.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.steps.characters import MAXIMUM, NEWLINE, SPACE, character_set, classes, decode
from pipeline.steps.contract import Codes, Counts, Flags, first_failing
from pipeline.steps.lists import matches, read_lists, word_pattern
from quality_classifier.buffers import Octets, Offsets, string_buffers

PHRASES = (
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_LOREM_IPSUM, _JAVASCRIPT, _NOTICES = 0b1, 0b10, 0b11111100  # a bit for each of the phrases

_PHRASE_BYTES = np.frombuffer("".join(PHRASES).encode(), np.uint8)
_PHRASE_OFFSETS = np.cumsum([0, *map(len, PHRASES)]).astype(np.int64)
_PHRASES_BY_FIRST = np.zeros(256, np.uint8)  # those that start with this letter
for _k, _phrase in enumerate(PHRASES):
    _PHRASES_BY_FIRST[[ord(_phrase[0]), ord(_phrase[0].upper())]] |= 1 << _k

_TERMINAL, _WIDE_TERMINAL, _CLOSING = 1, 2, 3
_SENTENCE_MARKS = np.zeros(MAXIMUM, np.uint8)
for _mark, _characters in (
    (_TERMINAL, ".!?"),
    (_WIDE_TERMINAL, "。！？｡．"),
    (_CLOSING, "\"')]}”’»」』）"),
):
    _SENTENCE_MARKS[[ord(_character) for _character in _characters]] = _mark


class Statistics(NamedTuple):
    """What the rules look at, for n documents, in counted lines only: each int64 [n]."""

    lorem_ipsum: Counts
    curly_brackets: Counts
    sentences: Counts


def measure(
    text: pa.Array, line_ends: str, min_line_words: int, max_word_characters: int
) -> Statistics:
    """Count in each text (string or large_string [n] without nulls) what the rules need."""
    octets, offsets = string_buffers(text)
    ends = character_set(line_ends)
    counts = np.zeros((len(Statistics._fields), len(text)), np.int64)
    phrases = (_PHRASE_BYTES, _PHRASE_OFFSETS, _PHRASES_BY_FIRST)
    _measure(
        octets,
        offsets,
        classes(),
        _SENTENCE_MARKS,
        ends,
        line_ends == "",
        min_line_words,
        max_word_characters,
        *phrases,
        counts,
    )
    return Statistics(*counts)


@dataclass
class C4:
    """Drops what breaks one of the rules, or holds one of the user's bad words."""

    line_ends: str
    min_line_words: int
    max_word_characters: int
    min_sentences: float
    bad_words: list[str]

    reasons: ClassVar[tuple[str, ...]] = (
        "c4_lorem_ipsum",
        "c4_curly_bracket",
        "c4_sentences",
        "c4_bad_words",
    )

    def __post_init__(self) -> None:
        self._bad = word_pattern(read_lists(self.bad_words))

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        """The batch as it came, and the codes."""
        text = batch["text"]
        s = measure(text, self.line_ends, self.min_line_words, self.max_word_characters)
        return batch, first_failing(
            s.lorem_ipsum > 0,
            s.curly_brackets > 0,
            s.sentences < self.min_sentences,
            matches(text, self._bad),
        )


@nb.njit(nogil=True, cache=True)
def _measure(
    octets: Octets,
    offsets: Offsets,
    classes: Octets,
    marks: Octets,
    line_ends: Flags,
    any_end: bool,
    min_line_words: int,
    max_word_characters: int,
    phrases: Octets,
    phrase_offsets: npt.NDArray[np.int64],
    by_first: Octets,
    counts: npt.NDArray[np.int64],
) -> None:
    for i in range(len(offsets) - 1):
        at = int(offsets[i])
        end = int(offsets[i + 1])
        lorem_ipsum = curly_brackets = sentences = 0
        words = word = longest_word = 0  # of the line; characters of the word that we are in
        ended = brackets = dots = 0  # sentences and brackets of the line; full stops in a row
        ending = False  # behind the end of a sentence, if white space comes next
        tail = False  # in a sentence without an end
        ends_well = False
        found = 0  # a bit for each phrase in the line
        while at <= end:
            code, width = NEWLINE, 1  # the end of the text ends its last line
            if at < end:
                code, width = decode(octets, at)
                if by_first[octets[at]]:
                    candidates = int(by_first[octets[at]])
                    found |= _phrases_at(octets, at, end, candidates, phrases, phrase_offsets)
            at += width
            if not classes[code] & SPACE:
                word += 1
                words += word == 1
                longest_word = max(longest_word, word)
                brackets += code == 123
                dots = dots + 1 if code == 46 else 0
                ends_well = line_ends[code] and dots < 3
                mark = marks[code]
                if mark == _WIDE_TERMINAL:
                    ended += 1
                    ending = tail = False
                elif mark == _TERMINAL:
                    ending = True
                elif mark != _CLOSING:
                    ending = False
                    tail = True
                continue
            word = dots = 0
            if ending:
                ended += 1
                ending = tail = False
            if code != NEWLINE:
                continue
            if (
                words >= max(min_line_words, 1)
                and longest_word <= max_word_characters
                and (ends_well or any_end)
            ):
                lorem_ipsum += (found & _LOREM_IPSUM) != 0
                if not found & _JAVASCRIPT:
                    curly_brackets += brackets
                    if not found & _NOTICES:
                        sentences += ended + tail
            words = longest_word = ended = brackets = found = 0
            ends_well = tail = False
        counts[0, i] = lorem_ipsum
        counts[1, i] = curly_brackets
        counts[2, i] = sentences


@nb.njit(nogil=True, cache=True)
def _phrases_at(
    octets: Octets,
    at: int,
    end: int,
    candidates: int,
    phrases: Octets,
    phrase_offsets: npt.NDArray[np.int64],
) -> int:
    """Which of the candidate phrases (a bit for each) stand at this byte, in any ASCII case."""
    found = 0
    for k in range(len(phrase_offsets) - 1):
        if not candidates >> k & 1:
            continue
        start = int(phrase_offsets[k])
        length = int(phrase_offsets[k + 1]) - start
        if at + length > end:
            continue
        same = 1
        while same < length:
            byte = octets[at + same]
            if 65 <= byte <= 90:
                byte |= 32
            if byte != phrases[start + same]:
                break
            same += 1
        found |= int(same == length) << k
    return found
