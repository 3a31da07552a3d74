"""The rules of C4: Raffel et al. 2020, section 2.2, and their code in tensorflow_datasets.

C4 removes lines, then drops pages for what is left. A line is removed if it has a word of over
``max_word_characters`` or fewer than ``min_line_words`` words, does not end in one of ``line_ends``
(if any are given) or ends in ``...``, or contains ``javascript`` or a cookie or privacy notice. A
document is dropped if one of the other lines contains ``lorem ipsum`` (as in C4's code, also beside
``javascript``) or ``{`` (also beside a notice), or if they have too few sentences.

By default the text does not change, and the lines that C4 would remove do not count. With
``remove_lines`` they are removed from the documents that pass, along with citation marks such as
``[1]`` and the white space at both ends of a line, as in C4.

A sentence ends at ``.``, ``!`` or ``?`` before white space (perhaps after closing quotes and
brackets), at the full-width marks of Chinese and Japanese, and at the end of its line; so ``Mr.``
ends one. With ``words: datatrove`` spaCy's rules split sentences and know common abbreviations, and
citation marks are ignored.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.changes import REMOVED_BYTES, changed
from pipeline.steps.contract import Codes, Counts, Flags, Step, first_failing
from pipeline.steps.words.characters import (
    MARK,
    MAXIMUM,
    NEWLINE,
    SPACE,
    character_before,
    classes,
    decode,
    read_word,
)
from pipeline.steps.words.english_tokens import sentences, separate
from pipeline.steps.words.lexicon import contains, lexicon
from pipeline.steps.words.lists import read_lists
from pipeline.steps.words.word_kinds import CHARACTERS, separator
from winnow.text.buffers import Octets, Offsets, large_strings, string_buffers

# Each phrase, and a pair of its letters that is rare in English: the kernel looks for this first.
PHRASES = {
    "lorem ipsum": "ps",
    "javascript": "ja",
    "terms of use": "ms",
    "privacy policy": "cy",
    "cookie policy": "ki",
    "uses cookies": "ki",
    "use of cookies": "ki",
    "use cookies": "ki",
}
_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_LOREM_IPSUM, _JAVASCRIPT, _NOTICES = 0b1, 0b10, 0b11111100  # a bit for each of the phrases

_STOP = ord(".")
_TERMINAL, _WIDE_TERMINAL, _CLOSING, _BRACKET = 1, 2, 3, 4
_MARKS = {_TERMINAL: ".!?", _WIDE_TERMINAL: "。！？｡．", _CLOSING: "\"')]}”’»」』）", _BRACKET: "{"}

Integers = npt.NDArray[np.int64]


class Phrases(NamedTuple):
    """The phrases as the kernel reads them."""

    octets: Octets
    offsets: Integers  # where each phrase starts in the octets (int64 [k + 1])
    pair_at: Integers  # the position of the rare pair in each phrase (int64 [k])
    by_pair: Octets  # bits of a pair's phrases, by first byte + 256 * second (uint8 [65536])


class Statistics(NamedTuple):
    """What the rules look at, for n documents, in counted lines only: each int64 [n]."""

    lorem_ipsum: Counts
    bracket_lines: Counts
    sentences: Counts


def measure(
    text: pa.Array, line_ends: str, min_line_words: int, max_word_characters: int
) -> Statistics:
    """Count in each text (string or large_string [n] without nulls) what the rules need."""
    return _read(text, line_ends, min_line_words, max_word_characters, np.empty(0, np.uint8))[0]


def clean(
    text: pa.Array, line_ends: str, min_line_words: int, max_word_characters: int
) -> tuple[Statistics, pa.Array]:
    """The same, and the texts (large_string [n]) without the lines and citations C4 removes."""
    text = pc.replace_substring_regex(text, _CITATION, "")
    _, offsets = string_buffers(text)
    out = np.empty(int(offsets[-1] - offsets[0]) + len(text), np.uint8)  # with a newline each
    statistics, ends = _read(text, line_ends, min_line_words, max_word_characters, out)
    return statistics, large_strings(out, ends)


def _read(
    text: pa.Array, line_ends: str, min_line_words: int, max_word_characters: int, out: Octets
) -> tuple[Statistics, Integers]:
    """The statistics, and where each text ends in ``out``, unless that is empty."""
    counts = np.zeros((len(Statistics._fields), len(text)), np.int64)
    ends = np.zeros(len(text) + 1, np.int64)
    tables = (classes("".join(_MARKS.values())), _marks(), _character_set(line_ends), _phrases())
    limits = min_line_words, max_word_characters
    _measure(*string_buffers(text), *tables, *limits, counts, out, ends)
    return Statistics(*counts), ends


@functools.cache
def _phrases() -> Phrases:
    by_pair = np.zeros((256, 256), np.uint8)
    for k, pair in enumerate(PHRASES.values()):
        for first, second in itertools.product(*((letter, letter.upper()) for letter in pair)):
            by_pair[ord(second), ord(first)] |= 1 << k
    return Phrases(
        np.frombuffer("".join(PHRASES).encode(), np.uint8),
        np.cumsum([0, *map(len, PHRASES)]),
        np.array([phrase.index(pair) for phrase, pair in PHRASES.items()]),
        by_pair.reshape(-1),
    )


@functools.cache
def _marks() -> Octets:
    """Which of the marks each code point is, or 0 (uint8 [0x110000])."""
    marks = np.zeros(MAXIMUM, np.uint8)
    for mark, characters in _MARKS.items():
        marks[[ord(character) for character in characters]] = mark
    return marks


@functools.cache
def _character_set(characters: str) -> Flags:
    """Whether each code point is among the characters, or all True for none (bool [0x110000])."""
    members = np.full(MAXIMUM, not characters)
    members[[ord(character) for character in characters]] = True
    return members


@dataclass
class C4(Step):
    """Drops documents that break a rule or contain one of the user's bad words; removes lines."""

    line_ends: str
    min_line_words: int
    max_word_characters: int
    min_sentences: float
    bad_words: list[str]
    words: str
    remove_lines: bool

    reasons: ClassVar[tuple[str, ...]] = (
        "c4_lorem_ipsum",
        "c4_curly_bracket",
        "c4_sentences",
        "c4_bad_words",
    )
    input_files: ClassVar[tuple[str, ...]] = ("bad_words",)

    def __post_init__(self) -> None:
        self._bad = lexicon(read_lists(self.bad_words))
        self._as_datatrove = separator(self.words, CHARACTERS) is not None
        self.counts = (REMOVED_BYTES,) if self.remove_lines else ()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        text = batch["text"]
        limits = (self.line_ends, self.min_line_words, self.max_word_characters)
        if self.remove_lines or self._as_datatrove:
            s, cleaned = clean(text, *limits)
        else:
            s, cleaned = measure(text, *limits), None
        if self._as_datatrove:
            s = s._replace(sentences=sentences(separate(cleaned)))
        codes = first_failing(
            s.lorem_ipsum > 0,
            s.bracket_lines > 0,
            s.sentences < self.min_sentences,
            contains(text, self._bad, words=True),
        )
        if self.remove_lines:
            shorter = pc.if_else(pa.array(codes == 0), cleaned, text)
            removed = np.subtract(*(pc.binary_length(t).to_numpy() for t in (text, shorter)))
            batch = changed(batch, shorter, {REMOVED_BYTES: removed})
        return batch, codes


