"""What a model answered: the two tables of a run from which every score is a reduction.

- ``logprobs.arrow``: one row for each choice of each item (:data:`LOGPROBS`)
- ``generations.arrow``: one row for each item whose answer the model writes (:data:`GENERATIONS`)
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ablations.tasks.items import Item
from ablations.tasks.language_model import LanguageModel
from ablations.tasks.task import Form, Task
from winnow.tables import required

BEAMS = 4
"""GLaM's beam width."""

STOP = "\n"
"""Ends a written answer: every prompt of ours asks for one line."""

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
"""A continuation: the natural log of its probability after its context; its tokens; its UTF-8 bytes
(without the space before it, as lm-evaluation-harness counts); the same log after the task's
neutral context (null where no rule needs it); whether it is a right answer, whether each of its
tokens was the likeliest, and whether its context lost its start to the model's length. Choices of
an item lie together, in order."""

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
"""A written answer, beam search's best, and the acceptable ones, each a list of spans."""


def logprobs(task: Task, items: Sequence[Item], shots: int, model: LanguageModel) -> pa.Table:
    """Ask how likely each choice is: :data:`LOGPROBS`."""
    contexts = [context for item in items for context in item.contexts]
    continuations = [text for item in items for text in item.continuations]
    conditional = model.loglikelihood(contexts, continuations)
    unconditional: pa.Array = pa.nulls(len(contexts), pa.float64())
    if task.form == Form.choice and task.unconditional:
        neutral = [task.unconditional] * len(contexts)
        unconditional = pa.array(model.loglikelihood(neutral, _spaced(continuations)).logprob)
    sizes = [len(item.contexts) for item in items]
    columns = {
        "task": [task.name] * len(contexts),
        "shots": pa.array(np.full(len(contexts), shots, np.int32)),
        "item": np.repeat(np.array([item.id for item in items], object), sizes),
        "cluster": np.repeat(np.array([item.cluster for item in items], object), sizes),
        "choice": np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
        "logprob": conditional.logprob,
        "tokens": conditional.tokens,
        "bytes": [len(text.removeprefix(" ").encode()) for text in continuations],
        "unconditional": unconditional,
        "correct": [right for item in items for right in item.correct],
        "greedy": conditional.greedy,
        "truncated": conditional.truncated,
    }
    return pa.table(columns, schema=LOGPROBS)


def generations(task: Task, items: Sequence[Item], shots: int, model: LanguageModel) -> pa.Table:
    """Let the model write its answers: :data:`GENERATIONS`."""
    texts = model.generate(
        [item.contexts[0] for item in items], stop=[STOP], max_tokens=task.max_tokens, beams=BEAMS
    )
    columns = {
        "task": [task.name] * len(items),
        "shots": pa.array(np.full(len(items), shots, np.int32)),
        "item": [item.id for item in items],
        "cluster": [item.cluster for item in items],
        "text": [text.strip() for text in texts],
        "answers": [[list(spans) for spans in item.answers] for item in items],
    }
    return pa.table(columns, schema=GENERATIONS)


def _spaced(texts: Sequence[str]) -> list[str]:
    """Continuations as they stand after the neutral context, which ends without a space."""
    return [text if text[:1].isspace() else f" {text}" for text in texts]
