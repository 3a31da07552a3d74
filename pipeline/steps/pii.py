"""Masks e-mail and IPv4 addresses as FineWeb does (Penedo et al. 2024, section 3).

It masks what datatrove's PIIFormatter matches, except addresses at a literal IPv6 host,
``name@[1.2.3.tag:]``. Each document takes the replacements in turn from the first, so it is masked
the same way in any input.
"""

import functools
import ipaddress
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.steps.changes import MASKED_EMAILS, MASKED_IPS, changed
from pipeline.steps.contract import Codes, Counts, Step
from pipeline.steps.words.characters import MAXIMUM, character_before
from winnow.text.buffers import Octets, Offsets, large_strings, string_buffers

Places = npt.NDArray[np.int64]

_LOCAL: Final = 1  # of the part of an e-mail address before the @
_ALPHANUMERIC: Final = 2

_AT, _DOT, _HYPHEN, _OPEN, _CLOSE = (ord(character) for character in "@.-[]")
_ZERO, _NINE = ord("0"), ord("9")


class Spans(NamedTuple):
    """k parts of texts, in order: bytes ``starts`` to ``ends`` of text ``rows`` (int64 [k])."""

    rows: Places
    starts: Places
    ends: Places


@dataclass
class Pii(Step):
    """Masks addresses in every document, dropped ones too."""

    emails: list[str]  # replacements; none: e-mail addresses stay
    ips: list[str]  # the same for IP addresses
    public_ips_only: bool  # mask only globally reachable ones

    reasons: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self.counts = (MASKED_EMAILS, MASKED_IPS)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        nothing = np.zeros(len(batch), np.int8)
        text, emails = mask(batch["text"], find_emails, self.emails)
        text, ips = mask(text, functools.partial(find_ips, self.public_ips_only), self.ips)
        if not (emails.any() or ips.any()):
            return batch, nothing
        return changed(batch, text, {MASKED_EMAILS: emails, MASKED_IPS: ips}), nothing


def mask(
    text: pa.Array, find: Callable[[pa.Array], Spans], replacements: Sequence[str]
) -> tuple[pa.Array, Counts]:
    """The texts (large_string [n]) with found spans replaced, and the number in each (int64 [n]).

    The replacements are taken in turn; without any the texts stay.
    """
    spans = find(text) if replacements else None
    if spans is None or len(spans.rows) == 0:
        return text, np.zeros(len(text), np.int64)
    octets, offsets = string_buffers(text)
    new, new_offsets = string_buffers(pa.array(replacements, pa.string()))
    longest = int(np.diff(new_offsets).max())
    out = np.empty(int(offsets[-1] - offsets[0]) + longest * len(spans.rows), np.uint8)
    ends = np.zeros(len(text) + 1, np.int64)
    _replace(octets, offsets, spans, new, new_offsets, out, ends)
    return large_strings(out, ends), np.bincount(spans.rows, minlength=len(text))


def find_emails(text: pa.Array) -> Spans:
    """The e-mail addresses in the texts (string or large_string [n] without nulls)."""
    octets, offsets = string_buffers(text)
    most = np.count_nonzero(octets[offsets[0] : offsets[-1]] == _AT)
    return Spans(*_find_emails(octets, offsets, _kinds(), _word_characters(), most))


def find_ips(public_only: bool, text: pa.Array) -> Spans:
    """The IPv4 addresses in the texts (string or large_string [n] without nulls)."""
    octets, offsets = string_buffers(text)
    most = np.count_nonzero(octets[offsets[0] : offsets[-1]] == _DOT) // 3
    found = _find_ips(octets, offsets, most)
    valid = [
        _is_address(octets[start:end].tobytes().decode(), public_only)
        for _, start, end in found.T.tolist()
    ]
    return Spans(*found.compress(np.array(valid, np.bool_), axis=1))


def _is_address(text: str, public_only: bool) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:  # a number with a leading zero
        return False
    return not public_only or address.is_global


@functools.cache
def _kinds() -> Octets:
    """The kinds of every byte, as bits (uint8 [256])."""
    kinds = np.zeros(256, np.uint8)
    kinds[list(string.ascii_letters.encode() + string.digits.encode())] = _LOCAL | _ALPHANUMERIC
    kinds[list(b"!#$%&'*+/=?^_`{|}~-")] = _LOCAL
    return kinds


@functools.cache
def _word_characters() -> npt.NDArray[np.bool_]:
    r"""Which code points ``\w`` matches (bool [0x110000])."""
    every = np.arange(MAXIMUM, dtype=np.uint32).view("U1")
    words = np.strings.isalnum(every)
    words[ord("_")] = True
    return words


