"""The verdict on an interval, in words. There are six outcomes.

better, worse     the interval excludes 0, and the difference may be of interest
differs slightly  the interval excludes 0 and lies below the smallest difference of interest
no difference     none was found, by a study with the power to find one of interest
underpowered      none was found, but one of interest could have been missed: too few seeds or
                  documents, or a failed precondition (:mod:`ablations.contrasts.equivalence`)
interim           a declared seed is missing: stopping early at will inflates false findings
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ablations.contrasts import endpoints
from ablations.stats.inference import Estimate
from ablations.stats.power import detectable, minimum_detectable_effect, shortfall
from ablations.study_files.results import Primary

Finding = Literal["better", "worse", "differs slightly", "no difference", "underpowered", "interim"]


@dataclass(frozen=True)
class Verdict:
    """An outcome and its sentence.

    ``detectable`` is the minimum detectable effect at the declared power, given the observed noise;
    None with one seed. ``doubts`` are the reasons not to claim equivalence.
    """

    outcome: Finding
    sentence: str
    detectable: float | None
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class Question:
    """The question of a verdict. ``on`` is the endpoint in a sentence, in ``unit``.

    ``gain`` is the sign of an improvement. With ``of_runs`` a single run of each arm gets a verdict
    too, about these two runs only.
    """

    treatment: str
    baseline: str
    on: str
    unit: str
    gain: int
    smallest_difference: float
    alpha: float
    power: float
    items: str = "held-out documents"
    of_runs: bool = False


def question(declared: Primary) -> Question:
    """The question that a study declares."""
    return Question(
        declared.treatment,
        declared.baseline,
        endpoints.in_a_sentence(declared.endpoint),
        endpoints.unit(declared.endpoint),
        endpoints.gain(declared.endpoint),
        declared.smallest_difference,
        declared.alpha,
        declared.power,
    )


def judge(
    estimate: Estimate, baseline_value: float, declared: Primary, doubts: Sequence[str] = ()
) -> Verdict:
    """The verdict of a study on a paired difference, treatment minus baseline.

    With ``doubts`` (:func:`ablations.contrasts.equivalence.doubts`) it never claims equivalence.
    """
    return answer(estimate, baseline_value, question(declared), doubts)


def answer(
    estimate: Estimate, baseline_value: float, question: Question, doubts: Sequence[str] = ()
) -> Verdict:
    """The verdict on a paired difference, as in :func:`judge`."""
    unit, gain = question.unit, question.gain
    size = _size(estimate, baseline_value, question)
    arms = f"{question.treatment} against {question.baseline} on {question.on}"
    if estimate.seed_error is None and not question.of_runs:
        sentence = (
            f"Underpowered: {arms} shows {size}, but one seed cannot tell an effect from"
            " training noise; this interval includes the error of the held-out documents only."
        )
        return Verdict("underpowered", sentence, None)
    smallest = question.smallest_difference
    interest = f"the smallest difference of interest ({number(smallest)} {unit})"
    effect = detectable_effect(estimate, question.alpha, question.power)
    inside = -smallest < estimate.low and estimate.high < smallest
    if doubts and (inside or (estimate.p >= question.alpha and effect <= smallest)):
        sentence = (
            f"Underpowered: {arms} shows {size}, but that says little about a larger"
            f" {'evaluation' if question.of_runs else 'study'}: {'; '.join(doubts)}."
        )
        return Verdict("underpowered", sentence, effect, doubts)
    if estimate.p < question.alpha:
        word: Finding = "better" if gain * estimate.value > 0 else "worse"
        if inside:
            sentence = f"Differs slightly: {arms} is {word}, {size}, but by less than {interest}."
            return Verdict("differs slightly", sentence, effect)
        sentence = f"{word.capitalize()}: {arms} shows {size}."
        if min(abs(estimate.low), abs(estimate.high)) < smallest:
            sentence += f" It may be smaller than {interest}."
        return Verdict(word, sentence, effect)
    could = (
        f"a true difference of {number(effect)} {unit} would have been found with probability"
        f" {question.power:.0%}"
    )
    if inside or effect <= smallest:
        what = f"; any difference is below {interest}" if inside else ""
        sentence = f"No difference found: {arms} shows {size}; {could}{what}."
        return Verdict("no difference", sentence, effect)
    sentence = (
        f"Underpowered: {arms} shows {size}; only {could}, and {interest} is less than that:"
        f" {_need(estimate, question)}."
    )
    return Verdict("underpowered", sentence, effect)


def _need(estimate: Estimate, question: Question) -> str:
    """What finding the smallest difference of interest takes: seeds, items or both."""
    if estimate.seed_sd is None:
        return f"more {question.items} are needed"
    smallest, noise = question.smallest_difference, (estimate.seed_sd, estimate.item_error)
    seeds, items = shortfall(smallest, *noise, question.alpha, question.power)
    if not items:
        return f"about {seeds} seeds would do"
    if seeds is None:
        return f"more seeds than can be run, and more {question.items}, are needed"
    also = f"and at least {seeds} seeds" if seeds > estimate.seeds else "not seeds"
    return f"more {question.items} are needed, {also}"


def detectable_effect(estimate: Estimate, alpha: float, power: float) -> float:
    """The true difference detected with ``power``, given the observed noise."""
    if estimate.seed_sd is None:
        return detectable(estimate.error, estimate.df, alpha, power)
    noise = estimate.seed_sd, estimate.seeds, estimate.item_error
    return minimum_detectable_effect(*noise, alpha, power)


def interim(estimate: Estimate, baseline_value: float, declared: Primary, seeds: int) -> Verdict:
    """No verdict, but the estimate so far."""
    size = _size(estimate, baseline_value, question(declared))
    sentence = (
        f"Interim, no verdict: {estimate.seeds} of {seeds} declared seeds are complete in both arms"
        f" and show {size}. Stopping a study when it looks good inflates false findings."
    )
    return Verdict("interim", sentence, None)


def finding(outcome: Finding, question: Question, value: float, size: str) -> str:
    """The finding in one line, of a difference of ``value``, in words ``size``."""
    ours, theirs, on = question.treatment, question.baseline, question.on
    word = "better" if question.gain * value > 0 else "worse"
    if outcome == "no difference":
        least = f"{question.smallest_difference:g} {question.unit}"
        return f"No difference of {least} or more found between {ours} and {theirs} on {on}"
    if outcome == "differs slightly":
        word = f"slightly {word}"
    elif outcome not in ("better", "worse"):
        what = "these items" if question.items == "items" else "this study"
        return f"Not known yet: {what} cannot tell {ours} from {theirs} on {on}"
    return f"{ours} is {word} than {theirs}: {size} on {on}"


ROUNDING = 1e-12
"""Differences below this are rounding errors."""


def number(value: float, signed: bool = False) -> str:
    """Three significant digits, never in scientific notation; rounding errors print as 0."""
    value = 0.0 if abs(value) < ROUNDING else value
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if signed else ''}.{digits}f}"


def interval(low: float, high: float) -> str:
    """The ends of an interval of a difference: ``+0.0123 to +0.0456``."""
    return f"{number(low, True)} to {number(high, True)}"


def _size(estimate: Estimate, baseline_value: float, question: Question) -> str:
    percent = f", {abs(estimate.value / baseline_value):.2%}" if baseline_value else ""
    return (
        f"{number(abs(estimate.value))} {question.unit}{percent}"
        f" {'less' if estimate.value < 0 else 'more'} ({1 - question.alpha:.0%} interval of the"
        f" difference {interval(estimate.low, estimate.high)})"
    )
