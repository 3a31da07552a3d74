"""A model's answers: the two tables from which all scores are computed.

- ``logprobs.arrow``: a row per choice of each item (:data:`LOGPROBS`)
- ``generations.arrow``: a row per item with a generated answer (:data:`GENERATIONS`)
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ablations.tasks.items import Item
from ablations.tasks.language_model import LanguageModel, LogLikelihoods
from ablations.tasks.task import Form, Task
from winnow.filesystem.tables import required

BEAMS = 4
"""GLaM's beam width."""

STOP = "\n"
"""Ends a generated answer: prompts ask for one line."""

LOGPROBS = pa.schema(
    [
        *required(
            task=pa.string(),
            shots=pa.int32(),
            item=pa.string(),
            cluster=pa.string(),
            choice=pa.int32(),
            logprob=pa.float64(),
            tokens=pa.int64(),
            bytes=pa.int64(),
        ),
        pa.field("unconditional", pa.float64()),
        *required(correct=pa.bool_(), greedy=pa.bool_(), truncated=pa.bool_()),
    ]
)
"""The choices of an item are adjacent and in order. ``logprob`` is a natural logarithm given the
context; ``unconditional``, given the task's neutral context (null where no rule needs it).
``bytes`` are UTF-8 without the leading space, as in lm-evaluation-harness. ``greedy``: each token
was the likeliest; ``truncated``: the context exceeded the model's length."""

GENERATIONS = pa.schema(
    required(
        task=pa.string(),
        shots=pa.int32(),
        item=pa.string(),
        cluster=pa.string(),
        text=pa.string(),
        answers=pa.list_(pa.list_(pa.string())),
    )
)
"""Beam search's best answer, and the acceptable answers, each a list of spans."""


def logprobs(task: Task, items: Sequence[Item], shots: int, model: LanguageModel) -> pa.Table:
    """The log-likelihood of each choice: :data:`LOGPROBS`."""
    contexts = [context for item in items for context in item.contexts]
    continuations = [text for item in items for text in item.continuations]
    conditional = model.loglikelihood(contexts, continuations)
    unconditional: pa.Array = pa.nulls(len(contexts), pa.float64())
    if task.form == Form.choice and task.unconditional:
        neutral = [task.unconditional] * len(contexts)  # ends without a space
        spaced = [text if text[:1].isspace() else f" {text}" for text in continuations]
        unconditional = pa.array(model.loglikelihood(neutral, spaced).logprob)
    return choices_table(task.name, items, shots, conditional, unconditional)


def choices_table(
    task: str,
    items: Sequence[Item],
    shots: int,
    conditional: LogLikelihoods,
    unconditional: pa.Array,
) -> pa.Table:
    """The choices of all items in order, with a model's scores: :data:`LOGPROBS`."""
    sizes = [len(item.contexts) for item in items]
    columns = {
        "task": [task] * sum(sizes),
        "shots": pa.array(np.full(sum(sizes), shots, np.int32)),
        "item": np.repeat(np.array([item.id for item in items], object), sizes),
        "cluster": np.repeat(np.array([item.cluster for item in items], object), sizes),
        "choice": np.array([i for size in sizes for i in range(size)], np.int32),
        "logprob": conditional.logprob,
        "tokens": conditional.tokens,
        "bytes": [len(t.removeprefix(" ").encode()) for item in items for t in item.continuations],
        "unconditional": unconditional,
        "correct": [right for item in items for right in item.correct],
        "greedy": conditional.greedy,
        "truncated": conditional.truncated,
    }
    return pa.table(columns, schema=LOGPROBS)


def generations(task: Task, items: Sequence[Item], shots: int, model: LanguageModel) -> pa.Table:
    """The model's generated answers: :data:`GENERATIONS`."""
    texts = model.generate(
        [item.contexts[0] for item in items], stop=[STOP], max_tokens=task.max_tokens, beams=BEAMS
    )
    return generations_table(task.name, items, shots, [text.strip() for text in texts])


def generations_table(
    task: str, items: Sequence[Item], shots: int, texts: Sequence[str]
) -> pa.Table:
    """The generated answer to each item: :data:`GENERATIONS`."""
    columns = {
        "task": [task] * len(items),
        "shots": pa.array(np.full(len(items), shots, np.int32)),
        "item": [item.id for item in items],
        "cluster": [item.cluster for item in items],
        "text": texts,
        "answers": [[list(spans) for spans in item.answers] for item in items],
    }
    return pa.table(columns, schema=GENERATIONS)
