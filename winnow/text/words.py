"""The normaliser, which defines a word in every script.

Version 1, the same in training and serving:

* Text counts as NFC: documents that NFC would change are normalised first (:func:`nfc`).
* Letters, marks and numbers form words; case is folded character by character, in every script.
* Each character of a script written without spaces (Han, kana, Thai, Khmer, …) is a word, and so is
  each punctuation mark and symbol (which adds 0.006 to 0.016 of held-out ROC-AUC).
* Format characters (soft hyphen, zero-width joiners, byte order mark) and variation selectors are
  ignored: they neither separate words nor change them.
* All else separates words: white space, controls, NUL, unassigned and private code points.
"""

import lzma
import unicodedata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from winnow.text.buffers import Octets, Offsets, load_u8, load_u32, load_u64, string_buffers

VERSION = 1

# An entry of the table: bits 0-20 the folded code point (0 separates words, 1 is ignored),
# bits 21-28 the canonical combining class, bit 30 may change under NFC, bit 31 a word by itself.
FOLDED = np.uint32(0x1FFFFF)
SEPARATOR = np.uint32(0)
IGNORED = np.uint32(1)
SOLO = np.uint32(1 << 31)
_CLASS = np.uint32(0xFF << 21)
_UNSTABLE = np.uint32(1 << 30)

NOT_ASCII = np.uint64(0x8080808080808080)

Table = npt.NDArray[np.uint32]


UNICODE = Path(__file__).with_name("unicode.xz")
"""Differences of neighbouring entries: uint32 [0x110000], written by make_unicode_data.py."""

TABLE: Table = np.frombuffer(lzma.decompress(UNICODE.read_bytes()), "<u4").cumsum(dtype=np.uint32)


def nfc(text: pa.Array) -> pa.Array:
    """The text in Unicode normal form C; the array itself if nothing can change."""
    suspects, normal = suspects_in_nfc(text)
    return pc.replace_with_mask(text, suspects, normal) if len(normal) else text


def suspects_in_nfc(text: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Which of n texts may not be in normal form C (bool [n]), and these in normal form.

    Only documents with a code point that NFC may change, or with marks out of order, become Python
    strings; finding them is cheap compared with scoring. (Arrow 25's ``utf8_normalize`` does not
    compose: its NFC is NFD.)
    """
    suspects = pa.array(_suspects(*string_buffers(text), TABLE))
    normal = [unicodedata.normalize("NFC", value) for value in text.filter(suspects).to_pylist()]
    return suspects, pa.array(normal, text.type)


@njit(nogil=True, cache=True)
def _suspects(data: Octets, offsets: Offsets, table: Table) -> npt.NDArray[np.bool_]:
    base, entries = data.ctypes.data, table.ctypes.data
    found = np.empty(len(offsets) - 1, np.bool_)
    for i in range(len(found)):
        start = base + np.int64(offsets[i])
        found[i] = _is_suspect(start, base + np.int64(offsets[i + 1]), entries)
    return found


@njit(nogil=True, cache=True)
def _is_suspect(position: int, end: int, table: int) -> bool:
    before = np.uint32(0)
    while position < end:
        if position + 8 <= end and load_u64(position) & NOT_ASCII == 0:
            position += 8
            before = np.uint32(0)
            continue
        entry, position = next_entry(position, end, table)
        rank = entry & _CLASS
        if entry & _UNSTABLE or (rank != 0 and rank < before):
            return True
        before = rank
    return False


@njit(nogil=True, cache=True)
def next_entry(position: int, end: int, table: int) -> tuple[np.uint32, int]:
    """The table entry of the character at an address before ``end``, and the next address.

    ``table`` is the address of :data:`TABLE`. Bytes that are not UTF-8 give some entry, but never a
    read beyond ``end``.
    """
    point = np.uint32(load_u8(position))
    if point < 0x80:
        return load_u32(int(table + 4 * np.int64(point))), position + 1
    if point < 0xE0:
        length = 2
        point &= np.uint32(0x1F)
    elif point < 0xF0:
        length = 3
        point &= np.uint32(0x0F)
    else:
        length = 4
        point &= np.uint32(0x07)
    if position + length > end:
        return np.uint32(0), end
    for k in range(1, length):
        point = point << np.uint32(6) | np.uint32(load_u8(position + k)) & np.uint32(0x3F)
    if point >= 0x110000:
        return np.uint32(0), position + length
    return load_u32(int(table + 4 * np.int64(point))), position + length
