r"""Validates JSON lines and copies the wanted values into Arrow's buffers.

Compiled, without a Python object per line or value. Every line must end in a newline: as strict
JSON allows no control character in a string, that newline stops every scan, and nothing else has
to look for the end. What is accepted is what Python's ``json.loads`` accepts: RFC 8259, and the
``NaN`` and ``Infinity`` that ``json.dumps`` writes. Of repeated keys the last wins, as there.

Wanted keys are the nodes of a tree, int64 [nodes, 4], parents first: the object that the key stands
in (0 is the line itself), where its name ends, the field that its value fills (or -1), and the
object that its value opens (or 0). So ``metadata.url`` is two nodes; and it is one more at the top,
since a key may have dots: that one wins.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.readers.utf8 import is_utf8
from pipeline.readers.vectors import BLOCK, copy_block, store_u8, string_stops, trailing_zeros
from winnow.text.buffers import Octets, load_u8, load_u32

Integers = npt.NDArray[np.int64]

MAX_DEPTH = 1024
"""Deeper nesting is no data of ours; Python's own parser gives up near this depth too."""

# What a line can turn out to be; all but the first two are reasons for quarantine.
GOOD, BLANK, BAD_JSON, NOT_AN_OBJECT, MISSING_TEXT, WRONG_TYPE, LONE_SURROGATE = range(7)
INVALID_UTF8, TOO_LONG = 7, 8

# The columns of a node.
SCOPE, NAME_END, FIELD, OPENS = range(4)

# What was found for a wanted field of the current line.
_ABSENT, _NULL, _STRING, _OTHER, _LONE = range(5)

_QUOTE, _BACKSLASH, _NEWLINE = ord('"'), ord("\\"), ord("\n")
_OPEN, _CLOSE, _LIST, _END_LIST = (ord(c) for c in "{}[]")
_COMMA, _COLON, _MINUS, _PLUS, _POINT, _ZERO = (ord(c) for c in ",:-+.0")
_LETTER_U, _LOWER_E = ord("u"), ord("e")
_CASE = 0x20  # the bit between upper and lower case

_ESCAPED = np.zeros(256, np.uint8)
for _letter, _meaning in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_letter] = _meaning

_HEX = np.full(256, -1, np.int64)
for _digit in "0123456789abcdefABCDEF":
    _HEX[ord(_digit)] = int(_digit, 16)

_TRUE, _FALS, _NULL_WORD, _INFI = (
    np.uint32(int.from_bytes(word, "little")) for word in (b"true", b"fals", b"null", b"Infi")
)


@njit(nogil=True, cache=True)
def parse_lines(
    data: Octets,
    start: int,
    stop: int,
    names: Octets,
    nodes: Integers,
    text_field: int,
    separator: Octets,
    max_bytes: int,
    values: Octets,
    offsets: Integers,
    valid: npt.NDArray[np.bool_],
    bad: Integers,
) -> tuple[int, int, int]:
    """Parse the lines of ``data[start:stop]`` until they, the rows or the room for bad lines end.

    Args:
        data: uint8, with 32 bytes to spare after ``stop``; ``data[stop - 1]`` is a newline.
        start: the first byte of a line.
        stop: the end of the last line.
        names: uint8, the names of the nodes one after another, and 32 bytes to spare.
        nodes: int64 [nodes, 4], the wanted keys.
        text_field: which field is the text: it must be a string, or a list of strings if there is
            a separator.
        separator: uint8, what goes between the strings of such a list; its first byte is 1, or 0 if
            there is none.
        max_bytes: longer lines are bad.
        values: uint8 [fields + 1, at least stop - start + 64, and more if a separator has over
            three bytes]: filled with the values' bytes; the last row is scratch.
        offsets: int64 [fields, rows + 1]: filled; the first column must be 0.
        valid: bool [fields, rows]: filled.
        bad: int64 [n, 3]: filled with start, end and kind of each bad line.

    Returns:
        Where the next line starts, the number of rows, the number of bad lines.
    """
    base = data.ctypes.data
    fields = len(offsets)
    found = np.empty(fields, np.int64)
    lengths = np.empty(fields, np.int64)
    at_top = np.empty(fields, np.bool_)
    scopes = np.empty(len(nodes), np.int64)
    stack = np.empty(MAX_DEPTH, np.uint8)
    row = 0
    bads = 0
    line = base + start
    end = base + stop
    while line < end and row < valid.shape[1] and bads < len(bad):
        kind, after = _line(
            line,
            names,
            nodes,
            text_field,
            separator,
            values,
            offsets,
            row,
            found,
            lengths,
            at_top,
            scopes,
            stack,
        )
        if kind in (BAD_JSON, NOT_AN_OBJECT):
            after = _find_newline(line)
        if after - line > max_bytes and kind != BLANK:
            kind = TOO_LONG
        elif kind != BLANK and not is_utf8(line, after):
            kind = INVALID_UTF8
        if kind == GOOD:
            for field in range(fields):
                present = found[field] != _ABSENT and found[field] != _NULL
                valid[field, row] = present
                length = lengths[field] if present else 0
                offsets[field, row + 1] = offsets[field, row] + length
            row += 1
        elif kind != BLANK:
            bad[bads, 0] = line - base
            bad[bads, 1] = after - base
            bad[bads, 2] = kind
            bads += 1
        line = after + 1
    return line - base, row, bads


