"""Functions for workers, which reach object stores as the process that builds the graph does."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from apache_beam.runners.worker import statesampler

from winnow import heartbeat, storage

P = ParamSpec("P")
R = TypeVar("R")


def reaching(function: Callable[P, R]) -> Callable[P, R]:
    """The same function; a worker that calls it reaches object stores as this process does."""
    stores = storage.shared_options()

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        reach(stores)
        return function(*arguments, **named)

    return call


def reach(stores: dict[str, Any]) -> None:
    """Make this worker reach stores as the driver does, and show the engine its heartbeats."""
    storage.reach(stores)
    heartbeat.listen(moved)


def moved() -> None:
    """Tell Beam that the element at hand moves.

    A task is one element. ``--element_processing_timeout_minutes`` ends a worker whose state has
    not changed for so long, so it is changed, and changed back.
    """
    tracker = statesampler.get_current_tracker()
    if tracker is not None:  # a thread of a bundle, not one that uploads
        with tracker.scoped_state("winnow", "heartbeat"):
            pass
