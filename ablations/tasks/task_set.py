"""The questions of one task, whoever defined it, as a model is asked them."""

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
    """The items of one task with so many demonstrations, and where all of it comes from.

    ``name`` is the task's in tables. ``new_tokens`` is the length of the longest written answer; 0
    where the model writes none.
    """

    name: str
    shots: int
    items: Sequence[Item]
    about: dict[str, Any]
    new_tokens: int

    @abstractmethod
    def answers(self, model: LanguageModel) -> Answers:
        """Ask a model everything."""


def sample(ids: Sequence[str], limit: int | None) -> list[int]:
    """The places of at most ``limit`` items, drawn by the hash of their ids, in order."""
    places = range(len(ids))
    if limit is None or len(ids) <= limit:
        return list(places)
    by_hash = sorted(places, key=lambda i: xxhash.xxh3_64_intdigest(ids[i].encode()))
    return sorted(by_hash[:limit])
