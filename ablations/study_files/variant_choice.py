"""At which variant a study compares each arm.

``main``: each arm at the study's main variant. ``best``: each arm at the best variant of its
model, chosen on documents held apart from the endpoint. ``lowest``: each arm at its lowest learning
rate, a proxy for tuned arms (Wang et al. 2025, arXiv 2512.24503: results of small models at reduced
learning rates predict those of large models tuned per arm).
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
    """A study's declaration. ``selection`` is the share of each source's endpoint documents that
    the choice is made on and the endpoint excludes.
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
    """The chosen variant of an arm, of ``tried`` ones, and all ``possible`` best ones, it first."""

    variant: str
    possible: Sequence[str]
    tried: int


@dataclass(frozen=True)
class ChosenVariants:
    """The choices of a study by arm, as rows and notes.

    ``of`` names what was searched ("learning rates"), ``by`` the endpoint of the choice (None if
    there was none), ``ends`` the arms whose best is at the edge of the search.
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
