"""Scores of lm-evaluation-harness by item: rows of ``tasks.arrow``.

A metric of the harness is compared if it is a mean over items or bits per byte, not if it needs all
items at once (corpus BLEU). It keeps the harness's name, with the answer filter if any:
``acc_norm``, ``exact_match:strict-match``. Names of metrics where lower is better say so
(:mod:`ablations.study_files.metrics`).

If the task names the right answer and scores by the harness's default rules, we add
``gold_bits_per_byte`` and, for choices, ``gold_probability``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ablations.evaluation.harness_requests import GENERATION, LIKELIHOOD, ROLLING, Request, Response
from ablations.study_files import metrics as ours
from ablations.study_files.results import TASKS
from ablations.tasks import choices
from ablations.tasks.choices import Choices
from ablations.tasks.items import Item
from ablations.tasks.scores import Parts, metric_rows

CHOICE = "multiple_choice"
"""The form of a task whose requests are the likelihoods of its choices."""


class Value(NamedTuple):
    """The score of the item with this index by one metric, as a ratio."""

    item: int
    numerator: float
    denominator: float


class Judge:
    """A task of the harness, with its requests (``instances``)."""

    def __init__(self, task: Any) -> None:
        from lm_eval.api.task import ConfigurableTask

        self.task = task
        self.instances: Sequence[Any] = []
        own = type(task).process_results is not ConfigurableTask.process_results
        self.usual = not own and task.config.process_results is None

    def choices(self, document: Any, requests: Sequence[Request]) -> list[tuple[str, str, bool]]:
        """Context, continuation and correctness of each choice of a document.

        If the harness does not say what is right, each request is a choice that is not correct.
        """
        form = self.task.OUTPUT_TYPE if self.usual else None
        first = requests[0].arguments
        if form == CHOICE:
            right = self._right(document)
            texts = [request.arguments for request in requests[: len(self._texts(document))]]
            return [(text[0], text[1], i in right) for i, text in enumerate(texts)]
        if form == LIKELIHOOD:
            return [(first[0], first[1], True)]
        if form == GENERATION and (answers := self.answers(document)):
            return [(first[0], self.task.config.target_delimiter + answers[0], True)]
        return [_as_text(request) for request in requests]

    def answers(self, document: Any) -> list[str]:
        """The right answers of a generation task; empty if unknown."""
        if not self.usual or self.task.OUTPUT_TYPE != GENERATION:
            return []
        target = self.task.doc_to_target(document)
        if self.task.config.doc_to_choice is not None and isinstance(target, int):
            target = self._texts(document)[target]
        answers = target if isinstance(target, list) else [target]
        return [text for text in answers if isinstance(text, str) and text.strip()]

    def _texts(self, document: Any) -> list[str]:
        return list(self.task.doc_to_choice(document))

    def _right(self, document: Any) -> set[int]:
        """The right choices, by the harness's rule (``process_results`` in ``api/task.py``)."""
        several = self.task.multiple_input
        gold = self.task.doc_to_text(document) if several else self.task.doc_to_target(document)
        texts = self._texts(document)
        if isinstance(gold, str):
            return {texts.index(gold)} if gold in texts else set()
        indices = gold if isinstance(gold, list) else [gold]
        return {i for i in indices if isinstance(i, int) and 0 <= i < len(texts)}

    def metrics(self, items: Sequence[Item]) -> tuple[dict[str, bool], dict[str, str]]:
        """Whether higher is better, by compared metric; and why the others are not compared."""
        known = [item for item in items if any(item.correct)]
        higher_is_better = {ours.GOLD_BITS: False} if known else {}
        if known and min(len(item.correct) for item in known) > 1:
            higher_is_better[ours.GOLD_PROBABILITY] = True
        left_out = {}
        for metric in self.task.aggregation():
            column, reason = self._column(metric)
            if column is None:
                left_out[metric] = reason
            else:
                filtered = [_named(column, each.name) for each in self.task._filters]
                higher_is_better |= dict.fromkeys(filtered, ours.gain(column) > 0)
        return higher_is_better, left_out

    def _column(self, metric: str) -> tuple[str | None, str]:
        """The name of a metric in our tables; else None, and why it can't be compared."""
        from lm_eval.api import metrics

        aggregation = self.task.aggregation()[metric]
        if aggregation is metrics.bits_per_byte:
            return ours.BITS_PER_BYTE, ""
        if aggregation in (metrics.perplexity, metrics.weighted_perplexity):
            return None, "bits per byte say the same"
        if aggregation not in (metrics.mean, np.mean):
            return None, "it is a figure of all items at once"
        more = self.task.higher_is_better().get(metric)
        if more is None:
            return None, "its file does not say whether more is better (higher_is_better)"
        return metric if more else metric + ours.LESS, ""

    def values(
        self, responses: Sequence[Response], owners: Sequence[int]
    ) -> dict[str, list[Value]]:
        """The score of each item by each metric, from the answers to the first requests.

        ``owners`` has the index of each request's item.
        """
        instances = self.instances[: len(responses)]
        by_item: dict[int, list[Any]] = {}
        for instance, response, item_index in zip(instances, responses, owners, strict=False):
            instance.resps = [response] * (instance.repeats or 1)
            instance.filtered_resps = {}
            by_item.setdefault(item_index, []).append(instance)
        self.task._instances = instances
        self.task.apply_filters()
        columns = {metric: self._column(metric)[0] for metric in self.task.aggregation()}
        values: dict[str, list[Value]] = {}
        for filtered in (each.name for each in self.task._filters):
            for item, group in by_item.items():
                group.sort(key=lambda instance: instance.idx)
                results = [instance.filtered_resps[filtered] for instance in group]
                for metric, value in self.task.process_results(group[0].doc, results).items():
                    if (column := columns.get(metric)) is not None:
                        name = _named(column, filtered)
                        values.setdefault(name, []).append(_value(item, column, value))
        return values

    def rehearse(self) -> None:
        """Score made-up answers to the first item, so that a failure shows early."""
        first = [i for i in self.instances if i.doc_id == self.instances[0].doc_id]
        kinds: dict[str, Response] = {LIKELIHOOD: (-1.0, False), ROLLING: -1.0, GENERATION: "1"}
        self.values([kinds[instance.request_type] for instance in first], [0] * len(first))


