"""The descriptive tables of a comparison: every arm on everything that was measured.

They have intervals but no tests, since some of so many rows would stand out by chance. Declared
tests are in :mod:`ablations.analyses.comparison`.
"""

import numpy as np

from ablations.analyses import contamination_scores
from ablations.contrasts import budgets, endpoints
from ablations.contrasts.pairing import between, sample
from ablations.stats import inference
from ablations.study_files import metrics
from ablations.study_files.results import Run, Study
from ablations.study_files.table import Row
from ablations.tasks import scores
from ablations.tasks.task import shots_of


def heldout(study: Study, run: Run) -> list[Row]:
    """Every arm on every held-out group and other source, the same in any ``run``."""
    names = endpoints.heldout_of(run, study.declared.heldout)
    return [row for name in names for row in _over_arms(study, name)]


def averages(study: Study, run: Run) -> list[Row]:
    """GLaM's averages for every arm, in points, with the missing rows."""
    rows = []
    for name in endpoints.averages_of(run, study.declared.shots):
        _, average, shots = name.split("/")
        have, lack = endpoints.rows_of(average, run, shots)
        extra = {
            "rows": len(have),
            "of": len(have) + len(lack),
            "partial": bool(lack),
            "missing": " ".join(f"{task}:{metric}" for task, metric in lack),
        }
        rows += [row | extra for row in _over_arms(study, name)]
    return rows


def tasks(study: Study, run: Run) -> list[Row]:
    """Every arm on every task, metric and column of shots, against baseline and chance."""
    rows = []
    for column in study.declared.shots:
        for task, metric in endpoints.rows_with(run, column):
            guess = endpoints.chance(run, task, metric, column)
            for row in _over_arms(study, f"task/{task}/{metric}/{column}"):
                low, high = row["value_low"], row["value_high"]
                word = scores.against_chance(row["value"], low, high, guess)
                extra = {"shots": shots_of(task, column), "chance": guess, "against_chance": word}
                rows.append(row | extra)
    return rows


def contamination(study: Study) -> list[Row]:
    """Contamination of each task by arm; mean scores over seeds on all, clean and dirty items."""
    rows = []
    table = study.contamination
    counts = {(row["task"], row["arm"]): row for row in contamination_scores.counts(table)}
    for arm in study.declared.arms if len(table) else ():
        runs = list(study.seeds(arm).values())
        seeds = [
            {
                (row["task"], row["metric"], row["shots"]): row
                for row in contamination_scores.split_scores(run.tasks, table, arm)
            }
            for run in runs
        ]
        for column in study.declared.shots if runs else ():
            for task, metric in endpoints.rows_with(runs[0], column):
                split = [seed[task, metric, shots_of(task, column)] for seed in seeds]
                row: Row = {"task": task, "metric": metric, "shots": column, "arm": arm}
                row |= {n: counts[task, arm][n] for n in ("items", "dirty", "too_short")}
                for kind in ("all", "clean", "dirty"):
                    values = [of[kind] for of in split if of[kind] is not None]
                    mean = metrics.scale(metric) * float(np.mean(values)) if values else None
                    row[f"score_{kind}"] = mean
                rows.append(row)
    return sorted(rows, key=lambda row: (row["shots"], row["task"], row["metric"]))


def matched_budgets(study: Study) -> list[Row]:
    """All arms at equal tokens, unique tokens and compute; empty without curves.

    Curves have held-out bits per byte only, so the primary endpoint must be of that kind.
    """
    primary = study.declared.primary
    kind, _, group = primary.endpoint.partition("/")
    curves = {
        arm: {seed: run.curve for seed, run in study.seeds(arm).items() if run.curve}
        for arm in study.declared.arms
    }
    curves = {arm: by_seed for arm, by_seed in curves.items() if by_seed}
    if kind != "heldout" or not curves:
        return []
    sources = study.declared.heldout.get(group, [group])
    rows = []
    for axis, name in budgets.AXES.items():
        points = budgets.points(curves, axis, sources)
        bases = {point.at: point.values for point in points if point.arm == primary.baseline}
        for point in points:
            row: Row = {"matched": name, "at": point.at, "arm": point.arm, "status": point.status}
            row["seeds"] = len(point.values)
            row["value"] = float(np.mean(list(point.values.values()))) if point.values else None
            row |= dict.fromkeys(("difference", "low", "high"))
            base = bases.get(point.at, {})
            shared = sorted(point.values.keys() & base.keys())
            if point.arm != primary.baseline and shared:
                gaps = np.array([point.values[seed] - base[seed] for seed in shared])
                row["difference"] = float(gaps.mean())
                if len(shared) > 1:
                    estimate = inference.over_seeds(gaps, primary.alpha)
                    row |= {"low": estimate.low, "high": estimate.high}
            rows.append(row)
    return rows


def arms(study: Study) -> list[Row]:
    """Size and cost of each arm by variant: means over complete seeds, or sums where named so."""
    rows = []
    for arm in study.declared.arms:
        for variant in study.declared.variants:
            runs = [run.result for run in study.seeds(arm, variant).values()]
            row: Row = {"arm": arm, "variant": variant, "complete": len(runs)}
            row["declared"] = len(study.declared.seeds)
            if runs:
                for name in ("model", "parameters_total", "parameters_active", "learning_rate"):
                    row[name] = getattr(runs[0], name)
                for name in ("tokens", "unique_tokens", "epochs", "flops"):
                    row[name] = float(np.mean([getattr(run, name) for run in runs]))
                row["wall_seconds_sum"] = sum(run.wall_seconds for run in runs)
                row["kwh_sum"] = sum(run.kwh for run in runs)
                row["kwh_basis"] = " and ".join(sorted({run.kwh_basis for run in runs}))
                row["config_hash"] = runs[0].config_hash
            rows.append(row)
    return rows


def jobs(study: Study) -> list[Row]:
    """Every declared job that is not complete."""
    states = {
        "failed": study.failed,
        "unfinished": dict.fromkeys(study.unfinished),
        "missing": dict.fromkeys(study.missing),
    }
    return [
        {"arm": arm, "variant": variant, "seed": seed, "state": state, "error": error}
        for state, jobs in states.items()
        for (arm, variant, seed), error in jobs.items()
    ]


def _over_arms(study: Study, name: str) -> list[Row]:
    """One row per arm: its mean with an interval, and its difference from the baseline."""
    primary = study.declared.primary
    rows = []
    for arm in study.declared.arms:
        samples = [sample(study, run, name) for run in study.seeds(arm).values()]
        if not samples:
            continue
        mean = inference.mean(samples, primary.alpha)
        row: Row = {"endpoint": name, "arm": arm, "seeds": mean.seeds, "unit": endpoints.unit(name)}
        row |= {"value": mean.value, "value_low": mean.low, "value_high": mean.high}
        row |= dict.fromkeys(("difference", "relative", "low", "high"))
        contrast = between(study, arm, primary.baseline, name) if arm != primary.baseline else None
        if contrast:
            columns = contrast.columns()
            row |= {n: columns[n] for n in ("difference", "relative", "low", "high")}
        rows.append(row)
    return rows