@nb.njit(nogil=True, cache=True)
def _measure(
    octets: Octets,
    offsets: Offsets,
    classes: Octets,
    marks: Octets,
    line_ends: Flags,
    phrases: Phrases,
    min_line_words: int,
    max_word_characters: int,
    counts: npt.NDArray[np.int64],
    out: Octets,
    ends: Integers,
) -> None:
    written = 0
    any_end = bool(line_ends.all())
    for i in range(len(offsets) - 1):
        at, end = int(offsets[i]), int(offsets[i + 1])
        lorem_ipsum = bracket_lines = sentences = 0
        first = last = at  # of the line: its first byte and the one after its last
        words = longest_word = ended = 0  # of the line; ended: sentences with an end
        tail = bracket = False  # of the line: whether it has an open sentence, a bracket
        while at <= end:
            code, width = NEWLINE, 1  # the end of the text ends its last line
            if at < end:
                code, width = decode(octets, at)
            if not classes[code] & SPACE:
                if words == 0:
                    first = at
                last, characters, kinds, _ = read_word(octets, at, end, classes)
                words += 1
                longest_word = max(longest_word, characters)
                if kinds & MARK:
                    more, tail, braces = _read_marks(octets, at, last, marks, tail)
                    ended += more
                    bracket |= braces
                else:
                    tail = True
                at = last
                continue
            at += width
            if code != NEWLINE or words == 0:
                continue
            if (
                words >= min_line_words
                and longest_word <= max_word_characters
                and line_ends[character_before(octets, last)]
                and (any_end or not _ends_in_dots(octets, first, last))
            ):
                found = _find(octets, first, last, phrases)
                lorem_ipsum += (found & _LOREM_IPSUM) != 0
                if not found & _JAVASCRIPT:
                    bracket_lines += bracket
                    if not found & _NOTICES:
                        sentences += ended + tail
                        if len(out):
                            if written > ends[i]:
                                out[written] = NEWLINE
                                written += 1
                            out[written : written + last - first] = octets[first:last]
                            written += last - first
            words = longest_word = ended = 0
            tail = bracket = False
        counts[:, i] = lorem_ipsum, bracket_lines, sentences
        ends[i + 1] = written


