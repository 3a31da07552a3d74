"""The interface of one task's items, for tasks of ours and of lm-evaluation-harness."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from ablations.tasks.items import Item
from ablations.tasks.language_model import LanguageModel


class Answers(NamedTuple):
    """A model's answers: tables of the schemas LOGPROBS, GENERATIONS and TASKS."""

    logprobs: pa.Table
    generations: pa.Table
    scores: pa.Table


@dataclass(frozen=True)
class TaskSet(ABC):
    """The items of one task, with their number of demonstrations and provenance.

    ``new_tokens`` is the maximum length of generated answers, 0 if there are none.
    """

    name: str
    shots: int
    items: Sequence[Item]
    about: dict[str, Any]
    new_tokens: int

    @abstractmethod
    def answers(self, model: LanguageModel) -> Answers:
        """Evaluate a model on all items."""


def sample(ids: Sequence[str], limit: int | None) -> list[int]:
    """The indices of at most ``limit`` items, sampled by hash of their ids, in order."""
    places = range(len(ids))
    if limit is None or len(ids) <= limit:
        return list(places)
    by_hash = sorted(places, key=lambda i: xxhash.xxh3_64_intdigest(ids[i].encode()))
    return sorted(by_hash[:limit])
