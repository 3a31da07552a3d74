"""English tokens and sentences as datatrove counts them: those of ``spacy.blank("en")``."""

import numba as nb
import numpy as np
import pyarrow as pa

from pipeline.steps.contract import Counts
from pipeline.steps.words.characters import NEWLINE, SPACE, classes, decode
from pipeline.steps.words.english_split import FULL_STOP, PUNCTUATION, Kinds, Tables, split, tables
from winnow.text.buffers import Octets, Offsets, large_strings, string_buffers


def separate(text: pa.Array) -> pa.Array:
    """The texts with a space between adjacent tokens, so that ``str.split`` gives the tokens.

    ``text`` is string or large_string [n] without nulls, perhaps a slice; the result large_string.
    """
    octets, offsets = string_buffers(text)
    out = np.empty(2 * int(offsets[-1] - offsets[0]), np.uint8)
    ends = np.zeros(len(text) + 1, np.int64)
    _separate(octets, offsets, classes(), tables(), out, ends)
    return large_strings(out, ends)


def sentences(separated: pa.Array) -> Counts:
    """The number of sentences in each text of :func:`separate`, by spaCy's sentencizer: int64 [n].

    After a full stop, question or exclamation mark, the next token that is not punctuation starts
    a sentence; so does a line.
    """
    octets, offsets = string_buffers(separated)
    counts = np.zeros(len(separated), np.int64)
    _sentences(octets, offsets, classes(), tables().kinds, counts)
    return counts


@nb.njit(nogil=True, cache=True)
def _separate(
    octets: Octets, offsets: Offsets, classes: Octets, tables: Tables, out: Octets, out_ends: Counts
) -> None:
    codes = np.empty(64, np.int32)  # of a piece between white space
    starts = np.empty(65, np.int64)  # the first byte of each
    ends = np.empty(64, np.int32)  # of its tokens
    rest = np.empty(64, np.int32)
    written = 0
    for i in range(len(offsets) - 1):
        at, end = int(offsets[i]), int(offsets[i + 1])
        while at < end:
            code, width = decode(octets, at)
            if classes[code] & SPACE:
                out[written : written + width] = octets[at : at + width]
                written += width
                at += width
                continue
            n = 0
            while not classes[code] & SPACE:
                if n == len(codes):
                    codes = np.append(codes, np.empty_like(codes))
                    starts = np.append(starts, np.empty_like(starts))
                    ends = np.empty(len(codes), np.int32)
                    rest = np.empty(len(codes), np.int32)
                codes[n] = code
                starts[n] = at
                n += 1
                at += width
                if at >= end:
                    break
                code, width = decode(octets, at)
            starts[n] = at
            tokens = split(codes, n, tables, ends, rest)
            first = 0
            for k in range(tokens):
                if k:
                    out[written] = 32
                    written += 1
                size = starts[ends[k]] - starts[first]
                out[written : written + size] = octets[starts[first] : starts[first] + size]
                written += size
                first = ends[k]
        out_ends[i + 1] = written


@nb.njit(nogil=True, cache=True)
def _sentences(
    octets: Octets, offsets: Offsets, classes: Octets, kinds: Kinds, counts: Counts
) -> None:
    for i in range(len(offsets) - 1):
        at, end = int(offsets[i]), int(offsets[i + 1])
        in_line = ended = False
        while at < end:
            code, width = decode(octets, at)
            at += width
            if classes[code] & SPACE:
                in_line &= code != NEWLINE
                continue
            full_stop = (kinds[code] & FULL_STOP) != 0
            punctuation = kinds[code] & PUNCTUATION
            while at < end:
                code, width = decode(octets, at)
                if classes[code] & SPACE:
                    break
                full_stop = False
                punctuation &= kinds[code]
                at += width
            if not in_line:
                counts[i] += 1
                in_line = True
                ended = full_stop
            elif full_stop:
                ended = True
            elif ended and not punctuation:
                counts[i] += 1
                ended = False
