"""Training batches of an arm: packed rows that depend on seed and step alone.

Row r of the global stream is a slice of a document sequence (``model/data/order.py``): S entries
and, shifted by one, their targets. A document that does not fit continues in the next row as a new
segment. There is no padding. Steps can be read in any order, by any number of ranks.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from model.data.controls import Controls, Damage
from model.data.corpus import Corpus, IntArray
from model.data.order import DocumentSequence, Interleaving, mixture_groups
from winnow.filesystem import files


class Batch(NamedTuple):
    """One rank's rows: ``tokens`` and ``targets`` are int64 [B, S], ``segments`` int32 [B, S].

    Segments are pieces of documents, numbered from 1 in each row; attention stays within one.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor


class TokenStream:
    """The endless batches of one arm, indexed by step.

    The seed keys the order of documents. A global batch has ``batch_size`` rows of S =
    ``sequence_length`` entries; each rank reads an equal share. ``mixture`` gives the weight of
    each component (:mod:`model.data.components`), and each row holds one component; without it,
    sources come in their natural proportions. Raises ValueError if arm, mixture and sizes do not
    match.
    """

    def __init__(
        self,
        corpus: Corpus,
        arm: str,
        seed: int,
        sequence_length: int,
        batch_size: int,
        mixture: Mapping[str, float] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world:
            raise ValueError(f"a batch of {batch_size} rows cannot be shared by {world} ranks")
        assert 0 <= rank < world
        chosen = corpus.arm(arm)
        groups = mixture_groups(corpus, chosen, mixture)
        self._interleaving = Interleaving([weight for weight, _ in groups.values()])
        controls = Controls.of(chosen.about)
        counts = self._interleaving.shares
        self._shares: list[float] = (counts / counts.sum()).tolist()
        read = [
            controls.documents(corpus, documents, seed, share)
            for (_, documents), share in zip(groups.values(), self._shares, strict=True)
        ]
        self._damage = Damage.of(controls, corpus, np.concatenate(read), seed)
        self._sequences = [DocumentSequence(corpus, docs, seed, self._damage) for docs in read]
        self._corpus = corpus
        self._rank_rows = batch_size // world
        self._rank = rank
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.epoch_targets = sum(sequence.length for sequence in self._sequences)
        if self.epoch_targets < batch_size * sequence_length:
            raise ValueError(
                f"arm {arm!r} has {self.epoch_targets:,} tokens, fewer than one batch of"
                f" {batch_size} x {sequence_length}: take a smaller batch or a larger corpus"
            )
        shares = list(zip(groups, counts.tolist(), strict=True))
        self.fingerprint = files.fingerprint(
            chosen.fingerprint, seed, sequence_length, batch_size, shares
        )

    def batch(self, step: int) -> Batch:
        """One rank's rows of a global batch; raise ValueError if a token is out of range."""
        size, length = self._rank_rows, self.sequence_length
        first_row = step * self.batch_size + self._rank * size
        groups = self._interleaving.groups(first_row, size)
        before = self._interleaving.before(first_row)
        tokens, targets = (np.empty((size, length), np.int64) for _ in range(2))
        segments = np.empty((size, length), np.int32)
        for group in np.unique(groups).tolist():
            rows = np.flatnonzero(groups == group)
            count = len(rows) * length
            entries, ordinals = self._sequences[group].read(int(before[group]) * length, count + 1)
            if entries.max() >= self._corpus.vocabulary:
                raise ValueError(
                    f"token {entries.max()} lies beyond the vocabulary of"
                    f" {self._corpus.vocabulary}: the corpus {self._corpus.folder} is damaged,"
                    " make it again"
                )
            tokens[rows] = entries[:-1].reshape(-1, length)
            targets[rows] = entries[1:].reshape(-1, length)
            documents = ordinals[:-1].reshape(-1, length)
            segments[rows] = documents - documents[:, :1] + 1
        return Batch(*map(torch.from_numpy, (tokens, targets, segments)))

    def check(self, fingerprint: str) -> None:
        """Raise ValueError unless a checkpoint has this stream, for any number of ranks."""
        if fingerprint != self.fingerprint:
            raise ValueError(
                "the checkpoint was trained on another stream (corpus, arm, seed, mixture or batch"
                " shape): use the same ones to resume, or start a new run"
            )

    @property
    def unique_targets(self) -> int:
        """The number of targets before any component of the mixture repeats."""
        pairs = zip(self._sequences, self._shares, strict=True)
        return int(min(sequence.length / share for sequence, share in pairs))

    def documents(self, step: int) -> IntArray:
        """The documents that the batches before ``step`` touch, each once: int64 [n]."""
        rows = self._interleaving.before(step * self.batch_size)
        parts = zip(self._sequences, rows.tolist(), strict=True)
        return np.concatenate([s.begun(n * self.sequence_length) for s, n in parts])

    def texts(self, step: int) -> IntArray:
        """The distinct texts that the batches before ``step`` touch: int64 [n].

        A document's number, plus the size of the corpus if its words are shuffled.
        """
        documents = self.documents(step)
        if self._damage is None:
            return documents
        return documents + len(self._corpus) * np.isin(documents, self._damage.documents)

    def consumed(self, step: int) -> dict[str, dict[str, float]]:
        """Count the contents of the batches before ``step`` by source.

        As :meth:`DocumentSequence.consumed`, plus ``epochs``: passes over the arm's documents of
        the source, or over its most-read slice.
        """
        rows = step * self.batch_size
        counts: dict[str, dict[str, float]] = {}
        pairs = zip(self._sequences, self._interleaving.before(rows).tolist(), strict=True)
        for sequence, group_rows in pairs:
            position = group_rows * self.sequence_length
            for source, value in sequence.consumed(position).items():
                epochs = position / sequence.length
                before = counts.setdefault(source, {**dict.fromkeys(value, 0), "epochs": epochs})
                before |= {name: before[name] + count for name, count in value.items()}
                before["epochs"] = max(before["epochs"], epochs)
        return counts

    def totals(self, step: int) -> dict[str, float]:
        """Unique and repeated tokens, and mean epochs, of the batches before ``step``."""
        counts = self.consumed(step).values()
        total = sum(int(count["targets"]) for count in counts)
        unique = sum(int(count["unique_targets"]) for count in counts)
        repeated = total - unique
        return {"unique_tokens": unique, "repeated_tokens": repeated, "epochs": total / unique}
