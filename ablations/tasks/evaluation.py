"""Evaluates a model on tasks: data, demonstrations, answers, scores, and what was not run.

The files of a run are read and written by :mod:`ablations.evaluate`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import xxhash

from ablations.tasks import data_sources, responses
from ablations.tasks import task as definitions
from ablations.tasks.data_sources import DataSources, Record, UnavailableError
from ablations.tasks.items import Item, items_of, with_demonstrations
from ablations.tasks.language_model import LanguageModel
from ablations.tasks.scores import Score, scores, summarise
from ablations.tasks.task import FEW, Form, Task


@dataclass(frozen=True)
class Asked:
    """What to evaluate: task names, shots (a number, or ``few`` for GLaM's own), and the most items
    per task, which are sampled by their ids. ``seed`` draws the demonstrations.
    """

    tasks: Sequence[str]
    shots: int | str = 0
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.shots == FEW or (isinstance(self.shots, int) and self.shots >= 0)):
            raise ValueError(f"shots is {self.shots!r}: give a number, or {FEW!r}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}: leave it out, or ask for 1 or more")

    def shots_of(self, task: Task) -> int:
        """The number of demonstrations of a task."""
        return task.few if self.shots == FEW else int(self.shots)


@dataclass(frozen=True)
class TaskSet:
    """The items of one task as the model gets them, and the origin of items and demonstrations."""

    task: Task
    shots: int
    items: Sequence[Item]
    about: dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """All answers of a model. The tables have the schemas LOGPROBS, GENERATIONS and TASKS."""

    logprobs: pa.Table
    generations: pa.Table
    tasks: pa.Table
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> list[Score]:
        """The table for people."""
        return summarise(self.tasks)


def gather(asked: Asked, where: DataSources) -> tuple[list[TaskSet], dict[str, str]]:
    """The items of all tasks that have data, and the reason for each task that has none.

    Raises:
        ValueError: an unknown task, or records that do not fit theirs.
    """
    sets, not_run = [], {}
    for task in [definitions.load(name) for name in asked.tasks]:
        try:
            sets.append(_task_set(task, asked, where))
        except UnavailableError as error:
            not_run[task.name] = str(error)
    return sets, not_run


def ask(
    model: LanguageModel,
    sets: Sequence[TaskSet],
    not_run: dict[str, str],
    progress: Callable[[Sequence[TaskSet]], Iterator[TaskSet]] = iter,
) -> Evaluation:
    """Evaluate a model on all items.

    Args:
        model: the model.
        sets: from :func:`gather`.
        not_run: from :func:`gather`; goes to ``about`` as it is.
        progress: wraps the loop over tasks, to show progress.
    """
    likely, written, about = [], [], {}
    for each in progress(sets):
        rows = responses.logprobs(each.task, each.items, each.shots, model)
        likely.append(rows)
        if each.task.form == Form.answer:
            written.append(responses.generations(each.task, each.items, each.shots, model))
        truncated = sum(rows["truncated"].to_pylist())
        about[each.task.name] = {**each.about, "truncated_contexts": truncated}
    logprobs = pa.concat_tables([responses.LOGPROBS.empty_table(), *likely])
    generations = pa.concat_tables([responses.GENERATIONS.empty_table(), *written])
    table = scores([each.task for each in sets], logprobs, generations)
    summary = [dataclasses.asdict(score) for score in summarise(table)]
    return Evaluation(
        logprobs,
        generations,
        table,
        {"tasks": about, "not_run": dict(not_run), "scores": summary},
    )


def _task_set(task: Task, asked: Asked, where: DataSources) -> TaskSet:
    kind = next((k for k in where.kinds if k in task.data and where.has(k, task.data[k])), None)
    if kind is None:
        known = {name: place.path for name, place in task.data.items()}
        raise UnavailableError(f"no data in {list(where.kinds)}; it could be in {known}")
    place = task.data[kind]
    shots = asked.shots_of(task)
    everything = items_of(task, place, data_sources.records(place, kind, where), shots)
    items = _sample(everything, asked.limit)
    train = _training(task, kind, where) if shots else None
    pool = everything if train is None else items_of(task, place, train, shots)
    about = {
        "title": task.title,
        "place": kind,
        "path": place.path,
        "items": len(items),
        "whole": not place.part and len(items) == len(everything),
        "shots": shots,
        "demonstrations": None if not shots else ("the set itself" if train is None else "train"),
        "definition": definitions.describe(task),
    }
    asked_items = with_demonstrations(items, pool, shots, asked.seed, same=train is None)
    return TaskSet(task, shots, asked_items, about)


def _training(task: Task, kind: str, where: DataSources) -> Sequence[Record] | None:
    return data_sources.training_records(task.data[kind], kind, where)


def _sample(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most ``limit`` items, sampled by the hash of their ids, in their own order."""
    if limit is None or len(items) <= limit:
        return list(items)
    chosen = sorted(items, key=lambda item: xxhash.xxh3_64_intdigest(item.id.encode()))[:limit]
    ids = {item.id for item in chosen}
    return [item for item in items if item.id in ids]
