"""The near-duplicate search in the graph: group band hashes, join components, choose who stays.

    Bands -> Meet -> Link -> [Meet -> Join] * ROUNDS -> Clusters -> Members -> Choose -> Mark

No step reads text. :mod:`pipeline.near_duplicates.components` explains the rounds. Beam's local
engine groups in memory, 300 bytes a document, so there one step does it all through files.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.beam.transforms import is_local, on_worker, together
from pipeline.core.job import Sink
from pipeline.core.scores import Combined
from pipeline.near_duplicates import choice, components, files
from pipeline.near_duplicates.choice import Found, Members, Rows, Stays
from pipeline.near_duplicates.components import Edges, Nodes, home
from pipeline.output.records import Record
from winnow import heartbeat
from winnow.filesystem import storage, tables
from winnow.spool import FILES, Spool, grouped, split

Clustered = tuple[Rows, Nodes]
"""Rows (int64 [n]) and clusters (uint64 [n]) of documents of one task."""

Documents = tuple[str, Rows, Nodes]
"""A task's stem, rows and nodes."""

IN_FILES = 8192
"""Documents per bucket on one machine: 1.8 MB of bands by default."""


def buckets(n_tasks: int) -> int:
    """The number of buckets: 5 million band hashes in each for a dump of 3 billion pages."""
    return min(8192, max(8, n_tasks // 8))


@beam.ptransform_fn
def mark(
    scored: beam.PCollection, sink: Sink, folder: str, stays: Stays, n_tasks: int, first: bool
) -> beam.PCollection:
    """The same records, after writing each one's ``<stem>.near.arrow``: who is dropped.

    With ``first`` the band hashes give the clusters, else the shards in ``folder``.
    """
    work, combined, n_buckets = sink.work, sink.combined, buckets(n_tasks)
    if is_local(scored):
        in_files = beam.FlatMap(on_worker(_mark_in_files), work, folder, combined, stays, first)
        return scored | "Together" >> together() | "InFiles" >> in_files.with_output_types(Record)
    by_stem = scored | "ByStem" >> beam.Map(lambda record: (record.task.stem, record))
    if first:
        clusters = scored | "Clusters" >> find_clusters(work, n_buckets)
        joined = (by_stem, clusters) | "WithClusters" >> beam.CoGroupByKey()
    else:
        joined = by_stem | "Alone" >> beam.Map(lambda pair: (pair[0], ([pair[1]], None)))
    found = (
        joined
        | "Members" >> beam.FlatMap(on_worker(_members), folder, combined, stays, n_buckets)
        | "OfACluster" >> beam.GroupByKey()
        | "Choose" >> beam.FlatMap(_choose, stays)
    )
    return (
        (by_stem, found)
        | "WithFound" >> beam.CoGroupByKey()
        | "Save" >> beam.Map(on_worker(_save), work).with_output_types(Record)
    )


@beam.ptransform_fn
def find_clusters(scored: beam.PCollection, work: str, buckets: int) -> beam.PCollection:
    """Records in; (stem, rows and clusters) of all documents that share a cluster out."""
    edges = (
        scored
        | "Bands" >> beam.FlatMap(on_worker(_bands), work, buckets)
        | "Meet" >> beam.GroupByKey()
        | "Link" >> beam.FlatMap(_link, buckets)
    )
    for number in range(1, components.ROUNDS + 1):
        edges = (
            edges
            | f"Meet{number}" >> beam.GroupByKey()
            | f"Join{number}" >> beam.FlatMap(_contract, buckets)
        )
    rest = (
        edges
        | "MeetLast" >> beam.GroupByKey()
        | "Unfinished" >> beam.Map(_unfinished, buckets)
        | "JoinRest" >> beam.CombineGlobally(_join_all)
    )
    documents = scored | "Documents" >> beam.FlatMap(on_worker(_documents), work, buckets)
    return (
        (edges, documents)
        | "MeetAtHome" >> beam.CoGroupByKey()
        | "Name" >> beam.FlatMap(_name, buckets, beam.pvalue.AsSingleton(rest))
    )


def _bands(
    record: Record, work: str, buckets: int
) -> Iterator[tuple[int, tuple[npt.NDArray[np.uint64], Nodes]]]:
    """The hashes of a task's bands, and their nodes, by bucket; equal texts count once."""
    hashes, nodes = files.load_bands(work, record.task.stem).pairs()
    for bucket, mine in split(home(hashes, buckets)):
        yield bucket, (hashes[mine], nodes[mine])


def _link(
    bucket: tuple[int, Iterable[tuple[npt.NDArray[np.uint64], Nodes]]], buckets: int
) -> Iterator[tuple[int, Edges]]:
    heartbeat.beat()
    parts = list(bucket[1])
    bands, nodes = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    edges = components.share_a_band(bands, nodes)
    return components.contract(components.NO_HOME, [edges], buckets)


def _contract(element: tuple[int, Iterable[Edges]], buckets: int) -> Iterator[tuple[int, Edges]]:
    heartbeat.beat()
    return components.contract(*element, buckets)


def _unfinished(element: tuple[int, Iterable[Edges]], buckets: int) -> Edges:
    return components.unfinished(*element, buckets)


def _documents(record: Record, work: str, buckets: int) -> Iterator[tuple[int, Documents]]:
    found = files.load_bands(work, record.task.stem)
    for bucket, mine in split(home(found.nodes, buckets)):
        yield bucket, (record.task.stem, found.rows[mine], found.nodes[mine])


def _join_all(parts: Iterable[Edges]) -> Edges:
    return components.join(components.concatenate(parts))


def _name(
    bucket: tuple[int, tuple[Iterable[Edges], Iterable[Documents]]], buckets: int, rest: Edges
) -> Iterator[tuple[str, Clustered]]:
    """The cluster of every document of a bucket that shares one."""
    heartbeat.beat()
    number, (edges, documents) = bucket
    parts = list(documents)
    nodes = np.concatenate([np.empty(0, np.uint64), *(part[2] for part in parts)])
    cluster, several = components.named(number, edges, nodes, buckets, rest)
    first = 0
    for stem, rows, nodes in parts:
        mine = np.flatnonzero(several[first : first + len(nodes)])
        if len(mine):
            yield stem, (rows[mine], cluster[first + mine])
        first += len(nodes)


def _members(
    element: tuple[str, tuple[Iterable[Record], Iterable[Clustered] | None]],
    folder: str,
    combined: Combined | None,
    stays: Stays,
    buckets: int,
) -> Iterator[tuple[int, Members]]:
    """The documents of a task that share clusters, by the bucket of the cluster."""
    _, ((record,), parts) = element
    paths = [storage.join(folder, shard.name) for shard in record.shards]
    if parts is None:
        rows, cluster = files.clusters_of(paths)
    else:
        found = [(np.empty(0, np.int64), np.empty(0, np.uint64)), *parts]
        rows, cluster = (np.concatenate([part[i] for part in found]) for i in (0, 1))
        order = np.argsort(rows)
        rows, cluster = rows[order], cluster[order]
    if not len(rows):
        return
    everyone = choice.members(record.task, _batches(paths, combined), rows, cluster, stays)
    for bucket, mine in split(home(cluster, buckets)):
        yield bucket, everyone.take(mine)


def _batches(paths: Sequence[str], combined: Combined | None) -> Iterator[pa.RecordBatch]:
    """The columns by which to choose, of the documents in some shards."""
    columns = [*choice.COLUMNS, *(combined.columns if combined else ())]
    batches = (batch for path in paths for batch in tables.batches(path, columns))
    # The combination may have changed since they were scored.
    return map(combined.again, batches) if combined else batches


def _choose(bucket: tuple[int, Iterable[Members]], stays: Stays) -> Iterator[tuple[str, Found]]:
    heartbeat.beat()
    return choice.choose(bucket[1], stays)


def _save(element: tuple[str, tuple[Iterable[Record], Iterable[Found]]], work: str) -> Record:
    stem, ((record,), found) = element
    files.save_marks(work, stem, list(found))
    return record


def _mark_in_files(
    found: Sequence[Record],
    work: str,
    folder: str,
    combined: Combined | None,
    stays: Stays,
    first: bool,
) -> Sequence[Record]:
    """Do the same as :func:`mark` on one machine, through files."""
    records = {record.task.stem: record for record in found}
    documents = sum(shard.rows for record in found for shard in record.shards)
    buckets = max(1, min(FILES, documents // IN_FILES))
    joined: Iterable[tuple[str, Any]] = ((stem, ([one], None)) for stem, one in records.items())
    if first:
        clusters = grouped(_clusters_in_files(found, work, buckets))
        joined = ((stem, ([records[stem]], parts)) for stem, parts in clusters)
    with heartbeat.working_on("the near-duplicates"):
        members = (m for one in joined for m in _members(one, folder, combined, stays, buckets))
        chosen = (pair for bucket in grouped(members) for pair in _choose(bucket, stays))
        left = set(records)
        for stem, parts in grouped(chosen):
            files.save_marks(work, stem, parts)
            left.remove(stem)
        for stem in left:
            files.save_marks(work, stem, [])
    return found


def _clusters_in_files(
    found: Sequence[Record], work: str, buckets: int
) -> Iterator[tuple[str, Clustered]]:
    """Do the same as :func:`find_clusters`, likewise."""
    bands = (pair for record in found for pair in _bands(record, work, buckets))
    edges = (pair for bucket in grouped(bands) for pair in _link(bucket, buckets))
    for _ in range(components.ROUNDS):
        edges = (pair for bucket in grouped(edges) for pair in _contract(bucket, buckets))
    documents = (pair for record in found for pair in _documents(record, work, buckets))
    with Spool(edges) as linked, Spool(documents) as here:
        rest = _join_all(_unfinished(bucket, buckets) for bucket in linked)
        for number in range(buckets):
            yield from _name((number, (linked.of(number), here.of(number))), buckets, rest)
