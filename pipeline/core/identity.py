"""A document's identity: its id and the hash of its text, the same on every machine."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.hashing import xxh3_128

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def content_hashes(text: pa.Array) -> pa.Array:
    """The xxh3-128 of n texts: fixed_size_binary(16) [n], canonical (big-endian) bytes."""
    halves = xxh3_128(text).astype(">u8")
    return pa.Array.from_buffers(pa.binary(16), len(text), [None, pa.py_buffer(halves.tobytes())])


def identify(ids: pa.Array, source: str, urls: pa.Array, hashes: pa.Array) -> pa.Array:
    """The ids of n documents of one source: string [n], never null or empty.

    A null or empty one (of string [n]) becomes a hash of source, URL (string [n], may be null) and
    the text's :func:`content_hashes`.
    """
    missing = pc.or_kleene(pc.is_null(ids), pc.equal(ids, ""))
    if not pc.any(missing).as_py():
        return ids
    keys = pc.binary_join_element_wise(
        pa.scalar(source), pc.fill_null(urls, ""), hexadecimal(hashes), "\n"
    )
    return pc.if_else(missing, hexadecimal(content_hashes(keys)), ids)


def hexadecimal(hashes: pa.Array) -> pa.Array:
    """The lower-case hex digits of fixed_size_binary(16) [n], as string [n]."""
    octets: npt.NDArray[np.uint8] = np.frombuffer(hashes.buffers()[1], np.uint8)
    octets = octets[hashes.offset * 16 : (hashes.offset + len(hashes)) * 16]
    digits = _DIGITS[np.stack([octets >> 4, octets & 15], axis=1)]
    offsets = np.arange(len(hashes) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(hashes), pa.py_buffer(offsets), pa.py_buffer(digits))
