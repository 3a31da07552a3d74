"""Can the instrument say no, and does it see what is there? The checks of experiment=calibration.

The control arm reads text of the same kind as the baseline: two random halves of one pool, drawn
anew with each seed. A difference between them is a false alarm, which a fair instrument gives in a
share ``alpha`` of its studies. Since the halves of a seed could as well have been swapped, every
way of swapping them is a study of its own; the share of these that claim a difference says more
than the one that was run. The other arms have a known defect, whose effect must grow with its dose.
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
from ablations.study_files.results import Run, Study
from ablations.study_files.table import Row

MOST_SWAPS = 512
"""Swapped studies that are looked at; of more, this many are drawn."""


@dataclass(frozen=True)
class Calibration:
    """``rows`` has a line for each check; ``sound`` is whether all were passed."""

    sound: bool
    sentence: str
    rows: list[Row]


def check(study: Study) -> Calibration | None:
    """The checks of a study that declares a control; None for any other study.

    Raises:
        ValueError: the primary endpoint was not measured.
    """
    primary = study.declared.primary
    baseline, control = study.seeds(primary.baseline), study.seeds(primary.control)
    found = contrast(study, control, baseline) if primary.control else None
    if found is None:
        return None
    first = judge(found.estimate, found.baseline_value, primary)
    quiet = first.outcome in ("no difference", "underpowered")
    rows = [_row(f"{primary.control}: same text", found.estimate, first.outcome, quiet)]
    if (seeds := len(found.seeds)) > 1:
        share, swaps = false_alarms(found.treatment, found.baseline, primary.alpha)
        rows.append({"check": f"the halves swapped in {swaps:,} ways", "seeds": seeds})
        rows[-1] |= {"outcome": f"{share:.1%} claim a difference, {primary.alpha:.0%} expected"}
    doses = _doses(study)
    for arm in doses:
        if arm != primary.baseline and (of := contrast(study, study.seeds(arm), baseline)):
            judged = judge(of.estimate, of.baseline_value, primary)
            rows.append(_row(arm, of.estimate, judged.outcome, None))
    sees = False
    if (slope := _slope(study, doses)) is not None:
        sees = slope.p < primary.alpha and endpoints.gain(primary.endpoint) * slope.value < 0
        said = "grows with the dose" if sees else "not shown to grow with the dose"
        rows.append(_row("slope: effect of a dose of 1", slope, said, sees))
    return Calibration(quiet and sees, _sentence(quiet, sees), rows)


def false_alarms(
    treatment: Sequence[Sample], baseline: Sequence[Sample], alpha: float
) -> tuple[float, int]:
    """The share of studies that claim a difference, over ways to swap the arms of some seeds.

    Swapping all seeds changes the sign alone, so the first is never swapped.

    Returns:
        The share, and how many ways were looked at.
    """
    free = len(treatment) - 1
    if 2**free <= MOST_SWAPS:
        ways = list(itertools.product([False, True], repeat=free))
    else:
        ways = np.random.default_rng(0).integers(0, 2, (MOST_SWAPS, free)).astype(bool).tolist()
    values, moves = inference.paired(treatment, baseline)
    claimed = 0
    for way in ways:
        sign = np.where([False, *way], -1.0, 1.0)
        of = inference.estimate(sign * values, [sign[:, None] * move for move in moves], alpha)
        claimed += of.p < alpha
    return claimed / len(ways), len(ways)


def _doses(study: Study) -> dict[str, float]:
    """Arms of the known defect, by their dose."""
    control = study.declared.primary.control
    axis = axis_of([arm for arm in study.declared.arms if arm != control])
    return axis[1] if axis else {}


def _slope(study: Study, doses: Mapping[str, float]) -> inference.Estimate | None:
    """The primary endpoint by dose: the least-squares slope of each seed, over seeds."""
    runs: dict[str, Mapping[int, Run]] = {arm: study.seeds(arm) for arm in doses}
    seeds = sorted(set.intersection(*(set(of) for of in runs.values()))) if runs else []
    if len(seeds) < 2 or len(set(doses.values())) < 2:
        return None
    at = np.array(list(doses.values()))
    weights = (at - at.mean()) / ((at - at.mean()) ** 2).sum()
    values = [
        [inference.endpoint(sample(study, of[seed])) for of in runs.values()] for seed in seeds
    ]
    return inference.over_seeds(np.array(values) @ weights, study.declared.primary.alpha)


def _row(name: str, of: inference.Estimate, outcome: str, passed: bool | None) -> Row:
    row: Row = {"check": name, "seeds": of.seeds, "difference": of.value}
    row |= {"low": of.low, "high": of.high, "p": of.p, "outcome": outcome}
    return row | {"passed": passed}


def _sentence(quiet: bool, sees: bool) -> str:
    if quiet and sees:
        return (
            "Calibrated: two halves of one pool are not told apart, and shuffled words do harm that"
            " grows with the dose"
        )
    if not quiet:
        return (
            "A false alarm: two halves of one pool seem to differ, as in one of twenty runs of a"
            " sound instrument"
        )
    return "Blind at this size: shuffled words are not shown to do harm that grows with the dose"
