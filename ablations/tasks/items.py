"""Turn the records of a task into items: prompts and correct answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from ablations.tasks.data_sources import Record
from ablations.tasks.task import DataSource, Form, Task
from ablations.tasks.templates import ExpressionError, evaluate, render

JOINER = "\n\n"
"""Separates demonstrations, as printed for GPT-3."""


@dataclass(frozen=True)
class Item:
    """One question of a task.

    ``contexts``, ``continuations`` and ``correct`` have one entry per choice; for generated
    answers, the only choice is the first acceptable one. ``cluster`` is the record's number, or the
    hash of the passage, that items share. ``answers`` are the acceptable generated answers, each a
    list of spans; empty for other forms. ``demonstration`` is the prompt with its correct answer.
    """

    id: str
    cluster: str
    contexts: Sequence[str]
    continuations: Sequence[str]
    correct: Sequence[bool]
    answers: Sequence[Sequence[str]]
    demonstration: str

    @property
    def text(self) -> str:
        """Question, choices and answers, each once, to search for in training text."""
        parts = [*self.contexts, *self.continuations, *(" ".join(a) for a in self.answers)]
        return "\n".join(dict.fromkeys(parts))


def items_of(
    task: Task, place: DataSource, records: Sequence[Record], shots: int = 0
) -> list[Item]:
    """The items of records, in order. An id is the number of the record, and of its part.

    Templates can use ``shots``, the number of demonstrations before the prompt.

    Raises:
        ValueError: a record does not fit the task.
    """
    items = []
    for number, record in enumerate(records):
        try:
            if place.each is None:
                parts = {str(number): record}
            else:
                rows = enumerate(evaluate(place.each, record))
                parts = {f"{number}.{part}": {**record, "row": row} for part, row in rows}
            for name, values in parts.items():
                items.append(_item(task, place, name, str(number), values, shots))
        except (ExpressionError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"record {number} of {place.path} does not fit task {task.name}: {error}"
            ) from None
    return items


def with_demonstrations(
    items: Sequence[Item], pool: Sequence[Item], shots: int, seed: int, same: bool
) -> list[Item]:
    """Items with ``shots`` demonstrations each, drawn at random by the item's id and the seed.

    So an item has the same ones in every run. With ``same`` the pool is the set itself, and no
    demonstration shares the item's cluster.

    Raises:
        ValueError: the pool is too small.
    """
    if shots == 0:
        return list(items)
    clusters = np.array([item.cluster for item in pool])
    out = []
    for item in items:
        allowed = np.flatnonzero(clusters != item.cluster) if same else np.arange(len(pool))
        if len(allowed) < shots:
            raise ValueError(f"{shots} shots need as many examples; there are {len(allowed)}")
        draw = np.random.default_rng([seed, xxhash.xxh3_64_intdigest(item.id.encode())])
        chosen = draw.choice(allowed, shots, replace=False)
        before = "".join(pool[i].demonstration + JOINER for i in chosen)
        out.append(dataclasses.replace(item, contexts=[before + c for c in item.contexts]))
    return out


def _item(
    task: Task, place: DataSource, name: str, group: str, record: Mapping[str, Any], shots: int
) -> Item:
    fields = {**task.fields, **place.fields}
    values = {key: evaluate(expression, record) for key, expression in fields.items()}
    values["shots"] = shots
    answers = _answers(task, values) if task.form == Form.answer else []
    contexts, continuations, correct = _choices(task, values, answers)
    right = correct.index(True)
    if task.cluster is not None:
        shared = str(evaluate(task.cluster, record))  # may be a whole passage: keep its hash
        group = xxhash.xxh3_64_hexdigest(shared.encode())
    demonstration = contexts[right] + continuations[right]
    return Item(name, group, contexts, continuations, correct, answers, demonstration)


def _choices(
    task: Task, values: Mapping[str, Any], answers: Sequence[Sequence[str]]
) -> tuple[list[str], list[str], list[bool]]:
    """Contexts, continuations, and which are correct; a space separates answer and prompt."""
    if task.form == Form.partial:
        contexts = list(values["contexts"])
        n = len(contexts)
        return contexts, [values["continuation"]] * n, _correct(values["gold"], n)
    prompt = render(task.prompt, values)
    correct = [True]
    match task.form:
        case Form.choice:
            texts = [str(choice) for choice in values["choices"]]
            correct = _correct(values["gold"], len(texts))
        case Form.last_word:
            texts = [values["answer"]]
        case _:
            texts = [", ".join(answers[0])]  # several spans as a model would generate them
    if not all(texts):
        raise ExpressionError("an answer is empty")
    space = " " if prompt else ""
    return [prompt] * len(texts), [space + text for text in texts], correct


def _answers(task: Task, values: Mapping[str, Any]) -> list[list[str]]:
    """The acceptable answers; if there are none, the task's ``no_answer``."""
    if answers := [[str(span) for span in spans] for spans in values["answers"]]:
        return answers
    if task.no_answer is None:
        raise ExpressionError("it has no acceptable answer")
    return [[task.no_answer]]


def _correct(gold: int | Sequence[int], choices: int) -> list[bool]:
    right = {gold} if isinstance(gold, int) else set(gold)
    if not right or not all(0 <= choice < choices for choice in right):
        raise ExpressionError(f"gold is {gold!r}, not an index of {choices} choices")
    return [choice in right for choice in range(choices)]
