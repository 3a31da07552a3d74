"""Comparisons across the sizes of a study: contrasts, order of arms, scaling law.

Sizes are variants with different models; of variants of one size, the main or first one counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ablations.contrasts import endpoints, equivalence, verdict
from ablations.contrasts.pairing import contrast, sample
from ablations.stats import decisions, inference, scaling
from ablations.study_files.results import Study
from ablations.study_files.table import Row


@dataclass(frozen=True)
class Signs:
    """The number of ``sizes`` at which the primary difference has the largest size's sign.

    ``clear`` counts those whose interval excludes 0; None if a size has only one seed.
    """

    kept: int
    sizes: int
    clear: int | None

    @property
    def certainty(self) -> str:
        """The certainty of the signs, as a clause."""
        if self.clear is None:
            return "one seed cannot say how sure that is"
        return f"at {self.clear} of them the interval excludes 0"

    @property
    def sentence(self) -> str:
        return f"Sign kept at {self.kept} of {self.sizes} sizes; {self.certainty}."


def sizes(study: Study) -> list[str]:
    """Variants that differ in size, by rising compute of the primary contrast's runs."""
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
    """The primary contrast at each size, on common seeds."""
    primary = study.declared.primary
    rows = []
    for variant in ladder:
        baseline = study.seeds(primary.baseline, variant)
        treatment = study.seeds(primary.treatment, variant)
        if result := contrast(study, treatment, baseline):
            run = baseline[result.seeds[0]].result
            doubts = equivalence.doubts(study, treatment, baseline)
            judged = verdict.judge(result.estimate, result.baseline_value, primary, doubts)
            row: Row = {"variant": variant, "model": run.model, "flops": run.flops}
            rows.append({**row, **result.columns(), "outcome": judged.outcome})
    return rows


def signs(contrasts: Sequence[Row]) -> Signs | None:
    """The sign in :func:`contrasts`, by rising size; None for fewer than two sizes."""
    if len(contrasts) < 2:
        return None
    sign = np.sign(contrasts[-1]["difference"])
    kept = [row for row in contrasts if np.sign(row["difference"]) == sign]
    known = all(row["seeds"] > 1 for row in contrasts)
    clear = sum(row["low"] * row["high"] > 0 for row in kept) if known else None
    return Signs(len(kept), len(contrasts), clear)


def orders(study: Study, ladder: list[str]) -> list[Row]:
    """Decision accuracy from each size to each larger one, and from each size to the next.

    A row covers the arms with runs at all its sizes.
    """
    declared = study.declared
    groups = [list(pair) for pair in combinations(ladder, 2)]
    if len(ladder) > 2:
        groups.append(ladder)
    rows: list[Row] = []
    for sizes in groups:
        arms = arms_at(study, sizes)
        values = [scores(study, size, arms, declared.primary.endpoint) for size in sizes]
        known = [each for each in values if each is not None]
        if len(arms) < 2 or len(known) < len(sizes):
            continue
        decision = decisions.decide(known, declared.primary.alpha)
        steps = len(sizes) > 2
        best = [int(each.means.argmax()) for each in known]
        rows.append(
            {
                "variant": "each size" if steps else sizes[0],
                "target": "the next" if steps else sizes[1],
                "arms": len(arms),
                "seeds": min(each.seeds for each in known),
                "decision_right": decision.kept,
                "decision_of": decision.pairs,
                "decision_accuracy": decision.accuracy,
                "decision_low": decision.low,
                "decision_high": decision.high,
                "best_arm_found": None if steps else best[0] == best[1],
            }
        )
    return rows


def arms_at(study: Study, sizes: Sequence[str]) -> list[str]:
    """The arms with a complete run at every one of these sizes."""
    return [arm for arm in study.declared.arms if all(study.seeds(arm, size) for size in sizes)]


def scores(
    study: Study, variant: str, arms: Sequence[str], endpoint: str
) -> decisions.Scores | None:
    """An endpoint on common seeds, if any, more is better; a ValueError if a run lacks it."""
    runs = [study.seeds(arm, variant) for arm in arms]
    shared = sorted(set.intersection(*(set(by_seed) for by_seed in runs))) if runs else []
    if not shared:
        return None
    values = [
        [inference.endpoint(sample(study, by_seed[seed], endpoint)) for by_seed in runs]
        for seed in shared
    ]
    return decisions.scores(endpoints.gain(endpoint) * np.array(values))


def laws(study: Study, ladder: list[str]) -> tuple[list[Row], list[str]]:
    """A scaling law per arm, with its band at every size and a decade beyond, or a note why not."""
    rows: list[Row] = []
    notes: list[str] = []
    for arm in study.declared.arms if len(ladder) > 1 else ():
        runs = [run for variant in ladder for run in study.seeds(arm, variant).values()]
        compute = np.array([run.result.flops for run in runs])
        loss = np.array([inference.endpoint(sample(study, run)) for run in runs])
        try:
            fit = scaling.fit(compute, loss, study.declared.primary.alpha)
        except ValueError as error:
            notes.append(f"No scaling law for {arm}: {error}.")
            continue
        for at in (*sorted(set(compute)), fit.largest * scaling.DECADE):
            kind = "forecast" if at > fit.largest else "fitted"
            row: Row = {"arm": arm, "flops": float(at), "kind": kind}
            law = {"floor": float(fit.law.floor), "exponent": float(fit.law.exponent)}
            rows.append(row | vars(fit.forecast(float(at))) | law)
    return rows, notes
