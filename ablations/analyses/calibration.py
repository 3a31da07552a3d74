"""Calibration of the method: false alarms and sensitivity (experiment=calibration).

The control arm reads the same kind of text as the baseline: two random halves of one pool, redrawn
with each seed. A difference between them is a false alarm, expected in a share ``alpha`` of
studies. The halves of a seed are exchangeable, so every pattern of swaps is another study that
might claim a difference. The other arms have a known defect, whose effect must grow with its dose.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.contrasts import endpoints
from ablations.contrasts.axis import axis_of
from ablations.contrasts.pairing import contrast, sample
from ablations.contrasts.verdict import judge
from ablations.stats import inference
from ablations.stats.inference import Sample
from ablations.study_files.results import Study
from ablations.study_files.table import Row

MOST_SWAPS = 512
"""With more swap patterns, this many are sampled."""


@dataclass(frozen=True)
class Calibration:
    """A row per check; ``sound`` if all passed."""

    sound: bool
    sentence: str
    rows: list[Row]


def check(study: Study) -> Calibration | None:
    """The checks of a study with a control; None for other studies.

    Raises:
        ValueError: the primary endpoint was not measured.
    """
    primary = study.declared.primary
    baseline, control = study.seeds(primary.baseline), study.seeds(primary.control)
    control_contrast = contrast(study, control, baseline) if primary.control else None
    if control_contrast is None:
        return None
    first = judge(control_contrast.estimate, control_contrast.baseline_value, primary)
    quiet = first.outcome in ("no difference", "underpowered")
    rows = [_row(f"{primary.control}: same text", control_contrast.estimate, first.outcome, quiet)]
    if (seeds := len(control_contrast.seeds)) > 1:
        pair = control_contrast.treatment, control_contrast.baseline
        share, swaps = false_alarms(*pair, primary.alpha)
        rows.append({"check": f"the halves swapped in {swaps:,} ways", "seeds": seeds})
        rows[-1] |= {"outcome": f"{share:.1%} claim a difference, {primary.alpha:.0%} expected"}
    doses = _doses(study)
    for arm in doses:
        if arm != primary.baseline and (result := contrast(study, study.seeds(arm), baseline)):
            judged = judge(result.estimate, result.baseline_value, primary)
            rows.append(_row(arm, result.estimate, judged.outcome, None))
    sees = False
    if (slope := _slope(study, doses)) is not None:
        sees = slope.p < primary.alpha and endpoints.gain(primary.endpoint) * slope.value < 0
        outcome = "grows with the dose" if sees else "not shown to grow with the dose"
        rows.append(_row("slope: effect of a dose of 1", slope, outcome, sees))
    return Calibration(quiet and sees, _sentence(quiet, sees), rows)


def false_alarms(
    treatment: Sequence[Sample], baseline: Sequence[Sample], alpha: float
) -> tuple[float, int]:
    """The share of swap patterns that claim a difference, and the number of patterns.

    The first seed is never swapped, since swapping all only changes the sign.
    """
    free = len(treatment) - 1
    if 2**free <= MOST_SWAPS:
        patterns = list(itertools.product([False, True], repeat=free))
    else:
        patterns = np.random.default_rng(0).integers(0, 2, (MOST_SWAPS, free)).astype(bool).tolist()
    values, moves = inference.paired(treatment, baseline)
    claimed = 0
    for swaps in patterns:
        sign = np.where([False, *swaps], -1.0, 1.0)
        swapped = [sign[:, None] * move for move in moves]
        claimed += inference.estimate(sign * values, swapped, alpha).p < alpha
    return claimed / len(patterns), len(patterns)


def _doses(study: Study) -> dict[str, float]:
    """The dose of each arm with the known defect."""
    control = study.declared.primary.control
    axis = axis_of([arm for arm in study.declared.arms if arm != control])
    return axis[1] if axis else {}


def _slope(study: Study, doses: Mapping[str, float]) -> inference.Estimate | None:
    """The least-squares slope of the primary endpoint by dose, over seeds."""
    runs = [study.seeds(arm) for arm in doses]
    seeds = sorted(set.intersection(*map(set, runs))) if runs else []
    if len(seeds) < 2 or len(set(doses.values())) < 2:
        return None
    at = np.array(list(doses.values()))
    weights = (at - at.mean()) / ((at - at.mean()) ** 2).sum()
    values = [[inference.endpoint(sample(study, of[seed])) for of in runs] for seed in seeds]
    return inference.over_seeds(np.array(values) @ weights, study.declared.primary.alpha)


def _row(name: str, estimate: inference.Estimate, outcome: str, passed: bool | None) -> Row:
    row: Row = {"check": name, "seeds": estimate.seeds, "difference": estimate.value}
    row |= {"low": estimate.low, "high": estimate.high, "p": estimate.p}
    return row | {"outcome": outcome, "passed": passed}


def _sentence(quiet: bool, sees: bool) -> str:
    if not quiet:
        return (
            "A false alarm: two halves of one pool seem to differ, as in one of twenty runs of a"
            " sound method"
        )
    if sees:
        return (
            "Calibrated: two halves of one pool are not told apart, and shuffled words do harm that"
            " grows with the dose"
        )
    return "Blind at this size: shuffled words are not shown to do harm that grows with the dose"
