"""Connected components of documents that share bands, in rounds that any engine can distribute.

A node is a text: the first 64 bits of its content hash, so that equal texts are one. An edge (node,
smaller node) says that both are in one component. Edges lie in buckets, and every node has a home,
the bucket of its hash. A round (:func:`contract`) joins in each bucket what hangs together there,
and tells each node's home of the smallest node that it was joined with. The root that they were
joined to learns, at its home, of one of them only, so that a component of a million documents is
no burden to one bucket: if the root has a smaller one itself by then, this goes back to the bucket,
and there to all. Once nothing changes, every node knows the smallest of its component (the idea is
hash-to-min's of Rastogi et al. 2013 and the small and large stars' of Kiveris et al. 2014, with
whole buckets in the place of single nodes).

Beam has no loops, so the rounds are a fixed number. :func:`unfinished` gives the edges, between
roots only, that they may have left: none if everything has converged. One worker joins these, so
the result is exact after any number of rounds; the rounds only keep that worker's part small.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from winnow import compiling  # noqa: F401 tells of what is compiled
from winnow.sorted_keys import among, find
from winnow.spool import split

Nodes = npt.NDArray[np.uint64]

ROUNDS = 4
"""docs/log.md has what they leave."""

NO_HOME = -1


@dataclass(frozen=True)
class Edges:
    """``child`` uint64 [n] and, each smaller than its child, ``parent`` uint64 [n]."""

    child: Nodes
    parent: Nodes


NONE = Edges(np.empty(0, np.uint64), np.empty(0, np.uint64))


def home(nodes: Nodes, buckets: int) -> npt.NDArray[np.int64]:
    """The bucket of each node, by its lowest bits: int64 [n]."""
    return (nodes % np.uint64(buckets)).astype(np.int64)


def share_a_band(bands: Nodes, nodes: Nodes) -> Edges:
    """Edges from the nodes that share a band's hash to the smallest of them.

    Args:
        bands: uint64 [n], hashes of bands.
        nodes: uint64 [n], which node has each.
    """
    order = np.lexsort((nodes, bands))
    bands, nodes = bands[order], nodes[order]
    begins = np.ones(len(bands), np.bool_)
    begins[1:] = bands[1:] != bands[:-1]
    least = nodes[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    linked = nodes != least
    return Edges(nodes[linked], least[linked])


def concatenate(parts: Iterable[Edges]) -> Edges:
    """All edges of the parts."""
    found = [NONE, *parts]
    return Edges(
        np.concatenate([part.child for part in found]),
        np.concatenate([part.parent for part in found]),
    )


def join(edges: Edges) -> Edges:
    """The same components, each as a star: from every node but the smallest to the smallest.

    Children are distinct and ascend.
    """
    nodes, ends = np.unique(np.concatenate([edges.child, edges.parent]), return_inverse=True)
    roots = np.arange(len(nodes))
    _unite(ends[: len(edges.child)], ends[len(edges.child) :], roots)
    below = roots < np.arange(len(nodes))
    return Edges(nodes[below], nodes[roots[below]])


def contract(bucket: int, parts: Iterable[Edges], buckets: int) -> Iterator[tuple[int, Edges]]:
    """One round in one bucket (``NO_HOME``: edges that are in no bucket yet).

    Yields:
        A bucket and the edges that go there. All together have the components that the edges had.
    """
    star = join(concatenate(parts))
    if not len(star.child):
        return
    # One child for each root, one that is at home here if there is any: by (root, away, child).
    away = home(star.child, buckets) != bucket
    order = np.lexsort((star.child, away, star.parent))
    roots, first = np.unique(star.parent[order], return_index=True)
    abroad = home(roots, buckets) != bucket
    speakers = star.child[order][first][abroad]
    roots = roots[abroad]
    child = np.concatenate([star.child, speakers])
    parent = np.concatenate([star.parent, roots])
    to = np.concatenate([home(star.child, buckets), home(roots, buckets)])
    for target, mine in split(to):
        yield target, Edges(child[mine], parent[mine])


def labels(bucket: int, edges: Edges, buckets: int) -> Edges:
    """The smallest node that each child that is at home here has been joined with.

    Children are distinct and ascend.
    """
    mine = home(edges.child, buckets) == bucket
    child, parent = edges.child[mine], edges.parent[mine]
    order = np.lexsort((parent, child))
    child, first = np.unique(child[order], return_index=True)
    return Edges(child, parent[order][first])


def unfinished(bucket: int, parts: Iterable[Edges], buckets: int) -> Edges:
    """Edges between the nodes of one bucket's labels, or none where its nodes agree.

    A node with two parents links them. So does a node that is a parent and has one.
    """
    edges = concatenate(parts)
    label = labels(bucket, edges, buckets)
    at, known = find(label.child, edges.child)
    other = known & (label.parent[at] != edges.parent) if len(label.child) else known
    several = Edges(edges.parent[other], label.parent[at[other]])
    parents = np.unique(edges.parent)
    at, known = find(label.child, parents)
    return join(concatenate([several, Edges(parents[known], label.parent[at[known]])]))


def resolve(bucket: int, parts: Iterable[Edges], buckets: int, rest: Edges) -> Edges:
    """The component of every node at home in a bucket that is in one with others.

    Args:
        bucket: its number.
        parts: its edges after the last round.
        buckets: how many there are.
        rest: what :func:`unfinished` gives for all buckets, joined.

    Returns:
        ``child``, distinct and ascending, with the smallest node of its component as ``parent``,
        which for the smallest is itself.
    """
    edges = concatenate(parts)
    label = labels(bucket, edges, buckets)
    roots = np.setdiff1d(edges.parent[home(edges.parent, buckets) == bucket], label.child)
    child = np.concatenate([label.child, roots])
    parent = np.concatenate([label.parent, roots])
    at, known = find(rest.child, parent)
    parent[known] = rest.parent[at[known]]
    order = np.argsort(child)
    return Edges(child[order], parent[order])


def named(
    bucket: int, parts: Iterable[Edges], nodes: Nodes, buckets: int, rest: Edges
) -> tuple[Nodes, npt.NDArray[np.bool_]]:
    """The components of documents: uint64 [n], and which are in one with others: bool [n].

    Args:
        bucket: its number.
        parts: its edges after the last round.
        nodes: uint64 [n], of all documents whose node is at home there; equal texts are one.
        buckets: how many there are.
        rest: as :func:`resolve` takes it.
    """
    known = resolve(bucket, parts, buckets, rest)
    distinct, times = np.unique(nodes, return_counts=True)
    at, linked = find(known.child, nodes)
    cluster = nodes.copy()
    cluster[linked] = known.parent[at[linked]]
    return cluster, linked | among(distinct[times > 1], nodes)


@njit(nogil=True, cache=True)
def _unite(
    child: npt.NDArray[np.int64], parent: npt.NDArray[np.int64], roots: npt.NDArray[np.int64]
) -> None:
    """Union by the smaller index, with path halving; then every entry of ``roots`` is a root."""
    for i in range(len(child)):
        a, b = child[i], parent[i]
        while roots[a] != a:
            roots[a] = roots[roots[a]]
            a = roots[a]
        while roots[b] != b:
            roots[b] = roots[roots[b]]
            b = roots[b]
        if a < b:
            roots[b] = a
        else:
            roots[a] = b
    for i in range(len(roots)):  # a root comes before what hangs on it
        roots[i] = roots[roots[i]]
