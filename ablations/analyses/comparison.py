"""Compare the arms of a study: verdict, notes and tables.

Everything is a function of the study alone, so the same runs give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.analyses import (
    calibration,
    claims,
    crossover,
    ladder,
    learning_rate,
    mixture_proposal,
    proxy_metrics,
    tables,
)
from ablations.analyses.calibration import Calibration
from ablations.contrasts import endpoints, equivalence, variant_selection, verdict
from ablations.contrasts.pairing import Contrast, between
from ablations.stats import inference
from ablations.study_files.results import Study
from ablations.study_files.table import Row

FORMAT = 1


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`. ``notes`` are caveats of the verdict.

    ``signs`` is None for a study of one size, ``mixture`` for one without a swarm of mixtures.
    """

    study: str
    verdict: verdict.Verdict
    primary: Row
    notes: list[str]
    tables: Mapping[str, list[Row]]
    calibration: Calibration | None = None
    signs: ladder.Signs | None = None
    mixture: mixture_proposal.Summary | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"format": FORMAT, **asdict(self)}


def compare(
    study: Study, learning_rates: Study | None = None, others: Sequence[Study] = ()
) -> Comparison:
    """Compare the arms of a study.

    ``learning_rates`` has the arms at several learning rates; ``others`` test GLaM's claims.

    Raises:
        ValueError: no seed has both arms of the primary contrast, or its endpoint was not measured.
    """
    study = variant_selection.choose(study)
    primary, seeds = study.declared.primary, len(study.declared.seeds)
    contrast = primary_contrast(study)
    estimate, base = contrast.estimate, contrast.baseline_value
    treatment, baseline = study.seeds(primary.treatment), study.seeds(primary.baseline)
    complete = len(contrast.seeds) == seeds
    if complete:
        doubts = equivalence.doubts(study, treatment, baseline)
        judged = verdict.judge(estimate, base, primary, doubts)
    else:
        judged = verdict.interim(estimate, base, primary, seeds)
    swarm = mixture_proposal.regress(study)
    mixture = mixture_proposal.describe(study, swarm, contrast, judged.outcome)
    of_swarm = mixture is not None and not mixture.confirmed
    if mixture and of_swarm:
        judged = verdict.Verdict("interim", mixture.conclusion or f"{mixture.headline}.", None)
    steps = ladder.sizes(study)
    sizes = ladder.contrasts(study, steps) if len(steps) > 1 else []
    laws, law_notes = ladder.laws(study, steps)
    rates = _rates(study, learning_rates, judged.outcome)
    places, crossing = crossover.analyse(study)
    run = study.seeds(primary.baseline)[contrast.seeds[0]]
    checks = calibration.check(study) if complete else None
    return Comparison(
        study=study.declared.name,
        verdict=judged,
        primary={
            **asdict(primary),
            "unit": endpoints.unit(primary.endpoint),
            "baseline_value": base,
            "relative": contrast.relative,
            **asdict(estimate),
        },
        notes=[
            *([mixture.conclusion] if mixture and mixture.confirmed else []),
            *mixture_proposal.notes(swarm, study),
            *study.declared.notes,
            *crossing,
            *_caveats(study, contrast),
            *rates.notes,
            *law_notes,
        ],
        tables={
            "seeds": [] if of_swarm else _seeds(contrast),
            "secondary": [] if of_swarm else secondary(study, contrast),
            "heldout": tables.heldout(study, run),
            "averages": tables.averages(study, run),
            "tasks": tables.tasks(study, run),
            "contamination": tables.contamination(study),
            "matched": tables.matched_budgets(study),
            "sizes": sizes,
            "orders": ladder.orders(study, steps),
            "proxies": proxy_metrics.table(study, steps, run),
            "scaling": laws,
            "learning_rates": rates.rows,
            "claims": claims.answers([study, *others]),
            "arms": tables.arms(study),
            "jobs": tables.jobs(study),
            "calibration": checks.rows if checks else [],
            **({"crossover": places} if places else {}),
            **mixture_proposal.tables(study, swarm),
        },
        calibration=checks,
        signs=ladder.signs(sizes),
        mixture=mixture,
    )


def _rates(study: Study, further: Study | None, outcome: verdict.Finding) -> learning_rate.Check:
    """The learning rates of each arm: the study's choice, else a check of the verdict."""
    if study.chosen is None:
        return learning_rate.check(learning_rate.gather(study, further), outcome)
    if further is not None:
        raise ValueError(
            "this study declares where its arms are compared (compare.at), so its learning rates"
            " are its own: leave learning_rate=… out"
        )
    return learning_rate.Check(list(study.chosen.rows), list(study.chosen.notes))


