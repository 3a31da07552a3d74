"""Makes ``tasks.arrow`` of what a model answered, and of that a table for people.

Every score is the ratio of two sums over items (:data:`ablations.results.TASKS`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from statsmodels.stats.proportion import proportion_confint

from ablations.results import TASKS
from ablations.tasks import answers, choices
from ablations.tasks.choices import Choices, FloatArray
from ablations.tasks.task import Form, Task

AT_CHANCE = "at chance"

BINARY = ("accuracy", "exact_match")
"""Metrics whose items score 0 or 1, so that Wilson's interval holds for them."""


def scores(
    tasks: Iterable[Task], logprobs: pa.Table, generations: pa.Table | None = None
) -> pa.Table:
    """All metrics of all tasks in the tables: :data:`ablations.results.TASKS`.

    Args:
        tasks: the definitions; tables can hold more, which are left out, or fewer.
        logprobs: :data:`ablations.tasks.answered.LOGPROBS`.
        generations: :data:`ablations.tasks.answered.GENERATIONS`.
    """
    parts = []
    for task in tasks:
        for rows in _by_shots(task, logprobs):
            parts += _from_logprobs(task, rows)
        if generations is not None:
            for rows in _by_shots(task, generations):
                parts += _from_generations(task, rows)
    return pa.concat_tables(parts) if parts else TASKS.empty_table()


@dataclass(frozen=True)
class Score:
    """One row of the table for people.

    ``low`` and ``high`` are Wilson's 95 % interval, None where items score between 0 and 1.
    ``at_chance`` says that the interval holds the score of guessing.
    """

    task: str
    shots: int
    metric: str
    items: int
    value: float
    low: float | None
    high: float | None
    chance: float | None
    at_chance: bool | None


def summarise(tasks: pa.Table) -> list[Score]:
    """Every task and metric with its interval, in the table's order."""
    keys = ["task", "shots", "metric"]
    sums = tasks.group_by(keys, use_threads=False).aggregate(
        [("numerator", "sum"), ("denominator", "sum"), ("chance", "sum"), ("item", "count")]
    )
    out = []
    for row in sums.to_pylist():
        if not row["denominator_sum"]:
            continue  # MultiRC with no true answer and none found has no F1
        value = row["numerator_sum"] / row["denominator_sum"]
        chance = row["chance_sum"]
        if chance is not None:
            chance /= row["denominator_sum"]
        low = high = at_chance = None
        if row["metric"].startswith(BINARY):
            low, high = wilson(row["numerator_sum"], row["item_count"])
            word = against_chance(value, low, high, chance)
            at_chance = None if word is None else word == AT_CHANCE
        out.append(
            Score(
                row["task"],
                row["shots"],
                row["metric"],
                row["item_count"],
                value,
                low,
                high,
                chance,
                at_chance,
            )
        )
    return out


def wilson(right: float, items: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    low, high = proportion_confint(right, items, alpha=0.05, method="wilson")
    return float(low), float(high)


def _from_logprobs(task: Task, rows: pa.Table) -> list[pa.Table]:
    found = Choices.of(rows)
    table = _Rows(rows.take(pa.array(found.starts)))
    bits, size = choices.gold_bits(found)
    out = [table.metric("gold_bits_per_byte", bits, size)]
    if task.form == Form.last_word:
        out.append(table.metric("accuracy", choices.all_greedy(found)))
    if task.form not in (Form.choice, Form.partial):
        return out
    chance = choices.accuracy_by_chance(found)
    out.append(table.metric("gold_probability", choices.gold_probability(found), chance=chance))
    main = "sum" if task.rule == "f1a" else task.rule
    out.append(table.metric("accuracy", choices.accuracy(found, main), chance=chance))
    if task.rule == "f1a":
        numerator, denominator, guess = choices.f1a(found, main)
        out.append(table.metric("f1a", numerator, denominator, guess))
    if task.form == Form.choice:
        out += [
            table.metric(f"accuracy_{rule}", choices.accuracy(found, rule), chance=chance)
            for rule in choices.RULES
            if rule != main and not (rule == "unconditional" and not task.unconditional)
        ]
    return out


def _from_generations(task: Task, rows: pa.Table) -> list[pa.Table]:
    rule = answers.RULES[task.rule]
    found = [
        rule(_unanswered(task, text), [[_unanswered(task, s) for s in a] for a in accepted])
        for text, accepted in zip(
            rows["text"].to_pylist(), rows["answers"].to_pylist(), strict=True
        )
    ]
    kept = np.flatnonzero([score is not None for score in found])
    pairs = np.array([score for score in found if score is not None], np.float64).reshape(-1, 2)
    table = _Rows(rows.take(pa.array(kept)))
    return [table.metric("exact_match", pairs[:, 0]), table.metric("f1", pairs[:, 1])]


def _unanswered(task: Task, text: str) -> str:
    """Nothing, where model or data say that there is no answer: so SQuADv2 counts it."""
    if task.no_answer is not None and answers.normalise(text) == answers.normalise(task.no_answer):
        return ""
    return text


class _Rows:
    """Makes rows of the results' schema for the items of a table."""

    def __init__(self, items: pa.Table) -> None:
        self.items = items

    def metric(
        self,
        name: str,
        numerator: FloatArray,
        denominator: FloatArray | None = None,
        chance: FloatArray | None = None,
    ) -> pa.Table:
        n = len(self.items)
        columns = {
            **{key: self.items[key] for key in ("task", "shots", "item", "cluster")},
            "metric": pa.array([name] * n, pa.string()),
            "numerator": numerator,
            "denominator": np.ones(n) if denominator is None else denominator,
            "chance": pa.nulls(n, pa.float64()) if chance is None else chance,
        }
        return pa.table([columns[field.name] for field in TASKS], schema=TASKS)


def _by_shots(task: Task, table: pa.Table) -> Sequence[pa.Table]:
    rows = table.filter(pc.field("task") == task.name)
    return [rows.filter(pc.field("shots") == shots) for shots in rows["shots"].unique().to_pylist()]


def against_chance(value: float, low: float, high: float, chance: float | None) -> str | None:
    """How a score lies to guessing: "at chance" where its interval holds the chance level."""
    if chance is None:
        return None
    if low <= chance <= high:
        return AT_CHANCE
    return "above chance" if value > chance else "below chance"
