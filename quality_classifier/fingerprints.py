"""Fingerprints of a classifier's training documents, whose scores say nothing about quality."""

import io

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from winnow.text.hashing import xxh3_128

NAME = "trained_on.npy"

Keys = npt.NDArray[np.uint64]


def of_texts(text: pa.ChunkedArray) -> Keys:
    """The keys of n texts, sorted: uint64 [n], the upper halves of their xxh3-128."""
    chunks = [xxh3_128(chunk)[:, 0] for chunk in text.chunks]
    return np.sort(np.concatenate([np.empty(0, np.uint64), *chunks]))


def of_hashes(hashes: pa.Array) -> Keys:
    """The keys of n content hashes (fixed_size_binary(16), big-endian): uint64 [n]."""
    halves = np.frombuffer(hashes.buffers()[1], ">u8", count=2 * (hashes.offset + len(hashes)))
    return halves[2 * hashes.offset :: 2].astype(np.uint64)


def dumps(keys: Keys) -> bytes:
    file = io.BytesIO()
    np.save(file, keys.astype("<u8"), allow_pickle=False)
    return file.getvalue()
