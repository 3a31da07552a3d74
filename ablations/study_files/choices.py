"""Where a study compares its arms, and which run of an arm stands for it.

``main``: each arm at the study's main variant. ``best``: each arm at its best variant of its model,
chosen on documents apart from the endpoint. ``lowest``: each arm at the lowest learning rate that
was run, a proxy for tuned arms (Wang et al. 2025, arXiv 2512.24503: results of small models at
reduced learning rates go with those of large ones that were tuned for each arm).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class At(StrEnum):
    """Where arms are compared."""

    main = "main"
    best = "best"
    lowest = "lowest"


@dataclass(frozen=True)
class Compare:
    """What a study declares of it. ``selection`` is the share of the endpoint's documents, of each
    source, that the choice is made on and that the endpoint is without.
    """

    at: str = At.main
    selection: float = 0.25

    def __post_init__(self) -> None:
        if self.at not in list(At):
            raise ValueError(f"compare.at={self.at}: choose main, best or lowest")
        if not 0 < self.selection < 1:
            raise ValueError(f"compare.selection is a share of documents, not {self.selection}")


@dataclass(frozen=True)
class Choice:
    """The variant that stands for an arm, of ``tried`` ones, and all that may be its best, that one
    first.
    """

    variant: str
    possible: Sequence[str]
    tried: int


@dataclass(frozen=True)
class Settled:
    """The choices of a study by arm, in words and as rows.

    ``of`` says what was chosen among ("learning rates"), ``by`` the endpoint that chose (None where
    nothing was chosen), ``ends`` the arms whose best lies at the end of what was tried.
    """

    at: At
    choices: dict[str, Choice]
    tried: int
    of: str
    by: str | None
    rows: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()
    ends: Sequence[str] = field(default_factory=list)


def standing(row: Mapping[str, Any]) -> str:
    """What a row of what was tried is to its arm, in words."""
    return "best" if row["best"] else "may be best" if row["possible"] else ""
