"""Experimental controls of an arm: a random half of its documents, less text, or shuffled words.

Each training seed makes its own draw, so the spread over seeds includes the variance of sampling.
"""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash
from tokenizers import Tokenizer

from model.data.arms import BoolArray
from model.data.corpus import Corpus, IntArray

WORD_MARKS = ("Ġ", "Ċ", "ĉ", "č", "▁", " ", "\n", "\t", "\r")
"""A token's leading white space: in byte-level BPE, in SentencePiece, and verbatim."""


@dataclass(frozen=True)
class Controls:
    """Restricts or damages the documents that an arm reads.

    Attributes:
        half: one of two random halves, 0 or 1; None for both.
        unique_tokens: approximate cap on distinct tokens; None for all.
        shuffled: the share of documents with their words shuffled.
        pool_tokens: approximate size of a random subset of the pool, the same for every arm; None
            for the whole pool.
    """

    half: int | None = None
    unique_tokens: int | None = None
    shuffled: float = 0.0
    pool_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.half not in (None, 0, 1):
            raise ValueError(f"half is 0 or 1, not {self.half}")
        if not 0 <= self.shuffled <= 1:
            raise ValueError(f"shuffled is a share between 0 and 1, not {self.shuffled}")

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Self:
        """The controls in the content of an ``arms/NAME.json``."""
        return cls(**about.get("controls", {}))

    def to_json(self) -> dict[str, Any]:
        """The entry in ``arms/NAME.json``; empty for the defaults."""
        content = {} if self == Controls() else asdict(self)
        if self.pool_tokens is None:  # older arms lack this key; keep their fingerprints
            content.pop("pool_tokens", None)
        return content

    def documents(
        self, corpus: Corpus, documents: IntArray, seed: int, share: float = 1.0
    ) -> IntArray:
        """The documents that a seed reads of n, which supply ``share`` of all training tokens.

        Copies of a document stay together. Each half of a single document is that document. Raises
        ValueError for too few tokens, or if no document is in the subset of the pool.
        """
        if (self.half, self.unique_tokens, self.pool_tokens) == (None, None, None):
            return documents
        chosen = self._distinct(corpus, np.unique(documents), seed, share)
        return documents[np.isin(documents, chosen)]

    def _distinct(self, corpus: Corpus, documents: IntArray, seed: int, share: float) -> IntArray:
        if self.pool_tokens is not None:
            part = self._pool(corpus, documents, seed, share, self.pool_tokens)
            kept = documents[np.isin(documents, part)]
            if not len(kept):
                source = _source(corpus, documents)
                raise ValueError(
                    f"an arm holds none of the {len(part):,} documents of {source} in the subset"
                    " of the pool: take fewer passes (data.pool_passes), or more tokens"
                )
            documents = kept
        if self.half is not None and len(documents) > 1:
            documents = _shuffled(corpus, documents, f"half {seed}")[self.half :: 2]
        if self.unique_tokens is not None:
            order = _shuffled(corpus, documents, f"unique {seed}")
            documents = _first_tokens(corpus, order, share, self.unique_tokens, "an arm")
        return documents

    def _pool(
        self, corpus: Corpus, documents: IntArray, seed: int, share: float, tokens: int
    ) -> IntArray:
        sources = np.unique(corpus.source_index[documents])
        pool = np.flatnonzero(corpus.pool & np.isin(corpus.source_index, sources))
        order = _shuffled(corpus, pool, f"pool {seed}")
        return _first_tokens(corpus, order, share, tokens, "the pool")


def _shuffled(corpus: Corpus, documents: IntArray, purpose: str) -> IntArray:
    return documents[np.argsort(draws(corpus, documents, purpose), kind="stable")]


