"""The evaluation tasks of a study: which tasks at which number of shots, and their data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablations.evaluation.evaluation import Asked, gather
from ablations.study.design.config import TasksConfig
from ablations.tasks.data_sources import DataSources
from ablations.tasks.task import FEW, is_harness, select, shots_of
from ablations.tasks.task_set import TaskSet


def asked(tasks: TasksConfig) -> dict[int | str, list[str]]:
    """Task names by shots: a number, or ``few``.

    A task whose few-shot number is swept anyway is not evaluated twice, and one of
    lm-evaluation-harness has no such number.

    Raises:
        ValueError: no such task.
    """
    names = select(tasks.names)
    numbers = {shots for shots in tasks.shots if shots != FEW}
    few = [n for n in names if not is_harness(n) and shots_of(n, FEW) not in numbers]
    return {shots: few if shots == FEW else names for shots in tasks.shots}


class Gathered(NamedTuple):
    """What a study asks.

    ``sets`` are the items of all tasks, without demonstrations. ``harness`` has what identifies
    each task of lm-evaluation-harness, by its :func:`column`.
    """

    sets: Sequence[TaskSet]
    harness: Mapping[str, Mapping[str, Any]]


IDENTITY = ("version", "lm_eval", "seed", "items", "fingerprint")
"""What is kept of a task of the harness."""


def column(about: Mapping[str, Any]) -> str:
    """A task and its number of demonstrations."""
    return f"{about['title']}, {about['shots']} shot{'s' * (about['shots'] != 1)}"


def gather_all(tasks: TasksConfig) -> Gathered:
    """The items of all tasks, as they can be had now.

    Raises:
        ValueError: a task is unknown or malformed, has too few passages for a standard error, or no
            task has data; or one of the harness can't be asked.
    """
    harness: dict[str, Mapping[str, Any]] = {}
    local = Path(tasks.local) if tasks.local is not None else None
    where = DataSources(tasks.places, local, Path(tasks.cache))
    found = {
        shots: gather(Asked(names, shots, tasks.limit), where)
        for shots, names in asked(tasks).items()
    }
    for each in (each for sets, _ in found.values() for each in sets):
        if is_harness(each.name):
            harness[column(each.about)] = {key: each.about[key] for key in IDENTITY}
    sets, not_run = found.get(0) or gather(Asked(select(tasks.names), 0, tasks.limit), where)
    if tasks.names and not sets:
        raise ValueError(f"none of the tasks has data: {not_run}")
    for each in sets:
        if len({item.cluster for item in each.items}) < 2:
            raise ValueError(
                f"{each.name} has items of a single passage, too few to know an error from:"
                " ask for more of them (tasks.limit), or leave it out"
            )
        if is_harness(each.name) and not any(of.startswith(f"{each.name}, ") for of in harness):
            raise ValueError(
                f"{each.name} can be asked with none of tasks.shots={list(tasks.shots)}: few is"
                " GLaM's number, and a task may take no demonstrations; add 0"
            )
    return Gathered(sets, harness)


def provenance(harness: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tasks of the harness, for people."""
    told = {
        name: f"version {of['version']} (lm-eval {of['lm_eval']}), {of['items']} items, seed"
        f" {of['seed']}, fingerprint {of['fingerprint']}"
        for name, of in harness.items()
    }
    return {"tasks": told} if told else {}


def check_asked(found: Mapping[str, Mapping[str, Any]], declared: Mapping[str, Any]) -> None:
    """Check that tasks of the harness were asked as the study declared them.

    Args:
        found: what an evaluation says about each task.
        declared: :attr:`Gathered.harness`.

    Raises:
        ValueError: one has changed.
    """
    for name, about in found.items():
        now = {key: about.get(key) for key in IDENTITY}
        if is_harness(name) and now != (then := declared.get(column(about))):
            raise ValueError(
                f"{name} is no longer what it was when the study began ({now}, not {then}): its"
                " file, its data or lm-eval has changed; put it back, or begin another study"
            )
