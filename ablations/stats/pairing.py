"""Two arms of a study on one endpoint, on the seeds that both of them have."""

from collections.abc import Mapping
from dataclasses import dataclass

from ablations.results import Run, Study
from ablations.stats import endpoints, inference
from ablations.stats.inference import Estimate, Sample


@dataclass(frozen=True)
class Contrast:
    """Treatment minus baseline, paired. Samples are in the order of ``seeds``."""

    seeds: list[int]
    treatment: list[Sample]
    baseline: list[Sample]
    estimate: Estimate
    baseline_value: float

    @property
    def relative(self) -> float | None:
        """The difference in parts of the baseline."""
        return self.estimate.value / self.baseline_value if self.baseline_value else None


def sample(study: Study, run: Run, endpoint: str | None = None) -> Sample:
    """What one run shows on an endpoint; on the primary one unless told otherwise."""
    declared = study.declared
    return endpoints.sample(endpoint or declared.primary.endpoint, run, declared.heldout)


def contrast(
    study: Study,
    treatment: Mapping[int, Run],
    baseline: Mapping[int, Run],
    endpoint: str | None = None,
) -> Contrast | None:
    """Compare runs (by seed) of two arms; None if they share no seed.

    Raises:
        ValueError: the runs were not evaluated on the endpoint.
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
