"""The variant at which a study compares each arm.

``main``: the study's main variant. ``best``: the best variant of the arm's model, chosen on
documents that the endpoint excludes. ``lowest``: the lowest learning rate, a proxy for tuned arms
(Wang et al. 2025, arXiv 2512.24503: results of small models at reduced learning rates predict those
of large models tuned per arm).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class CompareAt(StrEnum):
    """Where arms are compared."""

    main = "main"
    best = "best"
    lowest = "lowest"


@dataclass(frozen=True)
class Compare:
    """A study's declaration. ``selection`` is the share of each source's documents for the choice,
    which the endpoint excludes.
    """

    at: str = CompareAt.main
    selection: float = 0.25

    def __post_init__(self) -> None:
        if self.at not in list(CompareAt):
            raise ValueError(f"compare.at={self.at}: choose main, best or lowest")
        if not 0 < self.selection < 1:
            raise ValueError(f"compare.selection is a share of documents, not {self.selection}")


@dataclass(frozen=True)
class Choice:
    """An arm's choice of ``tried`` variants, and all that may be the best, the choice first."""

    variant: str
    possible: Sequence[str]
    tried: int


@dataclass(frozen=True)
class ChosenVariants:
    """A study's choices by arm, with rows and notes on them.

    ``of`` names what was searched ("learning rates"), ``by`` the endpoint of the choice, if any,
    ``ends`` the arms whose best is at the edge of the search.
    """

    at: CompareAt
    choices: dict[str, Choice]
    tried: int
    of: str
    by: str | None
    rows: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()
    ends: Sequence[str] = field(default_factory=list)


def status_of(row: Mapping[str, Any]) -> str:
    """Whether a row of the search is the best of its arm, in words."""
    return "best" if row["best"] else "may be best" if row["possible"] else ""