@nb.njit(nogil=True, cache=True)
def _replace(
    octets: Octets,
    offsets: Offsets,
    spans: Spans,
    new: Octets,
    new_offsets: Offsets,
    out: Octets,
    ends: Places,
) -> None:
    written = k = 0
    for i in range(len(offsets) - 1):
        at = int(offsets[i])
        turn = 0
        while k < len(spans.rows) and spans.rows[k] == i:
            written = _append(out, written, octets[at : spans.starts[k]])
            written = _append(out, written, new[new_offsets[turn] : new_offsets[turn + 1]])
            turn = (turn + 1) % (len(new_offsets) - 1)
            at = spans.ends[k]
            k += 1
        written = _append(out, written, octets[at : int(offsets[i + 1])])
        ends[i + 1] = written


@nb.njit(nogil=True, cache=True)
def _append(out: Octets, written: int, piece: Octets) -> int:
    out[written : written + len(piece)] = piece
    return written + len(piece)


@nb.njit(nogil=True, cache=True)
def _find_emails(
    octets: Octets, offsets: Offsets, kinds: Octets, words: npt.NDArray[np.bool_], most: int
) -> Places:
    """Row, start and end of each: int64 [3, at most ``most``]."""
    found = np.empty((3, most), np.int64)
    n = 0
    for i in range(len(offsets) - 1) if most else range(0):
        first, end = int(offsets[i]), int(offsets[i + 1])
        low = first  # the end of the last address
        for at in range(first, end):
            if octets[at] != _AT or at < low:
                continue
            start = _local_part(octets, first, low, at, kinds, words)
            if start == at:
                continue
            stop = _host(octets, at + 1, end, kinds)
            if stop > at + 1:
                found[:, n] = i, start, stop
                n += 1
                low = stop
    return found[:, :n]


@nb.njit(nogil=True, cache=True)
def _local_part(
    octets: Octets, first: int, low: int, at: int, kinds: Octets, words: npt.NDArray[np.bool_]
) -> int:
    r"""The start (at a ``\b``) of the local part before ``@``, or ``at``; dots are single."""
    start = at
    while start > low:
        inner_dot = (
            octets[start - 1] == _DOT
            and start < at
            and octets[start] != _DOT
            and start - 1 > low
            and kinds[octets[start - 2]] & _LOCAL
        )
        if not (inner_dot or kinds[octets[start - 1]] & _LOCAL):
            break
        start -= 1
    while start < at:
        before = start > first and words[character_before(octets, start)]
        if octets[start] != _DOT and words[octets[start]] != before:
            return start
        start += 1
    return at


@nb.njit(nogil=True, cache=True)
def _host(octets: Octets, start: int, end: int, kinds: Octets) -> int:
    """The end of the host at ``start``, or ``start`` if there is none.

    A host is two or more labels of letters, digits and inner hyphens between dots, or an IPv4
    address in brackets.
    """
    if start < end and octets[start] == _OPEN:
        stop = _ip(octets, start + 1, end)
        return stop + 1 if stop > start + 1 and stop < end and octets[stop] == _CLOSE else start
    at = start
    stop = start
    labels = 0
    while at < end and kinds[octets[at]] & _ALPHANUMERIC:
        last = at  # the last letter or digit of the label
        while at < end and (kinds[octets[at]] & _ALPHANUMERIC or octets[at] == _HYPHEN):
            if octets[at] != _HYPHEN:
                last = at
            at += 1
        labels += 1
        if labels > 1:
            stop = last + 1
        if last + 1 < at or at == end or octets[at] != _DOT:
            break
        at += 1
    return stop


@nb.njit(nogil=True, cache=True)
def _find_ips(octets: Octets, offsets: Offsets, most: int) -> Places:
    found = np.empty((3, most), np.int64)
    n = 0
    for i in range(len(offsets) - 1) if most else range(0):
        at, end = int(offsets[i]), int(offsets[i + 1])
        while at < end:
            stop = _ip(octets, at, end)
            if stop > at:
                found[:, n] = i, at, stop
                n += 1
            at = max(stop, at + 1)
    return found[:, :n]


@nb.njit(nogil=True, cache=True)
def _ip(octets: Octets, start: int, end: int) -> int:
    """The end of the IPv4 address at ``start``, or ``start`` if there is none."""
    at = start
    for part in range(4):
        value = digits = 0
        while at < end and digits < 3 and _ZERO <= octets[at] <= _NINE:
            longer = 10 * value + int(octets[at]) - _ZERO
            if longer > 255:
                break
            value = longer
            digits += 1
            at += 1
        if digits == 0:
            return start
        if part < 3:
            if at == end or octets[at] != _DOT:
                return start
            at += 1
    return at
