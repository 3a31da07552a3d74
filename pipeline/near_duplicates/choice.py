"""Chooses which documents of a near-duplicate cluster stay, from shard columns, without text.

Documents of pass-through sources always stay, and win over all others.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.near_duplicates.components import Nodes
from pipeline.output.records import Task
from pipeline.output.schema import NEAR_DUPLICATE, QUALITY
from winnow.filesystem import tables
from winnow.text.n_grams import mixed

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RULES = ("best", "first", "longest", "sample", "all")
COLUMNS = ("quality_score", "bytes", "keep_draw")
"""Columns that the rules use."""

_ANOTHER = np.uint64(0x6E656172647570)


@dataclass(frozen=True)
class Stays:
    """The rule by which documents stay; ValueError if it is unknown or the power negative.

    ========  ==============================================================
    best      the highest score
    first     the first in input order
    longest   the most bytes
    sample    the best, and of n each other one with probability n ** -power
    all       all: clusters are named, and nothing is dropped
    ========  ==============================================================

    Ties go to the first. ``sample`` keeps more of what the web repeats, as FineWeb2 does (Penedo et
    al. 2025), but no document twice.
    """

    rule: str
    power: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(
                f"unknown --near-duplicates-keep {self.rule!r}: choose one of {', '.join(RULES)}"
            )
        if not 0 <= self.power < float("inf"):
            raise ValueError(
                f"--near-duplicates-power is a finite number of 0 or more, not {self.power:g}"
            )

    def merit(self, batch: pa.RecordBatch) -> Floats:
        """The key of n documents, of which the largest stays: float64 [n]."""
        if self.rule in ("first", "all"):
            return np.zeros(len(batch))
        column = "bytes" if self.rule == "longest" else "quality_score"
        return batch[column].to_numpy().astype(np.float64)


@dataclass(frozen=True)
class Members:
    """Documents of one task that share clusters: ``rows`` int64 [n], ``cluster`` uint64 [n],
    ``merit`` and ``draw`` float64 [n].
    """

    order: int
    stem: str
    filtered: bool
    rows: Rows
    cluster: Nodes
    merit: Floats
    draw: Floats

    def take(self, mine: Rows) -> "Members":
        """Some of them."""
        columns = (self.rows[mine], self.cluster[mine], self.merit[mine], self.draw[mine])
        return Members(self.order, self.stem, self.filtered, *columns)


@dataclass(frozen=True)
class Found:
    """Documents of one task: ``rows`` int64 [n], their ``cluster`` uint64 [n], its ``size`` int64
    [n], and whether they are to be ``dropped``, bool [n].
    """

    rows: Rows
    cluster: Nodes
    size: Rows
    dropped: npt.NDArray[np.bool_]


def members(
    task: Task, batches: Iterable[pa.RecordBatch], rows: Rows, cluster: Nodes, stays: Stays
) -> Members:
    """A task's input of :func:`choose`; ``batches`` hold :data:`COLUMNS` of all documents."""
    merit, draw = [np.empty(0)], [np.empty(0)]
    for batch, mine, _ in tables.along(batches, rows):
        merit.append(stays.merit(batch)[mine])
        draw.append(batch["keep_draw"].to_numpy()[mine])
    columns = (rows, cluster, np.concatenate(merit), another_draw(np.concatenate(draw)))
    return Members(task.order, task.stem, task.filtered, *columns)


def choose(parts: Iterable[Members], stays: Stays) -> Iterator[tuple[str, Found]]:
    """The choice for each task, from all documents of some clusters."""
    tasks = sorted(parts, key=lambda part: part.order)
    counts = [len(part.rows) for part in tasks]
    cluster, merit, draw = (
        np.concatenate([getattr(part, name) for part in tasks])
        for name in ("cluster", "merit", "draw")
    )
    filtered = np.repeat([part.filtered for part in tasks], counts)
    # A stable sort: ties keep the order of tasks and rows.
    order = np.lexsort((-merit, filtered, cluster))
    _, first, inverse, sizes = np.unique(
        cluster[order], return_index=True, return_inverse=True, return_counts=True
    )
    size = np.empty(len(cluster), np.int64)
    size[order] = sizes[inverse]
    dropped = filtered & (stays.rule != "all")
    dropped[order[first]] = False
    if stays.rule == "sample":
        dropped &= draw >= size**-stays.power
    ends = np.cumsum(counts)[:-1]
    columns = (np.split(column, ends) for column in (cluster, size, dropped))
    for part, *mine in zip(tasks, *columns, strict=True):
        yield part.stem, Found(part.rows, *mine)


def drop_near(reason: pa.Array, near: npt.NDArray[np.bool_]) -> pa.Array:
    """Drop reasons (string [n]) with the undecided of ``near`` (bool [n]) as near-duplicates."""
    named = pc.fill_null(pc.equal(reason, NEAR_DUPLICATE), False)
    reason = pc.if_else(named, pa.scalar(None, pa.string()), reason)
    undecided = pc.fill_null(pc.equal(reason, QUALITY), True)
    return pc.if_else(pc.and_(near, undecided), NEAR_DUPLICATE, reason)


def another_draw(draw: Floats) -> Floats:
    """Uniform draws, independent of the keep rule's, from which they are hashed: float64 [n]."""
    bits = mixed(np.ascontiguousarray(draw).view(np.uint64) ^ _ANOTHER)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
