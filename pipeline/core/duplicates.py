"""Exact duplicates in a whole run, found from hashes alone: no text is ever shuffled.

Each task's keys (:data:`pipeline.output.records.KEYS`) are split into buckets by hash. Of equal
hashes the first in task order is kept; in that order pass-through sources come first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.near_duplicates.components import home
from pipeline.output.records import Task
from winnow import heartbeat
from winnow.spool import split


def buckets(n_tasks: int) -> int:
    """The number of buckets: 3 million hashes in each for a dump of 3 billion pages."""
    return min(1024, max(32, n_tasks // 64))


@dataclass(frozen=True)
class Keys:
    """One task's hashes (void16 [n]) in one bucket, and their rows (int64 [n], ascending)."""

    order: int
    stem: str
    filtered: bool
    hashes: npt.NDArray[np.void]
    rows: npt.NDArray[np.int64]


def content_keys(task: Task, keys: pa.Table, buckets: int) -> Iterator[tuple[int, Keys]]:
    """Split the content hashes of documents that no step dropped into (bucket, keys)."""
    column = keys["content_hash"].combine_chunks()
    hashes = np.frombuffer(column.buffers()[1], "V16") if len(column) else np.empty(0, "V16")
    rows = np.flatnonzero(keys["candidate"].to_numpy())
    hashes = hashes[rows]
    for bucket, mine in split(home(hashes.view(np.uint64)[::2], buckets)):
        yield bucket, Keys(task.order, task.stem, task.filtered, hashes[mine], rows[mine])


def id_hashes(keys: pa.Table, buckets: int) -> Iterator[tuple[int, bytes]]:
    """Split the hashes of all ids into (bucket, uint64 hashes as bytes)."""
    hashes = keys["id_hash"].to_numpy()
    for bucket, mine in split(home(hashes, buckets)):
        yield bucket, hashes[mine].tobytes()


def count_repeats(bucket: Iterable[bytes]) -> Iterator[int]:
    """The number of hashes in one bucket that occurred before."""
    heartbeat.beat()
    hashes = np.frombuffer(b"".join(bucket), np.uint64)
    yield len(hashes) - len(np.unique(hashes))


def repeats(bucket: Iterable[Keys]) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """The stem and the rows (int64, ascending) of each filtered task's repeats in one bucket."""
    heartbeat.beat()
    parts = sorted(bucket, key=lambda part: part.order)
    hashes = np.concatenate([part.hashes for part in parts])
    _, first = np.unique(hashes, return_index=True)
    repeated = np.ones(len(hashes), np.bool_)
    repeated[first] = False
    ends = np.cumsum([len(part.rows) for part in parts])
    for part, flags in zip(parts, np.split(repeated, ends[:-1]), strict=True):
        if part.filtered and flags.any():
            yield part.stem, part.rows[flags]
