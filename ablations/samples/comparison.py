"""Compares models on what was logged of them: the verdict, and its tables. No I/O.

Each task is tested by one metric, its *main* one: the first that is preferred, or else the first
that lm-eval lists. The primary endpoint is the mean of these over the tasks, each of the same
weight. The family of further tests, with Holm's adjustment, has every arm on every task, and the
arms after the second on the primary endpoint. Other metrics have intervals and no tests.

With one run of each arm all is about these very models; with several (training seeds) it is about
other seeds too, as in a study (:mod:`ablations.stats.inference`).
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.contrasts import credible, verdict
from ablations.contrasts.verdict import Question, Verdict, number
from ablations.samples import tables
from ablations.samples.endpoints import (
    AVERAGE,
    Endpoint,
    by_task,
    difference,
    discordant,
    main_of,
    of_task,
    primary_of,
)
from ablations.samples.pairing import POINTS, Measure, Paired
from ablations.stats import inference
from ablations.stats.inference import Estimate
from ablations.stats.mcnemar import mid_p
from ablations.study_files.table import Row

FORMAT = 1

SMALLEST = {POINTS: 1.0, "bits per byte": 0.01}
"""The smallest difference of interest, where none is given: that of a study in bits per byte."""


@dataclass(frozen=True)
class Criteria:
    """What is criteria of a comparison. ``primary`` is a task, or empty for the mean over tasks."""

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
    """The result of :func:`compare`. ``primary`` is the estimate that the verdict is about.

    ``paired`` counts the tasks that can be compared, and their items.
    """

    headline: str
    verdict: Verdict
    primary: Row
    paired: Row
    notes: Sequence[str]
    tables: dict[str, list[Row]]

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values; degrees of freedom that are infinite are null."""
        value = {"format": FORMAT, **asdict(self)}
        return dict(_finite(value))


def compare(paired: Paired, criteria: Criteria) -> Comparison:
    """Compare the arms with the first of them, and judge the second.

    Raises:
        ValueError: the primary endpoint is no task, or its unit has no smallest difference of
            interest and none was criteria for.
    """
    main = [main_of(of, criteria.metrics) for of in by_task(paired.measures)]
    primary, notes = primary_of(main, criteria.primary)
    baseline, treatment = paired.arms[:2]
    of = difference(primary, treatment, baseline, paired.runs, criteria.alpha)
    smallest = criteria.smallest_difference or SMALLEST.get(primary.unit)
    if smallest is None:
        raise ValueError(
            f"say what difference on {primary.label} matters (in {primary.unit}):"
            " smallest_difference=…"
        )
    question = Question(
        treatment=treatment,
        baseline=baseline,
        on=primary.label,
        unit=primary.unit,
        gain=primary.gain,
        smallest_difference=smallest,
        alpha=criteria.alpha,
        power=criteria.power,
        items="items",
        of_runs=paired.runs == 1,
    )
    base = inference.mean(primary.samples(baseline, paired.runs), criteria.alpha)
    ours = inference.mean(primary.samples(treatment, paired.runs), criteria.alpha)
    doubts = _doubts(primary, paired, (of, ours, base), question)
    judged = verdict.answer(of, base.value, question, doubts)
    if paired.runs == 1:
        about = " This is about these two models; another training run of either may differ."
        judged = dataclasses.replace(judged, sentence=judged.sentence + about)
    elif paired.runs == 2:
        notes.append("Two runs know their own spread badly, and the interval is wide for that.")
    return Comparison(
        headline=_headline(judged, of, base.value, question),
        verdict=judged,
        primary={
            **asdict(question),
            "endpoint": primary.name,
            "tasks": len(primary.measures),
            "items": primary.items,
            "baseline_value": base.value,
            "relative": of.value / base.value if base.value else None,
            **asdict(of),
        },
        paired={"tasks": len(main), "items": sum(len(of.documents) for of in main)},
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
    found: tuple[Estimate, Estimate, Estimate],
    question: Question,
) -> list[str]:
    """Reasons not to say that two models are alike."""
    of, ours, base = found
    said = []
    if 1 < paired.runs < credible.SEEDS:
        said.append(f"there are {paired.runs} runs of each, and it takes {credible.SEEDS}")
    guess = primary.chance
    if guess is not None and all(one.low <= guess <= one.high for one in (ours, base)):
        said.append(f"neither is told from guessing ({number(guess)} {primary.unit})")
    if _alike(of) and all(measure.binary for measure in primary.measures):
        # The largest share of items (or passages) that differ of which none is seen, at this level.
        fewest = min(int(measure.clusters.max()) + 1 for measure in primary.measures)
        unseen = 100 * (1 - question.alpha ** (1 / fewest)) / len(primary.measures)
        if unseen > question.smallest_difference:
            said.append(
                f"no item is answered differently, but {primary.items} items could hide"
                f" {number(unseen)} {primary.unit}"
            )
    return said


