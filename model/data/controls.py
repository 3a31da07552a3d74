"""Controls of an arm: a random half of its documents, less text, or shuffled words.

:class:`Controls` are part of an arm (``arms/NAME.json``). Every training seed draws anew, so the
spread over seeds includes the luck of the draw: the two halves of a pool are exchangeable.
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
"""Leading white space of a token, as byte-level BPE and SentencePiece spell it, and plainly."""


@dataclass(frozen=True)
class Controls:
    """What an arm reads of its documents.

    Attributes:
        half: which of two random halves, 0 or 1; None for both.
        unique_tokens: read no more than about this many different ones; None for all.
        shuffled: the share of documents with their words shuffled.
        pool_tokens: read only what is in a random part of the pool that has about so many, the
            same part for every arm; None for the whole pool.
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
        """Those of an arm, by its ``arms/NAME.json``."""
        return cls(**about.get("controls", {}))

    def to_json(self) -> dict[str, Any]:
        """What goes into ``arms/NAME.json``; empty where nothing is changed."""
        content = {} if self == Controls() else asdict(self)
        if self.pool_tokens is None:  # earlier arms have no such key, and keep their fingerprints
            content.pop("pool_tokens", None)
        return content

    def documents(
        self, corpus: Corpus, documents: IntArray, seed: int, share: float = 1.0
    ) -> IntArray:
        """What a seed reads of n documents, of which ``share`` of all tokens are to come.

        Copies of a document stay together. Both halves of a single document are that document.

        Raises:
            ValueError: they have fewer than ``unique_tokens``, the pool has fewer than
                ``pool_tokens``, or none of them is in that part of it.
        """
        if (self.half, self.unique_tokens, self.pool_tokens) == (None, None, None):
            return documents
        chosen = self._different(corpus, np.unique(documents), seed, share)
        return documents[np.isin(documents, chosen)]

    def _different(self, corpus: Corpus, documents: IntArray, seed: int, share: float) -> IntArray:
        """:meth:`documents` without copies."""
        if self.pool_tokens is not None:
            part = self._pool(corpus, documents, seed, share, self.pool_tokens)
            kept = documents[np.isin(documents, part)]
            if not len(kept):
                source = _source(corpus, documents)
                raise ValueError(
                    f"an arm keeps none of the {len(part):,} documents of {source} that are left"
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
        """The seed's part of the pool of these documents' sources."""
        sources = np.unique(corpus.source_index[documents])
        pool = np.flatnonzero(corpus.pool & np.isin(corpus.source_index, sources))
        order = _shuffled(corpus, pool, f"pool {seed}")
        return _first_tokens(corpus, order, share, tokens, "the pool")


def _shuffled(corpus: Corpus, documents: IntArray, purpose: str) -> IntArray:
    return documents[np.argsort(draws(corpus, documents, purpose), kind="stable")]


def _first_tokens(
    corpus: Corpus, documents: IntArray, share: float, tokens: int, of: str
) -> IntArray:
    """The first documents that hold about ``share`` of so many tokens."""
    ends, wanted = np.cumsum(corpus.lengths[documents] + 1), share * tokens
    if ends[-1] < wanted:
        raise ValueError(
            f"{of} has {ends[-1]:,} tokens of {_source(corpus, documents)}, fewer than the"
            f" {wanted:,.0f} that one pass is to read of it: train on fewer tokens"
            f" (train.tokens={int(tokens * ends[-1] / wanted):_}), or start with more passes"
        )
    return documents[: np.searchsorted(ends, wanted) + 1]


def _source(corpus: Corpus, documents: IntArray) -> str:
    return repr(corpus.sources[corpus.source_index[documents[0]]])


def mixed(id_hash: npt.NDArray[np.uint64], purpose: str) -> npt.NDArray[np.uint64]:
    """Pseudo-random numbers by document: uint64 [n], a different bijection for each purpose.

    SplitMix64's finaliser (Steele, Lea and Flood 2014) over the hash and a key of the purpose.
    """
    x = id_hash ^ np.uint64(xxhash.xxh3_64_intdigest(purpose.encode()))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draws(corpus: Corpus, documents: IntArray, purpose: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each of n documents, by its id and the purpose: float64 [n]."""
    keys = mixed(corpus.id_hash[documents], purpose)
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


@functools.cache
def word_starts(path: str, vocabulary: int) -> BoolArray:
    """Which tokens of a tokenizer.json begin with white space, and so a word: bool [vocabulary].

    Raises:
        ValueError: the tokenizer marks no words.
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
    """Documents whose words are shuffled, for one seed: int64 [n], ascending."""

    corpus: Corpus
    documents: IntArray
    seed: int

    @classmethod
    def of(cls, controls: Controls, corpus: Corpus, documents: IntArray, seed: int) -> Self | None:
        """Those of these documents whose draw is below the share; None if none can be."""
        if not controls.shuffled:
            return None
        chosen = draws(corpus, documents, f"shuffled {seed}") < controls.shuffled
        return cls(corpus, np.sort(documents[chosen]), seed)

    def apply(self, documents: IntArray, places: IntArray, out: IntArray) -> None:
        """Put the shuffled tokens where :meth:`Corpus.copy_tokens` put those of the documents."""
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
    """The tokens of a document with their words in a random order, drawn by a key: [n].

    A word is a token that ``starts`` one (bool [vocabulary]) with those that follow up to the next;
    its white space goes with it. Only the first word of a text may be glued to another.
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
