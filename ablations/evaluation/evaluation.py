"""Evaluate a model on tasks: data, demonstrations, answers, scores.

:mod:`ablations.evaluate` reads and writes the files.
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
from ablations.tasks.data_sources import DataSources, UnavailableError
from ablations.tasks.items import items_of, with_demonstrations
from ablations.tasks.language_model import LanguageModel
from ablations.tasks.scores import Score, scores, summarise
from ablations.tasks.task import FEW, Form, Task
from ablations.tasks.task_set import Answers, TaskSet, sample


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate: task names, shots (a number, or ``few`` for GLaM's), and the maximum items
    per task, sampled by id. ``seed`` draws the demonstrations.
    """

    tasks: Sequence[str]
    shots: int | str = 0
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.shots == FEW or (isinstance(self.shots, int) and self.shots >= 0)):
            raise ValueError(f"shots is {self.shots!r}: give a number, or {FEW!r}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}: leave it out, or give 1 or more")


@dataclass(frozen=True)
class WinnowTaskSet(TaskSet):
    """The items of one of our tasks, as prompted."""

    task: Task

    def answers(self, model: LanguageModel) -> Answers:
        logprobs = responses.logprobs(self.task, self.items, self.shots, model)
        generated = responses.GENERATIONS.empty_table()
        if self.task.form == Form.answer:
            generated = responses.generations(self.task, self.items, self.shots, model)
        return Answers(logprobs, generated, scores([self.task], logprobs, generated))


@dataclass(frozen=True)
class Evaluation:
    """A model's answers: tables of the schemas LOGPROBS, GENERATIONS and TASKS."""

    logprobs: pa.Table
    generations: pa.Table
    tasks: pa.Table
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> list[Score]:
        return summarise(self.tasks)


def gather(request: EvaluationRequest, where: DataSources) -> tuple[list[TaskSet], dict[str, str]]:
    """The items of all tasks that have data, and for the others the reason why not.

    Raises:
        ValueError: a task is unknown, or records do not fit it.
    """
    sets: list[TaskSet] = []
    not_run: dict[str, str] = {}
    for name in request.tasks:
        try:
            if definitions.is_harness(name):
                sets += harness_tasks.task_sets(name, request.shots, request.limit, request.seed)
            else:
                sets.append(_task_set(definitions.load(name), request, where))
        except UnavailableError as error:
            not_run[name] = str(error)
    if repeated := [name for name, n in Counter(each.name for each in sets).items() if n > 1]:
        raise ValueError(f"several of the tasks are called {', '.join(repeated)}: name each once")
    return sets, not_run


def evaluate_sets(
    model: LanguageModel,
    sets: Sequence[TaskSet],
    not_run: dict[str, str],
    progress: Callable[[Sequence[TaskSet]], Iterator[TaskSet]] = iter,
) -> Evaluation:
    """Evaluate a model on all items of :func:`gather`; ``progress`` wraps the loop over tasks."""
    answered, about = [], {}
    for each in progress(sets):
        answered.append(each.answers(model))
        truncated = sum(answered[-1].logprobs["truncated"].to_pylist())
        about[each.name] = {**each.about, "truncated_contexts": truncated}
    logprobs, generations, table = (
        pa.concat_tables([schema.empty_table(), *(answers[i] for answers in answered)])
        for i, schema in enumerate((responses.LOGPROBS, responses.GENERATIONS, TASKS))
    )
    summary = [dataclasses.asdict(score) for score in summarise(table)]
    described = {"tasks": about, "not_run": dict(not_run), "scores": summary}
    return Evaluation(logprobs, generations, table, described)


def _task_set(task: Task, request: EvaluationRequest, where: DataSources) -> TaskSet:
    kind = next((k for k in where.kinds if k in task.data and where.has(k, task.data[k])), None)
    if kind is None:
        known = {name: source.path for name, source in task.data.items()}
        raise UnavailableError(f"no data in {list(where.kinds)}; it could be in {known}")
    source = task.data[kind]
    shots = task.few if request.shots == FEW else int(request.shots)
    all_items = items_of(task, source, data_sources.records(source, kind, where), shots)
    items = [all_items[i] for i in sample([item.id for item in all_items], request.limit)]
    train = data_sources.training_records(source, kind, where) if shots else None
    pool = all_items if train is None else items_of(task, source, train, shots)
    about = {
        "title": task.title,
        "place": kind,
        "path": source.path,
        "items": len(items),
        "whole": not source.part and len(items) == len(all_items),
        "shots": shots,
        "demonstrations": None if not shots else ("the set itself" if train is None else "train"),
        "definition": dataclasses.asdict(task) | {"form": task.form.value},
    }
    prompted = with_demonstrations(items, pool, shots, request.seed, same=train is None)
    longest = task.max_tokens if task.form == Form.answer else 0
    return WinnowTaskSet(task.name, shots, prompted, about, longest, task)
