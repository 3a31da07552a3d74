"""The components of a mixture: whole sources, or slices of a source by quality score.

``web`` is a source, ``web@50-100`` the top-scoring half of its tokens. Percentiles refer to the
source's raw pool, so a slice holds the same documents in every arm.
"""

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from model.data import scored
from model.data.corpus import Corpus, IntArray

_PART = re.compile(r"^(.+)@(\d+)-(\d+)$")


def part_name(source: str, low: int, high: int) -> str:
    return f"{source}@{low}-{high}"


def parse(name: str, sources: Iterable[str]) -> tuple[str, int, int]:
    """A component's source, and the percentiles that bound it."""
    match = _PART.match(name)
    if name in sources or match is None:
        return name, 0, 100
    return match[1], int(match[2]), int(match[3])


def split(corpus: Corpus, documents: IntArray, names: Iterable[str]) -> dict[str, IntArray]:
    """Split n documents of the pool (int64 [n]) by component; a component may be empty.

    Raises ValueError if the slices of a source overlap or leave a gap.
    """
    parsed = {name: parse(name, corpus.sources) for name in names}
    sources = {source for source, _, _ in parsed.values()}
    for source in sorted(sources):
        edges = sorted((low, high) for of, low, high in parsed.values() if of == source)
        ends = [0, *(edge for pair in edges for edge in pair), 100]
        gaps = any(a != b for a, b in zip(ends[::2], ends[1::2], strict=True))
        if gaps or any(low >= high for low, high in edges):
            raise ValueError(
                f"data.mixture: the parts of {source} must make 0 to 100, as"
                f" {part_name(source, 0, 50)} and {part_name(source, 50, 100)} do"
            )
    index = corpus.source_index[documents]
    cut = {source for source, low, high in parsed.values() if (low, high) != (0, 100)}
    at = {source: percentiles(corpus, source)[documents] for source in cut & set(corpus.sources)}
    out = {}
    for name, (source, low, high) in parsed.items():
        known = source in corpus.sources
        ours = index == corpus.sources.index(source) if known else np.zeros(len(index), np.bool_)
        if source in at:
            ours = ours & (low <= at[source]) & (at[source] < high)
        out[name] = documents[ours]
    return out


def percentiles(corpus: Corpus, source: str) -> npt.NDArray[np.float64]:
    """The score percentile of each document of a source's pool: float64 [documents], in (0, 100).

    Token-weighted, at the document's middle token; id hashes break ties. NaN outside that pool.
    """
    ours = corpus.pool & (corpus.source_index == corpus.sources.index(source))
    pool = np.flatnonzero(ours)
    score = corpus.column(scored.QUALITY_SCORE)[pool]
    order = pool[np.lexsort((corpus.id_hash[pool], score))]
    sizes = corpus.lengths[order] + 1
    out = np.full(len(corpus), np.nan)
    out[order] = 100 * (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    return out