@njit(nogil=True, cache=True)
def _line(
    at: int,
    names: Octets,
    nodes: Integers,
    text_field: int,
    separator: Octets,
    values: Octets,
    offsets: Integers,
    row: int,
    found: Integers,
    lengths: Integers,
    at_top: npt.NDArray[np.bool_],
    scopes: Integers,
    stack: Octets,
) -> tuple[int, int]:
    """What the line at an address is, and the address of its newline (good and blank lines)."""
    at = _space(at)
    first = load_u8(at)
    if first == _NEWLINE:
        return BLANK, at
    if first != _OPEN:
        at = _value(at, stack)
        whole = at != 0 and load_u8(_space(at)) == _NEWLINE
        return NOT_AN_OBJECT if whole else BAD_JSON, 0
    found[:] = _ABSENT
    at_top[:] = False
    depth = scope = 0
    at = _space(at + 1)
    within = load_u8(at) != _CLOSE
    if not within:
        at += 1
    while within:
        if load_u8(at) != _QUOTE:
            return BAD_JSON, 0
        key = at + 1
        at = _string(key)
        if at == 0:
            return BAD_JSON, 0
        node = _node(key, at - 1, scope, names, nodes, values)
        at = _space(at)
        if load_u8(at) != _COLON:
            return BAD_JSON, 0
        value = at = _space(at + 1)
        field = nodes[node, FIELD] if node >= 0 else -1
        opens = nodes[node, OPENS] if node >= 0 else 0
        if opens != 0:
            _forget(opens, nodes, found, at_top)
        if field >= 0 and not (scope != 0 and at_top[field]):
            target = values.ctypes.data + field * values.shape[1] + offsets[field, row]
            if field == text_field and separator[0] and load_u8(at) == _LIST:
                at, found[field], lengths[field] = _joined(at, target, separator, stack)
            else:
                at, found[field], lengths[field] = _wanted(at, target, stack)
            at_top[field] = scope == 0
        elif opens == 0 or load_u8(at) != _OPEN:
            at = _value(at, stack)
        if at == 0:
            return BAD_JSON, 0
        if opens != 0 and load_u8(value) == _OPEN:
            at = _space(value + 1)
            if load_u8(at) != _CLOSE:
                scopes[depth] = scope
                depth += 1
                scope = opens
                continue
            at += 1
        while True:
            at = _space(at)
            after = load_u8(at)
            at += 1
            if after == _COMMA:
                at = _space(at)
                break
            if after != _CLOSE:
                return BAD_JSON, 0
            if depth == 0:
                within = False
                break
            depth -= 1
            scope = scopes[depth]
    at = _space(at)
    if load_u8(at) != _NEWLINE:
        return BAD_JSON, 0
    if found[text_field] == _ABSENT or found[text_field] == _NULL:
        return MISSING_TEXT, at
    if found[text_field] == _OTHER:
        return WRONG_TYPE, at
    if (found == _LONE).any():
        return LONE_SURROGATE, at
    return GOOD, at


@njit(nogil=True, cache=True)
def _forget(opens: int, nodes: Integers, found: Integers, at_top: npt.NDArray[np.bool_]) -> None:
    """Drop what an earlier object of the same key has filled: a repeated key's last value wins."""
    within = np.zeros(len(nodes) + 1, np.bool_)
    within[opens] = True
    for node in range(len(nodes)):
        if within[nodes[node, SCOPE]]:
            within[nodes[node, OPENS]] = nodes[node, OPENS] != 0
            field = nodes[node, FIELD]
            if field >= 0 and not at_top[field]:
                found[field] = _ABSENT


@njit(nogil=True, cache=True)
def _wanted(at: int, target: int, stack: Octets) -> tuple[int, int, int]:
    """Copy the value at an address: its end (0 if it is no JSON), what it is, bytes written.

    A string is unescaped; any other value is written as it stands.
    """
    first = load_u8(at)
    if first == _QUOTE:
        end, length, lone = _unescape(at + 1, target)
        return end, _LONE if lone else _STRING, length
    end = _value(at, stack)
    if first == ord("n"):
        return end, _NULL, 0
    if end != 0:
        for done in range(0, end - at, BLOCK):
            copy_block(target + done, at + done)
    return end, _OTHER, end - at