@nb.njit(nogil=True, cache=True)
def _read_marks(
    octets: Octets, at: int, end: int, marks: Octets, tail: bool
) -> tuple[int, bool, bool]:  # tail: whether a sentence is open before the word
    """Sentences that end in a word, whether one is open after it, whether it has a bracket."""
    ended = 0
    ending = bracket = False  # ending: the sentence ends if the word does
    while at < end:
        code, width = decode(octets, at)
        at += width
        mark = marks[code]
        if mark == _TERMINAL:
            ending = True
        elif mark == _WIDE_TERMINAL:
            ended += 1
            ending = tail = False
        elif mark != _CLOSING:
            ending = False
            tail = True
            bracket |= mark == _BRACKET
    return ended + ending, tail and not ending, bracket


@nb.njit(nogil=True, cache=True)
def _ends_in_dots(octets: Octets, start: int, end: int) -> bool:
    dots = 0
    while dots < 3 and end - dots > start and octets[end - dots - 1] == _STOP:
        dots += 1
    return dots == 3


@nb.njit(nogil=True, cache=True)
def _find(octets: Octets, start: int, end: int, phrases: Phrases) -> int:
    """The phrases (a bit for each) in ``octets[start:end]``, in any ASCII case."""
    found = 0
    for at in range(start, end - 1):
        candidates = int(phrases.by_pair[int(octets[at]) | int(octets[at + 1]) << 8])
        k = 0
        while candidates:
            if candidates & 1 and _is_at(octets, start, end, at - phrases.pair_at[k], k, phrases):
                found |= 1 << k
            candidates >>= 1
            k += 1
    return found


@nb.njit(nogil=True, cache=True)
def _is_at(octets: Octets, start: int, end: int, at: int, k: int, phrases: Phrases) -> bool:
    phrase = phrases.octets[phrases.offsets[k] : phrases.offsets[k + 1]]
    if at < start or at + len(phrase) > end:
        return False
    for j in range(len(phrase)):
        byte = octets[at + j]
        if (byte | 32 if 65 <= byte <= 90 else byte) != phrase[j]:
            return False
    return True
