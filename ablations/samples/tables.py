"""The descriptive tables of a comparison of logged samples, with intervals but no tests."""

from collections.abc import Sequence

import numpy as np

from ablations.samples.endpoints import AVERAGE, Endpoint, difference, of_task
from ablations.samples.pairing import Measure, Paired
from ablations.samples.scores import FloatArray, Score, mean_of
from ablations.stats import inference
from ablations.study_files.table import Row
from ablations.tasks.scores import against_chance


def scores(paired: Paired, primary: Endpoint, main: Sequence[Measure], alpha: float) -> list[Row]:
    """Every arm on the primary endpoint and on every metric of every task."""
    ends = [primary] if primary.name == AVERAGE else []
    ends += [of_task(measure) for measure in paired.measures]
    baseline, rows = paired.arms[0], []
    for end in ends:
        measure = end.measures[0]
        for arm in paired.arms:
            of = inference.mean(end.samples(arm, paired.runs), alpha)
            row: Row = {
                "endpoint": end.name,
                "label": end.label,
                "main": end is primary or measure in main,
                "arm": arm,
                "unit": end.unit,
                "items": end.items,
                "passages": sum(int(m.clusters.max()) + 1 for m in end.measures),
                "shots": None if end.name == AVERAGE else measure.shots,
                "version": None if end.name == AVERAGE else measure.version,
                "value": of.value,
                "value_low": of.low,
                "value_high": of.high,
                "chance": end.chance,
                "against_chance": against_chance(of.value, of.low, of.high, end.chance),
                **dict.fromkeys(("difference", "low", "high")),
            }
            if arm != baseline:
                gap = difference(end, arm, baseline, paired.runs, alpha)
                row |= {"difference": gap.value, "low": gap.low, "high": gap.high}
            rows.append(row)
    return rows


def by_run(primary: Endpoint, paired: Paired) -> list[Row]:
    """The primary contrast run by run; empty for a single run."""
    if paired.runs == 1:
        return []
    ours, theirs = (
        [inference.endpoint(sample) for sample in primary.samples(arm, paired.runs)]
        for arm in (paired.arms[1], paired.arms[0])
    )
    return [
        {"run": k, "treatment": a, "baseline": b, "difference": a - b}
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True), 1)
    ]


def runs(paired: Paired) -> list[Row]:
    """The value of each run, beside lm-eval's figure."""
    return [
        {
            "task": measure.task,
            "metric": measure.metric,
            "filter": measure.filter,
            "arm": arm,
            "run": run + 1,
            "value": mean_of(measure.scores[arm][run]),
            "unit": measure.unit,
            "reported": measure.reported[arm][run],
        }
        for measure in paired.measures
        for arm in paired.arms
        for run in range(paired.runs)
    ]


def items(main: Sequence[Measure], paired: Paired) -> list[Row]:
    """Items on which an arm differs from the baseline: means over runs, by the main metric."""
    baseline, *others = paired.arms
    rows = []
    for measure in main:
        values = {
            arm: np.mean([_each(s) for s in measure.scores[arm]], axis=0) for arm in paired.arms
        }
        for arm in others:
            for k in np.flatnonzero(values[arm] != values[baseline]).tolist():
                ours, theirs = float(values[arm][k]), float(values[baseline][k])
                row: Row = {"task": measure.task, "metric": measure.metric}
                row |= {"item": measure.documents[k], "arm": arm, "value": ours}
                rows.append(row | {"baseline_value": theirs, "difference": ours - theirs})
    return rows


def _each(score: Score) -> FloatArray:
    """The value of each item [items]; 0 where it has no length."""
    return score.numerator / np.where(score.denominator > 0, score.denominator, 1)
