"""The reading order of documents, keyed by their ids, so that arms read nested streams.

A hash of seed, epoch and id gives every document of the raw pool a sort key. An arm therefore reads
its documents in the pool's order, skipping those that it lacks. With a mixture this holds for each
component (a source, or a slice of one); the weights alone decide which component fills a row. A
document with several copies has a key per copy, the first that of a single copy.

Documents form one endless sequence, a boundary before each:

    B a a a B b b B c c c c B …

A position's target is the next entry. A document of n tokens has n + 1 targets, the boundary last.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.data import components
from model.data.arms import Arm
from model.data.controls import Damage, mixed
from model.data.corpus import Corpus, IntArray

FEWEST = 2
"""Minimum number of held-out documents per source: a single one gives no error estimate."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

CYCLE = 10_000
"""Period of the interleaving in rows; mixture weights are rounded to 1/CYCLE."""


def order_keys(id_hash: npt.NDArray[np.uint64], seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    """Sort keys of n documents: uint64 [n], a different bijection for each seed and epoch."""
    return mixed(id_hash, f"order {seed} {epoch}")


@dataclass(frozen=True)
class Epoch:
    """One pass: documents in reading order [n], and the positions of their boundaries [n + 1]."""

    documents: IntArray
    starts: IntArray


class DocumentSequence:
    """The endless sequence of documents for one seed, epoch after epoch.

    ``documents`` is int64 [n], sorted; repeats are copies, which every epoch reads.
    """

    def __init__(
        self, corpus: Corpus, documents: IntArray, seed: int, damage: Damage | None = None
    ) -> None:
        assert len(documents)
        self._damage = damage
        self._corpus = corpus
        self._documents = documents
        self._seed = seed
        # The copy number of each entry. Multiples of the golden ratio's bits tell copies apart.
        self._copies = np.arange(len(documents)) - np.searchsorted(documents, documents)
        self._hashes = corpus.id_hash[documents] + self._copies.astype(np.uint64) * _GOLDEN
        self.epoch = functools.lru_cache(maxsize=2)(self._epoch)
        self.length = int((corpus.lengths[documents] + 1).sum())

    def _epoch(self, number: int) -> Epoch:
        keys = order_keys(self._hashes, self._seed, number)
        documents = self._documents[np.argsort(keys, kind="stable")]
        starts = np.zeros(len(documents) + 1, np.int64)
        np.cumsum(self._corpus.lengths[documents] + 1, out=starts[1:])
        return Epoch(documents, starts)

    def read(self, start: int, count: int) -> tuple[IntArray, IntArray]:
        """Entries ``start`` to ``start + count``, and their documents' ordinals: int64 [count].

        Ordinals count documents over all epochs.
        """
        entries, ordinals = np.empty(count, np.int64), np.empty(count, np.int64)
        done = 0
        while done < count:
            number, offset = divmod(start + done, self.length)
            size = min(count - done, self.length - offset)
            piece = slice(done, done + size)
            self._read_epoch(self.epoch(number), offset, entries[piece], ordinals[piece])
            ordinals[piece] += number * len(self._documents)
            done += size
        return entries, ordinals

    def _read_epoch(self, epoch: Epoch, offset: int, entries: IntArray, ordinals: IntArray) -> None:
        end = offset + len(entries)
        first = int(np.searchsorted(epoch.starts, offset, side="right")) - 1
        last = int(np.searchsorted(epoch.starts, end, side="left"))
        places = epoch.starts[first:last] - offset
        entries[places[places >= 0]] = self._corpus.boundary_id
        self._corpus.copy_tokens(epoch.documents[first:last], places + 1, entries)
        if self._damage is not None:
            self._damage.apply(epoch.documents[first:last], places + 1, entries)
        edges = np.clip(epoch.starts[first : last + 1], offset, end)
        ordinals[:] = np.repeat(np.arange(first, last), np.diff(edges))

    def consumed(self, position: int) -> dict[str, dict[str, int]]:
        """Count the first ``position`` targets by source.

        ``targets``, ``documents`` begun, and ``unique_…`` for those read for the first time.
        """
        epochs, offset = divmod(position, self.length)
        whole = self._count(self._documents, self._corpus.lengths[self._documents] + 1)
        epoch = self.epoch(epochs)
        begun = int(np.searchsorted(epoch.starts, offset, side="left"))
        read = np.diff(np.minimum(epoch.starts[: begun + 1], offset))
        part = self._count(epoch.documents[:begun], read)
        first = self._first(self._documents if epochs else epoch.documents[:begun])
        once = self._documents[first]
        unique = (
            self._count(once, self._corpus.lengths[once] + 1)
            if epochs
            else self._count(epoch.documents[first], read[first])
        )
        out: dict[str, dict[str, int]] = {}
        for index in np.flatnonzero(whole["documents"]).tolist():
            counts = out.setdefault(self._corpus.sources[index], {})
            for unit in ("targets", "documents"):
                counts[unit] = int(epochs * whole[unit][index] + part[unit][index])
                counts[f"unique_{unit}"] = int(unique[unit][index])
        return out

    def begun(self, position: int) -> IntArray:
        """The documents that the first ``position`` entries touch, each once: int64 [n]."""
        if position >= self.length:
            return self._documents[self._first(self._documents)]
        epoch = self.epoch(0)
        read = epoch.documents[: int(np.searchsorted(epoch.starts, position, side="left"))]
        return read[self._first(read)]

    def _first(self, documents: IntArray) -> IntArray:
        """The first index of each distinct document: int64 [distinct], ascending."""
        if not self._copies.any():
            return np.arange(len(documents))
        return np.sort(np.unique(documents, return_index=True)[1])

    def _count(self, documents: IntArray, targets: IntArray) -> dict[str, IntArray]:
        sums = self._corpus.sum_by_source
        return {
            "targets": sums(documents, targets),
            "documents": sums(documents, np.ones_like(documents)),
        }


class Interleaving:
    """Assigns rows to groups, at every row as close to the weights as possible.

    Each row adds every group's share to what it is owed; the group owed most fills the row. With
    one group the cycle is one row.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.shares = _largest_remainders(weights, CYCLE if len(weights) > 1 else 1)
        cycle, owed = int(self.shares.sum()), np.zeros(len(weights), np.int64)
        self._groups = np.empty(cycle, np.int64)
        for row in range(cycle):
            owed += self.shares
            self._groups[row] = owed.argmax()
            owed[self._groups[row]] -= cycle
        self._before = np.zeros((cycle + 1, len(weights)), np.int64)
        self._before[np.arange(1, cycle + 1), self._groups] = 1
        np.cumsum(self._before, axis=0, out=self._before)

    def groups(self, start: int, count: int) -> IntArray:
        """The groups of rows ``start`` to ``start + count``: int64 [count]."""
        return self._groups[np.arange(start, start + count) % len(self._groups)]

    def before(self, row: int) -> IntArray:
        """The number of rows of each group before ``row``: int64 [groups]."""
        cycles, rest = divmod(row, len(self._groups))
        return cycles * self.shares + self._before[rest]


def _largest_remainders(weights: Sequence[float], total: int) -> IntArray:
    """Integers proportional to the weights, with sum ``total``."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * total
    shares = np.floor(exact).astype(np.int64)
    missing = total - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    return shares


def mixture_groups(
    corpus: Corpus, arm: Arm, mixture: Mapping[str, float] | None
) -> dict[str, tuple[float, IntArray]]:
    """Group an arm's documents by mixture component: name → (weight, documents).

    Without a mixture the one group, ``all``, has the sources in their natural proportions. Raises
    ValueError if the mixture does not match the sources of the arm.
    """
    documents = np.flatnonzero(arm.mask)
    if arm.copies is not None:
        documents = np.repeat(documents, arm.copies[documents])
    if not mixture:
        return {"all": (1.0, documents)}
    parts = components.split(corpus, documents, mixture)
    held = {name for name, chosen in parts.items() if len(chosen)}
    there = {corpus.sources[i] for i in np.unique(corpus.source_index[documents]).tolist()}
    if unnamed := sorted(there - {components.parse(n, corpus.sources)[0] for n in mixture}):
        raise ValueError(
            f"data.mixture does not name {', '.join(unnamed)}, of which arm {arm.name!r} has"
            " documents: weight 0 leaves a source out"
        )
    if bad := {name: w for name, w in mixture.items() if not 0 <= w < float("inf")}:
        raise ValueError(f"mixture weights must be 0 or more: {bad}")
    weights = {name: weight for name, weight in mixture.items() if weight > 0}
    if missing := sorted(set(weights) - held):
        raise ValueError(
            f"data.mixture gives weight to {', '.join(missing)}, of which arm {arm.name!r} has no"
            f" documents (it has some of {', '.join(sorted(held | there))}): give weight 0"
        )
    if not weights:
        raise ValueError("every weight of the mixture is 0")
    if small := [n for n, w in weights.items() if w / sum(weights.values()) * CYCLE < 1]:
        raise ValueError(
            f"weights of {', '.join(small)} in data.mixture are under 1/{CYCLE} of the sum: set"
            " them to 0"
        )
    return {name: (weights[name], parts[name]) for name in sorted(weights)}


def held_out_documents(corpus: Corpus, source: str, limit_bytes: int | None = None) -> IntArray:
    """The numbers of a source's held-out documents, int64 [n], in a fixed order.

    Stops before ``limit_bytes``, but not before :data:`FEWEST` documents. Raises ValueError if the
    source is unknown, or has no held-out documents.
    """
    if source not in corpus.sources:
        raise ValueError(f"the corpus has no source {source!r}: it has {corpus.sources}")
    ours = corpus.source_index == corpus.sources.index(source)
    documents = np.flatnonzero(ours & corpus.evaluated)
    documents = documents[np.argsort(order_keys(corpus.id_hash[documents], 0, 0), kind="stable")]
    if limit_bytes is not None:
        fit = int((np.cumsum(corpus.bytes[documents]) <= limit_bytes).sum())
        documents = documents[: max(FEWEST, fit)]
    if not len(documents):
        raise ValueError(
            f"no document of {source!r} is held out: make the corpus with a larger held_out"
        )
    return documents
