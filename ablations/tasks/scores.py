"""Score a model's answers: ``tasks.arrow`` and its summary.

Every score is a ratio of two sums over items (:data:`ablations.study_files.results.TASKS`).
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ablations.study_files.metrics import GOLD_BITS, GOLD_PROBABILITY
from ablations.study_files.results import TASKS
from ablations.tasks import answers, choices
from ablations.tasks.choices import Choices, FloatArray
from ablations.tasks.task import Form, Task
from quality_classifier.evaluation import metrics

BINARY = ("acc", "exact_match")
"""Prefixes of metrics whose items score 0 or 1, so that Wilson's interval applies."""


class Parts(NamedTuple):
    """A metric of n items, float64 [n] each; the score is the ratio of the sums.

    A ``denominator`` of None is 1 for each item. ``chance`` is the expected numerator of guessing.
    """

    numerator: FloatArray
    denominator: FloatArray | None = None
    chance: FloatArray | None = None


Metric = Callable[[Task, Choices], Parts | None]
"""Scores the items of a task; None if the metric does not apply to it."""


def _gold_bits(task: Task, options: Choices) -> Parts:
    return Parts(*choices.gold_bits(options))


def _gold_probability(task: Task, options: Choices) -> Parts | None:
    if task.form not in (Form.choice, Form.partial):
        return None
    return Parts(choices.gold_probability(options), chance=choices.accuracy_by_chance(options))


def _accuracy(task: Task, options: Choices) -> Parts | None:
    if task.form == Form.last_word:
        return Parts(choices.all_greedy(options))
    if task.form not in (Form.choice, Form.partial):
        return None
    chance = choices.accuracy_by_chance(options)
    return Parts(choices.accuracy(options, _main_rule(task)), chance=chance)


def _f1a(task: Task, options: Choices) -> Parts | None:
    return Parts(*choices.f1a(options, _main_rule(task))) if task.rule == "f1a" else None


def _accuracy_under(rule: str, task: Task, options: Choices) -> Parts | None:
    applies = rule != "unconditional" or task.unconditional
    if task.form != Form.choice or rule == _main_rule(task) or not applies:
        return None
    return Parts(choices.accuracy(options, rule), chance=choices.accuracy_by_chance(options))


def _main_rule(task: Task) -> str:
    return "sum" if task.rule == "f1a" else task.rule


METRICS: dict[str, Metric] = {
    GOLD_BITS: _gold_bits,
    GOLD_PROBABILITY: _gold_probability,
    "accuracy": _accuracy,
    "f1a": _f1a,
    **{f"accuracy_{rule}": functools.partial(_accuracy_under, rule) for rule in choices.RULES},
}
"""Every metric of choices, by its name in ``tasks.arrow`` and in the tables of a comparison."""


def scores(
    tasks: Iterable[Task], logprobs: pa.Table, generations: pa.Table | None = None
) -> pa.Table:
    """All metrics of tasks: :data:`TASKS`.

    Answers are tables LOGPROBS and GENERATIONS of :mod:`ablations.tasks.responses`, which may
    contain other tasks too.
    """
    parts = [TASKS.empty_table()]
    for task in tasks:
        for rows in _by_shots(task, logprobs):
            parts += _from_logprobs(task, rows)
        if generations is not None:
            for rows in _by_shots(task, generations):
                parts += _from_generations(task, rows)
    return pa.concat_tables(parts)


@dataclass(frozen=True)
class Score:
    """A row of the summary.

    ``low`` and ``high`` are Wilson's 95 % interval, None where items can score between 0 and 1.
    ``at_chance``: the interval contains the score of guessing.
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
    """The score and interval of every task and metric, in the order of the table."""
    keys = ["task", "shots", "metric"]
    sums = tasks.group_by(keys, use_threads=False).aggregate(
        [("numerator", "sum"), ("denominator", "sum"), ("chance", "sum"), ("item", "count")]
    )
    out = []
    for row in sums.to_pylist():
        total, chance = row["denominator_sum"], row["chance_sum"]
        if not total:
            continue  # MultiRC's F1 without true and predicted answers
        value = row["numerator_sum"] / total
        chance = None if chance is None else chance / total
        low = high = at_chance = None
        if row["metric"].startswith(BINARY):
            low, high = wilson(row["numerator_sum"], row["item_count"])
            at_chance = None if chance is None else low <= chance <= high
        task, shots, metric, items = (row[name] for name in (*keys, "item_count"))
        out.append(Score(task, shots, metric, items, value, low, high, chance, at_chance))
    return out


def wilson(right: float, items: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    low, high = metrics.wilson(np.array([right / items]), np.array([items]))
    return float(low[0]), float(high[0])


def _from_logprobs(task: Task, rows: pa.Table) -> list[pa.Table]:
    options = Choices.of(rows)
    items = rows.take(pa.array(options.starts))
    parts = {name: metric(task, options) for name, metric in METRICS.items()}
    return [metric_rows(items, name, part) for name, part in parts.items() if part is not None]


def _from_generations(task: Task, rows: pa.Table) -> list[pa.Table]:
    rule = answers.RULES[task.rule]
    found = [
        rule(
            _unanswered(task, row["text"]),
            [[_unanswered(task, span) for span in answer] for answer in row["answers"]],
        )
        for row in rows.select(["text", "answers"]).to_pylist()
    ]
    items = rows.filter(pa.array([score is not None for score in found], pa.bool_()))
    scored = [score for score in found if score is not None]
    exact, f1 = np.array(scored, np.float64).reshape(-1, 2).T
    return [metric_rows(items, "exact_match", Parts(exact)), metric_rows(items, "f1", Parts(f1))]


def _unanswered(task: Task, text: str) -> str:
    """Empty if the text is the task's ``no_answer``, as in SQuADv2's script."""
    if task.no_answer is not None and answers.normalise(text) == answers.normalise(task.no_answer):
        return ""
    return text


def metric_rows(items: pa.Table, metric: str, parts: Parts) -> pa.Table:
    """:data:`TASKS` of one metric; ``items`` has the columns task, shots, item and cluster."""
    n = len(items)
    columns = {
        **{key: items[key] for key in ("task", "shots", "item", "cluster")},
        "metric": pa.array([metric] * n, pa.string()),
        "numerator": parts.numerator,
        "denominator": np.ones(n) if parts.denominator is None else parts.denominator,
        "chance": pa.nulls(n, pa.float64()) if parts.chance is None else parts.chance,
    }
    return pa.table([columns[field.name] for field in TASKS], schema=TASKS)


def _by_shots(task: Task, table: pa.Table) -> Sequence[pa.Table]:
    rows = table.filter(pc.field("task") == task.name)
    return [rows.filter(pc.field("shots") == shots) for shots in rows["shots"].unique().to_pylist()]


def against_chance(value: float, low: float, high: float, chance: float | None) -> str | None:
    """A score against guessing: "at chance" if its interval contains the chance level."""
    if chance is None:
        return None
    if low <= chance <= high:
        return "at chance"
    return "above chance" if value > chance else "below chance"
