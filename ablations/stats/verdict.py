"""What an interval means, in plain words. Six outcomes, and "the filter hurts" is one of them.

better, worse     the interval excludes 0, and the difference may be of interest
differs slightly  the interval excludes 0 and lies below the smallest difference of interest
no difference     none was found by a study that would have found one of interest
underpowered      none was found, but one of interest could have been missed: too few seeds or
                  documents, or nothing to find (:mod:`ablations.stats.credible`)
interim           a declared seed is missing: stopping early at will inflates false findings
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ablations.results import Primary
from ablations.stats import endpoints
from ablations.stats.inference import Estimate
from ablations.stats.power import minimum_detectable_effect, seeds_needed

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


def judge(
    of: Estimate, baseline_value: float, declared: Primary, doubts: Sequence[str] = ()
) -> Verdict:
    """The verdict on a paired difference, treatment minus baseline.

    With ``doubts`` (:func:`ablations.stats.credible.doubts`) it never claims equivalence.
    """
    unit = endpoints.unit(declared.endpoint)
    gain = endpoints.gain(declared.endpoint)
    size = _size(of, baseline_value, declared)
    on = endpoints.in_a_sentence(declared.endpoint)
    arms = f"{declared.treatment} against {declared.baseline} on {on}"
    if of.seed_error is None:
        return Verdict(
            "underpowered",
            f"Underpowered: {arms} shows {size}, but one seed cannot tell an arm from the luck of"
            " its training; this interval holds the error of the held-out documents alone.",
            None,
        )
    smallest = declared.smallest_difference
    interest = f"the smallest difference of interest ({number(smallest)} {unit})"
    found = minimum_detectable_effect(
        _seed_sd(of), of.seeds, of.item_error, declared.alpha, declared.power
    )
    inside = -smallest < of.low and of.high < smallest
    if doubts and (inside or (of.p >= declared.alpha and found <= smallest)):
        sentence = (
            f"Underpowered: {arms} shows {size}, but that says little about a larger study:"
            f" {'; '.join(doubts)}."
        )
        return Verdict("underpowered", sentence, found, doubts)
    if of.p < declared.alpha:
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
        f" {declared.power:.0%}"
    )
    if inside or found <= smallest:
        what = f"; whatever there is, is below {interest}" if inside else ""
        return Verdict(
            "no difference", f"No difference found: {arms} shows {size}; {could}{what}.", found
        )
    more = seeds_needed(smallest, _seed_sd(of), of.item_error, declared.alpha, declared.power)
    need = (
        f"about {more} seeds would do" if more else "more held-out documents are needed, not seeds"
    )
    return Verdict(
        "underpowered",
        f"Underpowered: {arms} shows {size}; only {could}, and {interest} is less than that:"
        f" {need}.",
        found,
    )


def interim(of: Estimate, baseline_value: float, declared: Primary, seeds: int) -> Verdict:
    """No verdict, but the estimate so far."""
    sentence = (
        f"Interim, no verdict: {of.seeds} of {seeds} declared seeds are complete in both arms, and"
        f" show {_size(of, baseline_value, declared)}. Stopping a study when it looks good"
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


def _size(of: Estimate, baseline_value: float, declared: Primary) -> str:
    percent = f", {abs(of.value / baseline_value):.2%}" if baseline_value else ""
    return (
        f"{number(abs(of.value))} {endpoints.unit(declared.endpoint)}{percent}"
        f" {'less' if of.value < 0 else 'more'} ({1 - declared.alpha:.0%} interval of the"
        f" difference {number(of.low, True)} to {number(of.high, True)})"
    )


def _seed_sd(of: Estimate) -> float:
    assert of.seed_sd is not None  # judged apart, above
    return of.seed_sd
