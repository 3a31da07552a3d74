"""Whether the verdict holds when each arm trains at its own best learning rate.

A learning rate can move a score as much as a filter does, and one that suits an arm may not suit
the other. The best rate is chosen on the very runs that are compared, so its value is a little
flattered, for both arms alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablations.results import Run, Study
from ablations.stats import credible, endpoints, inference, verdict
from ablations.stats.pairing import contrast, sample

Rates = Mapping[str, Mapping[float, Mapping[int, Run]]]
"""Runs by arm, learning rate and seed."""


@dataclass(frozen=True)
class Check:
    """Every rate of every arm, and what a reader of the verdict must know of them."""

    rows: list[dict[str, Any]]
    notes: list[str]


def gather(study: Study, further: Study | None) -> Rates:
    """Runs of each arm that are of its main model, of this study and a further one.

    Raises:
        ValueError: the further study held out other documents.
    """
    declared = study.declared
    models = {
        arm: next(iter(runs.values())).result.model
        for arm in declared.arms
        if (runs := study.seeds(arm))
    }
    reference = next(iter(study.runs.values()))
    rates: dict[str, dict[float, dict[int, Run]]] = {arm: {} for arm in models}
    for source in (further, study):  # a run of the study itself comes last and wins
        for (arm, _, seed), run in source.runs.items() if source else ():
            keys = ["source", "document", "bytes"]
            if not run.heldout.select(keys).equals(reference.heldout.select(keys)):
                raise ValueError(
                    "the learning-rate study was evaluated on other held-out documents: evaluate it"
                    " on this study's"
                )
            if arm in models and run.result.model == models[arm]:
                rates[arm].setdefault(run.result.learning_rate, {})[seed] = run
    return rates


def check(study: Study, rates: Rates, outcome: verdict.Finding) -> Check:
    """Compare the arms at their best rates, and say whether the study's ``outcome`` holds there.

    Arms beside the contrast have rows if they were tried at several rates.
    """
    primary = study.declared.primary
    gain = endpoints.gain(primary.endpoint)
    pair = (primary.treatment, primary.baseline)
    if any(len(rates[arm]) < 2 for arm in pair):
        return Check([], ["Learning rates were not checked: each arm was run at one only."])
    rows, notes, best = [], [], {}
    for arm, by_rate in rates.items():
        if len(by_rate) < 2:
            continue
        values = {
            rate: float(np.mean([inference.endpoint(sample(study, run)) for run in runs.values()]))
            for rate, runs in sorted(by_rate.items())
        }
        best[arm] = max(values, key=lambda rate: gain * values[rate])
        if best[arm] in (min(values), max(values)):
            notes.append(
                f"The best learning rate of {arm}, {best[arm]:g}, is at the end of what was tried:"
                " a better one may lie beyond."
            )
        rows += [
            {
                "arm": arm,
                "learning_rate": rate,
                "seeds": len(by_rate[rate]),
                "value": value,
                "best": rate == best[arm],
            }
            for rate, value in values.items()
        ]
    treatment, baseline = (rates[arm][best[arm]] for arm in pair)
    found = contrast(study, treatment, baseline)
    if found is None:
        return Check(rows, [*notes, "No seed has both arms at their best learning rates."])
    doubts = credible.doubts(study, treatment, baseline)
    judged = verdict.judge(found.estimate, found.baseline_value, primary, doubts)
    at = ", ".join(f"{arm} {best[arm]:g}" for arm in reversed(pair))
    holds = "holds" if judged.outcome == outcome else "does NOT hold"
    notes.insert(
        0, f"The verdict {holds} at each arm's best learning rate ({at}): {judged.outcome}."
    )
    return Check(rows, notes)
