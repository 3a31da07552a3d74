"""Exact duplicates, repeated ids and repeated lines in the graph, found from hashes alone."""

from collections.abc import Iterable, Iterator
from functools import partial

import apache_beam as beam

from pipeline.beam.transforms import by_bucket, on_worker
from pipeline.core import duplicates, repeated_lines
from pipeline.core.job import Job
from pipeline.core.repeated_lines import Lines
from pipeline.output import records
from pipeline.output.records import Record, Task
from pipeline.steps.host_lines import NAME
from pipeline.steps.words.folded_lines import Keys
from winnow import heartbeat


@beam.ptransform_fn
def find_duplicates(scored: beam.PCollection, work: str, buckets: int) -> beam.PCollection:
    """Records in; (stem, rows) of exact duplicates in filtered sources out."""
    split = partial(_content_keys, work=work, buckets=buckets)
    return scored | by_bucket(split, duplicates.repeats, "the duplicates")


@beam.ptransform_fn
def count_duplicate_ids(scored: beam.PCollection, work: str, buckets: int) -> beam.PCollection:
    """Records in; ints out, whose sum is the number of documents that repeat an earlier id."""
    split = partial(_id_hashes, work=work, buckets=buckets)
    return scored | by_bucket(split, duplicates.count_repeats, "the ids")


@beam.ptransform_fn
def find_repeated_lines(tasks: beam.PCollection, job: Job, n_tasks: int) -> beam.PCollection:
    """The same tasks, after writing each one's ``<stem>.repeated.arrow``.

    This reads every document of filtered sources an extra time; lines of others do not count.
    """
    work, most = job.sink.work, job.steps[NAME]["max_documents"]
    read = tasks | "ReadLines" >> beam.Map(on_worker(_read_lines), job).with_output_types(Task)
    split = partial(_lines, work=work, buckets=repeated_lines.buckets(n_tasks))
    merge = partial(repeated_lines.repeated, max_documents=most)
    found = read | by_bucket(split, merge, "the repeated lines")
    by_stem = read | "ByStem" >> beam.Map(lambda task: (task.stem, task))
    return (
        (by_stem, found)
        | "WithRepeated" >> beam.CoGroupByKey()
        | "Save" >> beam.Map(on_worker(_save_repeated), work).with_output_types(Task)
    )


def _content_keys(record: Record, work: str, buckets: int) -> Iterator[tuple[int, duplicates.Keys]]:
    return duplicates.content_keys(record.task, records.load_keys(work, record.task), buckets)


def _id_hashes(record: Record, work: str, buckets: int) -> Iterator[tuple[int, bytes]]:
    return duplicates.id_hashes(records.load_keys(work, record.task), buckets)


def _read_lines(task: Task, job: Job) -> Task:
    if task.filtered:
        with heartbeat.working_on(task.input.path):
            fields = job.fields[task.source]
            repeated_lines.read_lines(task, fields, job.reading, job.sink.work)
    return task


def _lines(task: Task, work: str, buckets: int) -> Iterator[tuple[int, Lines]]:
    if task.filtered:
        yield from repeated_lines.in_buckets(repeated_lines.load_lines(task, work), buckets)


def _save_repeated(element: tuple[str, tuple[Iterable[Task], Iterable[Keys]]], work: str) -> Task:
    stem, ((task,), found) = element
    if task.filtered:
        repeated_lines.save_repeated(work, stem, list(found))
    return task
