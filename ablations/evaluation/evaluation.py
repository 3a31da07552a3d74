"""Evaluates a model on tasks: data, demonstrations, answers, scores, and what was not run.

The files of a run are read and written by :mod:`ablations.evaluate`.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ablations.evaluation import harness_tasks
from ablations.study_files.results import TASKS
from ablations.tasks import data_sources, responses
from ablations.tasks import task as definitions
from ablations.tasks.data_sources import DataSources, Record, UnavailableError
from ablations.tasks.items import items_of, with_demonstrations
from ablations.tasks.language_model import LanguageModel
from ablations.tasks.scores import Score, scores, summarise
from ablations.tasks.task import FEW, Form, Task
from ablations.tasks.task_set import Answers, TaskSet, sample


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
class OwnTaskSet(TaskSet):
    """The items of a task as the model gets them."""

    task: Task

    def answers(self, model: LanguageModel) -> Answers:
        """Ask for the likelihood of every choice, and for what is to be written."""
        likely = responses.logprobs(self.task, self.items, self.shots, model)
        written = responses.GENERATIONS.empty_table()
        if self.task.form == Form.answer:
            written = responses.generations(self.task, self.items, self.shots, model)
        return Answers(likely, written, scores([self.task], likely, written))


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
    sets: list[TaskSet] = []
    not_run: dict[str, str] = {}
    for name in asked.tasks:
        try:
            if definitions.is_harness(name):
                sets += harness_tasks.task_sets(name, asked.shots, asked.limit, asked.seed)
            else:
                sets.append(_task_set(definitions.load(name), asked, where))
        except UnavailableError as error:
            not_run[name] = str(error)
    repeated = [name for name, n in Counter(each.name for each in sets).items() if n > 1]
    if repeated:
        raise ValueError(f"several of the tasks are called {', '.join(repeated)}: name each once")
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
    found, about = [], {}
    for each in progress(sets):
        answers = each.answers(model)
        found.append(answers)
        truncated = sum(answers.logprobs["truncated"].to_pylist())
        about[each.name] = {**each.about, "truncated_contexts": truncated}
    logprobs, generations, table = (
        pa.concat_tables([schema.empty_table(), *(answers[i] for answers in found)])
        for i, schema in enumerate((responses.LOGPROBS, responses.GENERATIONS, TASKS))
    )
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
    items = [everything[i] for i in sample([item.id for item in everything], asked.limit)]
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
    longest = task.max_tokens if task.form == Form.answer else 0
    return OwnTaskSet(task.name, shots, asked_items, about, longest, task)


def _training(task: Task, kind: str, where: DataSources) -> Sequence[Record] | None:
    return data_sources.training_records(task.data[kind], kind, where)