def _first_tokens(
    corpus: Corpus, documents: IntArray, share: float, tokens: int, of: str
) -> IntArray:
    """The shortest prefix of ``documents`` with at least ``share * tokens`` tokens."""
    ends, wanted = np.cumsum(corpus.lengths[documents] + 1), share * tokens
    if ends[-1] < wanted:
        raise ValueError(
            f"{of} has {ends[-1]:,} tokens of {_source(corpus, documents)}, but one pass needs"
            f" {wanted:,.0f}: train on fewer tokens"
            f" (train.tokens={int(tokens * ends[-1] / wanted):_}), or start with more passes"
        )
    return documents[: np.searchsorted(ends, wanted) + 1]


def _source(corpus: Corpus, documents: IntArray) -> str:
    return repr(corpus.sources[corpus.source_index[documents[0]]])


def mixed(id_hash: npt.NDArray[np.uint64], purpose: str) -> npt.NDArray[np.uint64]:
    """Pseudo-random uint64 [n] from hashes of ids, by a different bijection for each purpose.

    SplitMix64's finaliser (Steele, Lea and Flood 2014) over the hash xor a key of the purpose.
    """
    x = id_hash ^ np.uint64(xxhash.xxh3_64_intdigest(purpose.encode()))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draws(corpus: Corpus, documents: IntArray, purpose: str) -> npt.NDArray[np.float64]:
    """A uniform draw in [0, 1) per document, from its id and the purpose: float64 [n]."""
    keys = mixed(corpus.id_hash[documents], purpose)
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


@functools.cache
def word_starts(path: str, vocabulary: int) -> BoolArray:
    """Which tokens of a tokenizer.json start a word, by leading white space: bool [vocabulary].

    Raises ValueError if none does.
    """
    tokenizer = Tokenizer.from_file(path)
    starts = np.zeros(vocabulary, np.bool_)
    for token, index in tokenizer.get_vocab(with_added_tokens=False).items():
        starts[index] = token.startswith(WORD_MARKS)
    if not starts.any():
        raise ValueError(
            f"no token of {path} begins with white space, so there are no words to shuffle: take a"
            " byte-level BPE or SentencePiece tokenizer"
        )
    return starts


@dataclass(frozen=True)
class Damage:
    """The documents whose words a seed shuffles: int64 [n], ascending."""

    corpus: Corpus
    documents: IntArray
    seed: int

    @classmethod
    def of(cls, controls: Controls, corpus: Corpus, documents: IntArray, seed: int) -> Self | None:
        """The documents whose draw is below ``controls.shuffled``; None if that is 0."""
        if not controls.shuffled:
            return None
        chosen = draws(corpus, documents, f"shuffled {seed}") < controls.shuffled
        return cls(corpus, np.sort(documents[chosen]), seed)

    def apply(self, documents: IntArray, places: IntArray, out: IntArray) -> None:
        """Overwrite what :meth:`Corpus.copy_tokens` wrote with shuffled tokens; same arguments."""
        starts = word_starts(self.corpus.tokenizer_path, self.corpus.vocabulary)
        for index in np.flatnonzero(np.isin(documents, self.documents)).tolist():
            document, place = int(documents[index]), int(places[index])
            key = (self.seed, int(self.corpus.id_hash[document]))
            tokens = shuffled_words(self.corpus.tokens(document), starts, key)
            tokens = tokens[max(0, -place) : len(out) - place]
            at = max(0, place)
            out[at : at + len(tokens)] = tokens


def shuffled_words(
    tokens: npt.NDArray[Any], starts: BoolArray, key: tuple[int, int]
) -> npt.NDArray[Any]:
    """A document's tokens [n] with its words in a random order, seeded by ``key``.

    A word runs from a token that ``starts`` one (bool [vocabulary]) to the next such token, leading
    white space included. Only the first word of a text may end up glued to another.
    """
    if not len(tokens):
        return tokens
    firsts = np.flatnonzero(starts[tokens])
    edges = np.unique(np.concatenate([[0], firsts, [len(tokens)]]))
    lengths = np.diff(edges)
    order = np.random.default_rng(key).permutation(len(lengths))
    ends = np.cumsum(lengths[order])
    shift = np.repeat(edges[order] - (ends - lengths[order]), lengths[order])
    return tokens[np.arange(len(tokens)) + shift]
