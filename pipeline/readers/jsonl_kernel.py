"""Validates JSON lines and copies the wanted values into Arrow's buffers, as a compiled kernel.

Every line must end in a newline. It stops every scan, because JSON allows no control characters in
strings. The kernel accepts what ``json.loads`` accepts: RFC 8259, ``NaN`` and ``Infinity``; the
last of repeated keys wins.

Wanted keys form a tree: ``metadata.url`` is two nodes, and one more at the top for a key with that
name, which wins.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.readers.json_scan import (
    MAX_DEPTH,
    after_space,
    find_newline,
    string_end,
    unescape,
    value_end,
)
from pipeline.readers.utf8 import is_utf8
from winnow.text.buffers import Octets, load_u8
from winnow.text.vectors import BLOCK, copy_block, store_u8

Integers = npt.NDArray[np.int64]

# Kinds of lines; all but the first two are quarantined.
GOOD, BLANK, BAD_JSON, NOT_AN_OBJECT, MISSING_TEXT, WRONG_TYPE, LONE_SURROGATE = range(7)
INVALID_UTF8, TOO_LONG = 7, 8

# The columns of a node.
SCOPE, NAME_END, FIELD, OPENS = range(4)

# Kinds of values of a wanted field.
_ABSENT, _NULL, _STRING, _OTHER, _LONE = range(5)

_QUOTE, _BACKSLASH, _NEWLINE = ord('"'), ord("\\"), ord("\n")
_OPEN, _CLOSE, _LIST, _END_LIST, _COMMA, _COLON = (ord(c) for c in "{}[],:")


class Wanted(NamedTuple):
    """The keys to look for."""

    names: Octets  # the concatenated names of the nodes, and 32 bytes to spare (uint8)
    nodes: Integers
    """int64 [n, 4], parents first: the object that has the key (0 is the line itself), where its
    name ends, the field that its value fills (or -1), the object that its value opens (or 0)."""
    text_field: int  # a string, or a list of strings if there is a separator
    separator: Octets  # uint8: 1 and the separator of such a list, or 0 for none


class Columns(NamedTuple):
    """The buffers to fill."""

    values: Octets
    """uint8 [fields + 1, the lines' bytes + 64, or more if the separator has over three bytes];
    the last row is scratch."""
    offsets: Integers  # int64 [fields, rows + 1]; the first column must be 0
    valid: npt.NDArray[np.bool_]  # bool [fields, rows]


class _State(NamedTuple):
    """What a line has for each field; the open objects, and space for all brackets."""

    found: Integers
    lengths: Integers
    at_top: npt.NDArray[np.bool_]
    scopes: Integers
    stack: Octets


@njit(nogil=True, cache=True)
def parse_lines(
    data: Octets,
    start: int,
    stop: int,
    wanted: Wanted,
    max_bytes: int,
    columns: Columns,
    bad: Integers,
) -> tuple[int, int, int]:
    """Parse the lines of ``data[start:stop]`` into ``columns``, as many as these and ``bad`` hold.

    ``data`` (uint8) ends in a newline at ``stop - 1``, and 32 bytes to spare follow. ``bad`` (int64
    [n, 3]) is filled with start, end and kind of each bad line, such as one over ``max_bytes``.

    Returns:
        Where the next line starts, the number of rows, the number of bad lines.
    """
    base = data.ctypes.data
    offsets, valid = columns.offsets, columns.valid
    fields = len(offsets)
    found = np.empty(fields, np.int64)
    lengths = np.empty(fields, np.int64)
    at_top = np.empty(fields, np.bool_)
    scopes = np.empty(len(wanted.nodes), np.int64)
    state = _State(found, lengths, at_top, scopes, np.empty(MAX_DEPTH, np.uint8))
    row = bads = 0
    line = base + start
    end = base + stop
    while line < end and row < valid.shape[1] and bads < len(bad):
        kind, after = _line(line, wanted, columns, row, state)
        if kind in (BAD_JSON, NOT_AN_OBJECT):
            after = find_newline(line)
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
            bad[bads] = line - base, after - base, kind
            bads += 1
        line = after + 1
    return line - base, row, bads


@njit(nogil=True, cache=True)
def _line(at: int, wanted: Wanted, columns: Columns, row: int, state: _State) -> tuple[int, int]:
    """The kind of the line at an address, and the address of its newline (good and blank lines)."""
    nodes, text_field, separator = wanted.nodes, wanted.text_field, wanted.separator
    values = columns.values
    found, lengths, at_top, scopes, stack = state
    at = after_space(at)
    first = load_u8(at)
    if first == _NEWLINE:
        return BLANK, at
    if first != _OPEN:
        at = value_end(at, stack)
        whole = at != 0 and load_u8(after_space(at)) == _NEWLINE
        return NOT_AN_OBJECT if whole else BAD_JSON, 0
    found[:] = _ABSENT
    at_top[:] = False
    depth = scope = 0
    at = after_space(at + 1)
    within = load_u8(at) != _CLOSE
    if not within:
        at += 1
    while within:
        if load_u8(at) != _QUOTE:
            return BAD_JSON, 0
        key = at + 1
        at = string_end(key)
        if at == 0:
            return BAD_JSON, 0
        node = _node(key, at - 1, scope, wanted, values)
        at = after_space(at)
        if load_u8(at) != _COLON:
            return BAD_JSON, 0
        value = at = after_space(at + 1)
        field = nodes[node, FIELD] if node >= 0 else -1
        opens = nodes[node, OPENS] if node >= 0 else 0
        if opens != 0:
            _forget(opens, nodes, found, at_top)
        if field >= 0 and not (scope != 0 and at_top[field]):
            target = values.ctypes.data + field * values.shape[1] + columns.offsets[field, row]
            if field == text_field and separator[0] and load_u8(at) == _LIST:
                at, found[field], lengths[field] = _joined(at, target, separator, stack)
            else:
                at, found[field], lengths[field] = _wanted(at, target, stack)
            at_top[field] = scope == 0
        elif opens == 0 or load_u8(at) != _OPEN:
            at = value_end(at, stack)
        if at == 0:
            return BAD_JSON, 0
        if opens != 0 and load_u8(value) == _OPEN:
            at = after_space(value + 1)
            if load_u8(at) != _CLOSE:
                scopes[depth] = scope
                depth += 1
                scope = opens
                continue
            at += 1
        while True:
            at = after_space(at)
            after = load_u8(at)
            at += 1
            if after == _COMMA:
                at = after_space(at)
                break
            if after != _CLOSE:
                return BAD_JSON, 0
            if depth == 0:
                within = False
                break
            depth -= 1
            scope = scopes[depth]
    at = after_space(at)
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
    """Drop the fields of an earlier object with the same key: the last of repeated keys wins."""
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
    """Copy the value at an address, unescaped: its end (0 if not JSON), kind and written bytes."""
    first = load_u8(at)
    if first == _QUOTE:
        end, length, lone = unescape(at + 1, target)
        return end, _LONE if lone else _STRING, length
    end = value_end(at, stack)
    if first == ord("n"):
        return end, _NULL, 0
    if end != 0:
        for done in range(0, end - at, BLOCK):
            copy_block(target + done, at + done)
    return end, _OTHER, end - at


@njit(nogil=True, cache=True)
def _joined(at: int, target: int, separator: Octets, stack: Octets) -> tuple[int, int, int]:
    """As :func:`_wanted`, for a list of strings: joins them by the separator."""
    out = target
    kind = _STRING
    at = after_space(at + 1)
    if load_u8(at) == _END_LIST:
        return at + 1, _STRING, 0
    while True:
        if load_u8(at) == _QUOTE:
            at, length, lone = unescape(at + 1, out)
            out += length
            if lone and kind == _STRING:
                kind = _LONE
        else:
            kind = _NULL if load_u8(at) == ord("n") and kind != _OTHER else _OTHER
            at = value_end(at, stack)
        if at == 0:
            return 0, kind, 0
        at = after_space(at)
        after = load_u8(at)
        if after == _END_LIST:
            return at + 1, kind, out - target
        if after != _COMMA:
            return 0, kind, 0
        at = after_space(at + 1)
        for i in range(1, len(separator)):
            store_u8(out, separator[i])
            out += 1


@njit(nogil=True, cache=True)
def _node(key: int, end: int, scope: int, wanted: Wanted, values: Octets) -> int:
    """The node of the key ``[key, end)``, which may hold escapes, in an object; -1 if unwanted."""
    names, nodes = wanted.names, wanted.nodes
    length = end - key
    for at in range(key, end):
        if load_u8(at) == _BACKSLASH:
            scratch = values.ctypes.data + (values.shape[0] - 1) * values.shape[1]
            _, length, lone = unescape(key, scratch)
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
