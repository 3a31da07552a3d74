"""The tasks of a study: what its jobs are asked, column by column of shots, and with which data."""

from collections.abc import Sequence
from pathlib import Path

from ablations.study.config import TasksConfig
from ablations.tasks.data_sources import DataSources
from ablations.tasks.evaluation import Asked, TaskSet, gather
from ablations.tasks.task import FEW, select, shots_of


def asked(tasks: TasksConfig) -> dict[int | str, list[str]]:
    """The task names that are asked in each column of shots: a number, or ``few``.

    A task whose own number is another column's anyway is not asked for it twice.

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
    """The items that jobs will be asked, without demonstrations; none where no task is named.

    Raises:
        ValueError: a task does not exist, its records or examples are not what they should be, none
            has data, or one has too few passages to know an error from.
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
