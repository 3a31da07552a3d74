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
from winnow.dealt import MOST, Dealt, split

_STORED = np.dtype([("hash", "V16"), ("order", np.int64), ("row", np.int64)])


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
    hashes, rows = _candidates(keys)
    for bucket, mine in split(_buckets(hashes, buckets)):
        yield bucket, Keys(task.order, task.stem, task.filtered, hashes[mine], rows[mine])


def id_hashes(keys: pa.Table, buckets: int) -> Iterator[tuple[int, bytes]]:
    """Split the hashes of all ids into (bucket, uint64 hashes as bytes)."""
    hashes = keys["id_hash"].to_numpy()
    for bucket, mine in split(home(hashes, buckets)):
        yield bucket, hashes[mine].tobytes()


def count_repeats(bucket: Iterable[bytes]) -> int:
    """How many hashes of one bucket occurred before."""
    heartbeat.beat()
    hashes = np.frombuffer(b"".join(bucket), np.uint64)
    return len(hashes) - len(np.unique(hashes))


def repeats(bucket: Iterable[Keys]) -> Iterator[tuple[Keys, npt.NDArray[np.int64]]]:
    """For each task of one bucket, the rows (int64, ascending) that repeat an earlier document."""
    heartbeat.beat()
    parts = sorted(bucket, key=lambda part: part.order)
    hashes = np.concatenate([part.hashes for part in parts])
    _, first = np.unique(hashes, return_index=True)
    repeated = np.ones(len(hashes), np.bool_)
    repeated[first] = False
    ends = np.cumsum([len(part.rows) for part in parts])
    for part, flags in zip(parts, np.split(repeated, ends[:-1]), strict=True):
        if flags.any():
            yield part, part.rows[flags]


def count_repeats_in_files(tasks: Iterable[pa.Table], buckets: int) -> int:
    """How many of all ids occurred before, in the memory of one task or bucket.

    The hashes are dealt into a file for each bucket, in ``$TMPDIR``: 8 bytes a document.
    """
    n = min(buckets, MOST)
    with Dealt(n, np.dtype(np.uint64)) as dealt:
        for keys in tasks:
            hashes = keys["id_hash"].to_numpy()
            dealt.deal(home(hashes, n), hashes)
        return sum(count_repeats([dealt.of(bucket).tobytes()]) for bucket in range(n))


def repeats_in_files(
    tasks: Iterable[tuple[Task, pa.Table]], buckets: int
) -> Iterator[tuple[Keys, npt.NDArray[np.int64]]]:
    """What :func:`repeats` gives for each bucket of all tasks, likewise: 32 bytes a document."""
    known: dict[int, Task] = {}
    n = min(buckets, MOST)
    with Dealt(n, _STORED) as dealt:
        for task, keys in tasks:
            known[task.order] = task
            hashes, rows = _candidates(keys)
            dealt.deal(_buckets(hashes, n), hashes, task.order, rows)
        for bucket in range(n):
            stored = dealt.of(bucket)
            if len(stored):
                parts = [stored[mine] for _, mine in split(stored["order"])]
                yield from repeats(_keys(known[part["order"][0]], part) for part in parts)


def _keys(task: Task, stored: npt.NDArray[np.void]) -> Keys:
    return Keys(task.order, task.stem, task.filtered, stored["hash"], stored["row"])


def _candidates(keys: pa.Table) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int64]]:
    """Content hashes (void16 [n]) and rows (int64 [n]) of the documents that no step dropped."""
    column = keys["content_hash"].combine_chunks()
    hashes = np.frombuffer(column.buffers()[1], "V16") if len(column) else np.empty(0, "V16")
    rows = np.flatnonzero(keys["candidate"].to_numpy())
    return hashes[rows], rows


def _buckets(hashes: npt.NDArray[np.void], buckets: int) -> npt.NDArray[np.int64]:
    return home(hashes.view(np.uint64)[::2], buckets)
