"""The evaluation tasks of a study: which tasks at which number of shots, and their data."""

from collections.abc import Sequence
from pathlib import Path

from ablations.study.config import TasksConfig
from ablations.tasks.data_sources import DataSources
from ablations.tasks.evaluation import Asked, TaskSet, gather
from ablations.tasks.task import FEW, select, shots_of


def asked(tasks: TasksConfig) -> dict[int | str, list[str]]:
    """Task names by shots: a number, or ``few``.

    A task whose few-shot number is swept anyway is not evaluated twice.

    Raises:
        ValueError: no such task.
    """
    names = select(tasks.names)
    numbers = {shots for shots in tasks.shots if shots != FEW}
    return {
        shots: [n for n in names if shots != FEW or shots_of(n, FEW) not in numbers]
        for shots in tasks.shots
    }


def gather_all(tasks: TasksConfig) -> Sequence[TaskSet]:
    """The items of all tasks, without demonstrations.

    Raises:
        ValueError: a task is unknown or malformed, has too few passages for a standard error, or no
            task has data.
    """
    local = Path(tasks.local) if tasks.local is not None else None
    where = DataSources(tasks.places, local, Path(tasks.cache))
    for shots, names in asked(tasks).items():
        gather(Asked(names, shots, tasks.limit), where)
    sets, not_run = gather(Asked(select(tasks.names), 0, tasks.limit), where)
    if tasks.names and not sets:
        raise ValueError(f"none of the tasks has data: {not_run}")
    for each in sets:
        if len({item.cluster for item in each.items}) < 2:
            raise ValueError(
                f"{each.task.name} has items of a single passage, too few to know an error from:"
                " ask for more of them (tasks.limit), or leave it out"
            )
    return sets
