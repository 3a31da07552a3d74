"""Decontamination: drops documents that share an n-gram of words with evaluation files.

As for GPT-3 (Brown et al. 2020, appendix C): 13-grams of lower-cased words, split at white space,
without punctuation. GPT-3 cuts out what is around a hit and drops a document only if it falls into
many pieces; we never change a text, so one hit drops the document. An evaluation text of fewer than
n words has no n-gram and protects nothing.

A word is normalised by taking its letters and digits only, each in lower case by Unicode's simple
mapping; words without any vanish. Unicode is not normalised (NFC or NFD). Every shared n-gram is
found; a false hit needs two n-grams whose 64-bit hashes collide.
"""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import storage
from pipeline.steps.characters import (
    ALPHANUMERIC,
    MAXIMUM,
    SPACE,
    add,
    classes,
    decode,
    holds,
    mix,
    table_size,
)
from pipeline.steps.contract import Codes
from quality_classifier.buffers import Octets, Offsets, string_buffers

Hashes = npt.NDArray[np.uint64]
CodePoints = npt.NDArray[np.uint32]

_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Decontamination:
    """Drops documents with an n-gram of the evaluation files.

    ``files`` are globs: ``.jsonl`` files, where ``fields`` names the fields to take (none: all
    strings of a record, at any depth), and anything else as plain text, one text a file.
    """

    files: list[str]
    fields: list[str]
    n: int

    reasons: ClassVar[tuple[str, ...]] = ("contaminated",)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n is at least 1, not {self.n}")
        texts = pa.array(evaluation_texts(self.files, self.fields), pa.large_string())
        self._known = n_gram_set(texts, self.n)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        """The batch as it came, and the codes."""
        return batch, overlaps(batch["text"], self._known, self.n).astype(np.int8)


def evaluation_texts(files: Sequence[str], fields: Sequence[str]) -> Iterator[str]:
    """The texts of evaluation files, as :class:`Decontamination` reads them.

    Raises:
        ValueError: no files are named, a pattern matches nothing, a file is no UTF-8 or no JSONL,
            or a field is missing from a whole file.
    """
    if not files:
        raise ValueError("no evaluation files are given: name some under files")
    for path in (path for pattern in files for path in storage.find(pattern)):
        try:
            content = storage.read_bytes(path).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"the evaluation file {path} is not UTF-8: convert it") from error
        if not path.endswith(".jsonl"):
            yield content
            continue
        missing = set(fields)
        for number, line in enumerate(content.split("\n"), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} of {path} is no JSON: mend or drop it") from error
            if fields:
                if not isinstance(record, dict):
                    raise ValueError(f"line {number} of {path} has no fields: set fields to []")
                missing -= record.keys()
                record = [record[field] for field in fields if field in record]
            yield from _strings(record)
        if missing:
            raise ValueError(f"no record of {path} has the fields {sorted(missing)}: name others")


def n_gram_set(texts: pa.Array, n: int) -> Hashes:
    """The hashes of the texts' word n-grams as a hash set for :func:`overlaps`.

    Raises:
        ValueError: no text has n words.
    """
    octets, offsets = string_buffers(texts)
    hashes = np.unique(_all_hashes(octets, offsets, _normal(), n))
    if len(hashes) == 0:
        raise ValueError(f"no evaluation text has {n} words: check files and fields, or lower n")
    # At most 3/8 full: nearly every look-up of a strange n-gram ends at its first slot.
    return _fill(np.zeros(table_size(2 * len(hashes)), np.uint64), hashes)


def overlaps(text: pa.Array, known: Hashes, n: int) -> npt.NDArray[np.bool_]:
    """Which documents (string or large_string [m] without nulls) hold a known n-gram: bool [m]."""
    octets, offsets = string_buffers(text)
    return _overlaps(octets, offsets, _normal(), known, n)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


@functools.cache
def _normal() -> CodePoints:
    """What becomes of every code point: lower case, a space, or 0 for nothing (uint32)."""
    every = np.arange(MAXIMUM, dtype=np.uint32)
    lower = np.strings.lower(every.view("U1")).view(np.uint32)
    kinds = classes()
    normal = np.where(kinds & ALPHANUMERIC, lower, 0)
    return np.where(kinds & SPACE, ord(" "), normal).astype(np.uint32)


@nb.njit(nogil=True, cache=True)
def _next_word(octets: Octets, at: int, end: int, normal: CodePoints) -> tuple[int, np.uint64]:
    """Behind the next word that is not empty once normalised, and its hash; 0 if there is none."""
    state = np.uint64(0)
    while at < end:
        code, width = decode(octets, at)
        at += width
        letter = normal[code]
        if letter == 32:
            if state:
                break
        elif letter:
            state = mix(state, np.uint64(letter))
            state |= np.uint64(state == 0)
    return at, state


@nb.njit(nogil=True, cache=True)
def _hashes(
    octets: Octets, at: int, end: int, normal: CodePoints, n: int, words: Hashes, hashes: Hashes
) -> int:
    """Hash the n-grams of ``octets[at:end]`` into ``hashes``; how many there are.

    An n-gram's hash is mixed from the sum of word hash * BASE**age. ``words`` is room for n words.
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
def _all_hashes(octets: Octets, offsets: Offsets, normal: CodePoints, n: int) -> Hashes:
    hashes = np.empty(offsets[-1] - offsets[0], np.uint64)  # a word takes a byte or more
    words = np.empty(n, np.uint64)
    found = 0
    for i in range(len(offsets) - 1):
        start, end = int(offsets[i]), int(offsets[i + 1])
        found += _hashes(octets, start, end, normal, n, words, hashes[found:])
    return hashes[:found]


@nb.njit(nogil=True, cache=True)
def _fill(table: Hashes, hashes: Hashes) -> Hashes:
    for key in hashes:
        add(table, len(table) - 1, key)
    return table


@nb.njit(nogil=True, cache=True)
def _overlaps(
    octets: Octets, offsets: Offsets, normal: CodePoints, known: Hashes, n: int
) -> npt.NDArray[np.bool_]:
    hit = np.zeros(len(offsets) - 1, np.bool_)
    words = np.empty(n, np.uint64)
    hashes = np.empty(1024, np.uint64)
    for i in range(len(hit)):
        start, end = int(offsets[i]), int(offsets[i + 1])
        if end - start > 2 * len(hashes):  # two bytes for a word and a space, but for the last
            hashes = np.empty((end - start) // 2 + 1, np.uint64)
        found = _hashes(octets, start, end, normal, n, words, hashes)
        # In a loop of its own, the cache misses of many look-ups overlap.
        for k in range(found):
            hit[i] |= holds(known, len(known) - 1, hashes[k])
    return hit
