"""Connected components of documents that share bands, in rounds that any engine can distribute.

A node is a text: the first 64 bits of its content hash, so that equal texts are one. An edge (node,
smaller node) puts both into one component. Every node has a home, the bucket of its hash. A round
(:func:`contract`) joins the edges of each bucket into stars and sends each node its root, the
smallest node of its star. The root's home gets only one child in return, so that a component of a
million documents does not overload a bucket; if the root has a smaller parent by then, the child
brings it back to the bucket. At convergence every node knows the smallest of its component
(hash-to-min of Rastogi et al. 2013 and the stars of Kiveris et al. 2014, by bucket).

Beam has no loops, so the number of rounds is fixed. One worker joins the edges between roots that
:func:`unfinished` finds, so the result is always exact; the rounds keep that worker's part small.
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
    """Edges from nodes (uint64 [n]) that share a band's hash (uint64 [n]) to the smallest one."""
    order = np.lexsort((nodes, bands))
    bands, nodes = bands[order], nodes[order]
    begins = np.ones(len(bands), np.bool_)
    begins[1:] = bands[1:] != bands[:-1]
    least = nodes[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    linked = nodes != least
    return Edges(nodes[linked], least[linked])


def concatenate(parts: Iterable[Edges]) -> Edges:
    """Concatenate edges."""
    found = [NONE, *parts]
    return Edges(
        np.concatenate([part.child for part in found]),
        np.concatenate([part.parent for part in found]),
    )


def join(edges: Edges) -> Edges:
    """The same components as stars, with edges to the smallest node; children ascend."""
    nodes, ends = np.unique(np.concatenate([edges.child, edges.parent]), return_inverse=True)
    roots = np.arange(len(nodes))
    _unite(ends[: len(edges.child)], ends[len(edges.child) :], roots)
    below = roots < np.arange(len(nodes))
    return Edges(nodes[below], nodes[roots[below]])


def contract(bucket: int, parts: Iterable[Edges], buckets: int) -> Iterator[tuple[int, Edges]]:
    """One round in one bucket (``NO_HOME``: edges that are in no bucket yet).

    Yields buckets and the edges to send there, which together have the same components.
    """
    star = join(concatenate(parts))
    if not len(star.child):
        return
    # One child for each root, at home here if possible: by (root, away, child).
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
    """The smallest parent of each child that is at home here; children are distinct and ascend."""
    mine = home(edges.child, buckets) == bucket
    child, parent = edges.child[mine], edges.parent[mine]
    order = np.lexsort((parent, child))
    child, first = np.unique(child[order], return_index=True)
    return Edges(child, parent[order][first])


def unfinished(bucket: int, parts: Iterable[Edges], buckets: int) -> Edges:
    """Edges between roots that one bucket still has to join; none at convergence.

    A node with two parents links them, and so does a parent that has a parent.
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
    """The component of every linked node that is at home in a bucket, given its edges after the
    last round and the joined :func:`unfinished` edges of all buckets.

    ``child`` is distinct and ascending, and ``parent`` the smallest node of its component, itself
    included.
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
    """The components (uint64 [n]) of a bucket's documents, and whether they share one (bool [n]).

    ``nodes`` (uint64 [n]) are those of all documents at home there, with equal ones for equal
    texts; the rest is as for :func:`resolve`.
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
    for i in range(len(roots)):  # a root precedes its children
        roots[i] = roots[roots[i]]
