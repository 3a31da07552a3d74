"""The Beam graph. Its elements are tasks and their records, about a kilobyte each, never text.

    Tasks -> [RepeatedLines] -> ScoreTasks
          -> [FindDuplicates, NearDuplicates -> Solve -> DecideTasks]
          -> MergeStatistics -> WriteOutput

The first bracket is for the step that removes repeated lines. Without the second, each task is
decided as it is scored: the rule is known, and duplicates stay. Statistics are passed in files.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from pipeline.beam import near_duplicates
from pipeline.beam.duplicates import count_duplicate_ids, find_duplicates, find_repeated_lines
from pipeline.beam.transforms import on_worker, set_up, together
from pipeline.core import duplicates, finish
from pipeline.core.job import Job, Sink
from pipeline.core.scored_documents import solving_batches
from pipeline.core.task import decide_task, run_task
from pipeline.output import manifest, output_folder, records, schema, summary_files
from pipeline.output.records import Record, Task
from pipeline.rules import solve
from pipeline.rules.groups import AnyRule, to_json
from pipeline.settings.group_settings import (
    AnyDecision,
    Bands,
    GroupDecision,
    PlacesOfGroups,
    Sketches,
    grouped,
)
from pipeline.steps.host_lines import NAME as HOST_LINES
from winnow import heartbeat
from winnow.filesystem import storage
from winnow.object_stores import object_store

Marked = tuple[Record, npt.NDArray[np.int64]]
"""A scored task, and its rows (ascending) that repeat an earlier text."""


def build(
    pipeline: beam.Pipeline, n_tasks: int, job: Job, decision: AnyDecision, about: Mapping[str, Any]
) -> None:
    """Add the graph of a scoring run; ``about`` are the manifest's entries for the run.

    Tasks are read from the work folder (:func:`pipeline.output.records.save_tasks`): ten thousand
    of them in the graph would exceed engines' limits (Dataflow: 10 MB).
    """
    wanted = grouped(decision)
    late = wanted.deduplicate or job.near_duplicates is not None
    rule = None if late else wanted.known_rule()
    sink = job.sink
    buckets = duplicates.buckets(n_tasks)
    staged = storage.join(sink.output, "shards" if rule else records.SCORED)
    tasks = (
        pipeline
        | "Work" >> beam.Create([sink.work])
        | "Tasks" >> beam.FlatMap(on_worker(records.load_tasks)).with_output_types(Task)
        | "SpreadTasks" >> _spread()
    )
    if HOST_LINES in job.steps:
        tasks = tasks | "RepeatedLines" >> find_repeated_lines(job, n_tasks)
    scored = tasks | "ScoreTasks" >> beam.ParDo(ScoreTask(job, rule, staged))
    duplicate_ids = scored | "CountDuplicateIds" >> count_duplicate_ids(sink.work, buckets)
    if rule:
        decided = scored
        used = pipeline | "Rule" >> beam.Create([rule])
    else:
        repeats = None
        if wanted.deduplicate:
            repeats = scored | "FindDuplicates" >> find_duplicates(sink.work, buckets)
        if job.near_duplicates:
            mark = near_duplicates.mark(sink, staged, decision.stays, n_tasks, first=True)
            scored = scored | "NearDuplicates" >> mark
        decided, used = _solve_and_decide(scored, repeats, wanted, staged, sink)
    write(decided, used, duplicate_ids, sink, n_tasks, about)


def build_decide(
    pipeline: beam.Pipeline,
    folder: str,
    n_tasks: int,
    sink: Sink,
    decision: AnyDecision,
    duplicate_ids: int,
    about: Mapping[str, Any],
) -> None:
    """Add the graph that decides again from the finished run in ``folder``."""
    shards_in = storage.join(folder, "shards")
    read = beam.FlatMap(on_worker(manifest.read_records)).with_output_types(Record)
    scored = pipeline | "Folder" >> beam.Create([folder]) | "Records" >> read
    if sink.clusters:
        mark = near_duplicates.mark(sink, shards_in, decision.stays, n_tasks, first=False)
        scored = scored | "NearDuplicates" >> mark
    decided, used = _solve_and_decide(scored, None, grouped(decision), shards_in, sink)
    count = pipeline | "DuplicateIds" >> beam.Create([duplicate_ids])
    write(decided, used, count, sink, n_tasks, about)


@beam.ptransform_fn
def _spread(tasks: beam.PCollection) -> beam.PCollection:
    """Shuffle the tasks across all workers."""
    return (
        tasks
        | "ByStem" >> beam.Map(lambda task: (task.stem, task)).with_output_types(tuple[str, Task])
        | "Spread" >> beam.GroupByKey()
        | "Tasks" >> beam.FlatMap(lambda pair: pair[1]).with_output_types(Task)
    )


class _Counting(beam.DoFn):
    """A step over tasks that reports Beam metrics and progress."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._stores = object_store.shared_options()
        names = ("documents", "bytes", "kept", "quarantined", "tasks")
        self._counters = {name: Metrics.counter(stage, name) for name in names}
        self._batch_documents = Metrics.distribution(stage, "batch_documents")
        self._batch_bytes = Metrics.distribution(stage, "batch_bytes")

    def setup(self) -> None:
        set_up(self._stores)

    def _count(self, batch: pa.RecordBatch, input_bytes: int) -> None:
        documents, size = len(batch), pc.sum(batch["bytes"]).as_py()
        kept = batch["kept"].true_count
        for name, value in (("documents", documents), ("bytes", size), ("kept", kept)):
            self._counters[name].inc(value)
        self._batch_documents.update(documents)
        self._batch_bytes.update(size)
        heartbeat.count(self._stage, documents, size, kept, input_bytes)

    def _finished(self, record: Record) -> None:
        self._counters["tasks"].inc()
        self._counters["quarantined"].inc(record.quarantined)


