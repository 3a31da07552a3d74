"""Scans a web page for tags, names and attributes, by the HTML standard ("Tokenization")."""

import numpy as np
from numba import njit

from winnow.text.buffers import Octets
from winnow.text.vectors import BLOCK, equal, trailing_zeros

_LESS, _GREATER, _AND, _SLASH, _EXCLAMATION, _QUESTION, _EQUALS = (ord(c) for c in "<>&/!?=")
_QUOTE, _APOSTROPHE, _SEMICOLON, _HASH, _DASH, _ZERO, _NINE, _A, _Z = (ord(c) for c in "\"';#-09az")
_ALT = np.frombuffer(b"alt", np.uint8)
_MAX_SHORT = 64  # source bytes of a short text: two long character references


def name_hash(name: str) -> int:
    """The hash that :func:`tag_name` returns for a lower-case name."""
    value = 0
    for byte in name.encode():
        value = value * 131 + byte
    return (value + 2**63) % 2**64 - 2**63  # as int64 overflows


@njit(nogil=True, cache=True)
def _is_white(byte: int) -> bool:
    """Whether a byte is white space, or NUL, which is not text."""
    return byte == 32 or 9 <= byte <= 13 or byte == 0


@njit(nogil=True, cache=True)
def is_letter(byte: int) -> bool:
    return _A <= byte | 0x20 <= _Z


@njit(nogil=True, cache=True)
def starts_tag(page: Octets, at: int) -> bool:
    """Whether the ``<`` before ``at`` starts a tag or a comment, or the page ends here."""
    if at >= len(page):
        return True
    return is_letter(page[at]) or page[at] in (_SLASH, _EXCLAMATION, _QUESTION)


@njit(nogil=True, cache=True)
def starts_with(page: Octets, at: int, part: Octets) -> bool:
    same = 0
    while same < len(part) and at + same < len(page) and page[at + same] == part[same]:
        same += 1
    return same == len(part)


@njit(nogil=True, cache=True)
def find(page: Octets, at: int, part: Octets) -> int:
    """The next position of ``part``; the end of the page if there is none."""
    at = skip_to(page, at, part[0])
    while at < len(page) and not starts_with(page, at, part):
        at = skip_to(page, at + 1, part[0])
    return at


@njit(nogil=True, cache=True)
def skip_to(page: Octets, at: int, byte: int) -> int:
    """The next position of ``byte``, or the end of the page. Reads a block beyond that end."""
    base = page.ctypes.data
    stop = len(page)
    while at < stop:
        found = equal(base + at, byte)
        if found:
            return min(at + trailing_zeros(found), stop)
        at += BLOCK
    return stop


@njit(nogil=True, cache=True)
def trim(page: Octets, start: int, end: int) -> tuple[int, int]:
    while start < end and _is_white(page[start]):
        start += 1
    while end > start and _is_white(page[end - 1]):
        end -= 1
    return start, end


@njit(nogil=True, cache=True)
def tag_name(page: Octets, at: int) -> tuple[int, np.int64]:
    """The end of a tag's name, and the hash of its lower-case form."""
    value = np.int64(0)
    while at < len(page) and not (_is_white(page[at]) or page[at] in (_SLASH, _GREATER)):
        value = value * 131 + np.int64(page[at] | 0x20)
        at += 1
    return at, value


@njit(nogil=True, cache=True)
def end_of_tag(page: Octets, at: int) -> int:
    """The position after the unquoted ``>`` of the tag whose name ends at ``at``."""
    while at < len(page) and page[at] != _GREATER:
        at = _value(page, at)[2] if page[at] == _EQUALS else at + 1
    return min(at + 1, len(page))


@njit(nogil=True, cache=True)
def has_attributes(page: Octets, at: int, end: int) -> bool:
    while at < end and (_is_white(page[at]) or page[at] == _SLASH):
        at += 1
    return at < end - 1


@njit(nogil=True, cache=True)
def _value(page: Octets, at: int) -> tuple[int, int, int]:
    """Start and end of the attribute value after ``=`` at ``at``, and where the tag continues."""
    start = at + 1
    while start < len(page) and _is_white(page[start]):
        start += 1
    if start < len(page) and page[start] in (_QUOTE, _APOSTROPHE):
        end = skip_to(page, start + 1, page[start])
        return start + 1, end, min(end + 1, len(page))
    end = start
    while end < len(page) and not (_is_white(page[end]) or page[end] == _GREATER):
        end += 1
    return start, end, end


@njit(nogil=True, cache=True)
def alt(page: Octets, at: int, end: int) -> tuple[int, int]:
    """Start and end of the ``alt`` value in the tag whose name ends at ``at``; equal if none."""
    while at < end:
        if page[at] != _EQUALS:
            at += 1
            continue
        name_end = at
        while _is_white(page[name_end - 1]):
            name_end -= 1
        start, stop, at = _value(page, at)
        name = name_end - len(_ALT)
        is_alt = not is_letter(page[name - 1]) and page[name - 1] != _DASH
        for i in range(len(_ALT)):
            is_alt &= page[name + i] | 0x20 == _ALT[i]
        if is_alt:
            return trim(page, start, stop)
    return end, end


@njit(nogil=True, cache=True)
def is_character(page: Octets, start: int, end: int) -> bool:
    """Whether the bytes ``[start, end)``, at least one, are a single UTF-8 character."""
    start += 1
    while start < end and page[start] & 0xC0 == 0x80:
        start += 1
    return start == end


@njit(nogil=True, cache=True)
def end_of_raw(page: Octets, at: int, name: int) -> int:
    """The start of the end tag of the element whose name is at ``name``."""
    stop = len(page)
    size = tag_name(page, name)[0] - name
    while at < stop:
        at = skip_to(page, at, _LESS)
        end = at + 2 + size
        if end < stop and page[at + 1] == _SLASH:
            same = 0
            while same < size and page[at + 2 + same] | 0x20 == page[name + same] | 0x20:
                same += 1
            if same == size and (_is_white(page[end]) or page[end] in (_SLASH, _GREATER)):
                return at
        at += 1
    return stop


@njit(nogil=True, cache=True)
def may_be_three_bytes(page: Octets, start: int, end: int) -> bool:
    """Whether a text may have three bytes or one character, not all of it ASCII."""
    if end - start > _MAX_SHORT:
        return False
    written = 0  # bytes outside references
    beyond = in_reference = False
    for i in range(start, end):
        byte = page[i]
        beyond |= byte >= 0x80 or byte == _AND
        if byte == _AND:
            in_reference = True
        elif in_reference and (is_letter(byte) or _ZERO <= byte <= _NINE or byte == _HASH):
            continue
        else:
            written += not _is_white(byte) and not (in_reference and byte == _SEMICOLON)
            in_reference = False
            if written > 3:
                return False
    return beyond
