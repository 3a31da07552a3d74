"""What is compared: a metric of a task, or the mean of several; and its paired difference."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ablations.samples.pairing import POINTS, Measure
from ablations.stats import inference
from ablations.stats.inference import Estimate, Stratum
from ablations.stats.mcnemar import mid_p

AVERAGE = "average"
"""The name of the mean over tasks."""


@dataclass(frozen=True)
class Endpoint:
    """A mean over measures, each of the same weight; all are in ``unit``."""

    name: str
    label: str
    measures: Sequence[Measure]

    @property
    def unit(self) -> str:
        """Of its value."""
        return self.measures[0].unit

    @property
    def gain(self) -> int:
        """The sign of an improvement."""
        return self.measures[0].gain

    @property
    def items(self) -> int:
        """Items paired."""
        return sum(len(of.documents) for of in self.measures)

    @property
    def chance(self) -> float | None:
        """The score of guessing; None unless it is known of every measure."""
        known = [of.chance for of in self.measures if of.chance is not None]
        return sum(known) / len(known) if len(known) == len(self.measures) else None

    def samples(self, arm: str, runs: int) -> list[list[Stratum]]:
        """What each run of an arm shows."""
        weight = 1 / len(self.measures)
        return [[of.stratum(arm, run, weight) for of in self.measures] for run in range(runs)]


def difference(endpoint: Endpoint, arm: str, baseline: str, runs: int, alpha: float) -> Estimate:
    """Arm minus baseline, paired by run, and by passage or item.

    Where each arm has one run and items are right or wrong and on their own, p is never smaller
    than McNemar's: a t test errs where few items differ.
    """
    of = inference.difference(endpoint.samples(arm, runs), endpoint.samples(baseline, runs), alpha)
    counts = discordant(endpoint, arm, baseline, runs)
    return of if counts is None else dataclasses.replace(of, p=max(of.p, mid_p(*counts)))


def discordant(endpoint: Endpoint, arm: str, baseline: str, runs: int) -> tuple[int, int] | None:
    """Items that one of two models alone has right; None where McNemar's test does not apply."""
    if runs > 1 or len(endpoint.measures) > 1:
        return None
    (measure,) = endpoint.measures
    if not measure.binary or measure.passages is not None:
        return None
    ours, theirs = (measure.scores[name][0].numerator > 0 for name in (arm, baseline))
    return int((ours & ~theirs).sum()), int((theirs & ~ours).sum())


def main_of(of_task: Sequence[Measure], preferred: Sequence[str]) -> Measure:
    """The metric that a task is tested by; ``metric`` or ``metric,filter`` is preferred."""
    for name in preferred:
        for of in of_task:
            if name in (of.metric, f"{of.metric},{of.filter}"):
                return of
    return of_task[0]


def primary_of(main: Sequence[Measure], task: str) -> tuple[Endpoint, list[str]]:
    """What the verdict is about, and what is to say of it."""
    if task:
        if (found := next((of for of in main if of.task == task), None)) is None:
            known = ", ".join(of.task for of in main)
            raise ValueError(f"primary={task} is no task that can be compared: there are {known}")
        return of_task(found), []
    if len(main) == 1:
        return of_task(main[0]), []
    kinds = dict.fromkeys((of.unit, of.gain) for of in main)
    kind = (POINTS, 1) if (POINTS, 1) in kinds else next(iter(kinds))
    chosen = [of for of in main if (of.unit, of.gain) == kind]
    rest = [of.label for of in main if of not in chosen]
    notes = []
    if rest:
        notes.append(
            f"The mean over tasks is in {kind[0]}, and leaves out what is not: {', '.join(rest)}."
        )
    if len(chosen) == 1:
        return of_task(chosen[0]), notes
    return Endpoint(AVERAGE, f"the mean of {len(chosen)} tasks", chosen), notes


def by_task(measures: Sequence[Measure]) -> list[list[Measure]]:
    tasks = dict.fromkeys(of.task for of in measures)
    return [[of for of in measures if of.task == task] for task in tasks]


def of_task(measure: Measure) -> Endpoint:
    return Endpoint(f"{measure.task}/{measure.metric},{measure.filter}", measure.label, [measure])
