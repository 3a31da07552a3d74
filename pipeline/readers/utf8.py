"""UTF-8 validation of Arrow columns and, for kernels, at an address.

Follows table 3-7 of the Unicode standard ("Well-Formed UTF-8 Byte Sequences").
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from winnow.text.buffers import Octets, Offsets, load_u8, string_buffers
from winnow.text.vectors import BLOCK, not_ascii, trailing_zeros


def utf8_rows(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Which of n values are UTF-8: bool [n]. Binary or string values, without nulls."""
    data, offsets = string_buffers(values)
    # Vector loads may read beyond the last value.
    if offsets[-1] + BLOCK > len(data):
        data = np.concatenate([data, np.zeros(BLOCK, np.uint8)])
    rows: npt.NDArray[np.bool_] = _rows(data, offsets)
    return rows


@njit(nogil=True, cache=True)
def _rows(data: Octets, offsets: Offsets) -> npt.NDArray[np.bool_]:
    base = data.ctypes.data
    out = np.empty(len(offsets) - 1, np.bool_)
    for i in range(len(out)):
        out[i] = is_utf8(base + np.int64(offsets[i]), base + np.int64(offsets[i + 1]))
    return out


@njit(nogil=True, cache=True)
def is_utf8(at: int, end: int) -> bool:
    """Whether the bytes of ``[at, end)`` are UTF-8. Up to 32 bytes after ``end`` are read."""
    while at < end:
        high = not_ascii(at)
        if high == 0:
            at += BLOCK
            continue
        at += trailing_zeros(high)
        # Letters outside ASCII come in runs.
        while at < end:
            lead = load_u8(at)
            if lead < 0x80:
                break
            second = load_u8(at + 1)
            if 0xC2 <= lead <= 0xDF:
                length = 2
                good = second & 0xC0 == 0x80
            elif 0xE0 <= lead <= 0xEF:
                length = 3
                low = 0xA0 if lead == 0xE0 else 0x80
                top = 0x9F if lead == 0xED else 0xBF
                good = low <= second <= top and load_u8(at + 2) & 0xC0 == 0x80
            elif 0xF0 <= lead <= 0xF4:
                length = 4
                low = 0x90 if lead == 0xF0 else 0x80
                top = 0x8F if lead == 0xF4 else 0xBF
                good = low <= second <= top and load_u8(at + 2) & 0xC0 == 0x80
                good = good and load_u8(at + 3) & 0xC0 == 0x80
            else:
                return False
            if not good:
                return False
            at += length
            if at > end:
                return False
    return True
