r"""Turns JSON arrays (``[{"text": "a"}, …]``) and objects of several lines into JSON lines.

Every byte keeps its offset: the brackets of the array and newlines within a value become blanks,
commas between values become newlines.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.readers.contract import Quarantine
from pipeline.readers.inflate import Damage
from winnow.text.buffers import Octets

State = npt.NDArray[np.int64]

_DEPTH, _STRING, _ESCAPE, _MIDDLE, _ARRAY = range(5)
"""The number of open brackets; whether we are in a string, after a backslash, within a line outside
values; whether the outermost bracket is square."""

_QUOTE, _BACKSLASH, _NEWLINE, _BLANK, _COMMA = (ord(c) for c in '"\\\n ,')
_OPEN, _CLOSE, _LIST, _END_LIST = (ord(c) for c in "{}[]")
_BOM = 0xEF, 0xBB, 0xBF


def value_lines(
    pieces: Iterator[bytes | Damage], quarantine: Quarantine
) -> Iterator[bytes | Damage]:
    """The bytes of a stream, with each value of its arrays and each object on one line.

    Other bytes do not change. After damage it is unknown where a value starts, so the rest of the
    file is lost.
    """
    state = np.zeros(5, np.int64)
    size = 0
    for piece in pieces:
        if isinstance(piece, Damage):
            yield piece
            for _ in pieces:  # the digest covers the whole file
                pass
            return
        data = np.frombuffer(bytearray(piece), np.uint8)
        _unwrap(data, state)
        size += len(piece)
        yield data.tobytes()
    if state[_DEPTH]:
        quarantine.add(size, "byte", "bad_json", "the file ends within an array or object")


@njit(nogil=True, cache=True)
def _unwrap(data: Octets, state: State) -> None:
    depth, string, escape, middle, array = state[0], state[1], state[2], state[3], state[4]
    for i in range(len(data)):
        octet = data[i]
        if string:
            if escape:
                escape = 0
            elif octet == _BACKSLASH:
                escape = 1
            elif octet == _QUOTE:
                string = 0
        elif depth == 0:
            if octet == _NEWLINE:
                middle = 0
            elif octet == _LIST and not middle:
                data[i] = _BLANK
                depth = array = 1
            elif octet == _OPEN and not middle:
                depth = middle = 1
                array = 0
            elif octet > _BLANK and octet not in _BOM:
                middle = 1
        elif octet == _QUOTE:
            string = 1
        elif octet == _NEWLINE:
            data[i] = _BLANK
        elif octet in (_OPEN, _LIST):
            depth += 1
        elif octet == _COMMA and depth == 1 and array:
            data[i] = _NEWLINE
        elif octet in (_CLOSE, _END_LIST):
            depth -= 1
            if depth == 0 and array:
                data[i] = _NEWLINE
                middle = 0
    state[0], state[1], state[2], state[3], state[4] = depth, string, escape, middle, array
