"""Compares the arms of a study: verdict, notes and tables. No I/O.

A table is a list of rows, a row maps column names to plain values or None. Everything is a function
of the study alone, so the same runs give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.analyses import (
    calibration,
    claims,
    ladder,
    learning_rate,
    overtaking,
    proposals,
    proxies,
    tables,
)
from ablations.analyses.calibration import Calibration
from ablations.contrasts import best, credible, endpoints, verdict
from ablations.contrasts.pairing import Contrast, between
from ablations.stats import inference
from ablations.study_files.results import Study
from ablations.study_files.table import Row

FORMAT = 1


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`. ``notes`` are caveats of the verdict, as sentences.

    ``signs`` is None for a study of one size, ``mixture`` for one that has no swarm of mixtures.
    """

    study: str
    verdict: verdict.Verdict
    primary: Row
    notes: list[str]
    tables: Mapping[str, list[Row]]
    calibration: Calibration | None = None
    signs: ladder.Signs | None = None
    mixture: proposals.Told | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"format": FORMAT, **asdict(self)}


def compare(
    study: Study, learning_rates: Study | None = None, others: Sequence[Study] = ()
) -> Comparison:
    """Compare the arms of a study.

    Args:
        study: the study.
        learning_rates: a further study that swept those.
        others: further studies that test claims of GLaM's.

    Raises:
        ValueError: no seed has both arms of the primary contrast, or the primary endpoint was not
            measured.
    """
    study = best.settle(study)
    primary = study.declared.primary
    found = primary_contrast(study)
    treatment, baseline = study.seeds(primary.treatment), study.seeds(primary.baseline)
    whole = len(found.seeds) == len(study.declared.seeds)
    if whole:
        doubts = credible.doubts(study, treatment, baseline)
        judged = verdict.judge(found.estimate, found.baseline_value, primary, doubts)
    else:
        judged = verdict.interim(
            found.estimate, found.baseline_value, primary, len(study.declared.seeds)
        )
    swarm = proposals.find(study)
    mixture = proposals.tell(study, swarm, found, judged.outcome)
    of_swarm = mixture is not None and not mixture.confirmed
    if mixture and of_swarm:
        judged = verdict.Verdict("interim", mixture.conclusion or f"{mixture.headline}.", None)
    steps = ladder.sizes(study)
    sizes = ladder.contrasts(study, steps) if len(steps) > 1 else []
    laws, law_notes = ladder.laws(study, steps)
    rates = _rates(study, learning_rates, judged.outcome)
    places, crossing = overtaking.crossover(study)
    run = study.seeds(primary.baseline)[found.seeds[0]]
    checks = calibration.check(study) if whole else None
    return Comparison(
        study=study.declared.name,
        verdict=judged,
        primary={
            **asdict(primary),
            "unit": endpoints.unit(primary.endpoint),
            "baseline_value": found.baseline_value,
            "relative": found.relative,
            **asdict(found.estimate),
        },
        notes=[
            *([mixture.conclusion] if mixture and mixture.confirmed else []),
            *proposals.notes(swarm, study),
            *study.declared.notes,
            *crossing,
            *_caveats(study, found),
            *rates.notes,
            *law_notes,
        ],
        tables={
            "seeds": [] if of_swarm else _seeds(found),
            "secondary": [] if of_swarm else secondary(study, found),
            "heldout": tables.heldout(study, run),
            "averages": tables.averages(study, run),
            "tasks": tables.tasks(study, run),
            "contamination": tables.contamination(study),
            "matched": tables.matched_budgets(study),
            "sizes": sizes,
            "orders": ladder.orders(study, steps),
            "proxies": proxies.table(study, steps, run),
            "scaling": laws,
            "learning_rates": rates.rows,
            "claims": claims.answers([study, *others]),
            "arms": tables.arms(study),
            "jobs": tables.jobs(study),
            "calibration": checks.rows if checks else [],
            **({"crossover": places} if places else {}),
            **proposals.tables(study, swarm),
        },
        calibration=checks,
        signs=ladder.signs(sizes),
        mixture=mixture,
    )


def _rates(study: Study, further: Study | None, outcome: verdict.Finding) -> learning_rate.Check:
    """What was tried of each arm: the choice that was made, or else the check of the verdict."""
    if study.settled is None:
        return learning_rate.check(learning_rate.gather(study, further), outcome)
    if further is not None:
        raise ValueError(
            "this study declares where its arms are compared (compare.at), so its learning rates"
            " are its own: leave learning_rate=… out"
        )
    return learning_rate.Check(list(study.settled.rows), list(study.settled.notes))