class ScoreTask(_Counting):
    """Task in, record out; :func:`pipeline.core.task.run_task` does the work."""

    def __init__(self, job: Job, rule: AnyRule | None, folder: str) -> None:
        super().__init__("score")
        self._job = job
        self._rule = rule
        self._folder = folder

    def process(self, task: Task) -> Iterator[Record]:
        with heartbeat.working_on(task.input.path):
            record = run_task(task, self._job, self._rule, self._folder, self._count)
            output_folder.remove_late(self._job.sink.output)
        self._finished(record)
        yield record


class DecideTask(_Counting):
    """Scored record in, decided record out."""

    def __init__(self, sink: Sink, folder: str) -> None:
        super().__init__("decide")
        self._sink = sink
        self._folder = folder

    def process(self, marked: Marked, rule: AnyRule) -> Iterator[Record]:
        record, rows = marked
        with heartbeat.working_on(record.task.input.path):
            decided = decide_task(record, self._folder, self._sink, rule, rows, self._count)
            output_folder.remove_late(self._sink.output)
        self._finished(decided)
        yield decided


def _solve_and_decide(
    scored: beam.PCollection,
    repeats: beam.PCollection | None,
    decision: GroupDecision,
    folder: str,
    sink: Sink,
) -> tuple[beam.PCollection, beam.PCollection]:
    """The decided records and the one rule, for scored tasks and the (stem, rows) that repeat."""
    if repeats is None:
        none = beam.Create([]).with_output_types(tuple[str, Any])
        repeats = scored.pipeline | "NoDuplicates" >> none
    by_stem = scored | "ByStem" >> beam.Map(lambda record: (record.task.stem, record))
    marked = (
        (by_stem, repeats) | "WithRepeats" >> beam.CoGroupByKey() | "Order" >> beam.Map(_in_order)
    )
    used = marked | "Solve" >> solve_rule(decision, folder, sink)
    decide = beam.ParDo(DecideTask(sink, folder), beam.pvalue.AsSingleton(used))
    return marked | "DecideTasks" >> decide, used


def _in_order(
    element: tuple[str, tuple[Iterable[Record], Iterable[npt.NDArray[np.int64]]]],
) -> Marked:
    _, ((record,), repeats) = element
    return record, np.sort(np.concatenate([np.empty(0, np.int64), *repeats]))


