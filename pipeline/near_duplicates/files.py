"""The near-duplicate search's two files per task in the work folder.

``<stem>.bands.arrow``, written when the task is scored, holds its documents' band hashes.
``<stem>.near.arrow``, read when it is decided, holds their clusters, and which are dropped.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.near_duplicates.choice import Found, Rows
from pipeline.near_duplicates.components import Nodes
from pipeline.near_duplicates.minhash import band_hashes
from pipeline.near_duplicates.settings import Settings
from winnow import heartbeat
from winnow.filesystem import storage, tables

NEAR = pa.schema(
    tables.required(
        row=pa.int64(), cluster=pa.uint64(), cluster_size=pa.int64(), dropped=pa.bool_()
    )
)
"""One row per document that shares a cluster, in order."""


class BandsWriter:
    """Collects the hashes of a task's documents, batch by batch: 8 bytes per band and document."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows = 0
        self._columns: list[tuple[Rows, Nodes, npt.NDArray[np.uint64]]] = []

    def add(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Hash a scored batch; fill in ``cluster`` and ``cluster_size`` as if all were unique."""
        rows = np.flatnonzero(pc.is_null(batch["drop_reason"]).to_numpy(zero_copy_only=False))
        everything = len(rows) == len(batch)
        text = batch["text"] if everything else batch["text"].take(pa.array(rows))
        bands, compared = band_hashes(text, self._settings)
        rows, bands = rows[compared], bands[compared]
        nodes = nodes_of(batch["content_hash"])
        self._columns.append((rows + self._rows, nodes[rows], bands))
        self._rows += len(batch)
        missing = np.ones(len(batch), np.bool_)
        missing[rows] = False
        cluster = pa.array(nodes, mask=missing)
        alone = pa.array(np.ones(len(batch), np.int64), mask=missing)
        return tables.replaced(batch, cluster=cluster, cluster_size=alone)

    def save(self, work: str, stem: str) -> None:
        """Write the file of a task."""
        width = self._settings.bands
        none = (np.empty(0, np.int64), np.empty(0, np.uint64), np.empty((0, width), np.uint64))
        rows, nodes, bands = map(np.concatenate, zip(none, *self._columns, strict=True))
        lists = pa.FixedSizeListArray.from_arrays(bands.ravel(), width)
        tables.write(
            _bands_path(work, stem), pa.table({"row": rows, "node": nodes, "bands": lists})
        )


@dataclass(frozen=True)
class Bands:
    """``rows`` int64 [n] ascending, ``nodes`` uint64 [n], ``bands`` uint64 [n, bands]."""

    rows: Rows
    nodes: Nodes
    bands: npt.NDArray[np.uint64]

    def pairs(self) -> tuple[npt.NDArray[np.uint64], Nodes]:
        """The hashes of all bands, and the node of each, uint64 [m]; equal texts count once."""
        nodes, first = np.unique(self.nodes, return_index=True)
        return self.bands[first].ravel(), np.repeat(nodes, self.bands.shape[1])


def load_bands(work: str, stem: str) -> Bands:
    """What :class:`BandsWriter` wrote for a task."""
    table = tables.read(_bands_path(work, stem)).combine_chunks()
    heartbeat.beat()
    bands = table["bands"].combine_chunks().flatten().to_numpy()
    width = table.schema.field("bands").type.list_size
    return Bands(table["row"].to_numpy(), table["node"].to_numpy(), bands.reshape(-1, width))


def load_marks(work: str, stem: str) -> Found:
    """What :func:`save_marks` wrote for a task."""
    table = tables.read(_near_path(work, stem))
    return Found(*(table[name].to_numpy() for name in NEAR.names))


def marked(
    found: Found, batches: Iterable[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.bool_]]]:
    """The task's batches with their clusters filled in, and which documents to drop (bool [n])."""
    for batch, mine, span in tables.along(batches, found.rows):
        dropped = np.zeros(len(batch), np.bool_)
        dropped[mine] = found.dropped[span]
        if "cluster" in batch.schema.names and len(mine):
            batch = tables.replaced(
                batch,
                cluster=_put(batch["cluster"], mine, found.cluster[span]),
                cluster_size=_put(batch["cluster_size"], mine, found.size[span]),
            )
        yield batch, dropped


def clusters_of(paths: Iterable[str]) -> tuple[Rows, Nodes]:
    """Rows (int64 [n], ascending) and clusters (uint64 [n]) that documents in shards share."""
    rows, clusters = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    first = 0
    for path in paths:
        for batch in tables.batches(path, ("cluster", "cluster_size")):
            mine = np.flatnonzero(batch["cluster_size"].fill_null(1).to_numpy() > 1)
            rows.append(mine + first)
            clusters.append(batch["cluster"].fill_null(0).to_numpy()[mine])
            first += len(batch)
    return np.concatenate(rows), np.concatenate(clusters)


def save_marks(work: str, stem: str, parts: Sequence[Found]) -> None:
    """Write the clusters of a task, from their parts in any order."""
    rows = np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)])
    order = np.argsort(rows)
    columns = [rows] + [
        np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])
        for name, kind in (("cluster", np.uint64), ("size", np.int64), ("dropped", np.bool_))
    ]
    table = pa.table([pa.array(column[order]) for column in columns], schema=NEAR)
    tables.write(_near_path(work, stem), table)


def nodes_of(content_hashes: pa.Array) -> Nodes:
    """The first 64 bits of n content hashes, ordered as their hex digits: uint64 [n].

    Among 3 billion different texts, 0.2 pairs are expected to collide.
    """
    octets = np.frombuffer(content_hashes.buffers()[1], ">u8").reshape(-1, 2)
    at = content_hashes.offset
    return octets[at : at + len(content_hashes), 0].astype(np.uint64)


def _put(column: pa.Array, rows: Rows, values: npt.NDArray[np.generic]) -> pa.Array:
    mask = np.zeros(len(column), np.bool_)
    mask[rows] = True
    return pc.replace_with_mask(column, pa.array(mask), pa.array(values, column.type))


def _bands_path(work: str, stem: str) -> str:
    return storage.join(work, f"{stem}.bands.arrow")


def _near_path(work: str, stem: str) -> str:
    return storage.join(work, f"{stem}.near.arrow")
