"""What the sizes of a study say together: the contrast at each, the order of arms, a law.

Sizes are the variants of a study whose arms are different models; of several variants of one size
(learning rates) the main one counts, else the first declared.
"""

import numpy as np

from ablations.results import Study
from ablations.stats import credible, endpoints, inference, ranking, scaling, verdict
from ablations.stats.pairing import contrast, sample
from ablations.table import Row


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


def orders(study: Study, ladder: list[str]) -> list[Row]:
    """How the order of all arms at each smaller size foretells that at the largest."""
    declared = study.declared
    gain = endpoints.gain(declared.primary.endpoint)
    values = [_values(study, variant) for variant in ladder]
    arms = [arm for arm in declared.arms if all(arm in by_arm for by_arm in values)]
    if len(ladder) < 2 or len(arms) < 2:
        return []
    target = {arm: values[-1][arm] for arm in arms}
    rows = []
    for variant, by_arm in zip(ladder[:-1], values[:-1], strict=True):
        small = {arm: by_arm[arm] for arm in arms}
        found = ranking.compare_orders(small, target, gain, declared.primary.alpha)
        rows.append(
            {"variant": variant, "target": ladder[-1], "arms": len(arms)}
            | _share_columns("decision", found.decision)
            | _share_columns("rank", found.rank)
            | {"kendall_tau": found.tau, "best_arm_found": found.best_found}
        )
    return rows


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


def _values(study: Study, variant: str) -> dict[str, float]:
    """Mean of the primary endpoint over seeds, by arm."""
    return {
        arm: float(np.mean([inference.endpoint(sample(study, run)) for run in runs.values()]))
        for arm in study.declared.arms
        if (runs := study.seeds(arm, variant))
    }


def _share_columns(name: str, share: ranking.Share) -> Row:
    return {
        f"{name}_right": share.right,
        f"{name}_of": share.trials,
        f"{name}_accuracy": share.share,
        f"{name}_low": share.low,
        f"{name}_high": share.high,
    }
