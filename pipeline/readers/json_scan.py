"""Scans JSON at an address, for compiled kernels. A newline must end the text: it stops scans."""

import numpy as np
from numba import njit

from winnow.text.buffers import Octets, load_u8, load_u32
from winnow.text.vectors import BLOCK, copy_block, store_u8, string_stops, trailing_zeros

MAX_DEPTH = 1024  # Python's own parser gives up near this depth too

_QUOTE, _BACKSLASH, _NEWLINE = ord('"'), ord("\\"), ord("\n")
_OPEN, _LIST = ord("{"), ord("[")
_COMMA, _COLON, _MINUS, _PLUS, _POINT, _ZERO = (ord(c) for c in ",:-+.0")
_LETTER_U, _LOWER_E = ord("u"), ord("e")
_CASE = 0x20  # the bit between upper and lower case

_ESCAPED = np.zeros(256, np.uint8)
for _letter, _meaning in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_letter] = _meaning

_HEX = np.full(256, -1, np.int64)
for _digit in "0123456789abcdefABCDEF":
    _HEX[ord(_digit)] = int(_digit, 16)

_TRUE, _FALS, _NULL_WORD, _NAN, _INFI, _NITY = (
    np.uint32(int.from_bytes(word, "little"))
    for word in (b"true", b"fals", b"null", b"NaN", b"Infi", b"nity")
)
_THREE_BYTES = np.uint32(0xFFFFFF)


@njit(nogil=True, cache=True)
def value_end(at: int, stack: Octets) -> int:
    """The end of the JSON value at an address, or 0 if there is none."""
    depth = 0
    while True:
        first = load_u8(at)
        if first == _QUOTE:
            at = string_end(at + 1)
        elif first in (_OPEN, _LIST):
            # Closing brackets are two above the opening ones in ASCII.
            inner = after_space(at + 1)
            if load_u8(inner) == first + 2:
                at = inner + 1
            else:
                if depth == len(stack):
                    return 0
                stack[depth] = first
                depth += 1
                at = _key(inner) if first == _OPEN else inner
                if at == 0:
                    return 0
                continue
        else:
            at = _scalar(at)
        if at == 0:
            return 0
        while True:
            if depth == 0:
                return at
            at = after_space(at)
            after = load_u8(at)
            opened = stack[depth - 1]
            if after == opened + 2:
                depth -= 1
                at += 1
            elif after == _COMMA:
                at = after_space(at + 1)
                if opened == _OPEN:
                    at = _key(at)
                    if at == 0:
                        return 0
                break
            else:
                return 0


@njit(nogil=True, cache=True)
def _key(at: int) -> int:
    """Where the value of the ``"key": value`` at an address starts, or 0."""
    if load_u8(at) != _QUOTE:
        return 0
    at = string_end(at + 1)
    if at == 0:
        return 0
    at = after_space(at)
    return after_space(at + 1) if load_u8(at) == _COLON else 0


@njit(nogil=True, cache=True)
def string_end(at: int) -> int:
    """The address after the closing quote of the string that starts here, or 0."""
    while True:
        stops = string_stops(at)
        if stops == 0:
            at += BLOCK
            continue
        at += trailing_zeros(stops)
        stop = load_u8(at)
        if stop == _QUOTE:
            return at + 1
        if stop != _BACKSLASH:
            return 0
        letter = load_u8(at + 1)
        if _ESCAPED[letter] != 0:
            at += 2
        elif letter == _LETTER_U and _code_unit(at + 2) >= 0:
            at += 6
        else:
            return 0


