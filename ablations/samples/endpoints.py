"""Endpoints (a task's metric, or the mean of several) and their paired differences."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from ablations.samples.pairing import POINTS, Measure
from ablations.stats import inference
from ablations.stats.inference import Estimate, Stratum

AVERAGE = "average"
"""The name of the mean over tasks."""


@dataclass(frozen=True)
class Endpoint:
    """The unweighted mean over measures of one ``unit``."""

    name: str
    label: str
    measures: Sequence[Measure]

    @property
    def unit(self) -> str:
        return self.measures[0].unit

    @property
    def gain(self) -> int:
        return self.measures[0].gain

    @property
    def items(self) -> int:
        return sum(len(measure.documents) for measure in self.measures)

    @property
    def chance(self) -> float | None:
        """The chance score; None if unknown for a measure."""
        known = [measure.chance for measure in self.measures if measure.chance is not None]
        return sum(known) / len(known) if len(known) == len(self.measures) else None

    def samples(self, arm: str, runs: int) -> list[list[Stratum]]:
        weight = 1 / len(self.measures)
        return [
            [measure.stratum(arm, run, weight) for measure in self.measures] for run in range(runs)
        ]


def difference(endpoint: Endpoint, arm: str, baseline: str, runs: int, alpha: float) -> Estimate:
    """Arm minus baseline, paired by run, and by passage or item.

    With one run per arm and independent binary items, p is at least McNemar's, since a t test is
    off if few items differ.
    """
    ours, theirs = endpoint.samples(arm, runs), endpoint.samples(baseline, runs)
    estimate = inference.difference(ours, theirs, alpha)
    if (counts := discordant(endpoint, arm, baseline, runs)) is None:
        return estimate
    return dataclasses.replace(estimate, p=max(estimate.p, mid_p(*counts)))


def discordant(endpoint: Endpoint, arm: str, baseline: str, runs: int) -> tuple[int, int] | None:
    """Items that only one of two models has right; None if McNemar's test does not apply."""
    if runs > 1 or len(endpoint.measures) > 1:
        return None
    (measure,) = endpoint.measures
    if not measure.binary or measure.passages is not None:
        return None
    ours, theirs = (measure.scores[name][0].numerator > 0 for name in (arm, baseline))
    return int((ours & ~theirs).sum()), int((theirs & ~ours).sum())


def mid_p(only_one: int, only_other: int) -> float:
    """The two-sided mid-p value of McNemar's test, from :func:`discordant` counts.

    The exact conditional test with half of the observed outcome: the exact test is conservative,
    the asymptotic one off for few discordant items (Fagerland, Lydersen and Laake 2013, "The
    McNemar test for binary matched-pairs data").
    """
    differing = only_one + only_other
    if differing == 0:
        return 1.0
    less = min(only_one, only_other)
    below, at = stats.binom.cdf(less, differing, 0.5), stats.binom.pmf(less, differing, 0.5)
    return float(1 - at / 2 if only_one == only_other else 2 * below - at)


def main_of(measures: Sequence[Measure], preferred: Sequence[str]) -> Measure:
    """The main metric of a task: the first preferred ``metric`` or ``metric,filter``."""
    for name in preferred:
        for measure in measures:
            if name in (measure.metric, f"{measure.metric},{measure.filter}"):
                return measure
    return measures[0]


def primary_of(main: Sequence[Measure], task: str) -> tuple[Endpoint, list[str]]:
    """The primary endpoint, and notes on it."""
    if task:
        if (wanted := next((measure for measure in main if measure.task == task), None)) is None:
            known = ", ".join(measure.task for measure in main)
            raise ValueError(f"primary={task} cannot be compared: choose from {known}")
        return of_task(wanted), []
    if len(main) == 1:
        return of_task(main[0]), []
    kinds = [(measure.unit, measure.gain) for measure in main]
    kind = (POINTS, 1) if (POINTS, 1) in kinds else kinds[0]
    chosen = [measure for measure in main if (measure.unit, measure.gain) == kind]
    rest = ", ".join(measure.label for measure in main if measure not in chosen)
    notes = [f"The mean over tasks is in {kind[0]}; it leaves out {rest}."] if rest else []
    if len(chosen) == 1:
        return of_task(chosen[0]), notes
    return Endpoint(AVERAGE, f"the mean of {len(chosen)} tasks", chosen), notes


def by_task(measures: Sequence[Measure]) -> list[list[Measure]]:
    tasks = dict.fromkeys(measure.task for measure in measures)
    return [[measure for measure in measures if measure.task == task] for task in tasks]


def of_task(measure: Measure) -> Endpoint:
    return Endpoint(f"{measure.task}/{measure.metric},{measure.filter}", measure.label, [measure])