def table(
    task: str,
    shots: int,
    items: Sequence[Item],
    values: Mapping[str, Sequence[Value]],
    logprobs: pa.Table,
) -> pa.Table:
    """All metrics of a task: :data:`ablations.study_files.results.TASKS`.

    ``values`` are from :meth:`Judge.values`, ``logprobs`` the choices of items with known answers.
    """
    parts = [TASKS.empty_table()]
    chance: dict[str, float] = {}
    if len(logprobs):
        choice_table = Choices.of(logprobs)
        rows = logprobs.take(pa.array(choice_table.starts))
        parts.append(metric_rows(rows, ours.GOLD_BITS, Parts(*choices.gold_bits(choice_table))))
        if choice_table.sizes.min() > 1:
            guess = choices.accuracy_by_chance(choice_table)
            right = Parts(choices.gold_probability(choice_table), chance=guess)
            parts.append(metric_rows(rows, ours.GOLD_PROBABILITY, right))
            chance = dict(zip(rows["item"].to_pylist(), guess.tolist(), strict=True))
    for name, scored in values.items():
        scored_items = [items[value.item] for value in scored]
        columns = {
            "task": [task] * len(scored_items),
            "shots": np.full(len(scored_items), shots, np.int32),
            "item": [item.id for item in scored_items],
            "cluster": [item.cluster for item in scored_items],
        }
        sums = np.array([value[1:] for value in scored], np.float64)
        guessed = None
        if name in ours.GUESSED and all(item.id in chance for item in scored_items):
            guessed = np.array([chance[item.id] for item in scored_items])
        parts.append(metric_rows(pa.table(columns), name, Parts(sums[:, 0], sums[:, 1], guessed)))
    return pa.concat_tables(parts)


def _as_text(request: Request) -> tuple[str, str, bool]:
    texts = [part for part in request.arguments[:2] if isinstance(part, str)]
    context, text = texts if len(texts) == 2 else ("", texts[0])
    return context, text, False


def _named(column: str, filtered: str) -> str:
    return column if filtered == "none" else f"{column}:{filtered}".replace("/", "-")


def _value(item: int, column: str, value: Any) -> Value:
    if column == ours.BITS_PER_BYTE:
        logprob, size = value
        return Value(item, -float(logprob) / math.log(2), float(size))
    return Value(item, float(value), 1.0)
