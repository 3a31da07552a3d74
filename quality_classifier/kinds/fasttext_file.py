"""The settings, dictionary and matrix offsets of a fastText ``.bin``.

The layout is that of fastText 0.9 (``args.cc``, ``dictionary.cc``, ``densematrix.cc``): a magic
number and a version; the settings; the words, then the labels, each ended by a NUL and followed by
its count (8 bytes) and type (1 byte); pairs of a pruned dictionary; a byte that flags a quantised
input matrix, and that matrix; the same for the output matrix. A dense matrix is two int64, rows and
columns, and float32 values row by row.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

from winnow.text.buffers import Octets

MAGIC = 793712314
SUPERVISED = 3
SOFTMAX = 3

_HEAD = struct.Struct("<2i12id3i2q")
_SHAPE = struct.Struct("<2q")
_WORD, _LABEL = 0, 1


@dataclass(frozen=True)
class FastTextFile:
    """Everything but the dense matrices that affects the scores of a supervised model.

    Attributes:
        words: uint8, the concatenated bytes of all words.
        offsets: int64 [n_words + 1], where each word begins in ``words``.
        labels: their names, in the order of the output matrix.
        input_at, output_at: file offsets of the matrices' values; None if the input is quantised.
        rows: number of rows of the input matrix; those of the words come first.
    """

    path: Path
    dim: int
    word_ngrams: int
    loss: int
    buckets: int
    min_characters: int
    max_characters: int
    words: Octets
    offsets: npt.NDArray[np.int64]
    labels: list[str]
    input_at: int | None
    output_at: int
    rows: int

    def output(self) -> npt.NDArray[np.float32]:
        """The output matrix: float32 [labels, dim]."""
        count = len(self.labels) * self.dim
        values = np.fromfile(self.path, "<f4", count=count, offset=self.output_at)
        return values.reshape(len(self.labels), self.dim)


def read(path: Path) -> FastTextFile:
    """Read all but the matrices; ValueError if the file is not a whole supervised model."""
    size = path.stat().st_size
    if size < _HEAD.size:
        raise ValueError(f"{path} is not a fastText model")
    data: Octets = np.asarray(np.memmap(path, np.uint8, "r"))
    fields = _HEAD.unpack(data[: _HEAD.size].tobytes())
    magic, version, dim, _, _, _, _, word_ngrams, loss, kind, buckets, least, most = fields[:13]
    entries, n_words, n_labels, _, pruned = fields[15:]
    if magic != MAGIC:
        raise ValueError(f"{path} is not a fastText model")
    if kind != SUPERVISED:
        raise ValueError(f"{path} holds word vectors, not a classifier")
    damaged = ValueError(f"{path} is cut off or damaged")
    if min(dim, n_words, n_labels) < 0 or entries != n_words + n_labels or n_labels > size:
        raise damaged
    bounds, at = _entries(data, _HEAD.size, entries)
    if at < 0:
        raise damaged
    kinds = data[bounds[:, 1] + 9]
    if (kinds[:n_words] != _WORD).any() or (kinds[n_words:] != _LABEL).any():
        raise damaged
    spans = bounds[:n_words]
    offsets = np.append(0, np.cumsum(spans[:, 1] - spans[:, 0]))
    try:
        labels = [data[a:b].tobytes().decode() for a, b in bounds[n_words:]]
    except UnicodeDecodeError:
        raise damaged from None
    at += 8 * max(pruned, 0)
    input_at, rows = None, 0
    output_at = size - 4 * n_labels * dim
    shape = _SHAPE.pack(n_labels, dim)
    if at >= output_at - len(shape) or data[output_at - len(shape) : output_at].tobytes() != shape:
        raise ValueError(f"{path} is cut off or damaged (or its output is quantised)")
    if data[at] == 0:
        rows, columns = _SHAPE.unpack(data[at + 1 : at + 17].tobytes().ljust(16))
        input_at = at + 17
        whole = columns == dim and input_at + 4 * rows * dim + 17 == output_at
        if not whole or rows < n_words + (buckets if word_ngrams > 1 or most > 0 else 0):
            raise damaged
    if version == 11:  # before 2017: classifiers had no parts of words
        most = 0
    settings = dim, word_ngrams, loss, buckets, least, most
    words = _gather(data, spans, offsets)
    input_at = input_at if pruned < 0 else None
    return FastTextFile(path, *settings, words, offsets, labels, input_at, output_at, rows)


@njit(nogil=True, cache=True)
def _entries(data: Octets, at: int, count: int) -> tuple[npt.NDArray[np.int64], int]:
    """Start and end of each entry's name [count, 2], and the end of all, -1 if truncated."""
    bounds = np.zeros((min(count, len(data)), 2), np.int64)
    for i in range(count):
        bounds[i, 0] = at
        while at < len(data) and data[at] != 0:
            at += 1
        if at + 10 > len(data):
            return bounds, -1
        bounds[i, 1] = at
        at += 10
    return bounds, at


@njit(nogil=True, cache=True)
def _gather(
    data: Octets, spans: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    words = np.empty(offsets[-1], np.uint8)
    for i in range(len(spans)):
        words[offsets[i] : offsets[i + 1]] = data[spans[i, 0] : spans[i, 1]]
    return words
