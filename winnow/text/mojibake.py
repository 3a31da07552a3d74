"""Detect texts that were once decoded with the wrong charset.

U+FFFD replaces bytes that could not be decoded. Mojibake is UTF-8 that was read as windows-1252 or
-1251: ``cafÃ©``, ``itâ€™s``, ``РџСЂРёРІРµС‚``. One occurrence suffices if no language writes such a
sequence; sequences that occur in real text (``Ã`` before a quotation mark) take three in a row.
"""

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from winnow.text.buffers import Octets, Offsets, load_u64, string_buffers

KINDS = ("clean", "mojibake", "U+FFFD", "mojibake, U+FFFD")

_MOJIBAKE, _REPLACED = 1, 2
_HIGH = np.uint64(0x8080808080808080)
_CODE_POINTS = 0x2200  # past the last one of either charset
_IN_A_ROW = 3


def _bytes_of(charset: str) -> Octets:
    """The byte of each code point, 0 if the charset lacks it or shares it with ASCII."""
    table = np.zeros(_CODE_POINTS, np.uint8)
    table[0x80:0xA0] = np.arange(0x80, 0xA0)  # as in ISO-8859-1, and in browsers
    for byte in range(0x80, 0x100):
        character = bytes([byte]).decode(charset, "ignore")
        if character:
            table[ord(character)] = byte
    return table


_WINDOWS_1252 = _bytes_of("cp1252")
_WINDOWS_1251 = _bytes_of("cp1251")

_AFTER_C2 = np.zeros(256, np.bool_)
_AFTER_C2[0xA0:0xC0] = True
_AFTER_C2[0xBB] = False
_AFTER_C3 = np.zeros(256, np.bool_)
_AFTER_C3[0x80:0xC0] = True
_AFTER_C3[list("…‘’“”•–—›\xa0»".encode("cp1252"))] = False
_AFTER_E2 = np.zeros(256, np.bool_)
_AFTER_E2[list("€„†ˆ‰".encode("cp1252"))] = True


def faults(text: pa.Array) -> pa.Array:
    """One of :data:`KINDS` for each of n texts without nulls."""
    octets, offsets = string_buffers(text)
    found = _faults(octets, offsets, _WINDOWS_1252, _WINDOWS_1251, _AFTER_C2, _AFTER_C3, _AFTER_E2)
    return pa.array(KINDS).take(pa.array(found))


@nb.njit(nogil=True, cache=True)
def _faults(
    octets: Octets,
    offsets: Offsets,
    latin: Octets,
    cyrillic: Octets,
    after_c2: npt.NDArray[np.bool_],
    after_c3: npt.NDArray[np.bool_],
    after_e2: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int8]:
    base = octets.ctypes.data
    found = np.zeros(len(offsets) - 1, np.int8)
    for i in range(len(offsets) - 1):
        at, end = offsets[i], offsets[i + 1]
        fault = 0
        # For each charset: the first byte of the current character, the number of bytes that it
        # still lacks, and of complete characters directly before it.
        lead = lead_1251 = second = 0
        lacks = row = lacks_1251 = row_1251 = 0
        while at < end:
            first = octets[at]
            if first < 0x80:
                lacks = row = lacks_1251 = row_1251 = 0
                at += 1
                while at + 8 <= end and load_u64(base + at) & _HIGH == 0:
                    at += 8
                continue
            if first < 0xE0:
                point = (first & 0x1F) << 6 | (octets[at + 1] & 0x3F)
                at += 2
            elif first < 0xF0:
                point = (
                    (first & 0x0F) << 12 | (octets[at + 1] & 0x3F) << 6 | (octets[at + 2] & 0x3F)
                )
                at += 3
            else:
                point = _CODE_POINTS
                at += 4
            if point >= _CODE_POINTS:
                if point == 0xFFFD:
                    fault |= _REPLACED
                lacks = row = lacks_1251 = row_1251 = 0
                continue
            if fault & _MOJIBAKE:
                continue

            sure = False
            byte = latin[point]
            if byte == 0:
                lacks = row = 0
            else:
                before = lacks
                lead, lacks, row = _next(byte, lead, lacks, row)
                if before == 2:
                    second = byte
                    sure = lead == 0xE2 and lacks == 1 and after_e2[byte]
                elif before == 1 and lacks == 0:
                    control = point < 0xA0
                    if lead == 0xC2:
                        sure = control or after_c2[byte]
                    elif 0xC3 <= lead <= 0xC5:
                        sure = control or after_c3[byte]
                    elif lead == 0xEF:  # a byte order mark, or U+FFFD
                        sure = (second == 0xBB and byte == 0xBF) or (
                            second == 0xBF and byte == 0xBD
                        )
                sure |= row >= _IN_A_ROW

            # Other lead bytes are letters of windows-1251 that are common before the rest.
            byte = cyrillic[point]
            if lacks_1251 == 0 and byte != 0xD0 and byte != 0xD1 and byte != 0xE2:
                row_1251 = 0
            else:
                before = lacks_1251
                lead_1251, lacks_1251, row_1251 = _next(byte, lead_1251, lacks_1251, row_1251)
                if lead_1251 == 0xE2:
                    row_1251 = 0
                    sure |= before == 2 and lacks_1251 == 1 and byte == 0x80
                elif lead_1251 != 0xD0 and lead_1251 != 0xD1:
                    lacks_1251 = row_1251 = 0
                sure |= row_1251 >= _IN_A_ROW
            if sure:
                fault |= _MOJIBAKE
        found[i] = fault
    return found


@nb.njit(nogil=True, cache=True, inline="always")
def _next(byte: int, lead: int, lacks: int, row: int) -> tuple[int, int, int]:
    """The state after one more byte, if the bytes were UTF-8."""
    if lacks and 0x80 <= byte < 0xC0:
        return lead, lacks - 1, row + (lacks == 1)
    if lacks or byte < 0xC2 or byte > 0xF4:
        row = 0
    if byte < 0xC2 or byte > 0xF4:
        return 0, 0, 0
    return byte, 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3, row
