"""Shared by the graph's transforms: functions set up on workers, and grouping by bucket."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.worker import statesampler

from winnow import heartbeat
from winnow.object_stores import object_store
from winnow.spool import grouped

P = ParamSpec("P")
R = TypeVar("R")

Split = Callable[[Any], Iterable[tuple[int, Any]]]
Merge = Callable[[Iterable[Any]], Iterable[Any]]


def on_worker(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function to use this process's object-store options on workers."""
    stores = object_store.shared_options()

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        set_up(stores)
        return function(*arguments, **named)

    return call


def set_up(stores: dict[str, Any]) -> None:
    """Use the driver's object-store options, and report heartbeats to the engine."""
    object_store.reach(stores)
    heartbeat.listen(report_progress)


def report_progress() -> None:
    """Report progress on the current element to Beam, by a change of state.

    A task is one element, and ``--element_processing_timeout_minutes`` ends workers whose state
    does not change.
    """
    tracker = statesampler.get_current_tracker()
    if tracker is not None:  # in a bundle's thread, not an upload's
        with tracker.scoped_state("winnow", "heartbeat"):
            pass


def is_local(elements: beam.PCollection) -> bool:
    """Whether Beam's local engine runs them, which groups in memory."""
    return isinstance(elements.pipeline.runner, FnApiRunner)


@beam.ptransform_fn
def together(elements: beam.PCollection) -> beam.PCollection:
    """All elements, of which there are few, in one list; no list if there are none."""
    return (
        elements
        | "Key" >> beam.Map(lambda element: (0, element)).with_output_types(tuple[int, Any])
        | "Group" >> beam.GroupByKey()
        | "List" >> beam.Map(lambda pair: list(pair[1]))
    )


@beam.ptransform_fn
def by_bucket(
    elements: beam.PCollection, split: Split, merge: Merge, what: str
) -> beam.PCollection:
    """Split each element into (bucket, value) pairs, and merge the values of each bucket.

    Beam's local engine groups in memory, 50 to 120 bytes a document, so there one step, ``what`` in
    heartbeats, groups in files.
    """
    if is_local(elements):
        in_files = beam.FlatMap(on_worker(_in_files), split, merge, what)
        return elements | "Together" >> together() | "InFiles" >> in_files
    pairs = beam.FlatMap(on_worker(split)).with_output_types(tuple[int, Any])
    merged = beam.FlatMap(on_worker(lambda bucket: merge(bucket[1])))
    return elements | "Split" >> pairs | "Meet" >> beam.GroupByKey() | "Merge" >> merged


def _in_files(elements: Sequence[Any], split: Split, merge: Merge, what: str) -> Iterator[Any]:
    with heartbeat.working_on(what):
        for _, values in grouped(pair for element in elements for pair in split(element)):
            heartbeat.beat()
            yield from merge(values)
