"""Scored documents as they are decided: from the shards, with what is known of duplicates."""

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.near_duplicates.choice import drop_near
from pipeline.near_duplicates.files import Marks
from pipeline.output.records import Record
from winnow import storage, tables


def scored_batches(
    scored: Record, folder: str, marks: str | None, columns: Collection[str] | None = None
) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.bool_] | None]]:
    """The batches of a scored task, and which of their documents are near-duplicates to drop.

    Args:
        scored: the task.
        folder: where its shards are.
        marks: the folder of the file that marks near-duplicates; None if none were looked for.
        columns: those to read; None for all.
    """
    paths = [storage.join(folder, shard.name) for shard in scored.shards]
    batches = (batch for path in paths for batch in tables.batches(path, columns))
    if marks:
        return Marks.load(marks, scored.task.stem).over(batches)
    return ((batch, None) for batch in batches)


def reaching_batches(
    scored: Record, folder: str, marks: str | None, columns: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """What a rule is solved from: the batches of a scored task, near-duplicates dropped."""
    for batch, near in scored_batches(scored, folder, marks, columns):
        if near is not None:
            at = batch.schema.get_field_index("drop_reason")
            field = batch.schema.field(at)
            batch = batch.set_column(at, field, drop_near(batch["drop_reason"], near))
        yield batch


def shaped(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """A scored batch with the wanted columns, those that no decision has filled yet as zeros."""
    if batch.schema.equals(wanted):
        return batch
    columns = [
        batch[field.name]
        if field.name in batch.schema.names
        else pa.array(np.zeros(len(batch)), field.type)
        for field in wanted
    ]
    return pa.RecordBatch.from_arrays(columns, schema=wanted)
