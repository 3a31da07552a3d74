"""Finds the plain text records of a WET file and copies wanted values into Arrow's buffers.

A plain record is one as crawlers write it. This compiled kernel stops at any other, which
:mod:`pipeline.readers.web.warc` reads.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.readers.utf8 import is_utf8
from winnow.text.buffers import Octets, load_u32
from winnow.text.vectors import BLOCK

Integers = npt.NDArray[np.int64]

ABSENT = -1
MAX_HEADER = 1 << 16
_MAX_DIGITS = 18

_VERSION = np.frombuffer(b"WARC/1.", np.uint8)
_LENGTH = np.frombuffer(b"content-length", np.uint8)
_TYPE = np.frombuffer(b"warc-type", np.uint8)
_CONVERSION = np.frombuffer(b"conversion", np.uint8)
_RECORD_END = np.uint32(int.from_bytes(b"\r\n\r\n", "little"))
_CR, _LF, _SPACE, _COLON, _DASH, _ZERO, _NINE = (ord(c) for c in "\r\n :-09")


@njit(nogil=True, cache=True)
def plain_records(
    data: Octets, names: Octets, name_ends: Integers, max_bytes: int, spans: Integers
) -> tuple[int, int]:
    """The plain ``conversion`` records at the start of ``data`` (uint8).

    Args:
        data: uint8; empty lines before a record are skipped.
        names: uint8, the concatenated names of the wanted headers, in lower case.
        name_ends: int64 [headers], where each ends in ``names``.
        max_bytes: longer records are not plain.
        spans: int64 [headers + 1, rows, 2]: filled with start and end of each header's value
            (:data:`ABSENT` if missing), and last of the text, which is UTF-8 and not empty.

    Returns:
        Where the first record starts that is not plain or not complete, and the number before it.
    """
    base = data.ctypes.data
    stop = len(data)
    start = row = 0
    while row < spans.shape[1]:
        while start < stop and (data[start] == _CR or data[start] == _LF):
            start += 1
        text, length = _header(data, start, names, name_ends, spans[:, row])
        end = text + length
        if text < 0 or not 0 < length <= max_bytes or end + BLOCK > stop:
            break
        if load_u32(base + end) != _RECORD_END or not is_utf8(base + text, base + end):
            break
        spans[-1, row] = text, end
        start = end + 4
        row += 1
    return start, row


@njit(nogil=True, cache=True)
def gather(data: Octets, spans: Integers) -> tuple[Integers, Octets]:
    """The offsets (int64 [n + 1]) and bytes of n values, each ``data[start:end]`` of a span."""
    offsets = np.zeros(len(spans) + 1, np.int64)
    for i in range(len(spans)):
        offsets[i + 1] = offsets[i] + spans[i, 1] - spans[i, 0]
    values = np.empty(offsets[-1], np.uint8)
    for i in range(len(spans)):
        values[offsets[i] : offsets[i + 1]] = data[spans[i, 0] : spans[i, 1]]
    return offsets, values


@njit(nogil=True, cache=True)
def _header(
    data: Octets, at: int, names: Octets, name_ends: Integers, spans: Integers
) -> tuple[int, int]:
    """The start and length of the block of a plain conversion record; (-1, 0) for others."""
    stop = min(len(data), at + MAX_HEADER)
    spans[:] = ABSENT
    if at + len(_VERSION) + 3 > stop or not (data[at : at + len(_VERSION)] == _VERSION).all():
        return -1, 0
    at += len(_VERSION)
    if not (_ZERO <= data[at] <= _NINE and data[at + 1] == _CR and data[at + 2] == _LF):
        return -1, 0
    at += 3
    length = -1
    conversion = False
    while True:
        line = at
        while at < stop and data[at] != _LF:
            at += 1
        if at + 1 >= stop or at == line or data[at - 1] != _CR:
            return -1, 0
        end = at - 1
        at += 1
        if end == line:
            return (at, length) if conversion and length >= 0 else (-1, 0)
        colon = line
        while colon < end and _in_name(data[colon]):
            colon += 1
        if colon in (line, end) or data[colon] != _COLON:
            return -1, 0
        first = colon + 1
        while first < end and data[first] == _SPACE:
            first += 1
        for i in range(first, end):
            # White space other than before the value, or not ASCII.
            if data[i] < _SPACE or data[i] > 0x7E:
                return -1, 0
        if first < end and data[end - 1] == _SPACE:
            return -1, 0
        if _same(data, line, colon, _LENGTH, 0, len(_LENGTH)):
            length = _number(data, first, end)
            if length < 0:
                return -1, 0
        elif _same(data, line, colon, _TYPE, 0, len(_TYPE)):
            conversion = _same(data, first, end, _CONVERSION, 0, len(_CONVERSION))
        name = 0
        for field in range(len(name_ends)):
            if _same(data, line, colon, names, name, name_ends[field]):
                spans[field] = first, end
            name = name_ends[field]


@njit(nogil=True, cache=True)
def _in_name(letter: int) -> bool:
    lower = letter | 0x20
    return ord("a") <= lower <= ord("z") or _ZERO <= letter <= _NINE or letter == _DASH


@njit(nogil=True, cache=True)
def _same(data: Octets, start: int, end: int, other: Octets, first: int, last: int) -> bool:
    """Whether ``data[start:end]`` in lower case is ``other[first:last]``."""
    if end - start != last - first:
        return False
    for i in range(end - start):
        letter = data[start + i]
        if ord("A") <= letter <= ord("Z"):
            letter |= 0x20
        if letter != other[first + i]:
            return False
    return True


@njit(nogil=True, cache=True)
def _number(data: Octets, start: int, end: int) -> int:
    """A decimal number, or -1."""
    if not 0 < end - start <= _MAX_DIGITS:
        return -1
    number = 0
    for i in range(start, end):
        if not _ZERO <= data[i] <= _NINE:
            return -1
        number = 10 * number + data[i] - _ZERO
    return number