def primary_contrast(study: Study) -> Contrast:
    """The declared contrast at the main variant.

    Raises:
        ValueError: no seed has both arms. The message lists the state of the jobs.
    """
    primary = study.declared.primary
    arms = (primary.treatment, primary.baseline)
    found = between(study, primary.treatment, primary.baseline)
    if found is None:
        states = [
            f"{row['arm']} seed {row['seed']} {row['state']}"
            + (f" ({row['error']})" if row["error"] else "")
            for row in tables.jobs(study)
            if row["arm"] in arms and (study.settled or row["variant"] == study.declared.main)
        ]
        raise ValueError(
            f"no seed has both {' and '.join(arms)}, so there is nothing to compare:"
            f" {'; '.join(states)}. Run the study again: complete jobs are skipped"
        )
    return found


def secondary(study: Study, found: Contrast) -> list[Row]:
    """The family of secondary tests, with Holm's adjustment.

    Its members are every other arm against the baseline on the primary endpoint, and the primary
    contrast on every secondary endpoint. A row that was not measured says so and is no member.
    """
    declared = study.declared
    primary = declared.primary
    baseline = study.seeds(primary.baseline)
    wanted = declared.secondary
    if wanted is None:
        groups = [f"heldout/{group}" for group in declared.heldout]
        wanted = [*groups, *endpoints.averages_of(baseline[found.seeds[0]], declared.shots)]
        wanted = [name for name in wanted if name != primary.endpoint]
    others = [a for a in declared.arms if a not in (primary.baseline, primary.treatment)]
    family = [(arm, primary.endpoint) for arm in others]
    family += [(primary.treatment, name) for name in wanted]
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
        of = result.estimate
        row |= {"unit": endpoints.unit(name), "seeds": of.seeds}
        row |= {"baseline_value": result.baseline_value, "difference": of.value}
        row |= {"relative": result.relative, "low": of.low, "high": of.high, "p": of.p}
        measured.append((row, of))
    adjusted = inference.holm([of for _, of in measured], primary.alpha)
    for (row, of), holm in zip(measured, adjusted, strict=True):
        row |= {"p_holm": holm.p, "family_low": holm.low, "family_high": holm.high}
        gained = endpoints.gain(row["endpoint"]) * of.value > 0
        shown = holm.rejected and of.seeds > 1  # one seed cannot tell an arm from its luck
        row["outcome"] = ("better" if gained else "worse") if shown else "not shown"
        if of.seeds < len(declared.seeds):
            row["outcome"] = "interim"
    return rows


def _seeds(found: Contrast) -> list[Row]:
    rows = []
    for seed, ours, theirs in zip(found.seeds, found.treatment, found.baseline, strict=True):
        treatment, baseline = inference.endpoint(ours), inference.endpoint(theirs)
        rows.append({"seed": seed, "treatment": treatment, "baseline": baseline})
        rows[-1]["difference"] = treatment - baseline
    return rows


def _caveats(study: Study, found: Contrast) -> list[str]:
    notes = []
    states = [row["state"] for row in tables.jobs(study)]
    if states:
        text = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        notes.append(f"Not every declared job is complete: {text} (see the table of jobs).")
    primary, first = study.declared.primary, study.declared.first_seeds
    if first is not None:
        notes.append(
            f"Seeds were added to the first {first} after a look at the study, so a false finding"
            f" is likelier than {primary.alpha:.0%}: confirm it by a new study, with other seeds."
        )
    treatment, baseline = study.seeds(primary.treatment), study.seeds(primary.baseline)
    for arm, runs in ((primary.treatment, treatment), (primary.baseline, baseline)):
        if alone := sorted(runs.keys() - set(found.seeds)):
            notes.append(f"Seeds {alone} of {arm} have no partner and are left out.")
    clauses = credible.unlearned(study, [*treatment.values(), *baseline.values()])
    notes += [f"{clause[0].upper()}{clause[1:]}." for clause in clauses]
    if found.estimate.seeds == 2:
        notes.append("Two seeds know their own spread badly, and the interval is wide for that.")
    run = baseline[found.seeds[0]]
    for name in endpoints.averages_of(run, study.declared.shots):
        _, average, shots = name.split("/")
        have, lack = endpoints.rows_of(average, run, shots)
        if lack:
            notes.append(
                f"The {endpoints.label(name)}, is partial:"
                f" {len(have)} of {len(have) + len(lack)} rows; not run: "
                + ", ".join(f"{task} {metric}" for task, metric in lack)
                + "."
            )
    ours, theirs = treatment[found.seeds[0]].result, baseline[found.seeds[0]].result
    for name in ("model", "tokens", "learning_rate") if study.settled is None else ("model",):
        a, b = getattr(ours, name), getattr(theirs, name)
        if a != b:
            notes.append(f"The arms differ in {name} too: {a} against {b}.")
    return notes
