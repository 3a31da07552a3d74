"""Reads the pipeline's output; no other module of ``model`` knows its layout.

The names below are columns of ``shards/*.arrow``. The model imports nothing from the pipeline.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from winnow.filesystem import storage, tables

ID = "id"
SOURCE = "source"
TEXT = "text"
BYTES = "bytes"
CONTENT_HASH = "content_hash"
QUALITY_SCORE = "quality_score"
KEEP_DRAW = "keep_draw"
KEPT = "kept"
DROP_REASON = "drop_reason"

COLUMNS = (ID, SOURCE, TEXT, BYTES, CONTENT_HASH, QUALITY_SCORE, KEEP_DRAW, KEPT, DROP_REASON)

COPIES = "copies"
"""How often an epoch reads a document; only a run with buckets has this column."""

QUALITY = "quality"
"""Drop reason of a document that the keep rule dropped."""


@dataclass(frozen=True)
class ScoredShard:
    """One file of a scored folder, with its XXH3-128 from the pipeline's manifest."""

    path: str
    checksum: str

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def names(self) -> list[str]:
        return tables.column_names(self.path)

    def check(self) -> None:
        """Verify the checksum; raise ValueError if it differs from the pipeline's."""
        if not storage.exists(self.path) or storage.checksum(self.path) != self.checksum:
            raise ValueError(
                f"{self.path} is missing or has changed since the pipeline wrote it: run"
                " pipeline/run.py again into a new folder"
            )

    @contextlib.contextmanager
    def on_disk(self) -> Iterator["ScoredShard"]:
        """The shard on local disk; one in a bucket is copied for the duration of the block."""
        if storage.scheme(self.path) is None:
            yield self
            return
        with storage.local_copy(self.path) as copy:
            yield ScoredShard(copy, self.checksum)

    def batches(self, columns: Sequence[str] = COLUMNS) -> Iterator[pa.RecordBatch]:
        """The shard's batches, memory-mapped; other columns are not decompressed."""
        if missing := sorted(set(columns) - set(self.names)):
            raise ValueError(f"{self.path} has no column {missing}: it is not a scored shard")
        yield from tables.batches(self.path, columns)


@dataclass(frozen=True)
class Scored:
    """A finished output of ``pipeline/run.py`` or ``pipeline/decide.py``, local or in a bucket.

    ``classifier`` is the classifier's fingerprint, ``rule`` the keep rule (``name``, ``parameter``,
    ``ties``), ``filtered_sources`` those that it filters; ``complete`` means that dropped documents
    are included. ``classifier_sources`` are the classifier's curated sources; None if unknown.
    """

    folder: str
    key: str
    classifier: str
    rule: Mapping[str, Any]
    filtered_sources: tuple[str, ...]
    complete: bool
    classifier_sources: tuple[str, ...] | None
    shards: tuple[ScoredShard, ...]


def open_scored(folder: str) -> Scored:
    """Read a scored folder's manifest; raise ValueError if it is missing or lists no shards."""
    path = storage.join(folder, "manifest.json")
    if not storage.exists(path):
        raise ValueError(
            f"{folder} has no manifest.json: it is not an output of pipeline/run.py, or that run"
            " did not finish (run it again with --resume)"
        )
    manifest = storage.read_json(path)
    shards = tuple(
        ScoredShard(storage.join(folder, "shards", shard["name"]), shard["checksum"])
        for task in manifest["tasks"]
        for shard in task["shards"]
    )
    if not shards:
        raise ValueError(f"{folder} holds no documents: check the inputs of that pipeline run")
    tasks = [task["task"] for task in manifest["tasks"]]
    return Scored(
        folder=folder,
        key=manifest["key"],
        classifier=manifest["classifier"]["fingerprint"],
        rule=manifest["rule"],
        filtered_sources=tuple(sorted({t["source"] for t in tasks if t["filtered"]})),
        complete=manifest["config"]["write"] == "all",
        classifier_sources=_classifier_sources(manifest["classifier"]),
        shards=shards,
    )


def _classifier_sources(classifier: Mapping[str, Any]) -> tuple[str, ...] | None:
    cards = [one.get("card", {}) for one in classifier.get("several", {}).values()]
    cards = cards or [classifier.get("card", {})]
    if any("documents" not in card for card in cards):
        return None
    rows = [row for card in cards for row in card["documents"]]
    return tuple(sorted({row["source"] for row in rows if row.get("class") != "negative"}))


def learned_share(folder: str) -> dict[str, float]:
    """The share of each source's documents that the classifier was trained on, if any."""
    manifest = storage.read_json(storage.join(folder, "manifest.json"))
    learned: Counter[str] = Counter()
    for task in manifest["tasks"]:
        learned[task["task"]["source"]] += task.get("trained_on", 0)
    return {s: n / manifest["accounting"][s]["read"] for s, n in sorted(learned.items()) if n}


def reached_decision(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Which of n documents no step dropped before the keep decision: bool [n]."""
    reached = pc.fill_null(pc.equal(batch[DROP_REASON], QUALITY), True)
    return reached.to_numpy(zero_copy_only=False)


def hash_position(batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
    """The top 53 bits of n content hashes as a fraction in [0, 1): float64 [n].

    Equal texts have equal positions, whatever their id or source.
    """
    hashes = batch[CONTENT_HASH]
    words = np.frombuffer(hashes.buffers()[1], ">u8", count=2 * (hashes.offset + len(hashes)))
    high = words[2 * hashes.offset :: 2].astype(np.uint64)
    return (high >> np.uint64(11)).astype(np.float64) * 2.0**-53
