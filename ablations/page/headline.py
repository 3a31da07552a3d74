"""The top of a study's page: the question, the finding in one line, more of it, the next step."""

import math
from collections.abc import Sequence

from ablations.analyses.comparison import Comparison
from ablations.contrasts import credible, endpoints
from ablations.contrasts.axis import axis_of
from ablations.contrasts.verdict import number
from ablations.page import provenance
from ablations.stats.power import shortfall
from ablations.study_files.choices import At
from ablations.study_files.results import Study


def question(study: Study, found: Comparison | ValueError) -> str:
    """What was asked, before any run."""
    if not isinstance(found, ValueError) and found.calibration:
        return "Can the instrument say no, and does it see what is there?"
    if not isinstance(found, ValueError) and found.mixture and not found.mixture.confirmed:
        return "Which mixture of sources makes the best model?"
    primary = study.declared.primary
    arms = (primary.treatment, primary.baseline)
    rules = [provenance.rule(study, arm) for arm in arms]
    told = all(rules) and rules[0] != rules[1]
    names = [f"{arm} ({rule})" if told else arm for arm, rule in zip(arms, rules, strict=True)]
    on = endpoints.in_a_sentence(primary.endpoint)
    return f"Is {names[0]} better than {names[1]} on {on}?"


def headline(study: Study, found: Comparison | ValueError) -> str:
    """The finding in one line, with its main caveat first."""
    if isinstance(found, ValueError):
        return "Nothing can be compared yet"
    if found.calibration:
        return found.calibration.sentence
    if found.mixture and not found.mixture.confirmed:
        return found.mixture.headline
    finding = _finding(study, found)
    if where := _at(study):
        outcome = found.verdict.outcome
        own = outcome in ("interim", "underpowered", "no difference")  # begins with a word, no arm
        finding = f"{where}{finding[0].lower() if own else finding[0]}{finding[1:]}"
    if study.declared.known:
        return f"Judged on sources that the classifier may know: {finding}"
    return finding


def _at(study: Study) -> str:
    """Where the arms are compared, if not at the main variant."""
    settled = study.settled
    if settled is None:
        return ""
    if settled.at == At.lowest:
        return f"At the lowest of {settled.tried} learning rates, as a proxy for tuned arms: "
    return f"Each arm at its best of {settled.tried} {settled.of}: "


def _finding(study: Study, found: Comparison) -> str:
    primary = study.declared.primary
    ours, theirs = primary.treatment, primary.baseline
    on = f"on {endpoints.in_a_sentence(primary.endpoint)}"
    size = _size(found)
    match found.verdict.outcome:
        case "interim":
            complete, all_of = found.primary["seeds"], len(study.declared.seeds)
            return f"Interim, no verdict: {complete} of {all_of} seeds are complete"
        case "underpowered":
            return f"Not known yet: this study cannot tell {ours} from {theirs} {on}"
        case "no difference":
            unit = found.primary["unit"]
            least = f"{primary.smallest_difference:g} {unit}"
            return f"No difference of {least} or more found between {ours} and {theirs} {on}"
        case "differs slightly":
            gained = endpoints.gain(primary.endpoint) * found.primary["value"] > 0
            word = "slightly better" if gained else "slightly worse"
            return f"{ours} is {word} than {theirs}: {size} {on}"
        case word:
            return f"{ours} is {word} than {theirs}: {size} {on}"


def beside(found: Comparison | ValueError) -> list[str]:
    """Secondary endpoints on which the treatment is better or worse."""
    if isinstance(found, ValueError):
        return []
    treatment = found.primary["treatment"]
    return [
        f"{row['outcome'].capitalize()} on {endpoints.in_a_sentence(row['endpoint'])}:"
        f" {number(row['difference'], True)} {row['unit']} ({number(row['family_low'], True)} to"
        f" {number(row['family_high'], True)})."
        for row in found.tables["secondary"]
        if row["arm"] == treatment and row["outcome"] in ("better", "worse")
    ]


