"""Fits the settings of steps to a language, from good text in it.

Few settings suit every language: words are longer in German and single letters in Chinese, and
"the" is a stop word in neither. Like FineWeb2 (Penedo et al. 2025, arXiv 2506.20920), this takes
settings from statistics of reference text, but changes only what the text requires:

- *Stop words* are the most frequent words, as in FineWeb2: those with a share of
  ``STOP_WORD_SHARE``, at least ``FEWEST`` and at most ``MOST``. Where letters are words, alphabets
  give trigrams of letters: every Thai text has all vowels of Thai.
- *The mean length of words* has limits as far from the text's median, as a ratio, as Gopher's are
  from that of English.
- *Any other threshold* changes only if it drops more than a share ``tail`` of the text, to the
  quantile that drops just that share.

Good text says nothing about the number of words a text must have, so that limit stays.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import ratio
from pipeline.steps.heuristics import fineweb, gopher, repetition
from pipeline.steps.words.characters import ALPHANUMERIC, classes
from pipeline.steps.words.stop_words import StopWords
from pipeline.steps.words.word_kinds import CHARACTERS, WHITESPACE, Separate, separator
from winnow.text.words import SOLO, TABLE

Settings = dict[str, Any]
Shares = Sequence[npt.NDArray[np.float64]]
Points = npt.NDArray[np.uint32]

ENGLISH_WORD: Final = 5.06
"""Characters of an English word with its punctuation: the median over documents of news and
encyclopedia text (Parallel Universal Dependencies: Zeman et al. 2017)."""

STOP_WORD_SHARE: Final = 0.008
FEWEST, MOST = 8, 15
LEAST_DOCUMENTS: Final = 20

_LINE_ENDS: Final = "。！？…؟۔।॥։።៕។"
"""Full stops, question and exclamation marks other than ``.?!``."""
_LINE_END_SHARE: Final = 0.02
_HAN_AND_KANA: Final = 0x3000  # below are the alphabets of the scripts without spaces
_WORD: Final = r"^\pL[\pL\pM'’-]*$"


def fit(texts: Sequence[pa.Array], general: Mapping[str, Settings], tail: float) -> Settings:
    """The settings to change in ``gopher``, ``gopher_repetition`` and ``fineweb``.

    ``texts`` are good texts in one language (large_string without nulls; fewer than
    ``LEAST_DOCUMENTS`` raise ValueError), ``general`` the settings of the three steps, and ``tail``
    the share of texts that one rule may drop, over 0, below 1/2.
    """
    documents = sum(map(len, texts))
    if documents < LEAST_DOCUMENTS:
        raise ValueError(f"{documents} documents; quantiles need {LEAST_DOCUMENTS} or more")
    words = word_kind(texts)
    own = {"words": words} if words != WHITESPACE else {}
    separate = separator(words)
    return {
        "gopher": own | _gopher(texts, general["gopher"], words, tail),
        "gopher_repetition": own | _repetition(texts, general["gopher_repetition"], separate, tail),
        "fineweb": own | _fineweb(texts, general["fineweb"], separate, tail),
    }


def word_kind(texts: Iterable[pa.Array]) -> str:
    """``characters`` if most letters are in scripts without spaces, else ``whitespace``."""
    letters = alone = 0
    for points in map(_points, texts):
        written = points[(classes()[points] & ALPHANUMERIC) != 0]
        letters += len(written)
        alone += int(np.count_nonzero(TABLE[written] & SOLO))
    return CHARACTERS if 2 * alone > letters else WHITESPACE


def stop_words(texts: Sequence[pa.Array], words: str) -> list[str]:
    """The most frequent words in lower case, the most frequent first."""
    counted = [_letters(t) if words == CHARACTERS else _words(t) for t in texts]
    table = pa.concat_tables(
        pa.table({"word": column["values"], "times": column["counts"]})
        for column in (pa.RecordBatch.from_struct_array(c) for c in counted)
    )
    table = table.group_by("word").aggregate([("times", "sum")])
    table = table.sort_by([("times_sum", "descending"), ("word", "ascending")])
    least = STOP_WORD_SHARE * (pc.sum(table["times_sum"]).as_py() or 0)
    most = table.slice(0, MOST).to_pylist()
    return [row["word"] for k, row in enumerate(most) if k < FEWEST or row["times_sum"] >= least]


def line_ends(texts: Iterable[pa.Array]) -> str:
    """The marks of :data:`_LINE_ENDS` at which lines end, in the order of Unicode."""
    marks = []
    for text in texts:
        lines = pc.utf8_trim_whitespace(pc.list_flatten(pc.split_pattern(text, "\n")))
        marks.append(pc.utf8_slice_codeunits(lines, -1))
    ends = pa.chunked_array(marks)
    least = _LINE_END_SHARE * pc.sum(pc.not_equal(ends, "")).as_py()
    return "".join(
        mark for mark in sorted(_LINE_ENDS) if pc.sum(pc.equal(ends, mark)).as_py() > least
    )


def _gopher(texts: Sequence[pa.Array], values: Settings, words: str, tail: float) -> Settings:
    separate = separator(words)
    chosen = stop_words(texts, words)
    known = StopWords(chosen)
    lengths, alphabetic, stops = [], [], []
    for text in texts:
        s = gopher.measure(separate(text) if separate else text)
        lengths.append(ratio(s.word_characters, s.words))
        alphabetic.append(ratio(s.alphabetic_words, s.words))
        found = known.count_anywhere(text) if separate else known.count(text, len(chosen))
        stops.append(found.astype(np.float64))
    scale = float(np.median(np.concatenate(lengths))) / ENGLISH_WORD
    shortest, longest = "min_mean_word_characters", "max_mean_word_characters"
    least = _at_least(values, "min_stop_words", stops, tail)
    return {
        "stop_words": chosen,
        shortest: math.floor(values[shortest] * scale),
        longest: math.ceil(values[longest] * scale),
        **_at_least(values, "min_alphabetic_words", alphabetic, tail),
        **{name: math.ceil(value) for name, value in least.items()},
    }


def _repetition(
    texts: Sequence[pa.Array], given: Settings, separate: Separate | None, tail: float
) -> Settings:
    measured = [repetition.measure(text, separate) for text in texts]
    out = {}
    for name, part in (("max_top_n_gram", "top"), ("max_repeated_n_grams", "repeated")):
        limits = []
        for k, limit in enumerate(given[name]):
            shares = [ratio(getattr(s, part)[k], s.characters) for s in measured]
            limits.append(_at_most({name: limit}, name, shares, tail).get(name, limit))
        if limits != given[name]:
            out[name] = limits
    return out


def _fineweb(
    texts: Sequence[pa.Array], values: Settings, separate: Separate | None, tail: float
) -> Settings:
    ends = values["line_ends"] + line_ends(texts)
    short = values["short_line_characters"]
    measured = [fineweb.measure(text, ends, short, separate=separate) for text in texts]
    punctuated = [ratio(s.punctuated_lines, s.lines) for s in measured]
    short_lines = [ratio(s.short_lines, s.lines) for s in measured]
    newlines = [ratio(s.newlines, s.words) for s in measured]
    return {
        **({"line_ends": ends} if ends != values["line_ends"] else {}),
        **_at_least(values, "min_punctuated_lines", punctuated, tail),
        **_at_most(values, "max_short_lines", short_lines, tail),
        **_at_most(values, "max_newlines_per_word", newlines, tail),
    }


def _at_least(given: Settings, name: str, shares: Shares, tail: float) -> Settings:
    """A lower threshold, if the given one drops more than ``tail``."""
    values = np.concatenate(shares)
    if np.mean(values <= given[name]) <= tail:
        return {}
    lowest = float(np.quantile(values, tail, method="lower"))
    # Round down to three decimals, so that a value at the limit passes any rule.
    limit = math.floor(lowest * 1000 - 1e-6) / 1000
    return {name: limit} if limit < given[name] else {}


def _at_most(given: Settings, name: str, shares: Shares, tail: float) -> Settings:
    """A higher threshold, if the given one drops more than ``tail``."""
    negative = [-values for values in shares]
    found = _at_least({name: -given[name]}, name, negative, tail)
    return {name: -value for name, value in found.items()}


def _points(text: pa.Array) -> Points:
    """The code points of all texts, a newline after each (uint32)."""
    return np.frombuffer("\n".join([*text.to_pylist(), ""]).encode("utf-32-le"), np.uint32)


def _words(text: pa.Array) -> pa.Array:
    """The counts of words in the texts: a struct of ``values`` and ``counts``."""
    words = pc.list_flatten(pc.utf8_split_whitespace(pc.utf8_lower(text)))
    bare = pc.replace_substring_regex(words, r"^[^\pL\pM\pN]+|[^\pL\pM\pN]+$", "")
    return bare.filter(pc.match_substring_regex(bare, _WORD)).value_counts()


def _letters(text: pa.Array) -> pa.Array:
    """The same for letters, or trigrams of letters of an alphabet."""
    points = _points(text)
    inside = ((TABLE[points] & SOLO) != 0) & _letter_or_mark(points)
    n = 1 if 2 * np.count_nonzero(inside & (points >= _HAN_AND_KANA)) > inside.sum() else 3
    windows = np.lib.stride_tricks.sliding_window_view(points, n)
    whole = np.lib.stride_tricks.sliding_window_view(inside, n).all(1)
    found, counts = np.unique(windows[whole], axis=0, return_counts=True)
    strings = ["".join(map(chr, row)) for row in found.tolist()]
    return pa.StructArray.from_arrays(
        [pa.array(strings, pa.large_string()), pa.array(counts, pa.int64())], ["values", "counts"]
    )


def _letter_or_mark(points: Points) -> npt.NDArray[np.bool_]:
    distinct, which = np.unique(points, return_inverse=True)
    kinds = [unicodedata.category(chr(point))[0] in "LM" for point in distinct.tolist()]
    return np.array(kinds, np.bool_)[which]
