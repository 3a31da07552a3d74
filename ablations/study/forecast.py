"""Forecasts a study's verdict from an earlier study, within and across sizes."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

from ablations.analyses import ladder
from ablations.contrasts import endpoints
from ablations.contrasts.pairing import contrast
from ablations.contrasts.verdict import number
from ablations.reading import read_study
from ablations.stats import power
from ablations.study import preflight
from ablations.study.design.config import AblationConfig
from ablations.study_files.results import Declaration, Study

HEAD = "From small to large: "


def forecast(config: AblationConfig, declared: Declaration, flops: Sequence[float]) -> list[str]:
    """Forecast lines of a plan, from the study that ``noise.pilot`` names.

    ``config`` is any planned job's, ``flops`` the compute of one job of each size.
    """
    if (pilot := config.noise.pilot) is None:
        return [HEAD + _unknown("no earlier study is named (noise.pilot=DIR)", len(flops))]
    study = read_study(pilot)
    # The planned contrast, on the planned endpoint if one is named.
    endpoint = config.primary.endpoint or study.declared.primary.endpoint
    planned = dataclasses.replace(declared.primary, endpoint=endpoint)
    earlier = dataclasses.replace(study.declared, primary=planned)
    study = dataclasses.replace(study, declared=earlier)
    sizes = ladder.sizes(study)
    lines = [HEAD + _unknown(f"{pilot} ran one size", len(flops))]
    if len(sizes) > 1:
        lines = _across_sizes(study, pilot, sizes, max(flops))
    return lines + _expected_verdict(study, pilot, sizes[-1], config, declared)


def _unknown(why: str, sizes: int) -> str:
    text = f"no forecast of whether the verdict holds at another size, since {why}."
    return text + (f" The {sizes} sizes of this study will show it." if sizes > 1 else "")


def _across_sizes(study: Study, pilot: str, sizes: list[str], target: float) -> list[str]:
    """How well sizes of the earlier study predict each other, and the distance of the target."""
    primary = study.declared.primary
    contrasts = ladder.contrasts(study, sizes)
    signs = ladder.signs(contrasts)
    assert signs is not None  # of two sizes or more
    pair = f"{primary.treatment} against {primary.baseline}"
    lines = [f"{HEAD}in {pilot}, {pair} has the same sign at {signs.kept} of {signs.sizes} sizes."]
    if orders := ladder.orders(study, sizes):
        row = orders[-1]
        lines.append(
            f"  {row['decision_right']} of {row['decision_of']} pairs of arms keep their order from"
            f" one size to the next ({1 - primary.alpha:.0%} interval {row['decision_low']:.0%} to"
            f" {row['decision_high']:.0%}, for these arms)."
        )
    compute = [row["flops"] for row in contrasts]
    ratio = target / compute[-1]
    steps = [larger / smaller for smaller, larger in pairwise(compute)]
    distance = f"  This study's largest jobs take {_times(ratio)} the compute of the largest there"
    if ratio > max(steps):
        distance += f", a longer step than any there (at most {_times(max(steps))}): less certain"
    return [*lines, f"{distance}."]


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.3g} times"


def _expected_verdict(
    study: Study, pilot: str, size: str, config: AblationConfig, declared: Declaration
) -> list[str]:
    """The probability of each verdict, if the true difference is the largest size's."""
    primary = study.declared.primary
    treatment, baseline = (study.seeds(arm, size) for arm in (primary.treatment, primary.baseline))
    measured = contrast(study, treatment, baseline)
    if measured is None or measured.estimate.seed_error is None or len(declared.seeds) < 2:
        return []
    estimate = measured.estimate
    seed_sd, item_error, _ = preflight.expected_noise(config)
    believed, seeds = (estimate.value, estimate.error, estimate.df), len(declared.seeds)
    probabilities = power.assurance(*believed, seed_sd, seeds, item_error, primary.alpha)
    better, worse = probabilities[:: endpoints.gain(primary.endpoint)]
    neither = 1 - better - worse
    return [
        f"Expected verdict: {better:.0%} better, {worse:.0%} worse, {neither:.0%} neither, if the"
        f" difference is that of {pilot} at its largest size, {number(estimate.value, True)}"
        f" ({number(estimate.low, True)} to {number(estimate.high, True)})"
    ]
