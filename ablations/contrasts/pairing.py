"""Compares two arms on one endpoint over their common seeds."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ablations.contrasts import endpoints
from ablations.stats import candidates, inference
from ablations.stats.inference import Estimate, Sample
from ablations.study_files.results import Run, Study
from ablations.study_files.table import Row


@dataclass(frozen=True)
class Contrast:
    """Treatment minus baseline, paired by seed; samples are in the order of ``seeds``."""

    seeds: list[int]
    treatment: list[Sample]
    baseline: list[Sample]
    estimate: Estimate
    baseline_value: float

    @property
    def relative(self) -> float | None:
        """The difference relative to the baseline."""
        return self.estimate.value / self.baseline_value if self.baseline_value else None

    def columns(self) -> Row:
        """Seeds, baseline, difference, interval and p as columns of a table."""
        difference = {"difference": self.estimate.value, "relative": self.relative}
        interval = {"low": self.estimate.low, "high": self.estimate.high, "p": self.estimate.p}
        head = {"seeds": self.estimate.seeds, "baseline_value": self.baseline_value}
        return head | difference | interval


def sample(study: Study, run: Run, endpoint: str | None = None) -> Sample:
    """A run's sample of an endpoint, by default the primary one."""
    declared = study.declared
    return endpoints.sample(endpoint or declared.primary.endpoint, run, declared.heldout)


def contrast(
    study: Study,
    treatment: Mapping[int, Run],
    baseline: Mapping[int, Run],
    endpoint: str | None = None,
) -> Contrast | None:
    """Compare two arms (runs by seed) on common seeds; None if there are none.

    Raises:
        ValueError: a run lacks the endpoint.
    """
    seeds = sorted(treatment.keys() & baseline.keys())
    if not seeds:
        return None
    ours = [sample(study, treatment[seed], endpoint) for seed in seeds]
    theirs = [sample(study, baseline[seed], endpoint) for seed in seeds]
    estimate = inference.difference(ours, theirs, study.declared.primary.alpha)
    return Contrast(seeds, ours, theirs, estimate, inference.mean(theirs).value)


def between(
    study: Study, treatment: str, baseline: str, endpoint: str | None = None
) -> Contrast | None:
    """Like :func:`contrast`, at the study's variants of both arms.

    If variants were chosen, the interval includes the uncertainty of the choice.
    """
    result = contrast(study, study.seeds(treatment), study.seeds(baseline), endpoint)
    chosen = study.chosen
    if result is None or chosen is None or chosen.by is None:
        return result
    name = endpoint or study.declared.primary.endpoint
    gain = endpoints.gain(name) if name == chosen.by else None
    take = functools.partial(sample, study, endpoint=endpoint)
    return replace(
        result, estimate=of_bests(study, (treatment, baseline), result.seeds, take, gain)
    )


def of_bests(
    study: Study,
    arms: tuple[str, str],
    seeds: Sequence[int],
    take: Callable[[Run], Sample],
    gain: int | None,
) -> Estimate:
    """The first arm minus the second, each at its best, with the uncertainty of the choice.

    ``take`` returns a run's sample of the endpoint. ``gain`` is the sign of an improvement; None if
    the choice was not made on this endpoint.
    """
    assert study.chosen is not None
    ours, theirs = (
        [
            [take(study.seeds(arm, variant)[seed]) for seed in seeds]
            for variant in study.chosen.choices[arm].possible
        ]
        for arm in arms
    )
    pairs = [[inference.paired(one, other) for other in theirs] for one in ours]
    return candidates.difference_of_bests(pairs, study.declared.primary.alpha, gain)
