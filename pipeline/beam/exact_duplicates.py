"""Exact duplicates and repeated ids in the graph (:mod:`pipeline.core.duplicates`).

Engines shuffle the hashes on disk. Beam's local engine groups in memory, 50 to 120 bytes a
document, so there one step deals them into files.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.beam.worker_setup import on_worker
from pipeline.core import duplicates
from pipeline.output import records
from pipeline.output.records import Record
from winnow import heartbeat

Repeats = tuple[str, npt.NDArray[np.int64]]
"""The stem of a task, and rows of it."""


@beam.ptransform_fn
def find_duplicates(scored: beam.PCollection, work: str, buckets: int) -> beam.PCollection:
    """Records in; out the :data:`Repeats` of filtered sources, exact duplicates."""
    if is_local(scored):
        return (
            scored
            | "Together" >> together()
            | "Repeats" >> beam.FlatMap(on_worker(_repeats), work, buckets)
        )
    return (
        scored
        | "Keys" >> beam.FlatMap(on_worker(_content_keys), work, buckets)
        | "Meet" >> beam.GroupByKey()
        | "Repeats" >> beam.FlatMap(lambda bucket: _filtered(duplicates.repeats(bucket[1])))
    )


@beam.ptransform_fn
def count_duplicate_ids(scored: beam.PCollection, work: str, buckets: int) -> beam.PCollection:
    """Records in, one int out: how many documents of the run have the id of an earlier one."""
    if is_local(scored):
        return (
            scored
            | "Together" >> together()
            | "Count" >> beam.Map(on_worker(_count_repeated_ids), work, buckets)
        )
    return (
        scored
        | "Hashes"
        >> beam.FlatMap(on_worker(_id_hashes), work, buckets).with_output_types(tuple[int, bytes])
        | "Meet" >> beam.GroupByKey()
        | "Count" >> beam.Map(lambda bucket: duplicates.count_repeats(bucket[1]))
        | "Sum" >> beam.CombineGlobally(sum)
    )


@beam.ptransform_fn
def together(elements: beam.PCollection) -> beam.PCollection:
    """All elements, which are few, in one list; no list if there are none."""
    return (
        elements
        | "Key" >> beam.Map(lambda element: (0, element)).with_output_types(tuple[int, Any])
        | "Group" >> beam.GroupByKey()
        | "List" >> beam.Map(lambda pair: list(pair[1]))
    )


def is_local(elements: beam.PCollection) -> bool:
    """Whether Beam's own engine runs them on this machine, and groups in memory."""
    return isinstance(elements.pipeline.runner, FnApiRunner)


def _content_keys(record: Record, work: str, buckets: int) -> Iterator[tuple[int, duplicates.Keys]]:
    return duplicates.content_keys(record.task, records.load_keys(work, record.task), buckets)


def _id_hashes(record: Record, work: str, buckets: int) -> Iterator[tuple[int, bytes]]:
    return duplicates.id_hashes(records.load_keys(work, record.task), buckets)


def _repeats(found: Iterable[Record], work: str, buckets: int) -> Iterator[Repeats]:
    with heartbeat.working_on("the duplicates"):
        tasks = ((record.task, records.load_keys(work, record.task)) for record in found)
        yield from _filtered(duplicates.repeats_in_files(tasks, buckets))


def _filtered(
    repeats: Iterable[tuple[duplicates.Keys, npt.NDArray[np.int64]]],
) -> Iterator[Repeats]:
    """Those of filtered sources; the others pass through as they are."""
    return ((part.stem, rows) for part, rows in repeats if part.filtered)


def _count_repeated_ids(found: Iterable[Record], work: str, buckets: int) -> int:
    with heartbeat.working_on("the ids"):
        keys = (records.load_keys(work, record.task) for record in found)
        return duplicates.count_repeats_in_files(keys, buckets)
