"""What the sizes of a study say together: the contrast at each, the order of arms, a law.

Sizes are the variants of a study whose arms are different models; of several variants of one size
(learning rates) the main one counts, else the first declared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ablations.contrasts import credible, endpoints, verdict
from ablations.contrasts.pairing import contrast, sample
from ablations.stats import decisions, inference, scaling
from ablations.study_files.results import FloatArray, Study
from ablations.study_files.table import Row


@dataclass(frozen=True)
class Signs:
    """At how many ``sizes`` the primary difference has its sign at the largest one.

    ``clear`` counts those of ``kept`` whose interval excludes 0; None where a size has one seed,
    whose interval leaves out the luck of training.
    """

    kept: int
    sizes: int
    clear: int | None

    @property
    def certainty(self) -> str:
        """How sure the signs are, as a clause."""
        if self.clear is None:
            return "one seed cannot say how sure that is"
        return f"at {self.clear} of them the interval excludes 0"

    @property
    def sentence(self) -> str:
        """The same in words."""
        return f"Sign kept at {self.kept} of {self.sizes} sizes; {self.certainty}."


def sizes(study: Study) -> list[str]:
    """Variants that differ in size, by rising total compute of the primary contrast's runs."""
    declared = study.declared
    by_models: dict[tuple[str, ...], str] = {}
    compute = {}
    for variant in sorted(declared.variants, key=lambda v: v != declared.main):
        contrasted = (declared.primary.baseline, declared.primary.treatment)
        arms = [study.seeds(arm, variant) for arm in contrasted]
        if all(arms):
            runs = [run.result for arm in arms for run in arm.values()]
            by_models.setdefault(tuple(sorted({run.model for run in runs})), variant)
            compute[variant] = float(np.mean([run.flops for run in runs]))
    return sorted(by_models.values(), key=compute.__getitem__)


def contrasts(study: Study, ladder: list[str]) -> list[Row]:
    """The primary contrast at each size, on the seeds that both arms have there."""
    primary = study.declared.primary
    rows = []
    for variant in ladder:
        baseline = study.seeds(primary.baseline, variant)
        treatment = study.seeds(primary.treatment, variant)
        found = contrast(study, treatment, baseline)
        if found is None:
            continue
        of = found.estimate
        doubts = credible.doubts(study, treatment, baseline)
        rows.append(
            {
                "variant": variant,
                "model": baseline[found.seeds[0]].result.model,
                "flops": baseline[found.seeds[0]].result.flops,
                "seeds": of.seeds,
                "baseline_value": found.baseline_value,
                "difference": of.value,
                "relative": found.relative,
                "low": of.low,
                "high": of.high,
                "p": of.p,
                "outcome": verdict.judge(of, found.baseline_value, primary, doubts).outcome,
            }
        )
    return rows


def signs(contrasts: Sequence[Row]) -> Signs | None:
    """What :func:`contrasts` says of the sign, by rising size; None for fewer than two sizes."""
    if len(contrasts) < 2:
        return None
    sign = np.sign(contrasts[-1]["difference"])
    kept = [row for row in contrasts if np.sign(row["difference"]) == sign]
    known = all(row["seeds"] > 1 for row in contrasts)
    clear = sum(row["low"] * row["high"] > 0 for row in kept) if known else None
    return Signs(len(kept), len(contrasts), clear)


def orders(study: Study, ladder: list[str]) -> list[Row]:
    """Decision accuracy from each size to each larger one, and from each size to the next.

    Of the arms that have runs at all sizes of a row.
    """
    declared = study.declared
    wanted = [list(pair) for pair in combinations(ladder, 2)]
    if len(ladder) > 2:
        wanted.append(ladder)
    rows: list[Row] = []
    for sizes in wanted:
        arms = arms_at(study, sizes)
        of = [scores(study, size, arms, declared.primary.endpoint) for size in sizes]
        found = [each for each in of if each is not None]
        if len(arms) < 2 or len(found) < len(sizes):
            continue
        decision = decisions.decide(found, declared.primary.alpha)
        steps = len(sizes) > 2
        row: Row = {"variant": "each size" if steps else sizes[0]}
        row |= {"target": "the next" if steps else sizes[1], "arms": len(arms)}
        row["seeds"] = min(each.seeds for each in found)
        row |= decision_columns(decision)
        best = [int(each.means.argmax()) for each in found]
        rows.append(row | {"best_arm_found": None if steps else best[0] == best[1]})
    return rows


def arms_at(study: Study, sizes: Sequence[str]) -> list[str]:
    """The arms that have a complete run at every one of these sizes."""
    return [arm for arm in study.declared.arms if all(study.seeds(arm, size) for size in sizes)]


def scores(
    study: Study, variant: str, arms: Sequence[str], endpoint: str
) -> decisions.Scores | None:
    """An endpoint of these arms on the seeds that all of them have; None if they share no seed.

    Bits per byte count as negative, so that more is better.

    Raises:
        ValueError: a run lacks the endpoint.
    """
    runs = [study.seeds(arm, variant) for arm in arms]
    shared = sorted(set.intersection(*(set(of) for of in runs))) if runs else []
    if not shared:
        return None
    values: FloatArray = np.array(
        [[inference.endpoint(sample(study, of[seed], endpoint)) for of in runs] for seed in shared]
    )
    return decisions.scores(endpoints.gain(endpoint) * values)


def decision_columns(found: decisions.Decision) -> Row:
    """A decision accuracy as columns of a table."""
    return {
        "decision_right": found.kept,
        "decision_of": found.pairs,
        "decision_accuracy": found.accuracy,
        "decision_low": found.low,
        "decision_high": found.high,
    }


def laws(study: Study, ladder: list[str]) -> tuple[list[Row], list[str]]:
    """A scaling law per arm: its parameters and its band at every size and a decade beyond.

    Also notes on arms that have none, and why.
    """
    rows: list[Row] = []
    notes: list[str] = []
    if len(ladder) < 2:
        return rows, notes
    for arm in study.declared.arms:
        runs = [run for variant in ladder for run in study.seeds(arm, variant).values()]
        compute = np.array([run.result.flops for run in runs])
        loss = np.array([inference.endpoint(sample(study, run)) for run in runs])
        try:
            fit = scaling.fit(compute, loss, study.declared.primary.alpha)
        except ValueError as error:
            notes.append(f"No scaling law for {arm}: {error}.")
            continue
        for at in (*sorted(set(compute)), fit.largest * scaling.DECADE):
            there = fit.forecast(float(at))
            rows.append(
                {
                    "arm": arm,
                    "flops": float(at),
                    "kind": "forecast" if at > fit.largest else "fitted",
                    "value": there.value,
                    "low": there.low,
                    "high": there.high,
                    "floor": float(fit.law.floor),
                    "exponent": float(fit.law.exponent),
                }
            )
    return rows, notes
