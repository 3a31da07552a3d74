"""Near-duplicates as Beam sees them: hashes meet, components join in rounds, clusters choose.

    Bands -> Meet -> Link -> [Meet -> Join] * ROUNDS -> Clusters -> Members -> Choose -> Mark

Text is read by none of it. See :mod:`pipeline.near_duplicates.components` for the rounds.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from pipeline.beam.exact_duplicates import is_local, together
from pipeline.beam.reaching import reaching
from pipeline.core.duplicates import by_files
from pipeline.core.scores import Combined
from pipeline.core.task import Sink
from pipeline.near_duplicates import choice, components, files
from pipeline.near_duplicates.choice import Found, Members, Rows, Stays
from pipeline.near_duplicates.components import Edges, Nodes
from pipeline.output.records import Record
from winnow import heartbeat, storage, tables

Clustered = tuple[Rows, Nodes]
"""Rows (int64 [n]) and clusters (uint64 [n]) of documents of one task."""

Documents = tuple[str, Rows, Nodes]
"""A task's stem, rows and nodes."""


def buckets(n_tasks: int) -> int:
    """The number of buckets of a run; each holds 5 million band hashes of a dump's 3 billion pages
    (:func:`pipeline.core.duplicates.buckets`).
    """
    return min(8192, max(8, n_tasks // 8))


FILES = 64
"""Into which the hashes of bands are dealt at least: 3.5 MB each for a million documents."""


class Mark(beam.PTransform):
    """The same records, once ``<stem>.near.arrow`` of each says who is dropped.

    With ``first`` the clusters are found from the hashes of the bands; else they are those that the
    shards in ``folder`` name.
    """

    def __init__(self, sink: Sink, folder: str, stays: Stays, n_tasks: int, first: bool) -> None:
        super().__init__()
        self._work = sink.work
        self._combined = sink.combined
        self._folder = folder
        self._stays = stays
        self._buckets = buckets(n_tasks)
        self._first = first

    def expand(self, scored: beam.PCollection) -> beam.PCollection:
        """Records in, records out."""
        by_stem = scored | "ByStem" >> beam.Map(lambda record: (record.task.stem, record))
        if self._first:
            clusters = scored | "Clusters" >> Clusters(self._work, self._buckets)
            joined = (by_stem, clusters) | "WithClusters" >> beam.CoGroupByKey()
        else:
            joined = by_stem | "Alone" >> beam.Map(lambda pair: (pair[0], ([pair[1]], None)))
        found = (
            joined
            | "Members"
            >> beam.FlatMap(
                reaching(_members), self._folder, self._combined, self._stays, self._buckets
            )
            | "OfACluster" >> beam.GroupByKey()
            | "Choose" >> beam.FlatMap(_choose, self._stays)
        )
        return (
            (by_stem, found)
            | "WithFound" >> beam.CoGroupByKey()
            | "Save" >> beam.Map(reaching(_save), self._work).with_output_types(Record)
        )


class Clusters(beam.PTransform):
    """(stem, rows and clusters) of all documents that are in a cluster with others."""

    def __init__(self, work: str, buckets: int) -> None:
        super().__init__()
        self._work = work
        self._buckets = buckets

    def expand(self, scored: beam.PCollection) -> beam.PCollection:
        """Records in, pairs out."""
        edges = scored | "Edges" >> Links(self._work, self._buckets)
        for number in range(1, components.ROUNDS + 1):
            edges = (
                edges
                | f"Meet{number}" >> beam.GroupByKey()
                | f"Join{number}" >> beam.FlatMap(_contract, self._buckets)
            )
        rest = (
            edges
            | "MeetLast" >> beam.GroupByKey()
            | "Unfinished" >> beam.Map(_unfinished, self._buckets)
            | "JoinRest" >> beam.CombineGlobally(_join_all)
        )
        documents = scored | "Documents" >> beam.FlatMap(
            reaching(_documents), self._work, self._buckets
        )
        return (
            (edges, documents)
            | "MeetAtHome" >> beam.CoGroupByKey()
            | "Name" >> beam.FlatMap(_name, self._buckets, beam.pvalue.AsSingleton(rest))
        )


class Links(beam.PTransform):
    """(home, edges) of the documents that share a band, joined already as far as they met.

    The local engine would hold the hashes in memory, some 300 bytes a document, so there one step
    deals them into files, as for exact duplicates.
    """

    def __init__(self, work: str, buckets: int) -> None:
        super().__init__()
        self._work = work
        self._buckets = buckets

    def expand(self, scored: beam.PCollection) -> beam.PCollection:
        """Records in, pairs out."""
        if is_local(scored):
            return (
                scored
                | "Together" >> together()
                | "LinkInFiles" >> beam.FlatMap(reaching(_link_in_files), self._work, self._buckets)
            )
        return (
            scored
            | "Bands" >> beam.FlatMap(reaching(_bands), self._work, self._buckets)
            | "Meet" >> beam.GroupByKey()
            | "Link" >> beam.FlatMap(_link, self._buckets)
        )


def _bands(
    record: Record, work: str, buckets: int
) -> Iterator[tuple[int, tuple[npt.NDArray[np.uint64], Nodes]]]:
    """The hashes of a task's bands, and whose they are, by bucket; of equal texts those of one."""
    found = files.load_bands(work, record.task.stem)
    nodes, first = np.unique(found.nodes, return_index=True)
    hashes = found.bands[first].ravel()
    nodes = np.repeat(nodes, found.bands.shape[1])
    for bucket, mine in components.split(components.home(hashes, buckets)):
        yield bucket, (hashes[mine], nodes[mine])


def _link(
    bucket: tuple[int, Iterable[tuple[npt.NDArray[np.uint64], Nodes]]], buckets: int
) -> Iterator[tuple[int, Edges]]:
    heartbeat.beat()
    parts = list(bucket[1])
    bands, nodes = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    edges = components.share_a_band(bands, nodes)
    return components.contract(components.NO_HOME, [edges], buckets)


def _link_in_files(found: Iterable[Record], work: str, buckets: int) -> Iterator[tuple[int, Edges]]:
    """What :func:`_link` gives for all buckets, in the memory of one task or file."""
    dealt = (
        (file, np.stack(pairs, axis=1).tobytes())
        for record in found
        for file, pairs in _bands(record, work, max(FILES, buckets))
    )
    with heartbeat.working_on("the near-duplicates"):
        for content in by_files(dealt):
            bands, nodes = np.frombuffer(content, np.uint64).reshape(-1, 2).T
            yield from _link((0, [(bands, nodes)]), buckets)


def _contract(element: tuple[int, Iterable[Edges]], buckets: int) -> Iterator[tuple[int, Edges]]:
    heartbeat.beat()
    bucket, parts = element
    return components.contract(bucket, parts, buckets)


def _unfinished(element: tuple[int, Iterable[Edges]], buckets: int) -> Edges:
    bucket, parts = element
    return components.unfinished(bucket, parts, buckets)


def _documents(record: Record, work: str, buckets: int) -> Iterator[tuple[int, Documents]]:
    found = files.load_bands(work, record.task.stem)
    for bucket, mine in components.split(components.home(found.nodes, buckets)):
        yield bucket, (record.task.stem, found.rows[mine], found.nodes[mine])


def _join_all(parts: Iterable[Edges]) -> Edges:
    return components.join(components.concatenate(parts))


def _name(
    bucket: tuple[int, tuple[Iterable[Edges], Iterable[Documents]]], buckets: int, rest: Edges
) -> Iterator[tuple[str, Clustered]]:
    """The cluster of every document of a bucket that is in one with others."""
    heartbeat.beat()
    number, (edges, documents) = bucket
    known = components.resolve(number, edges, buckets, rest)
    parts = list(documents)
    nodes = np.concatenate([np.empty(0, np.uint64), *(part[2] for part in parts)])
    distinct, times = np.unique(nodes, return_counts=True)
    repeated = distinct[times > 1]
    for stem, rows, nodes in parts:
        at, linked = components.find(known.child, nodes)
        cluster = nodes.copy()
        cluster[linked] = known.parent[at[linked]]
        mine = linked | components.find(repeated, nodes)[1]
        if mine.any():
            yield stem, (rows[mine], cluster[mine])


def _members(
    element: tuple[str, tuple[Iterable[Record], Iterable[Clustered] | None]],
    folder: str,
    combined: Combined | None,
    stays: Stays,
    buckets: int,
) -> Iterator[tuple[int, Members]]:
    """The documents of a task that are in clusters, by the bucket of their cluster."""
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
    columns = [*choice.COLUMNS, *(combined.columns if combined else ())]
    batches = (batch for path in paths for batch in tables.batches(path, columns))
    if combined:  # perhaps otherwise than when they were scored
        batches = (combined.again(batch) for batch in batches)
    everyone = choice.members(record.task, batches, rows, cluster, stays)
    for bucket, mine in components.split(components.home(cluster, buckets)):
        yield bucket, everyone.take(mine)


def _choose(bucket: tuple[int, Iterable[Members]], stays: Stays) -> Iterator[tuple[str, Found]]:
    heartbeat.beat()
    return choice.choose(bucket[1], stays)


def _save(element: tuple[str, tuple[Iterable[Record], Iterable[Found]]], work: str) -> Record:
    stem, ((record,), found) = element
    files.save_marks(work, stem, list(found))
    return record
