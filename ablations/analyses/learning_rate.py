"""Whether the verdict holds when each arm trains at its own best learning rate.

A learning rate can move a score as much as a filter does, and one that suits an arm may not suit
the other. A study that declares ``compare.at=best`` has its verdict there; others are checked here,
in the same way (:mod:`ablations.contrasts.best`).
"""

import dataclasses
from dataclasses import dataclass, field

from ablations.contrasts import best, credible, verdict
from ablations.contrasts.pairing import between
from ablations.study_files.choices import Compare
from ablations.study_files.results import JobKey, Study
from ablations.study_files.table import Row

DOCUMENT = ["source", "document", "bytes"]


@dataclass(frozen=True)
class Check:
    """Every rate of every arm, and what a reader of the verdict must know of them."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(study: Study, further: Study | None) -> Study:
    """A study whose variants are learning rates: the main variant's, and those of other runs.

    Others are the study's own and a ``further`` one's, of the main variant's models; a run of the
    study itself comes before one of the further study.

    Raises:
        ValueError: the further study held out other documents.
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
                    "the learning-rate study was evaluated on other held-out documents: evaluate it"
                    " on this study's"
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
    """Compare the arms at their best rates, and say whether ``outcome`` holds there.

    Args:
        study: one with the runs of all learning rates (:func:`gather`).
        outcome: of the study's verdict.
    """
    primary = study.declared.primary
    pair = (primary.treatment, primary.baseline)
    if any(len(best.variants_of(study, arm)) < 2 for arm in pair):
        return Check([], ["Learning rates were not checked: each arm was run at one only."])
    try:
        settled = best.best(study, Compare().selection)
        found = between(settled, *pair)
    except ValueError as error:
        return Check([], [f"Learning rates were not checked: {error}."])
    assert settled.settled is not None
    choices, rows = settled.settled.choices, settled.settled.rows
    rows = [row for row in rows if choices[row["arm"]].tried > 1]
    if found is None:
        return Check(rows, ["No seed has both arms at their best learning rates."])
    ours, theirs = (settled.seeds(arm) for arm in pair)
    doubts = credible.doubts(settled, ours, theirs)
    judged = verdict.judge(found.estimate, found.baseline_value, primary, doubts)
    rates = {row["arm"]: row["learning_rate"] for row in rows if row["best"]}
    at = ", ".join(f"{arm} {rates[arm]:g}" for arm in reversed(pair))
    holds = "holds" if judged.outcome == outcome else "does NOT hold"
    of = found.estimate
    said = (
        f"The verdict {holds} at each arm's best learning rate ({at}): {judged.outcome},"
        f" {verdict.number(of.value, True)} ({verdict.number(of.low, True)} to"
        f" {verdict.number(of.high, True)}, the uncertainty of the choice included;"
        f" {of.seeds} seeds, chosen on {Compare().selection:.0%} of the held-out documents and"
        " compared on the others)."
    )
    return Check(rows, [said, *settled.settled.notes])