@njit(nogil=True, cache=True)
def _joined(at: int, target: int, separator: Octets, stack: Octets) -> tuple[int, int, int]:
    """As :func:`_wanted`, of a list: its strings with the separator between them."""
    out = target
    kind = _STRING
    at = _space(at + 1)
    if load_u8(at) == _END_LIST:
        return at + 1, _STRING, 0
    while True:
        if load_u8(at) == _QUOTE:
            at, length, lone = _unescape(at + 1, out)
            out += length
            if lone and kind == _STRING:
                kind = _LONE
        else:
            kind = _NULL if load_u8(at) == ord("n") and kind != _OTHER else _OTHER
            at = _value(at, stack)
        if at == 0:
            return 0, kind, 0
        at = _space(at)
        after = load_u8(at)
        if after == _END_LIST:
            return at + 1, kind, out - target
        if after != _COMMA:
            return 0, kind, 0
        at = _space(at + 1)
        for i in range(1, len(separator)):
            store_u8(out, separator[i])
            out += 1


@njit(nogil=True, cache=True)
def _node(key: int, end: int, scope: int, names: Octets, nodes: Integers, values: Octets) -> int:
    """Which wanted key of an object stands in ``[key, end)``, escapes and all; -1 if none."""
    length = end - key
    for at in range(key, end):
        if load_u8(at) == _BACKSLASH:
            scratch = values.ctypes.data + (values.shape[0] - 1) * values.shape[1]
            _, length, lone = _unescape(key, scratch)
            if lone:
                return -1
            key = scratch
            break
    start = 0
    for node in range(len(nodes)):
        name_end = nodes[node, NAME_END]
        if name_end - start == length and nodes[node, SCOPE] == scope:
            i = 0
            while i < length and names[start + i] == load_u8(key + i):
                i += 1
            if i == length:
                return node
        start = name_end
    return -1


@njit(nogil=True, cache=True)
def _value(at: int, stack: Octets) -> int:
    """The end of the JSON value at an address, or 0 if there is none. No recursion."""
    depth = 0
    while True:
        first = load_u8(at)
        if first == _QUOTE:
            at = _string(at + 1)
        elif first in (_OPEN, _LIST):
            # Closing brackets are two above the opening ones in ASCII.
            inner = _space(at + 1)
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
            at = _space(at)
            after = load_u8(at)
            opened = stack[depth - 1]
            if after == opened + 2:
                depth -= 1
                at += 1
            elif after == _COMMA:
                at = _space(at + 1)
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
    at = _string(at + 1)
    if at == 0:
        return 0
    at = _space(at)
    return _space(at + 1) if load_u8(at) == _COLON else 0


@njit(nogil=True, cache=True)
def _string(at: int) -> int:
    """The address after the closing quote of the string whose first character is here, or 0."""
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
def _unescape(at: int, target: int) -> tuple[int, int, bool]:
    """Write the string whose first character is here: its end (0: bad), bytes, lone surrogates."""
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
        # Escapes come in runs where a writer escapes all that is not ASCII.
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
    """The value of four hexadecimal digits, or a negative number if they are none."""
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
    if load_u8(at) == ord("N"):
        whole = load_u8(at + 1) == ord("a") and load_u8(at + 2) == ord("N")
        return at + 3 if whole else 0
    word = load_u32(at)
    if word in (_TRUE, _NULL_WORD):
        return at + 4
    if word == _FALS:
        return at + 5 if load_u8(at + 4) == _LOWER_E else 0
    if load_u8(at) == _MINUS:
        at += 1
        word = load_u32(at)
    if word == _INFI:
        # "Infinity" ends in "nity", and "Infi" + "nity" share no byte.
        tail = load_u8(at + 4) == ord("n") and load_u8(at + 5) == ord("i")
        tail = tail and load_u8(at + 6) == ord("t") and load_u8(at + 7) == ord("y")
        return at + 8 if tail else 0
    if load_u8(at) == _ZERO:
        at += 1
    else:
        start = at
        at = _digits(at)
        if at == start:
            return 0
    if load_u8(at) == _POINT:
        start = at + 1
        at = _digits(start)
        if at == start:
            return 0
    if load_u8(at) | _CASE == _LOWER_E:
        at += 1
        if load_u8(at) == _MINUS or load_u8(at) == _PLUS:
            at += 1
        start = at
        at = _digits(at)
        if at == start:
            return 0
    return at


@njit(nogil=True, cache=True)
def _digits(at: int) -> int:
    while 0x30 <= load_u8(at) <= 0x39:
        at += 1
    return at


@njit(nogil=True, cache=True)
def _space(at: int) -> int:
    """The first address that holds no blank. A newline ends the line, so it is none here."""
    while True:
        octet = load_u8(at)
        if octet != 0x20 and octet != 0x09 and octet != 0x0D:
            return at
        at += 1


@njit(nogil=True, cache=True)
def _find_newline(at: int) -> int:
    while load_u8(at) != _NEWLINE:
        at += 1
    return at
