r"""Find held-out documents that are near-duplicates of training text, by token n-grams.

python ablations/near_duplicates.py corpus=corpus/

The split is by content hash, so exact copies are never on both sides; this finds mirrored pages,
quotations, templates. A held-out document is a near-duplicate if the raw pool (not an arm: all are
evaluated on the same documents) has at least half of its token 13-grams. The same words give the
same tokens, so token n-grams serve as word n-grams. Hashes are those of :mod:`winnow.text.n_grams`,
but the measure is containment in the pool, not the Jaccard similarity of two documents.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import hydra
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from model.data.corpus import Corpus, open_corpus
from winnow.commands import command_line, overrides
from winnow.filesystem import storage, tables
from winnow.text.n_grams import Hashes, mixed, n_gram_hashes

IntArray = npt.NDArray[np.int64]

N = 13
THRESHOLD = 0.5
"""Defaults: GPT-3's n-gram length, and our threshold on the share of n-grams in the pool."""

BATCH_TOKENS = 1 << 20


@dataclass(frozen=True)
class NearDuplicates:
    """All held-out documents (numbers in the corpus, int64 [n]), and the share of each one's
    n-grams in the pool: float64 [n], 0 for documents shorter than an n-gram.
    """

    documents: IntArray
    share: npt.NDArray[np.float64]
    threshold: float

    @property
    def duplicates(self) -> IntArray:
        """The documents to leave out."""
        return self.documents[self.share >= self.threshold]


def of_study(corpus: Corpus, folder: str) -> NearDuplicates:
    """A study's stored result (:func:`save`), else that of :func:`find`."""
    path = _path(corpus, folder)
    if not storage.exists(path):
        return find(corpus)
    table = tables.read(path)
    return NearDuplicates(table["document"].to_numpy(), table["share"].to_numpy(), THRESHOLD)


def save(near: NearDuplicates, corpus: Corpus, folder: str) -> None:
    table = pa.table({"document": near.documents, "share": near.share})
    tables.write(_path(corpus, folder), table)


def _path(corpus: Corpus, folder: str) -> str:
    return storage.join(folder, f"near_duplicates-{corpus.fingerprint[:16]}.arrow")


def find(corpus: Corpus, n: int = N, threshold: float = THRESHOLD) -> NearDuplicates:
    """Compare every held-out document with the raw pool, in two passes over tokens.

    Memory: 8 bytes for each n-gram of a held-out document, identified by its 64-bit hash.

    Raises:
        ValueError: n or threshold is out of range.
    """
    if n < 1 or not 0 < threshold <= 1:
        raise ValueError(f"n={n} must be at least 1 and threshold={threshold} in (0, 1]")
    documents = np.flatnonzero(corpus.evaluated)
    parts = list(_n_grams(corpus, documents, n))
    hashes = np.concatenate([np.empty(0, np.uint64), *(part for part, _ in parts)])
    owner = np.concatenate([np.empty(0, np.int64), *(part for _, part in parts)])
    unique, index = np.unique(hashes, return_inverse=True)
    seen = np.zeros(len(unique), np.bool_)
    if len(unique):
        for pool_hashes, _ in _n_grams(corpus, np.flatnonzero(corpus.pool), n):
            at = np.minimum(np.searchsorted(unique, pool_hashes), len(unique) - 1)
            seen[at[unique[at] == pool_hashes]] = True
    total = np.bincount(owner, minlength=len(documents))
    shared = np.bincount(owner[seen[index]], minlength=len(documents))
    return NearDuplicates(documents, shared / np.maximum(total, 1), threshold)


def remove(heldout: pa.Table, corpus: Corpus, near: NearDuplicates) -> pa.Table:
    """Rows (HELDOUT_SCHEMA of :mod:`model.training.outcome`) without near-duplicates."""
    ids = pa.array(corpus.ids(near.duplicates), pa.string())
    index = pa.array(corpus.source_index[near.duplicates])
    sources = pa.array(corpus.sources, pa.string()).take(index)
    # Two columns as one key: NUL occurs in neither.
    duplicates = pc.binary_join_element_wise(sources, ids, "\0")
    keys = pc.binary_join_element_wise(heldout["source"], heldout["document"], "\0")
    return heldout.filter(pc.invert(pc.is_in(keys, value_set=duplicates)))


def by_source(corpus: Corpus, near: NearDuplicates) -> dict[str, dict[str, int]]:
    """Held-out documents and near-duplicates of each source."""
    held_out = np.bincount(corpus.source_index[near.documents], minlength=len(corpus.sources))
    duplicates = np.bincount(corpus.source_index[near.duplicates], minlength=len(corpus.sources))
    return {
        source: {"held_out": int(held_out[i]), "near_duplicates": int(duplicates[i])}
        for i, source in enumerate(corpus.sources)
    }


def _n_grams(corpus: Corpus, documents: IntArray, n: int) -> Iterator[tuple[Hashes, IntArray]]:
    """Hashes of the n-grams of documents, and the index in ``documents`` of each."""
    for rows, tokens in token_batches(corpus, documents):
        hashes, counts = n_gram_hashes(mixed(tokens), corpus.lengths[documents[rows]], n)
        yield hashes, np.repeat(rows, counts)


def token_batches(corpus: Corpus, documents: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Batches of about a million tokens: indices into ``documents``, and their tokens."""
    lengths = corpus.lengths[documents]
    batch = (np.cumsum(lengths) - 1) // BATCH_TOKENS
    for rows in np.split(np.arange(len(documents)), np.flatnonzero(np.diff(batch)) + 1):
        if len(rows):
            ends = np.cumsum(lengths[rows])
            tokens = np.empty(ends[-1], np.int64)
            corpus.copy_tokens(documents[rows], ends - lengths[rows], tokens)
            yield rows, tokens


@dataclass
class NearDuplicatesConfig:
    """Settings of the command, explained in ``conf/near_duplicates.yaml``."""

    corpus: str = MISSING
    n: int = N
    threshold: float = THRESHOLD


ConfigStore.instance().store(name="near_duplicates_schema", node=NearDuplicatesConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="near_duplicates")
def main(config: DictConfig) -> None:
    command_line.run(_count, config)


def _count(config: NearDuplicatesConfig) -> None:
    corpus = open_corpus(config.corpus)
    for source, counts in by_source(corpus, find(corpus, config.n, config.threshold)).items():
        print(f"{source}: {counts['near_duplicates']} of {counts['held_out']} held-out documents")


if __name__ == "__main__":
    overrides.run(main, "near_duplicates")