@njit(nogil=True, cache=True)
def unescape(at: int, target: int) -> tuple[int, int, bool]:
    """Write the string that starts here: its end (0: bad), bytes, lone surrogates."""
    out = target
    lone = False
    while True:
        copy_block(out, at)
        stops = string_stops(at)
        if stops == 0:
            at += BLOCK
            out += BLOCK
            continue
        ahead = trailing_zeros(stops)
        at += ahead
        out += ahead
        stop = load_u8(at)
        if stop == _QUOTE:
            return at + 1, out - target, lone
        # Escapes come in runs where a writer escapes all but ASCII.
        while stop == _BACKSLASH:
            letter = load_u8(at + 1)
            if _ESCAPED[letter] != 0:
                store_u8(out, _ESCAPED[letter])
                out += 1
                at += 2
            else:
                unit = _code_unit(at + 2) if letter == _LETTER_U else -1
                if unit < 0:
                    return 0, 0, lone
                at += 6
                if 0xD800 <= unit < 0xE000:
                    low = -1
                    if unit < 0xDC00 and load_u8(at) == _BACKSLASH:
                        low = _code_unit(at + 2) if load_u8(at + 1) == _LETTER_U else -1
                    if 0xDC00 <= low < 0xE000:
                        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                        at += 6
                    else:
                        lone = True
                out = _write(out, unit)
            stop = load_u8(at)
        if stop < 0x20:
            return 0, 0, lone


@njit(nogil=True, cache=True)
def _code_unit(at: int) -> int:
    """The value of four hexadecimal digits, or -1."""
    first, second = _HEX[load_u8(at)], _HEX[load_u8(at + 1)]
    if first < 0 or second < 0:
        return -1
    third = _HEX[load_u8(at + 2)]
    if third < 0:
        return -1
    fourth = _HEX[load_u8(at + 3)]
    return -1 if fourth < 0 else first << 12 | second << 8 | third << 4 | fourth


@njit(nogil=True, cache=True)
def _write(out: int, code: int) -> int:
    """Write a code point as UTF-8; returns the address after it."""
    if code < 0x80:
        store_u8(out, np.uint8(code))
        return out + 1
    if code < 0x800:
        store_u8(out, np.uint8(0xC0 | code >> 6))
        store_u8(out + 1, np.uint8(0x80 | code & 0x3F))
        return out + 2
    if code < 0x10000:
        store_u8(out, np.uint8(0xE0 | code >> 12))
        store_u8(out + 1, np.uint8(0x80 | code >> 6 & 0x3F))
        store_u8(out + 2, np.uint8(0x80 | code & 0x3F))
        return out + 3
    store_u8(out, np.uint8(0xF0 | code >> 18))
    store_u8(out + 1, np.uint8(0x80 | code >> 12 & 0x3F))
    store_u8(out + 2, np.uint8(0x80 | code >> 6 & 0x3F))
    store_u8(out + 3, np.uint8(0x80 | code & 0x3F))
    return out + 4


@njit(nogil=True, cache=True)
def _scalar(at: int) -> int:
    """The end of the number or literal at an address, or 0."""
    word = load_u32(at)
    if word in (_TRUE, _NULL_WORD):
        return at + 4
    if word == _FALS:
        return at + 5 if load_u8(at + 4) == _LOWER_E else 0
    if word & _THREE_BYTES == _NAN:
        return at + 3
    if load_u8(at) == _MINUS:
        at += 1
    if load_u32(at) == _INFI:
        return at + 8 if load_u32(at + 4) == _NITY else 0
    at = at + 1 if load_u8(at) == _ZERO else _digits(at)
    if at != 0 and load_u8(at) == _POINT:
        at = _digits(at + 1)
    if at != 0 and load_u8(at) | _CASE == _LOWER_E:
        signed = load_u8(at + 1) == _MINUS or load_u8(at + 1) == _PLUS
        at = _digits(at + 1 + signed)
    return at


@njit(nogil=True, cache=True)
def _digits(at: int) -> int:
    """The end of the digits at an address, or 0 if there are none."""
    start = at
    while 0x30 <= load_u8(at) <= 0x39:
        at += 1
    return at if at > start else 0


@njit(nogil=True, cache=True)
def after_space(at: int) -> int:
    """The next address without a space, tab or carriage return."""
    while True:
        octet = load_u8(at)
        if octet != 0x20 and octet != 0x09 and octet != 0x0D:
            return at
        at += 1


@njit(nogil=True, cache=True)
def find_newline(at: int) -> int:
    while load_u8(at) != _NEWLINE:
        at += 1
    return at
