"""Check whether the verdict holds at each arm's best learning rate.

A learning rate can move a score as much as a filter does, and the best one may differ by arm.
Studies with ``compare.at=best`` have their verdict there; this checks the others in the same way
(:mod:`ablations.contrasts.variant_selection`).
"""

import dataclasses
from dataclasses import dataclass, field

from ablations.contrasts import equivalence, variant_selection, verdict
from ablations.contrasts.pairing import between
from ablations.study_files.results import JobKey, Study
from ablations.study_files.table import Row
from ablations.study_files.variant_choice import Compare

DOCUMENT = ["source", "document", "bytes"]


@dataclass(frozen=True)
class Check:
    """The learning rates of all arms, and caveats on the verdict."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(study: Study, further: Study | None) -> Study:
    """A study whose variants are learning rates, from this study and a ``further`` one.

    Runs have the models of the main variant; those of this study take precedence.

    Raises:
        ValueError: the further study was evaluated on other documents.
    """
    main = study.declared.main
    runs = {key: run for key, run in study.runs.items() if key.variant == main}
    models = {key.arm: run.result.model for key, run in runs.items()}
    known = {(key.arm, run.result.learning_rate) for key, run in runs.items()}
    reference = next(iter(study.runs.values())).heldout.select(DOCUMENT)
    for source in (study, further):
        new = {}
        for (arm, _, seed), run in source.runs.items() if source else ():
            if not run.heldout.select(DOCUMENT).equals(reference):
                raise ValueError(
                    "the learning-rate study was evaluated on other held-out documents: evaluate"
                    " both on the same ones"
                )
            rate = run.result.learning_rate
            if (arm, rate) not in known and run.result.model == models.get(arm):
                new[JobKey(arm, f"learning-rate={rate:g}", seed)] = run
        runs |= new
        known |= {(key.arm, run.result.learning_rate) for key, run in new.items()}
    variants = list(dict.fromkeys([main, *(key.variant for key in runs)]))
    declared = dataclasses.replace(study.declared, variants=variants)
    return dataclasses.replace(study, declared=declared, runs=runs)


def check(study: Study, outcome: verdict.Finding) -> Check:
    """Whether the verdict's ``outcome`` holds at the best rates of a study from :func:`gather`."""
    primary = study.declared.primary
    pair = (primary.treatment, primary.baseline)
    if any(len(variant_selection.variants_of(study, arm)) < 2 for arm in pair):
        return Check([], ["Learning rates were not checked: each arm was run at only one."])
    try:
        chosen = variant_selection.best(study, Compare().selection)
        contrast = between(chosen, *pair)
    except ValueError as error:
        return Check([], [f"Learning rates were not checked: {error}."])
    assert chosen.chosen is not None
    choices, rows = chosen.chosen.choices, chosen.chosen.rows
    rows = [row for row in rows if choices[row["arm"]].tried > 1]
    if contrast is None:
        return Check(rows, ["No seed has both arms at their best learning rates."])
    ours, theirs = (chosen.seeds(arm) for arm in pair)
    doubts = equivalence.doubts(chosen, ours, theirs)
    judged = verdict.judge(contrast.estimate, contrast.baseline_value, primary, doubts)
    rates = {row["arm"]: row["learning_rate"] for row in rows if row["best"]}
    at = ", ".join(f"{arm} {rates[arm]:g}" for arm in reversed(pair))
    holds = "holds" if judged.outcome == outcome else "does NOT hold"
    of = contrast.estimate
    sentence = (
        f"The verdict {holds} at each arm's best learning rate ({at}): {judged.outcome},"
        f" {verdict.number(of.value, True)} ({verdict.interval(of.low, of.high)}, including the"
        f" uncertainty of the choice; {of.seeds} seeds, chosen on {Compare().selection:.0%} of the"
        " held-out documents, compared on the others)."
    )
    return Check(rows, [sentence, *chosen.chosen.notes])
