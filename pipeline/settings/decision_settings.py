"""A keep rule as the user states it, and the solution for its parameter."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.near_duplicates.choice import Stays
from pipeline.output import schema
from pipeline.rules import solve
from pipeline.rules.buckets import Buckets
from pipeline.rules.decision import PARAMETERS, FloatArray, Rule
from pipeline.rules.solve import Band, Places, Sketch
from pipeline.settings import flags

TOP = "top_fraction"
BUCKETS = "buckets"


@dataclass(frozen=True)
class Decision:
    """The keep rule as the user states it: its parameter, or a target fraction to solve for.

    Raises:
        ValueError: the settings contradict each other, or one is missing or out of range.
    """

    rule: str = flags.DEFAULT_RULE
    alpha: float | None = None
    threshold: float | None = None
    rate: float | None = None
    target_fraction: float | None = None
    target_unit: str = flags.DEFAULT_TARGET_UNIT
    deduplicate: bool = False
    near_duplicates_keep: str | None = None
    near_duplicates_power: float | None = None
    buckets: int | None = None
    copies: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _ = self.stays  # checks them
        if self.rule not in flags.RULES:
            raise ValueError(
                f"unknown --rule {self.rule!r}: choose one of {', '.join(flags.RULES)}"
            )
        solve.check_unit(self.target_unit)
        takes = PARAMETERS.get(self.rule)
        for rule, name in PARAMETERS.items():
            if name != takes:
                self._check_none_of((name,), rule)
        given = takes is not None and getattr(self, takes) is not None
        self._check_buckets()
        if self.target_fraction is not None:
            if self.rule in ("all", BUCKETS):
                raise ValueError(
                    f"--target-fraction has no meaning under --rule {self.rule}: leave it out"
                )
            if given:
                raise ValueError(f"give either --{takes} or --target-fraction, not both")
            if not 0 < self.target_fraction <= 1:
                raise ValueError("--target-fraction must be in (0, 1]")
        elif self.rule == TOP:
            raise ValueError("--rule top_fraction needs --target-fraction")
        elif takes in ("threshold", "rate") and not given:
            raise ValueError(f"--rule {self.rule} needs --{takes} or --target-fraction")
        self.known_rule()

    def _check_none_of(self, names: Sequence[str], rule: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"--{name} has no meaning under --rule {self.rule}: leave it out, or give"
                    f" --rule {rule}"
                )

    def _check_buckets(self) -> None:
        if self.rule != BUCKETS:
            self._check_none_of(("buckets", "copies"), BUCKETS)
            return
        if not self.copies:
            raise ValueError(
                "--rule buckets needs --copies: how often to repeat each bucket, the lowest scores"
                " first, as 0,1,2"
            )
        if self.buckets is not None and self.buckets != len(self.copies):
            raise ValueError(
                f"--copies has {len(self.copies)} counts for {self.buckets} buckets: give one for"
                " each, the lowest scores first"
            )
        if min(self.copies) < 0 or max(self.copies) > flags.MOST_COPIES:
            raise ValueError(
                f"--copies are whole numbers from 0 (drop) to {flags.MOST_COPIES}, not"
                f" {', '.join(map(str, self.copies))}"
            )

    def as_settings(self) -> dict[str, Any]:
        """The manifest's form, without unset optional settings."""
        newer = ("near_duplicates_keep", "near_duplicates_power", "buckets", "copies")
        settings = {n: v for n, v in asdict(self).items() if v is not None or n not in newer}
        copies = {"buckets": len(self.copies), "copies": list(self.copies)} if self.copies else {}
        return settings | copies

    @property
    def stays(self) -> Stays:
        return stays(self.near_duplicates_keep, self.near_duplicates_power)

    def known_rule(self) -> Rule | None:
        """The rule, or None if its parameter must be solved for."""
        match self.rule:
            case "all":
                return Rule("all")
            case "random":
                # It ignores scores: in expectation every unit is kept at the rate.
                rate = self.rate if self.rate is not None else self.target_fraction
                assert rate is not None
                return Rule("random", rate)
            case "threshold" if self.threshold is not None:
                return Rule("threshold", self.threshold)
            case "pareto" if self.target_fraction is None:
                return Rule("pareto", flags.DEFAULT_ALPHA if self.alpha is None else self.alpha)
            case _:
                return None

    @property
    def fractions(self) -> tuple[float, ...]:
        """The top fractions to cut off, by rising scores: one, or the bounds of buckets."""
        if self.rule == BUCKETS:
            k = len(self.copies or ())
            return tuple((k - j) / k for j in range(1, k))
        return (self.target_fraction,) if self.rule == TOP and self.target_fraction else ()

    def sketch(self, score: npt.NDArray[np.float32], draw: FloatArray, weight: Sketch) -> Sketch:
        """The input of :meth:`bands` and :meth:`solve` from n scored documents; sketches add up."""
        if self.known_rule():
            return np.zeros(1, np.int64)
        if self.rule in (TOP, BUCKETS):
            return solve.bands(score, weight)
        return solve.sketch(self.rule, score, draw, weight)

    def bands(self, total: Sketch) -> tuple[Band, ...]:
        """The band in which each of :attr:`fractions` ends; none for an empty sketch."""
        if not total.any():
            return ()
        return tuple(solve.find_band(total, fraction) for fraction in self.fractions)

    def solve(self, total: Sketch, cuts: Sequence[tuple[Band, Places]]) -> Rule | Buckets:
        """The rule whose yield is nearest to the target, from the sum of all sketches, and each of
        :meth:`bands` with its places.

        Raises:
            ValueError: the sketch is empty, or no parameter comes near the target.
        """
        if not total.any():
            raise ValueError(solve.NOTHING)
        if self.rule == BUCKETS:
            return Buckets(tuple(solve.cut(*pair) for pair in cuts), tuple(self.copies or ()))
        if self.rule == TOP:
            return solve.cut(*cuts[0])
        assert self.target_fraction is not None
        return solve.solve(self.rule, total, self.target_fraction)


def stays(keep: str | None, power: float | None) -> Stays:
    """The choice of near-duplicates; ValueError if the settings contradict each other."""
    if power is not None and (keep or flags.DEFAULT_NEAR_KEEP) != "sample":
        raise ValueError(
            "--near-duplicates-power needs --near-duplicates-keep sample: add that, or leave it out"
        )
    return Stays(
        keep or flags.DEFAULT_NEAR_KEEP, flags.DEFAULT_NEAR_POWER if power is None else power
    )


def weights(unit: str, batch: pa.RecordBatch) -> Sketch:
    """The weights of n documents in a target unit: int64 [n]."""
    if unit == "documents":
        return np.ones(len(batch), np.int64)
    counted = unit == "tokens" and schema.TOKENS in batch.schema.names
    weight: Sketch = batch[schema.TOKENS if counted else solve.COLUMN[unit]].to_numpy()
    return weight
