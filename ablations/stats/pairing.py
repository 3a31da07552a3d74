"""Compares two arms on one endpoint over the seeds that both have."""

from collections.abc import Mapping
from dataclasses import dataclass

from ablations.results import Run, Study
from ablations.stats import endpoints, inference
from ablations.stats.inference import Estimate, Sample


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
    """Compare two arms, each a mapping from seed to run; None if they share no seed.

    Raises:
        ValueError: a run lacks the endpoint.
    """
    seeds = sorted(treatment.keys() & baseline.keys())
    if not seeds:
        return None
    ours = [sample(study, treatment[seed], endpoint) for seed in seeds]
    theirs = [sample(study, baseline[seed], endpoint) for seed in seeds]
    alpha = study.declared.primary.alpha
    return Contrast(
        seeds=seeds,
        treatment=ours,
        baseline=theirs,
        estimate=inference.difference(ours, theirs, alpha),
        baseline_value=inference.mean(theirs, alpha).value,
    )