def _alike(of: Estimate) -> bool:
    """Whether the arms have every item alike. Its error is then 0, and says nothing."""
    return of.value == 0 and of.error == 0


def _headline(judged: Verdict, of: Estimate, base: float, question: Question) -> str:
    ours, theirs, on = question.treatment, question.baseline, question.on
    more = "less" if of.value < 0 else "more"
    size = f"{number(abs(of.value))} {question.unit} {more}"
    match judged.outcome:
        case "better" | "worse":
            return f"{ours} is {judged.outcome} than {theirs}: {size} on {on}"
        case "differs slightly":
            word = "better" if question.gain * of.value > 0 else "worse"
            return f"{ours} is slightly {word} than {theirs}: {size} on {on}"
        case "no difference":
            least = f"{question.smallest_difference:g} {question.unit}"
            return f"No difference of {least} or more found between {ours} and {theirs} on {on}"
        case _:
            return f"Not known yet: these items cannot tell {ours} from {theirs} on {on}"


def _tests(
    main: Sequence[Measure], primary: Endpoint, paired: Paired, criteria: Criteria
) -> list[Row]:
    """The family of tests; intervals and what could be seen hold for all of them at once."""
    baseline, treatment, *others = paired.arms
    ends = [of_task(of) for of in main]
    family = [(arm, primary) for arm in others if primary.name == AVERAGE]
    family += [
        (arm, end)
        for end in ends
        for arm in (treatment, *others)
        if (arm, end.name) != (treatment, primary.name)
    ]
    found = [difference(end, arm, baseline, paired.runs, criteria.alpha) for arm, end in family]
    adjusted = inference.holm(found, criteria.alpha)
    rows: list[Row] = []
    for (arm, end), of, holm in zip(family, found, adjusted, strict=True):
        counts = discordant(end, arm, baseline, paired.runs)
        base = inference.mean(end.samples(baseline, paired.runs), criteria.alpha)
        word = "better" if end.gain * of.value > 0 else "worse"
        rows.append(
            {
                "arm": arm,
                "against": baseline,
                "endpoint": end.name,
                "label": end.label,
                "outcome": "all alike" if _alike(of) else word if holm.rejected else "not shown",
                "unit": end.unit,
                "items": end.items,
                "baseline_value": base.value,
                "difference": of.value,
                "relative": of.value / base.value if base.value else None,
                "low": of.low,
                "high": of.high,
                "error": of.error,
                "p": of.p,
                "p_holm": holm.p,
                "family_low": holm.low,
                "family_high": holm.high,
                "detectable": None
                if _alike(of)
                else verdict.least_seen(of, criteria.alpha / len(family), criteria.power),
                "only_arm_right": None if counts is None else counts[0],
                "only_baseline_right": None if counts is None else counts[1],
                "p_mcnemar": None if counts is None else mid_p(*counts),
            }
        )
    return rows


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
