"""The evaluation tasks of a study, their numbers of shots, and their data."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ablations.evaluation.evaluation import EvaluationRequest, gather
from ablations.study.design.config import TasksConfig
from ablations.tasks.data_sources import DataSources
from ablations.tasks.task import FEW, is_harness, select, shots_of
from ablations.tasks.task_set import TaskSet


def tasks_by_shots(tasks: TasksConfig) -> dict[int | str, list[str]]:
    """Task names by shots, a number or ``few``; a ValueError if there is no such task.

    ``few`` excludes tasks whose number of shots is listed too, and lm-evaluation-harness's.
    """
    names = select(tasks.names)
    numbers = {shots for shots in tasks.shots if shots != FEW}
    few = [n for n in names if not is_harness(n) and shots_of(n, FEW) not in numbers]
    return {shots: few if shots == FEW else names for shots in tasks.shots}


class StudyTasks(NamedTuple):
    """The items of all tasks, without demonstrations; ``harness`` identifies each task of
    lm-evaluation-harness, by its :func:`column`.
    """

    sets: Sequence[TaskSet]
    harness: Mapping[str, Mapping[str, Any]]


IDENTITY = ("version", "lm_eval", "seed", "items", "fingerprint")
"""The keys that identify a task of the harness."""


def column(about: Mapping[str, Any]) -> str:
    """A task and its number of demonstrations."""
    return f"{about['title']}, {about['shots']} shot{'s' * (about['shots'] != 1)}"


def gather_all(tasks: TasksConfig) -> StudyTasks:
    """Load the items of all tasks.

    Raises:
        ValueError: a task is unknown or malformed, has too few passages for a standard error or
            fits none of the numbers of shots, or no task has data.
    """
    harness: dict[str, Mapping[str, Any]] = {}
    where = DataSources(tasks.places, tasks.local, tasks.cache)
    gathered = {
        shots: gather(EvaluationRequest(names, shots, tasks.limit), where)
        for shots, names in tasks_by_shots(tasks).items()
    }
    for each in (each for sets, _ in gathered.values() for each in sets):
        if is_harness(each.name):
            harness[column(each.about)] = {key: each.about[key] for key in IDENTITY}
    plain = EvaluationRequest(select(tasks.names), 0, tasks.limit)
    sets, not_run = gathered.get(0) or gather(plain, where)
    if tasks.names and not sets:
        raise ValueError(f"none of the tasks has data: {not_run}")
    for each in sets:
        if len({item.cluster for item in each.items}) < 2:
            raise ValueError(
                f"{each.name} has items of a single passage, too few for a standard error:"
                " raise tasks.limit, or leave it out"
            )
        if is_harness(each.name) and not any(c.startswith(f"{each.name}, ") for c in harness):
            raise ValueError(
                f"{each.name} can be run with none of tasks.shots={list(tasks.shots)}: few is"
                " GLaM's number, and a task may take no demonstrations; add 0"
            )
    return StudyTasks(sets, harness)


def provenance(harness: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tasks of the harness, for people."""
    tasks = {
        name: f"version {task['version']} (lm-eval {task['lm_eval']}), {task['items']} items, seed"
        f" {task['seed']}, fingerprint {task['fingerprint']}"
        for name, task in harness.items()
    }
    return {"tasks": tasks} if tasks else {}


def check_unchanged(
    evaluated: Mapping[str, Mapping[str, Any]], declared: Mapping[str, Any]
) -> None:
    """A ValueError if a task of the harness, as ``evaluated``, is not as ``declared``."""
    for name, about in evaluated.items():
        now = {key: about.get(key) for key in IDENTITY}
        if is_harness(name) and now != (then := declared.get(column(about))):
            raise ValueError(
                f"{name} has changed since the study started ({now}, not {then}): restore its file,"
                " its data and lm-eval, or start another study"
            )
