"""Components in buckets and rounds against networkx-free plain search over the same edges."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.near_duplicates import components
from pipeline.near_duplicates.components import Edges


def distributed(parts, buckets, rounds, random=None):
    """Node to component, as the graph of Beam has it; and how many edges the rounds left."""
    now = defaultdict(list)

    def send(pairs):
        for bucket, edges in pairs:
            now[bucket].append(edges)

    for part in parts:
        send(components.contract(components.NO_HOME, [part], buckets))
    for _ in range(rounds):
        before = dict(now)
        now.clear()
        for bucket, found in before.items():
            if random:
                random.shuffle(found)  # what comes first depends on the engine
            send(components.contract(bucket, found, buckets))
    left = [components.unfinished(bucket, found, buckets) for bucket, found in now.items()]
    rest = components.join(components.concatenate(left))
    out = {}
    for bucket, found in now.items():
        known = components.resolve(bucket, found, buckets, rest)
        out |= dict(zip(known.child.tolist(), known.parent.tolist(), strict=True))
    return out, len(rest.child)


def plain(pairs):
    """Node to the smallest node of its component, by walking the graph."""
    near = defaultdict(set)
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    out = {}
    for start in sorted(near):
        todo = [] if start in out else [start]
        while todo:
            node = todo.pop()
            if node not in out:
                out[node] = start
                todo += near[node]
    return out


def as_edges(pairs):
    pairs = np.array(pairs, np.uint64).reshape(-1, 2)
    return Edges(pairs.max(axis=1), pairs.min(axis=1))


pairs = st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda pair: pair[0] != pair[1])


@given(
    st.lists(st.lists(pairs, max_size=20), max_size=5),
    st.integers(1, 9),
    st.integers(0, 3),
    st.randoms(),
)
@settings(deadline=None)
def test_components_are_those_of_a_walk_after_any_number_of_rounds(parts, buckets, rounds, random):
    found, _ = distributed([as_edges(part) for part in parts], buckets, rounds, random)
    assert found == plain(pair for part in parts for pair in part)


@pytest.mark.parametrize("shape", ["path", "star", "random"])
def test_the_rounds_leave_next_to_nothing(shape):
    """A path is the worst that there is, a star a page that a hundred thousand sites have."""
    rng = np.random.default_rng(5)
    n = 100_000
    nodes = rng.integers(0, 1 << 63, n).astype(np.uint64)
    ends = {
        "path": (nodes[:-1], nodes[1:]),
        "star": (nodes[1:], np.full(n - 1, nodes[7])),
        "random": (rng.choice(nodes, n // 2), rng.choice(nodes, n // 2)),
    }[shape]
    ends = np.stack(ends, axis=1)
    ends = ends[ends[:, 0] != ends[:, 1]]
    parts = [as_edges(part) for part in np.array_split(ends, 50)]
    found, left = distributed(parts, 64, components.ROUNDS)
    print(shape, left)
    assert found == plain(map(tuple, ends.tolist()))
    assert left <= n // 10


def test_no_bucket_gets_more_of_a_large_component_than_its_nodes_and_one_of_each_other():
    nodes = np.arange(1, 10_001, dtype=np.uint64)
    buckets = 16
    part = Edges(nodes, np.zeros_like(nodes))
    now = defaultdict(list)
    for bucket, edges in components.contract(components.NO_HOME, [part], buckets):
        now[bucket].append(edges)
    for bucket, found in list(now.items()):
        sent = dict(components.contract(bucket, found, buckets))
        # All of its own stay; one of them goes to the bucket of the smallest node.
        assert len(sent[bucket].child) == len(nodes) // buckets
        assert bucket == 0 or len(sent[0].child) == 1


def test_nodes_of_a_band_meet_in_the_smallest():
    bands = np.array([5, 3, 5, 3, 9, 5], np.uint64)
    nodes = np.array([8, 2, 4, 7, 1, 4], np.uint64)
    edges = components.share_a_band(bands, nodes)
    assert set(zip(edges.child.tolist(), edges.parent.tolist(), strict=True)) == {(8, 4), (7, 2)}
