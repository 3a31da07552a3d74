"""The search for repeated lines in the graph: each task learns which of its lines repeat.

    ReadLines -> Keys -> Meet -> Repeated -> Save

Every document is read once more. No text is shuffled.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam

from pipeline.beam.exact_duplicates import is_local, together
from pipeline.beam.worker_setup import on_worker
from pipeline.core import repeated_lines
from pipeline.core.repeated_lines import Lines
from pipeline.core.task import Job
from pipeline.output.records import Task
from pipeline.steps.host_lines import NAME
from pipeline.steps.words.folded_lines import Keys
from winnow import heartbeat


@beam.ptransform_fn
def find_repeated_lines(tasks: beam.PCollection, job: Job, n_tasks: int) -> beam.PCollection:
    """The same tasks, once ``<stem>.repeated.arrow`` of each says which of its lines repeat.

    Lines of pass-through sources are neither counted nor removed.
    """
    work, most = job.sink.work, job.steps[NAME]["max_documents"]
    read = tasks | "ReadLines" >> beam.Map(on_worker(_read), job).with_output_types(Task)
    by_stem = read | "ByStem" >> beam.Map(lambda task: (task.stem, task))
    if is_local(tasks):
        found = (
            read
            | "Together" >> together()
            | "InFiles" >> beam.FlatMap(on_worker(_in_files), work, most)
        )
    else:
        found = (
            read
            | "Keys" >> beam.FlatMap(on_worker(_in_buckets), work, repeated_lines.buckets(n_tasks))
            | "Meet" >> beam.GroupByKey()
            | "Repeated" >> beam.FlatMap(lambda bucket: repeated_lines.repeated(bucket[1], most))
        )
    return (
        (by_stem, found)
        | "WithRepeated" >> beam.CoGroupByKey()
        | "Save" >> beam.Map(on_worker(_save), work).with_output_types(Task)
    )


def _read(task: Task, job: Job) -> Task:
    if task.filtered:
        with heartbeat.working_on(task.input.path):
            fields = job.fields[task.source]
            repeated_lines.read_lines(task, fields, job.reading, job.sink.work)
    return task


def _in_buckets(task: Task, work: str, buckets: int) -> Iterator[tuple[int, Lines]]:
    if task.filtered:
        yield from repeated_lines.in_buckets(repeated_lines.load_lines(task, work), buckets)


def _in_files(tasks: Iterable[Task], work: str, most: int) -> Iterator[tuple[str, Keys]]:
    lines = (repeated_lines.load_lines(task, work) for task in tasks if task.filtered)
    with heartbeat.working_on("the repeated lines"):
        yield from repeated_lines.repeated_in_files(lines, most)


def _save(element: tuple[str, tuple[Iterable[Task], Iterable[Keys]]], work: str) -> Task:
    stem, ((task,), found) = element
    if task.filtered:
        repeated_lines.save_repeated(work, stem, list(found))
    return task
