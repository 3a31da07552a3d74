"""Near-duplicates on one machine: the steps of the graph, with files in place of shuffles.

Rows are dealt into files by bucket and processed a bucket at a time, so memory is that of one
bucket or task, however many documents there are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.near_duplicates import choice, components, files
from pipeline.near_duplicates.choice import Found, Members, Rows, Stays
from pipeline.near_duplicates.components import NO_HOME, Edges, Nodes, home
from pipeline.output.records import Record
from winnow import heartbeat
from winnow.dealt import Dealt, split

BUCKETS = 128
"""Each has 1.8 MB of bands of a million documents."""

_BANDS = np.dtype([("hash", np.uint64), ("node", np.uint64)])
_EDGES = np.dtype([("child", np.uint64), ("parent", np.uint64)])
_NODES = np.dtype([("order", np.int64), ("row", np.int64), ("node", np.uint64)])
_MEMBERS = np.dtype([*_NODES.descr, ("merit", np.float64), ("draw", np.float64)])
_FOUND = np.dtype([*_NODES.descr, ("size", np.int64), ("dropped", np.bool_)])

Table = npt.NDArray[np.void]
"""Rows of one of these types."""

Tasks = Mapping[int, Record]
"""All tasks of a run, by their places in its order."""

Clustered = tuple[Record, Rows, Nodes]
"""A task, rows (int64 [n], ascending) and clusters (uint64 [n]) of its documents."""


def clusters(tasks: Tasks, work: str) -> Iterator[Clustered]:
    """Tasks with all their documents that are in clusters with others."""
    with _named(tasks.values(), work) as named:
        for record, rows in _of_tasks(named, tasks):
            yield record, rows["row"], rows["node"]


def mark(
    tasks: Tasks,
    clustered: Iterable[Clustered],
    batches: Callable[[Record], Iterable[pa.RecordBatch]],
    work: str,
    stays: Stays,
) -> None:
    """Write for each task who is in which cluster, and who is dropped.

    Args:
        tasks: all of them.
        clustered: all documents that are in clusters with others.
        batches: the documents of a task, with :data:`choice.COLUMNS`.
        work: the work folder.
        stays: the rule.
    """
    with Dealt(BUCKETS, _MEMBERS) as members, Dealt(BUCKETS, _FOUND) as chosen:
        for record, rows, cluster in clustered:
            if not len(rows):
                continue
            order = record.task.order
            part = choice.members(record.task, batches(record), rows, cluster, stays)
            members.deal(home(cluster, BUCKETS), order, rows, cluster, part.merit, part.draw)
        orders = {record.task.stem: order for order, record in tasks.items()}
        for bucket in range(BUCKETS):
            heartbeat.beat()
            parts = [_members(*one) for one in _by_task(members.of(bucket), tasks)]
            for stem, of in choice.choose(parts, stays) if parts else ():
                order = orders[stem]
                to = np.full(len(of.rows), order % BUCKETS)
                chosen.deal(to, order, of.rows, of.cluster, of.size, of.dropped)
        marked = set()
        for record, mine in _of_tasks(chosen, tasks):
            of = Found(mine["row"], mine["node"], mine["size"], mine["dropped"])
            files.save_marks(work, record.task.stem, [of])
            marked.add(record.task.stem)
        for stem in orders.keys() - marked:
            files.save_marks(work, stem, [])


def _named(found: Iterable[Record], work: str) -> Dealt:
    """Rows and clusters of the documents that are in clusters with others, dealt by task."""
    named = Dealt(BUCKETS, _NODES)
    with _edges(found, work) as edges, Dealt(BUCKETS, _NODES) as documents:
        parts = (components.unfinished(n, [_of(edges, n)], BUCKETS) for n in range(BUCKETS))
        rest = components.join(components.concatenate(parts))
        for record in found:
            bands = files.load_bands(work, record.task.stem)
            home_of = home(bands.nodes, BUCKETS)
            documents.deal(home_of, record.task.order, bands.rows, bands.nodes)
        for bucket in range(BUCKETS):
            heartbeat.beat()
            mine = documents.of(bucket)
            cluster, several = components.named(
                bucket, [_of(edges, bucket)], mine["node"], BUCKETS, rest
            )
            mine = mine[several]
            named.deal(mine["order"] % BUCKETS, mine["order"], mine["row"], cluster[several])
    return named


def _edges(found: Iterable[Record], work: str) -> Dealt:
    """The edges between documents that share a band, after all rounds."""
    with Dealt(BUCKETS, _BANDS) as bands:
        for record in found:
            hashes, nodes = files.load_bands(work, record.task.stem).pairs()
            bands.deal(home(hashes, BUCKETS), hashes, nodes)
        met = (bands.of(n) for n in range(BUCKETS))
        linked = ((NO_HOME, components.share_a_band(m["hash"], m["node"])) for m in met)
        edges = _round(linked)
    for _ in range(components.ROUNDS):
        with edges:
            edges = _round((n, _of(edges, n)) for n in range(BUCKETS))
    return edges


def _round(parts: Iterable[tuple[int, Edges]]) -> Dealt:
    out = Dealt(BUCKETS, _EDGES)
    for bucket, part in parts:
        heartbeat.beat()
        for to, edges in components.contract(bucket, [part], BUCKETS):
            out.deal(np.full(len(edges.child), to), edges.child, edges.parent)
    return out


def _of(edges: Dealt, bucket: int) -> Edges:
    rows = edges.of(bucket)
    return Edges(rows["child"], rows["parent"])


def _of_tasks(dealt: Dealt, tasks: Tasks) -> Iterator[tuple[Record, Table]]:
    """Each task of rows that were dealt by task, with its rows in their order."""
    for bucket in range(BUCKETS):
        for record, rows in _by_task(dealt.of(bucket), tasks):
            yield record, rows[np.argsort(rows["row"])]


def _by_task(rows: Table, tasks: Tasks) -> Iterator[tuple[Record, Table]]:
    for order, mine in split(rows["order"]):
        yield tasks[order], rows[mine]


def _members(record: Record, rows: Table) -> Members:
    task = record.task
    columns = (rows[name] for name in ("row", "node", "merit", "draw"))
    return Members(task.order, task.stem, task.filtered, *columns)