@beam.ptransform_fn
def solve_rule(
    marked: beam.PCollection, decision: GroupDecision, folder: str, sink: Sink
) -> beam.PCollection:
    """:data:`Marked` in, the rule out: given, or solved from a sketch of all scores and draws."""
    if known := decision.known_rule():
        return marked.pipeline | beam.Create([known])
    total = (
        marked
        | "Sketch" >> beam.Map(on_worker(_sketch), folder, sink, decision)
        | "Sum" >> beam.CombineGlobally(_sum_sketches)
    )
    if not decision.has_cuts:
        return total | "Solve" >> beam.Map(lambda total: decision.solve(total))
    sketches = beam.pvalue.AsSingleton(total)
    bands = beam.pvalue.AsSingleton(total | "Bands" >> beam.Map(decision.bands))
    places = (
        marked
        | "Places" >> beam.Map(on_worker(_places), bands, folder, sink, decision)
        | "SumPlaces" >> beam.CombineGlobally(_merge_places)
    )
    solved = beam.Map(lambda found, total, at: decision.solve(total, at, found), sketches, bands)
    return places | "Solve" >> solved


def _sketch(marked: Marked, folder: str, sink: Sink, decision: GroupDecision) -> Sketches:
    return decision.sketch(_scored(marked, folder, sink, decision))


def _places(
    marked: Marked, bands: Bands, folder: str, sink: Sink, decision: GroupDecision
) -> PlacesOfGroups:
    return decision.places(_scored(marked, folder, sink, decision), bands)


def _scored(
    marked: Marked, folder: str, sink: Sink, decision: GroupDecision
) -> Iterator[pa.RecordBatch]:
    """The documents that the rule is solved from, of filtered sources only."""
    record, repeats = marked
    if not record.task.filtered:
        return iter(())
    combined = sink.combined
    counted = [schema.TOKENS] if schema.TOKENS in sink.counts else []
    needed = [*decision.columns, *counted, *(combined.columns if combined else ())]
    batches = solving_batches(record, folder, sink.marks, repeats, needed)
    return map(combined.again, batches) if combined else batches


def _sum_sketches(parts: Iterable[Sketches]) -> Sketches:
    """Sum group by group. Engines may also pass no parts, or sums."""
    groups = zip(*(part for part in parts if part), strict=True)
    return tuple(functools.reduce(np.add, sketches) for sketches in groups)


def _merge_places(parts: Iterable[PlacesOfGroups]) -> PlacesOfGroups:
    """Merge band by band. Engines may also pass no parts, or merged ones."""
    groups = zip(*(part for part in parts if part), strict=True)
    return tuple(tuple(map(solve.merge_places, zip(*bands, strict=True))) for bands in groups)


MERGED_TOGETHER = 64
"""Summary files per merge; for more than 64² tasks, the square root of their number."""


def write(
    decided: beam.PCollection,
    rule: beam.PCollection,
    duplicate_ids: beam.PCollection,
    sink: Sink,
    n_tasks: int,
    about: Mapping[str, Any],
) -> None:
    """Merge the statistics in two levels. Write the rest, the manifest last."""
    group_size = max(MERGED_TOGETHER, math.isqrt(n_tasks) + 1)
    found = beam.pvalue.AsSingleton(rule), beam.pvalue.AsIter(duplicate_ids)
    _ = (
        decided
        | "Group" >> beam.Map(lambda record: (record.task.order // group_size, record))
        | "Groups" >> beam.GroupByKey()
        | "MergeStatistics" >> beam.Map(on_worker(merge_statistics), sink.work)
        | "AllGroups" >> together()
        | "WriteOutput" >> beam.Map(on_worker(_write_output), sink.output, about, *found)
    )


def merge_statistics(group: tuple[int, Iterable[Record]], work: str) -> tuple[str, list[Record]]:
    """Merge the summary files of some tasks; returns the merged file and their records."""
    number, found = group
    tasks = sorted(found, key=lambda record: record.task.order)
    path = records.summary_path(work, f"group-{number:05d}")
    with heartbeat.working_on("the statistics"):
        summary_files.merge_files([records.summary_path(work, t.task.stem) for t in tasks], path)
    return path, tasks


def _write_output(
    groups: Sequence[tuple[str, list[Record]]],
    output: str,
    about: Mapping[str, Any],
    rule: AnyRule,
    duplicate_ids: Iterable[int],
) -> None:
    if storage.exists(storage.join(output, manifest.NAME)):
        return  # the engine retried a finished bundle, whose inputs are gone
    with heartbeat.working_on("the manifest"):
        finish.write_output(
            output,
            rule=to_json(rule),
            tasks=[record for _, tasks in groups for record in tasks],
            summaries=sorted(path for path, _ in groups),
            duplicate_ids=sum(duplicate_ids),
            **about,
        )
