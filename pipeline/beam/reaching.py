"""Functions for workers, which reach object stores as the process that builds the graph does."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from winnow import storage

P = ParamSpec("P")
R = TypeVar("R")


def reaching(function: Callable[P, R]) -> Callable[P, R]:
    """The same function; a worker that calls it reaches object stores as this process does."""
    stores = storage.shared_options()

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        storage.reach(stores)
        return function(*arguments, **named)

    return call
