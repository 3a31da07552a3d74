"""Held-out documents of one source, for bits per byte.

Every token and the end of every document are predicted once. Documents longer than S targets are
cut into windows of S, which see only the one token before them. Windows are packed in order into
rows, each as a separate segment. Bits per byte of a set of documents are

    sum over targets of -log2 p(target) / sum of UTF-8 bytes
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from model.data.corpus import Corpus, IntArray
from model.data.order import held_out_documents
from model.glam.loss import IGNORE


class HeldOutBatch(NamedTuple):
    """``tokens`` and ``targets`` are int64 [B, S], ``segments`` int32 [B, S].

    ``documents`` (int64 [B, S]) indexes :attr:`HeldOut.documents`. Padding has the target
    :data:`model.glam.loss.IGNORE`, segment 0 and document -1.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor
    documents: torch.Tensor


class HeldOut:
    """Batches of a source's held-out documents, in a fixed order.

    ``documents`` are their numbers in the corpus, ``bytes`` the sizes of their texts: int64 [n].
    A global batch has ``batch_size`` rows of S = ``sequence_length``, the last batch padded; each
    rank reads an equal share. ``limit_bytes`` and errors are those of
    :func:`model.data.order.held_out_documents`.
    """

    def __init__(
        self,
        corpus: Corpus,
        source: str,
        sequence_length: int,
        batch_size: int,
        limit_bytes: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world:
            raise ValueError(f"a batch of {batch_size} rows cannot be shared by {world} ranks")
        documents = held_out_documents(corpus, source, limit_bytes)
        self.documents = documents
        self.bytes = corpus.bytes[documents]
        self._corpus = corpus
        self._length = sequence_length
        self._rank_rows = batch_size // world
        self._rank = rank
        self._batch_size = batch_size
        self._plan = _plan(corpus.lengths[documents] + 1, sequence_length)

    def __len__(self) -> int:
        return -(-(int(self._plan.row[-1]) + 1) // self._batch_size)

    def __iter__(self) -> Iterator[HeldOutBatch]:
        for number in range(len(self)):
            yield self._batch(number * self._batch_size + self._rank * self._rank_rows)

    def _batch(self, first_row: int) -> HeldOutBatch:
        shape, plan = (self._rank_rows, self._length), self._plan
        tokens = np.full(shape, self._corpus.boundary_id, np.int64)
        targets = np.full(shape, IGNORE, np.int64)
        segments = np.zeros(shape, np.int32)
        documents = np.full(shape, -1, np.int64)
        first, last = np.searchsorted(plan.row, [first_row, first_row + self._rank_rows])
        before = -1
        for window in range(first, last):
            document, start = int(plan.document[window]), int(plan.start[window])
            if document != before:
                entries, before = self._entries(int(self.documents[document])), document
            end = start + int(plan.length[window])
            column = int(plan.column[window])
            place = (int(plan.row[window]) - first_row, slice(column, column + end - start))
            tokens[place] = entries[start:end]
            targets[place] = entries[start + 1 : end + 1]
            segments[place] = segments[place[0]].max() + 1
            documents[place] = document
        return HeldOutBatch(*map(torch.from_numpy, (tokens, targets, segments, documents)))

    def _entries(self, document: int) -> IntArray:
        boundary = np.array([self._corpus.boundary_id])
        return np.concatenate([boundary, self._corpus.tokens(document), boundary]).astype(np.int64)


class _Plan(NamedTuple):
    """Windows in order, all int64 [windows]: the targets, and their place in a row."""

    document: IntArray
    start: IntArray
    length: IntArray
    row: IntArray
    column: IntArray


def _plan(targets: IntArray, length: int) -> _Plan:
    """Cut documents into windows, and pack these into rows next-fit."""
    windows, row, used = [], 0, 0
    for document, total in enumerate(targets.tolist()):
        for start in range(0, total, length):
            size = min(length, total - start)
            if used + size > length:
                row, used = row + 1, 0
            windows.append((document, start, size, row, used))
            used += size
    return _Plan(*np.array(windows, np.int64).T)
