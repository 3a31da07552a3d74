"""Gives workers the driver's object-store options, and the engine their heartbeats."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from apache_beam.runners.worker import statesampler

from winnow import heartbeat
from winnow.filesystem import storage

P = ParamSpec("P")
R = TypeVar("R")


def reaching(function: Callable[P, R]) -> Callable[P, R]:
    """The function, to be called by workers: they then use this process's object-store options."""
    stores = storage.shared_options()

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        reach(stores)
        return function(*arguments, **named)

    return call


def reach(stores: dict[str, Any]) -> None:
    """Use the driver's object-store options, and pass heartbeats on to the engine."""
    storage.reach(stores)
    heartbeat.listen(moved)


def moved() -> None:
    """Tell Beam that the current element makes progress.

    A task is one element, and ``--element_processing_timeout_minutes`` ends a worker whose state
    has not changed for that long. So this enters a state and leaves it.
    """
    tracker = statesampler.get_current_tracker()
    if tracker is not None:  # a thread of a bundle, not one that uploads
        with tracker.scoped_state("winnow", "heartbeat"):
            pass
