"""What an interval means, in plain words. Six outcomes, and "the filter hurts" is one of them.

better, worse     the interval excludes 0, and the difference may be of interest
differs slightly  the interval excludes 0 and lies below the smallest difference of interest
no difference     none was found by a study that would have found one of interest
underpowered      none was found, but one of interest could have been missed: too few seeds or
                  documents, or nothing to find (:mod:`ablations.contrasts.credible`)
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
    None with one seed. ``doubts`` are the reasons why equivalence was not claimed.
    """

    outcome: Finding
    sentence: str
    detectable: float | None
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class Question:
    """What a verdict answers. ``on`` is the endpoint in a sentence, in ``unit``.

    ``gain`` is the sign of a difference that is an improvement. With ``of_runs`` a single run of
    each arm gets a verdict too, which is about these two runs and no others.
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
    of: Estimate, baseline_value: float, declared: Primary, doubts: Sequence[str] = ()
) -> Verdict:
    """The verdict of a study on a paired difference, treatment minus baseline.

    With ``doubts`` (:func:`ablations.contrasts.credible.doubts`) it never claims equivalence.
    """
    return answer(of, baseline_value, question(declared), doubts)


def answer(
    of: Estimate, baseline_value: float, asked: Question, doubts: Sequence[str] = ()
) -> Verdict:
    """The verdict on a paired difference, as :func:`judge` gives it."""
    unit, gain = asked.unit, asked.gain
    size = _size(of, baseline_value, asked)
    arms = f"{asked.treatment} against {asked.baseline} on {asked.on}"
    if of.seed_error is None and not asked.of_runs:
        return Verdict(
            "underpowered",
            f"Underpowered: {arms} shows {size}, but one seed cannot tell an arm from the luck of"
            " its training; this interval holds the error of the held-out documents alone.",
            None,
        )
    smallest = asked.smallest_difference
    interest = f"the smallest difference of interest ({number(smallest)} {unit})"
    found = least_seen(of, asked.alpha, asked.power)
    inside = -smallest < of.low and of.high < smallest
    if doubts and (inside or (of.p >= asked.alpha and found <= smallest)):
        sentence = (
            f"Underpowered: {arms} shows {size}, but that says little about a larger"
            f" {'evaluation' if asked.of_runs else 'study'}: {'; '.join(doubts)}."
        )
        return Verdict("underpowered", sentence, found, doubts)
    if of.p < asked.alpha:
        word: Finding = "better" if gain * of.value > 0 else "worse"
        if inside:
            sentence = f"Differs slightly: {arms} is {word}, {size}, but by less than {interest}."
            return Verdict("differs slightly", sentence, found)
        doubt = (
            ""
            if min(abs(of.low), abs(of.high)) >= smallest
            else (f" It may be smaller than {interest}.")
        )
        return Verdict(word, f"{word.capitalize()}: {arms} shows {size}.{doubt}", found)
    could = (
        f"a true difference of {number(found)} {unit} would have been found with probability"
        f" {asked.power:.0%}"
    )
    if inside or found <= smallest:
        what = f"; whatever there is, is below {interest}" if inside else ""
        return Verdict(
            "no difference", f"No difference found: {arms} shows {size}; {could}{what}.", found
        )
    return Verdict(
        "underpowered",
        f"Underpowered: {arms} shows {size}; only {could}, and {interest} is less than that:"
        f" {_need(of, asked)}.",
        found,
    )


def _need(of: Estimate, asked: Question) -> str:
    """What would find the smallest difference of interest: seeds, items or both."""
    if of.seed_sd is None:
        return f"more {asked.items} are needed"
    seeds, items = shortfall(
        asked.smallest_difference, of.seed_sd, of.item_error, asked.alpha, asked.power
    )
    if not items:
        return f"about {seeds} seeds would do"
    if seeds is None:
        return f"more seeds than can be run, and more {asked.items}, are needed"
    also = f"and at least {seeds} seeds" if seeds > of.seeds else "not seeds"
    return f"more {asked.items} are needed, {also}"


def least_seen(of: Estimate, alpha: float, power: float) -> float:
    """The true difference that is found with ``power``, given the observed noise."""
    if of.seed_sd is None:
        return detectable(of.error, of.df, alpha, power)
    return minimum_detectable_effect(of.seed_sd, of.seeds, of.item_error, alpha, power)


def interim(of: Estimate, baseline_value: float, declared: Primary, seeds: int) -> Verdict:
    """No verdict, but the estimate so far."""
    size = _size(of, baseline_value, question(declared))
    sentence = (
        f"Interim, no verdict: {of.seeds} of {seeds} declared seeds are complete in both arms, and"
        f" show {size}. Stopping a study when it looks good"
        " inflates false findings."
    )
    return Verdict("interim", sentence, None)


ROUNDING = 1e-12
"""Sums of figures that cancel leave less than this."""


def number(value: float, signed: bool = False) -> str:
    """Three significant digits, never in scientific notation; what only rounding made is 0."""
    value = 0.0 if abs(value) < ROUNDING else value
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if signed else ''}.{digits}f}"


def _size(of: Estimate, baseline_value: float, asked: Question) -> str:
    percent = f", {abs(of.value / baseline_value):.2%}" if baseline_value else ""
    return (
        f"{number(abs(of.value))} {asked.unit}{percent}"
        f" {'less' if of.value < 0 else 'more'} ({1 - asked.alpha:.0%} interval of the"
        f" difference {number(of.low, True)} to {number(of.high, True)})"
    )