def primary_contrast(study: Study) -> Contrast:
    """The declared contrast; a ValueError with the states of jobs if no seed has both arms."""
    primary = study.declared.primary
    arms = (primary.treatment, primary.baseline)
    contrast = between(study, primary.treatment, primary.baseline)
    if contrast is None:
        states = "; ".join(
            f"{row['arm']} seed {row['seed']} {row['state']}"
            + (f" ({row['error']})" if row["error"] else "")
            for row in tables.jobs(study)
            if row["arm"] in arms and (study.chosen or row["variant"] == study.declared.main)
        )
        raise ValueError(
            f"no seed has both {' and '.join(arms)}, so there is nothing to compare: {states}. Run"
            " the study again: complete jobs are skipped"
        )
    return contrast


def secondary(study: Study, contrast: Contrast) -> list[Row]:
    """The family of secondary tests, with Holm's adjustment.

    Every other arm against the baseline on the primary endpoint, and the primary contrast on every
    secondary endpoint. Endpoints that were not measured have rows but do not count.
    """
    declared, primary, names = study.declared, study.declared.primary, study.declared.secondary
    if names is None:
        groups = [f"heldout/{group}" for group in declared.heldout]
        run = study.seeds(primary.baseline)[contrast.seeds[0]]
        names = [*groups, *endpoints.averages_of(run, declared.shots)]
        names = [name for name in names if name != primary.endpoint]
    others = [a for a in declared.arms if a not in (primary.baseline, primary.treatment)]
    family = [(arm, primary.endpoint) for arm in others]
    family += [(primary.treatment, name) for name in names]
    rows: list[Row] = []
    measured: list[tuple[Row, inference.Estimate]] = []
    for arm, name in family:
        row: Row = {"arm": arm, "against": primary.baseline, "endpoint": name, "outcome": None}
        rows.append(row)
        try:
            result = between(study, arm, primary.baseline, name)
        except ValueError as error:
            row["outcome"] = f"not measured: {error}"
            continue
        if result is None:
            row["outcome"] = "not measured: no seed has both arms"
            continue
        row |= {"unit": endpoints.unit(name), **result.columns()}
        measured.append((row, result.estimate))
    adjusted = inference.holm([estimate for _, estimate in measured], primary.alpha)
    for (row, estimate), holm in zip(measured, adjusted, strict=True):
        row |= {"p_holm": holm.p, "family_low": holm.low, "family_high": holm.high}
        gained = endpoints.gain(row["endpoint"]) * estimate.value > 0
        shown = holm.rejected and estimate.seeds > 1  # one seed cannot tell an effect from noise
        row["outcome"] = ("better" if gained else "worse") if shown else "not shown"
        if estimate.seeds < len(declared.seeds):
            row["outcome"] = "interim"
    return rows


def _seeds(contrast: Contrast) -> list[Row]:
    ours, theirs = (map(inference.endpoint, of) for of in (contrast.treatment, contrast.baseline))
    return [
        {"seed": seed, "treatment": a, "baseline": b, "difference": a - b}
        for seed, a, b in zip(contrast.seeds, ours, theirs, strict=True)
    ]


def _caveats(study: Study, contrast: Contrast) -> list[str]:
    notes = []
    states = [row["state"] for row in tables.jobs(study)]
    if states:
        text = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        notes.append(f"Not every declared job is complete: {text} (see the table of jobs).")
    primary, first = study.declared.primary, study.declared.first_seeds
    if first is not None:
        notes.append(
            f"Seeds were added to the first {first} after a look at the study, so a false finding"
            f" is likelier than {primary.alpha:.0%}: confirm it with a new study and new seeds."
        )
    treatment, baseline = study.seeds(primary.treatment), study.seeds(primary.baseline)
    for arm, runs in ((primary.treatment, treatment), (primary.baseline, baseline)):
        if unpaired := sorted(runs.keys() - set(contrast.seeds)):
            notes.append(f"Seeds {unpaired} of {arm} have no partner and are left out.")
    clauses = equivalence.unlearned(study, [*treatment.values(), *baseline.values()])
    notes += [f"{clause[0].upper()}{clause[1:]}." for clause in clauses]
    if contrast.estimate.seeds == 2:
        notes.append("Two seeds estimate their spread poorly, hence the wide interval.")
    run = baseline[contrast.seeds[0]]
    for name in endpoints.averages_of(run, study.declared.shots):
        _, average, shots = name.split("/")
        have, lack = endpoints.rows_of(average, run, shots)
        if lack:
            rows = f"{len(have)} of {len(have) + len(lack)} rows"
            missing = ", ".join(f"{task} {metric}" for task, metric in lack)
            notes.append(f"The {endpoints.label(name)}, is partial: {rows}; not run: {missing}.")
    ours, theirs = treatment[contrast.seeds[0]].result, baseline[contrast.seeds[0]].result
    for name in ("model", "tokens", "learning_rate") if study.chosen is None else ("model",):
        a, b = getattr(ours, name), getattr(theirs, name)
        if a != b:
            notes.append(f"The arms differ in {name} too: {a} against {b}.")
    return notes
