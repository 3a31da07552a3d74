"""Turn the records of a task into items: prompts and correct answers."""

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

    ``contexts`` and ``continuations`` have one entry per choice; where the model generates, the
    only choice is the first acceptable answer. ``correct`` says which choices are correct.
    ``cluster`` is the number of the record, or the hash of the passage, that an item shares with
    others. ``answers`` are the acceptable generated answers, each a list of spans; empty for other
    forms. ``demonstration`` is the item with its correct answer, as an example for another item.
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
        """Question, choices and answers, each once, to look for in training text."""
        parts = [*self.contexts, *self.continuations, *(" ".join(a) for a in self.answers)]
        return "\n".join(dict.fromkeys(parts))


def items_of(
    task: Task, place: DataSource, records: Sequence[Record], shots: int = 0
) -> list[Item]:
    """The items of records, in order. An id is the number of the record, and of its part.

    Args:
        task: how a record becomes a prompt.
        place: where the records come from.
        records: in stored order.
        shots: the demonstrations that will precede the prompt; templates can use the number.

    Raises:
        ValueError: a record does not fit the task; the message names it.
    """
    items = []
    for number, record in enumerate(records):
        try:
            parts = [None] if place.each is None else evaluate(place.each, record)
            for part, row in enumerate(parts):
                name = str(number) if place.each is None else f"{number}.{part}"
                values = dict(record) if place.each is None else {**record, "row": row}
                items.append(_item(task, place, name, str(number), values, shots))
        except (ExpressionError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"record {number} of {place.path} does not fit task {task.name}: {error}"
            ) from None
    return items


def with_demonstrations(
    items: Sequence[Item], pool: Sequence[Item], shots: int, seed: int, same: bool
) -> list[Item]:
    """Items with ``shots`` random demonstrations each, drawn by the item's id and the seed.

    An item thus has the same ones in every run, whatever else is evaluated. With ``same`` the pool
    is the set itself, and no demonstration shares the item's cluster.

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
        contexts = [before + context for context in item.contexts]
        out.append(
            Item(
                item.id,
                item.cluster,
                contexts,
                item.continuations,
                item.correct,
                item.answers,
                item.demonstration,
            )
        )
    return out


def _item(
    task: Task, place: DataSource, name: str, group: str, record: Mapping[str, Any], shots: int
) -> Item:
    fields = {**task.fields, **place.fields}
    values = {key: evaluate(expression, record) for key, expression in fields.items()}
    values["shots"] = shots
    contexts, continuations, correct = _choices(task, values)
    answers = _answers(task, values) if task.form == Form.answer else []
    right = correct.index(True)
    cluster = group
    if task.cluster is not None:
        shared = str(evaluate(task.cluster, record))  # may be a whole passage: keep its hash
        cluster = xxhash.xxh3_64_hexdigest(shared.encode())
    return Item(
        id=name,
        cluster=cluster,
        contexts=contexts,
        continuations=continuations,
        correct=correct,
        answers=answers,
        demonstration=contexts[right] + continuations[right],
    )


def _choices(task: Task, values: Mapping[str, Any]) -> tuple[list[str], list[str], list[bool]]:
    """Contexts, continuations, and which are correct; a space separates answer and prompt."""
    if task.form == Form.partial:
        contexts = list(values["contexts"])
        return (
            contexts,
            [values["continuation"]] * len(contexts),
            _correct(values["gold"], len(contexts)),
        )
    prompt = render(task.prompt, values)
    match task.form:
        case Form.choice:
            texts = [str(choice) for choice in values["choices"]]
            correct = _correct(values["gold"], len(texts))
        case Form.last_word:
            texts, correct = [values["answer"]], [True]
        case _:
            texts, correct = [written(_answers(task, values)[0])], [True]
    if not all(texts):
        raise ExpressionError("an answer is empty")
    space = " " if prompt else ""
    return [prompt] * len(texts), [space + text for text in texts], correct


def written(spans: Sequence[str]) -> str:
    """An answer of several spans as a model would generate it."""
    return ", ".join(spans)


def _answers(task: Task, values: Mapping[str, Any]) -> list[list[str]]:
    """The acceptable answers; if there are none, the task's ``no_answer``."""
    answers = [[str(span) for span in spans] for spans in values["answers"]]
    if not answers:
        if task.no_answer is None:
            raise ExpressionError("it has no acceptable answer")
        return [[task.no_answer]]
    return answers


def _correct(gold: int | Sequence[int], choices: int) -> list[bool]:
    right = {gold} if isinstance(gold, int) else set(gold)
    if not right or not all(0 <= choice < choices for choice in right):
        raise ExpressionError(f"gold is {gold!r}, not an index of {choices} choices")
    return [choice in right for choice in range(choices)]
