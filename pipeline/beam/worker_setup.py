"""Set up workers: the driver's object-store options, and heartbeats for the engine."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from apache_beam.runners.worker import statesampler

from winnow import heartbeat
from winnow.filesystem import storage

P = ParamSpec("P")
R = TypeVar("R")


def on_worker(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function for workers, to use this process's object-store options there."""
    stores = storage.shared_options()

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        set_up(stores)
        return function(*arguments, **named)

    return call


def set_up(stores: dict[str, Any]) -> None:
    """Use the driver's object-store options, and report heartbeats to the engine."""
    storage.reach(stores)
    heartbeat.listen(report_progress)


def report_progress() -> None:
    """Report progress of the current element to Beam.

    A task is one element, and ``--element_processing_timeout_minutes`` ends a worker whose state
    has not changed for that long. So enter a state and leave it.
    """
    tracker = statesampler.get_current_tracker()
    if tracker is not None:  # a thread of a bundle, not one that uploads
        with tracker.scoped_state("winnow", "heartbeat"):
            pass
