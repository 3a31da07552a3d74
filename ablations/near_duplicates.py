r"""Held-out documents that training text all but holds, found by n-grams of tokens, and left out.

python ablations/near_duplicates.py corpus=corpus/

Exact copies never straddle the split (it goes by content hash); this finds the rest: mirrored
pages, quotations, templates. A held-out document is a near-duplicate if at least half of its
13-grams of tokens stand in the raw pool. The pool, not an arm: all arms are then evaluated on the
same documents. The same words give the same tokens, so token n-grams find what word n-grams do,
and they are read from the mapped corpus as they lie there. Their hashes are those of the pipeline's
near-duplicates (:mod:`winnow.text.n_grams`); the question is another one: what share of a document
the pool has (containment), not how alike two documents are (Jaccard similarity).
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
"""What studies take: the length of n-grams (GPT-3's), and what share of them is too much (ours)."""

BATCH_TOKENS = 1 << 20


@dataclass(frozen=True)
class NearDuplicates:
    """Which held-out documents stand in the pool, and by how much.

    ``documents`` int64 [n] are all held-out ones, as numbers of the corpus; ``share`` float64 [n]
    is the part of their n-grams that the pool has, 0 for what is shorter than an n-gram.
    """

    documents: IntArray
    share: npt.NDArray[np.float64]
    threshold: float

    @property
    def found(self) -> IntArray:
        """The documents to leave out."""
        return self.documents[self.share >= self.threshold]


def of_study(corpus: Corpus, folder: str) -> NearDuplicates:
    """What :func:`find` finds; looked for once, where :func:`keep` has kept it for a study."""
    path = _path(corpus, folder)
    if not storage.exists(path):
        return find(corpus)
    table = tables.read(path)
    return NearDuplicates(table["document"].to_numpy(), table["share"].to_numpy(), THRESHOLD)


def keep(near: NearDuplicates, corpus: Corpus, folder: str) -> None:
    """Write what was found to a study's folder."""
    table = pa.table({"document": near.documents, "share": near.share})
    tables.write(_path(corpus, folder), table)


def _path(corpus: Corpus, folder: str) -> str:
    return storage.join(folder, f"near_duplicates-{corpus.fingerprint[:16]}.arrow")


def find(corpus: Corpus, n: int = N, threshold: float = THRESHOLD) -> NearDuplicates:
    """Compare every held-out document with the whole raw pool.

    Two passes over tokens. What is remembered is the held-out documents' n-grams, 8 bytes each;
    two n-grams of one 64-bit hash count as one.

    Raises:
        ValueError: n or threshold make no sense.
    """
    if n < 1 or not 0 < threshold <= 1:
        raise ValueError(f"n={n} must be at least 1 and threshold={threshold} in (0, 1]")
    documents = np.flatnonzero(corpus.evaluated)
    parts = [(hashes, owner) for hashes, owner in _n_grams(corpus, documents, n)]
    hashes = np.concatenate([np.empty(0, np.uint64), *(part for part, _ in parts)])
    owner = np.concatenate([np.empty(0, np.int64), *(part for _, part in parts)])
    known, place = np.unique(hashes, return_inverse=True)
    seen = np.zeros(len(known), np.bool_)
    if len(known):
        for of_pool, _ in _n_grams(corpus, np.flatnonzero(corpus.pool), n):
            at = np.minimum(np.searchsorted(known, of_pool), len(known) - 1)
            seen[at[known[at] == of_pool]] = True
    total = np.bincount(owner, minlength=len(documents))
    there = np.bincount(owner[seen[place]], minlength=len(documents))
    return NearDuplicates(documents, there / np.maximum(total, 1), threshold)


def remove(heldout: pa.Table, corpus: Corpus, near: NearDuplicates) -> pa.Table:
    """Held-out documents (:data:`model.training.outcome.HELDOUT_SCHEMA`) without what was found."""
    ids = pa.array(corpus.ids(near.found), pa.string())
    index = pa.array(corpus.source_index[near.found])
    sources = pa.array(corpus.sources, pa.string()).take(index)
    # A pair of columns as one key: neither holds this separator, which no text file can.
    found = pc.binary_join_element_wise(sources, ids, "\0")
    keys = pc.binary_join_element_wise(heldout["source"], heldout["document"], "\0")
    return heldout.filter(pc.invert(pc.is_in(keys, value_set=found)))


def by_source(corpus: Corpus, near: NearDuplicates) -> dict[str, dict[str, int]]:
    """How many held-out documents each source has, and how many of them are near-duplicates."""
    everything = np.bincount(corpus.source_index[near.documents], minlength=len(corpus.sources))
    found = np.bincount(corpus.source_index[near.found], minlength=len(corpus.sources))
    return {
        source: {"held_out": int(everything[i]), "near_duplicates": int(found[i])}
        for i, source in enumerate(corpus.sources)
    }


def _n_grams(corpus: Corpus, documents: IntArray, n: int) -> Iterator[tuple[Hashes, IntArray]]:
    """Hashes of the n-grams of some documents, and whose they are (places in ``documents``)."""
    lengths = corpus.lengths[documents]
    batch = (np.cumsum(lengths) - 1) // BATCH_TOKENS
    for rows in np.split(np.arange(len(documents)), np.flatnonzero(np.diff(batch)) + 1):
        ends = np.cumsum(lengths[rows])
        if not len(ends):
            continue
        tokens = np.empty(ends[-1], np.int64)
        corpus.copy_tokens(documents[rows], ends - lengths[rows], tokens)
        hashes, counts = n_gram_hashes(mixed(tokens), lengths[rows], n)
        yield hashes, np.repeat(rows, counts)


@dataclass
class NearDuplicatesConfig:
    """What the command is told; ``conf/near_duplicates.yaml`` explains the fields."""

    corpus: str = MISSING
    n: int = N
    threshold: float = THRESHOLD


ConfigStore.instance().store(name="near_duplicates_schema", node=NearDuplicatesConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="near_duplicates")
def main(config: DictConfig) -> None:
    """Print how many near-duplicates each source has."""
    command_line.run(_count, config)


def _count(config: NearDuplicatesConfig) -> None:
    corpus = open_corpus(config.corpus)
    for source, counts in by_source(corpus, find(corpus, config.n, config.threshold)).items():
        print(f"{source}: {counts['near_duplicates']} of {counts['held_out']} held-out documents")


if __name__ == "__main__":
    overrides.run(main, "near_duplicates")
