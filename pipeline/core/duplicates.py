"""Exact duplicates across a whole run, found from hashes alone: no text is ever shuffled.

Each task's keys (:data:`pipeline.output.records.KEYS`) are split into buckets by hash. Equal hashes
meet in one bucket, where the first document in task order is kept and later ones are repeats. In
that order pass-through sources come first.
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
    """The number of buckets of a run.

    For 90,000 tasks of 33,000 documents (a dump of Common Crawl) a bucket holds 3 million hashes.
    """
    return min(1024, max(32, n_tasks // 64))


@dataclass(frozen=True)
class Keys:
    """The part of one task's hashes that falls into one bucket.

    ``hashes`` is void16 [n], ``rows`` int64 [n] ascending: their rows in the task.
    """

    order: int
    stem: str
    filtered: bool
    hashes: npt.NDArray[np.void]
    rows: npt.NDArray[np.int64]


def content_keys(task: Task, keys: pa.Table, buckets: int) -> Iterator[tuple[int, Keys]]:
    """Split the content hashes of the documents that no step dropped into (bucket, keys)."""
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
    """How many hashes of one bucket occurred before."""
    heartbeat.beat()
    hashes = np.frombuffer(b"".join(bucket), np.uint64)
    yield len(hashes) - len(np.unique(hashes))


def repeats(bucket: Iterable[Keys]) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """The documents of one bucket that repeat an earlier one, but for pass-through sources.

    Yields the stem of a task and the rows (int64, ascending).
    """
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
