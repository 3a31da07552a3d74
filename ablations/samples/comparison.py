"""Compare models by their logged samples: verdict and tables.

Each task is tested by its *main* metric: the first preferred one, else lm-eval's first. The primary
endpoint is their unweighted mean over tasks. The family of further tests, with Holm's adjustment,
has every arm on every task, and the arms after the second on the primary endpoint.

With one run per arm the results are about these models; with several (training seeds) they
generalise to other seeds, as in a study (:mod:`ablations.stats.inference`).
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.contrasts import equivalence, verdict
from ablations.contrasts.verdict import Question, Verdict, number
from ablations.samples import tables
from ablations.samples.endpoints import (
    AVERAGE,
    Endpoint,
    by_task,
    difference,
    discordant,
    main_of,
    mid_p,
    of_task,
    primary_of,
)
from ablations.samples.pairing import POINTS, Measure, Paired
from ablations.stats import inference
from ablations.stats.inference import Estimate
from ablations.study_files.table import Row, finite

FORMAT = 1

SMALLEST = {POINTS: 1.0, "bits per byte": 0.01}
"""The default smallest difference of interest; in bits per byte, that of a study."""


@dataclass(frozen=True)
class Criteria:
    """Settings of a comparison. ``primary`` is a task, or empty for the mean over tasks."""

    metrics: Sequence[str] = ()
    primary: str = ""
    smallest_difference: float | None = None
    alpha: float = 0.05
    power: float = 0.8

    def __post_init__(self) -> None:
        if self.smallest_difference is not None and not 0 < self.smallest_difference < math.inf:
            raise ValueError("smallest_difference must be a positive number")
        if not 0 < self.alpha < 0.5 or not self.alpha < self.power < 1:
            raise ValueError("alpha must lie in (0, 0.5) and power in (alpha, 1)")


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`. ``primary`` is the verdict's estimate; ``paired`` counts the
    comparable tasks and their items.
    """

    headline: str
    verdict: Verdict
    primary: Row
    paired: Row
    notes: Sequence[str]
    tables: dict[str, list[Row]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; infinite degrees of freedom are null."""
        return dict(finite({"format": FORMAT, **asdict(self)}))


def compare(paired: Paired, criteria: Criteria) -> Comparison:
    """Compare the arms with the first of them, and judge the second.

    Raises:
        ValueError: the primary endpoint is not a task, or needs a smallest difference.
    """
    main = [main_of(measures, criteria.metrics) for measures in by_task(paired.measures)]
    primary, notes = primary_of(main, criteria.primary)
    baseline, treatment = paired.arms[:2]
    estimate = difference(primary, treatment, baseline, paired.runs, criteria.alpha)
    smallest = criteria.smallest_difference or SMALLEST.get(primary.unit)
    if smallest is None:
        raise ValueError(
            f"give the smallest difference on {primary.label} that matters (in {primary.unit}):"
            " smallest_difference=…"
        )
    about = (treatment, baseline, primary.label, primary.unit, primary.gain, smallest)
    question = Question(*about, criteria.alpha, criteria.power, "items", of_runs=paired.runs == 1)
    ours, base = (
        inference.mean(primary.samples(arm, paired.runs), criteria.alpha)
        for arm in (treatment, baseline)
    )
    doubts = _doubts(primary, paired, (estimate, ours, base), question)
    judged = verdict.answer(estimate, base.value, question, doubts)
    if paired.runs == 1:
        scope = " This is about these two models; another training run of either may differ."
        judged = dataclasses.replace(judged, sentence=judged.sentence + scope)
    elif paired.runs == 2:
        notes.append("Two runs estimate their spread poorly, hence the wide interval.")
    more = "less" if estimate.value < 0 else "more"
    size = f"{number(abs(estimate.value))} {question.unit} {more}"
    return Comparison(
        headline=verdict.finding(judged.outcome, question, estimate.value, size),
        verdict=judged,
        primary={
            **asdict(question),
            "endpoint": primary.name,
            "tasks": len(primary.measures),
            "items": primary.items,
            "baseline_value": base.value,
            "relative": estimate.value / base.value if base.value else None,
            **asdict(estimate),
        },
        paired={"tasks": len(main), "items": sum(len(measure.documents) for measure in main)},
        notes=[*notes, *paired.notes],
        tables={
            "tests": _tests(main, primary, paired, criteria),
            "runs_of_primary": tables.by_run(primary, paired),
            "scores": tables.scores(paired, primary, main, criteria.alpha),
            "runs": tables.runs(paired),
            "items": tables.items(main, paired),
            "left_out": list(paired.left_out),
        },
    )


def _doubts(
    primary: Endpoint,
    paired: Paired,
    estimates: tuple[Estimate, Estimate, Estimate],
    question: Question,
) -> list[str]:
    gap, ours, base = estimates
    doubts = []
    if 1 < paired.runs < (least := equivalence.MIN_SEEDS):
        doubts.append(f"there are {paired.runs} runs of each, and {least} are needed")
    guess = primary.chance
    if guess is not None and all(one.low <= guess <= one.high for one in (ours, base)):
        doubts.append(f"neither is distinguishable from guessing ({number(guess)} {primary.unit})")
    if _identical(gap) and all(measure.binary for measure in primary.measures):
        # If none is seen: upper bound at this level on the share of differing items (or passages).
        fewest = min(int(measure.clusters.max()) + 1 for measure in primary.measures)
        unseen = 100 * (1 - question.alpha ** (1 / fewest)) / len(primary.measures)
        if unseen > question.smallest_difference:
            doubts.append(
                f"no item is answered differently, but {primary.items} items could hide"
                f" {number(unseen)} {primary.unit}"
            )
    return doubts


def _identical(estimate: Estimate) -> bool:
    """Whether the arms agree on every item, which makes the error meaningless."""
    return estimate.value == 0 and estimate.error == 0


def _tests(
    main: Sequence[Measure], primary: Endpoint, paired: Paired, criteria: Criteria
) -> list[Row]:
    """The family of tests; intervals and detectable effects hold simultaneously."""
    baseline, treatment, *others = paired.arms
    family = [(arm, primary) for arm in others if primary.name == AVERAGE]
    family += [
        (arm, end)
        for end in map(of_task, main)
        for arm in (treatment, *others)
        if (arm, end.name) != (treatment, primary.name)
    ]
    estimates = [difference(end, arm, baseline, paired.runs, criteria.alpha) for arm, end in family]
    adjusted = inference.holm(estimates, criteria.alpha)
    rows: list[Row] = []
    for (arm, end), estimate, holm in zip(family, estimates, adjusted, strict=True):
        counts = discordant(end, arm, baseline, paired.runs)
        base = inference.mean(end.samples(baseline, paired.runs), criteria.alpha).value
        outcome, detectable = "all alike", None
        if not _identical(estimate):
            word = "better" if end.gain * estimate.value > 0 else "worse"
            outcome = word if holm.rejected else "not shown"
            level = criteria.alpha / len(family)
            detectable = verdict.detectable_effect(estimate, level, criteria.power)
        row: Row = {"arm": arm, "against": baseline, "endpoint": end.name, "label": end.label}
        row |= {"outcome": outcome, "unit": end.unit, "items": end.items, "baseline_value": base}
        row |= {"difference": estimate.value, "relative": estimate.value / base if base else None}
        row |= {name: getattr(estimate, name) for name in ("low", "high", "error", "p")}
        row |= {"p_holm": holm.p, "family_low": holm.low, "family_high": holm.high}
        only_arm, only_baseline = counts or (None, None)
        row |= {"detectable": detectable, "only_arm_right": only_arm}
        row |= {"only_baseline_right": only_baseline, "p_mcnemar": counts and mid_p(*counts)}
        rows.append(row)
    return rows
