"""The top of a study's page: question, finding in one line, details, next step."""

import math

from ablations.analyses.comparison import Comparison
from ablations.contrasts import endpoints, equivalence, verdict
from ablations.contrasts.axis import axis_of
from ablations.contrasts.verdict import interval, number
from ablations.page import provenance
from ablations.stats.power import shortfall
from ablations.study_files.results import Study
from ablations.study_files.variant_choice import CompareAt


def question(study: Study, result: Comparison | ValueError) -> str:
    if not isinstance(result, ValueError):
        if result.calibration:
            return "Does the method raise false alarms, and does it find an effect that is there?"
        if result.mixture and not result.mixture.confirmed:
            return "Which mixture of sources makes the best model?"
    primary = study.declared.primary
    arms = (primary.treatment, primary.baseline)
    rules = [provenance.rule(study, arm) for arm in arms]
    named = all(rules) and rules[0] != rules[1]
    names = [f"{arm} ({rule})" if named else arm for arm, rule in zip(arms, rules, strict=True)]
    on = endpoints.in_a_sentence(primary.endpoint)
    return f"Is {names[0]} better than {names[1]} on {on}?"


def headline(study: Study, result: Comparison | ValueError) -> str:
    """The finding in one line, main caveat first."""
    if isinstance(result, ValueError):
        return "Nothing can be compared yet"
    if result.calibration:
        return result.calibration.sentence
    if result.mixture and not result.mixture.confirmed:
        return result.mixture.headline
    finding = _finding(study, result)
    if chosen := study.chosen:
        if result.verdict.outcome in ("interim", "underpowered", "no difference"):
            finding = finding[0].lower() + finding[1:]  # others start with the name of an arm
        where = f"Each arm at its best of {chosen.tried} {chosen.of}"
        if chosen.at == CompareAt.lowest:
            where = f"At the lowest of {chosen.tried} learning rates, as a proxy for tuned arms"
        finding = f"{where}: {finding}"
    if study.declared.known:
        return f"Judged on sources that the classifier may know: {finding}"
    return finding


def _finding(study: Study, result: Comparison) -> str:
    seeds, outcome = len(study.declared.seeds), result.verdict.outcome
    if outcome == "interim":
        return f"Interim, no verdict: {result.primary['seeds']} of {seeds} seeds are complete"
    asked = verdict.question(study.declared.primary)
    return verdict.finding(outcome, asked, result.primary["value"], _size(result))


def secondary_findings(result: Comparison | ValueError) -> list[str]:
    """Secondary endpoints on which the treatment is better or worse."""
    if isinstance(result, ValueError):
        return []
    treatment = result.primary["treatment"]
    return [
        f"{row['outcome'].capitalize()} on {endpoints.in_a_sentence(row['endpoint'])}:"
        f" {number(row['difference'], True)} {row['unit']}"
        f" ({interval(row['family_low'], row['family_high'])})."
        for row in result.tables["secondary"]
        if row["arm"] == treatment and row["outcome"] in ("better", "worse")
    ]


def next_step(study: Study, result: Comparison | ValueError) -> str:
    if isinstance(result, ValueError):
        return "Run the study again: complete jobs are skipped."
    if result.calibration:
        if result.calibration.sound:
            return "Compare filters on this corpus with models of about this size."
        return "Before you trust a verdict, use other seeds, more tokens or more held-out text."
    if result.mixture and result.mixture.conclusion and not result.mixture.confirmed:
        return (
            "Confirm it with other seeds, against the natural mixture"
            " (experiment=mixture_confirmation swarm.folder=DIR, the folder of this study)."
        )
    estimate, primary = result.primary, study.declared.primary
    outcome = result.verdict.outcome
    if outcome == "interim":
        return "Run the study to its last seed: complete jobs are skipped."
    if result.verdict.doubts:
        return f"Fix this first: {result.verdict.doubts[0]}."
    if outcome == "underpowered":
        runs = [*study.seeds(primary.treatment).values(), *study.seeds(primary.baseline).values()]
        if unlearned := equivalence.unlearned(study, runs):
            return f"Train on more tokens: {unlearned[0]}."
        if estimate["seed_error"] is None:
            return "Run a new study with three seeds or more (seed=1,2,3)."
        seed_sd = estimate["seed_error"] * math.sqrt(estimate["seeds"])
        least, item_error = primary.smallest_difference, estimate["item_error"]
        seeds, items = shortfall(least, seed_sd, item_error, primary.alpha, primary.power)
        if items and seeds is not None and seeds <= estimate["seeds"]:
            return "Evaluate on more held-out text: more seeds would not help."
        if items:
            return (
                "Run a new study with more held-out text and more seeds, or with a larger"
                " primary.smallest_difference."
            )
        return (
            f"Run a new study with about {seeds} other seeds, and this one as its pilot"
            " (noise.pilot=DIR): adding seeds after a look inflates false findings."
        )
    if study.chosen and study.chosen.ends:
        arms = " and ".join(study.chosen.ends)
        return f"Try {study.chosen.of} beyond those tried, for {arms}: the best lies at the edge."
    if outcome in ("better", "worse"):
        if not result.tables["learning_rates"]:
            return "Check it at each arm’s best learning rate (experiment=learning_rate)."
        return "Repeat it with a larger model and more tokens (scale=gpu)."
    return "Choose the arm by its cost, or look for a smaller difference with more seeds."


def reach(study: Study) -> str | None:
    """Scope of the verdict: sizes, tokens, repeated text; None without runs."""
    runs = [run.result for arm in study.declared.arms for run in study.seeds(arm).values()]
    if not runs:
        return None
    models = " and ".join(dict.fromkeys(f"{run.parameters_active / 1e6:.3g}M" for run in runs))
    tokens = max(run.tokens for run in runs)
    after = f"{tokens:,} tokens"
    if before := study.declared.budget.get("trunk_tokens"):
        after = f"the last {tokens:,} of {before + tokens:,} tokens"
    about = f"is about models of {models} active parameters after {after}."
    swarm = study.declared.swarm
    if swarm and not swarm.confirms:
        return f"The proposal {about}"  # swarm.repeats bounds how often a mixture repeats text
    sentence = f"The verdict {about}"
    axis = axis_of(study.declared.variants)
    if axis and axis[0] == "passes":
        return f"{sentence} “Along the sweep” shows the effect of more passes over less text."
    arm = study.declared.primary.treatment
    if (at := study.declared.repeats_from.get(arm)) is None:
        return sentence
    if at < tokens:
        return f"{sentence} {arm} repeats some of its text after {at:,} tokens."
    return (
        f"{sentence} {arm} would repeat some of its text after {at:,} tokens, which this study does"
        " not test (experiment=repetition does)."
    )


def _size(result: Comparison) -> str:
    """The size of the primary difference: ``2.96 % fewer bits per byte``, ``1.20 points more``."""
    value, relative = result.primary["value"], result.primary["relative"]
    if result.primary["unit"] == endpoints.BITS:
        much = number(abs(value)) if relative is None else f"{number(100 * abs(relative))}\u00a0%"
        return f"{much} {'fewer' if value < 0 else 'more'} bits per byte"
    return f"{number(abs(value))} points {'less' if value < 0 else 'more'}"