def next_step(study: Study, found: Comparison | ValueError) -> str:
    """The next step."""
    if isinstance(found, ValueError):
        return "Run the study again: complete jobs are skipped."
    if found.calibration:
        if found.calibration.sound:
            return "Compare filters on this corpus with models of about this size."
        return (
            "Run it with other seeds, more tokens or more held-out text before you trust a verdict."
        )
    if found.mixture and found.mixture.conclusion and not found.mixture.confirmed:
        return (
            "Confirm it with other seeds, beside the natural mixture"
            " (experiment=mixture_confirmation swarm.folder=DIR, the folder of this study)."
        )
    of, primary = found.primary, study.declared.primary
    outcome = found.verdict.outcome
    if outcome == "interim":
        return "Run the study to its last seed: complete jobs are skipped."
    if found.verdict.doubts:
        return f"Mend first what speaks against the study: {found.verdict.doubts[0]}."
    if outcome == "underpowered":
        runs = [*study.seeds(primary.treatment).values(), *study.seeds(primary.baseline).values()]
        if unlearned := credible.unlearned(study, runs):
            return f"Train on more tokens: {unlearned[0]}."
        if of["seed_error"] is None:
            return "Run a new study with three seeds or more (seed=1,2,3)."
        seed_sd = of["seed_error"] * math.sqrt(of["seeds"])
        seeds, items = shortfall(
            primary.smallest_difference, seed_sd, of["item_error"], primary.alpha, primary.power
        )
        if items and seeds is not None and seeds <= of["seeds"]:
            return "Evaluate on more held-out text: more seeds would not do."
        if items:
            return (
                "Run a new study with more held-out text and more seeds, or with a larger"
                " primary.smallest_difference."
            )
        return (
            f"Run a new study with about {seeds} other seeds, and this one as its pilot"
            " (noise.pilot=DIR): adding seeds after a look inflates false findings."
        )
    if study.settled and study.settled.ends:
        return (
            f"Go on with {study.settled.of} beyond those tried, for {_and(study.settled.ends)}: the"
            " best lies at their end."
        )
    if outcome in ("better", "worse"):
        if not found.tables["learning_rates"]:
            return "Check it at each arm’s best learning rate (experiment=learning_rate)."
        return "Repeat it with a larger model and more tokens (scale=gpu)."
    return "Choose the arm by its cost, or look for a smaller difference with more seeds."


def reach(study: Study) -> str | None:
    """How far the verdict reaches: sizes, tokens, when text repeats; None without runs."""
    runs = [run.result for arm in study.declared.arms for run in study.seeds(arm).values()]
    if not runs:
        return None
    models = " and ".join(dict.fromkeys(f"{run.parameters_active / 1e6:.3g}M" for run in runs))
    tokens = max(run.tokens for run in runs)
    after = f"{tokens:,} tokens"
    if before := study.declared.budget.get("trunk_tokens"):
        after = f"the last {tokens:,} of {before + tokens:,} tokens"
    of = f"is about models of {models} active parameters after {after}."
    swarm = study.declared.swarm
    if swarm and not swarm.confirms:
        return f"The proposal {of}"  # swarm.repeats bounds how often a mixture repeats text
    said = f"The verdict {of}"
    axis = axis_of(study.declared.variants)
    if axis and axis[0] == "passes":
        return f"{said} What more passes over less text do to it stands under Along the sweep."
    repeats = study.declared.repeats_from
    arm = study.declared.primary.treatment
    if arm not in repeats:
        return said
    at = repeats[arm]
    if at < tokens:
        return f"{said} {arm} has read some of its text again from {at:,} tokens on."
    return (
        f"{said} {arm} would read some of its text again from {at:,} tokens on, of which this study"
        " says nothing (experiment=repetition does)."
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def _size(found: Comparison) -> str:
    """The size of the primary difference: ``2.96 % fewer bits per byte``, ``1.20 points more``."""
    value, relative = found.primary["value"], found.primary["relative"]
    if found.primary["unit"] == endpoints.BITS:
        much = (
            f"{number(abs(value))}" if relative is None else f"{number(100 * abs(relative))}\u00a0%"
        )
        return f"{much} {'fewer' if value < 0 else 'more'} bits per byte"
    return f"{number(abs(value))} points {'less' if value < 0 else 'more'}"
