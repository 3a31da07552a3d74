"""Reads scored documents back from shards, with duplicates marked, for the decision."""

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.near_duplicates.choice import drop_near
from pipeline.near_duplicates.files import load_marks, marked
from pipeline.output.records import Record
from pipeline.output.schema import DUPLICATE, QUALITY
from winnow.filesystem import storage, tables
from winnow.sorted_keys import among

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


def scored_batches(
    scored: Record,
    folder: str,
    marks: str | None,
    duplicates: Rows,
    columns: Collection[str] | None = None,
) -> Iterator[tuple[pa.RecordBatch, Flags, Flags | None]]:
    """The batches of a scored task: n documents, whether each repeats a text (bool [n]), and
    whether it is a near-duplicate (bool [n]; None without that search).

    ``folder`` holds its shards, ``marks`` its marks of near-duplicates, if any; ``duplicates`` are
    its rows that repeat a text, ascending.
    """
    paths = [storage.join(folder, shard.name) for shard in scored.shards]
    batches = (batch for path in paths for batch in tables.batches(path, columns))
    pairs: Iterator[tuple[pa.RecordBatch, Flags | None]] = ((batch, None) for batch in batches)
    if marks:
        pairs = marked(load_marks(marks, scored.task.stem), batches)
    first = 0
    for batch, near in pairs:
        end = first + len(batch)
        yield batch, among(duplicates, np.arange(first, end)), near
        first = end


def solving_batches(
    scored: Record, folder: str, marks: str | None, duplicates: Rows, columns: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """The batches that a rule is solved from: a scored task, its duplicates dropped."""
    for batch, repeats, near in scored_batches(scored, folder, marks, duplicates, columns):
        reason = drop_duplicates(batch["drop_reason"], repeats, near)
        yield tables.replaced(batch, drop_reason=reason)


def drop_duplicates(reason: pa.Array, repeats: Flags | None, near: Flags | None) -> pa.Array:
    """Drop reasons (string [n]) after dropping exact duplicates (``repeats``, bool [n]) and
    near-duplicates (``near``, bool [n]) that no step dropped. None changes nothing.
    """
    if repeats is not None and repeats.any():
        undecided = pc.fill_null(pc.equal(reason, QUALITY), True)
        reason = pc.if_else(pc.and_(repeats, undecided), DUPLICATE, reason)
    return reason if near is None else drop_near(reason, near)


def with_schema(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """A scored batch with the wanted columns; those that no decision has filled yet are zeros."""
    if batch.schema.equals(wanted):
        return batch
    columns = [
        batch[field.name]
        if field.name in batch.schema.names
        else pa.array(np.zeros(len(batch)), field.type)
        for field in wanted
    ]
    return pa.RecordBatch.from_arrays(columns, schema=wanted)
