"""The crossover in a study of numbers of passes or tokens: rows and notes."""

import numpy as np

from ablations.contrasts import endpoints
from ablations.contrasts.axis import axis_of
from ablations.contrasts.pairing import sample
from ablations.contrasts.verdict import number
from ablations.stats import inference
from ablations.stats.crossover import Crossover, crossing
from ablations.study_files.results import Primary, Study
from ablations.study_files.table import Row

AXES = ("passes", "tokens")
"""Variant axes (``passes=4.0``) along which compute grows or text gets scarce."""


def analyse(study: Study) -> tuple[list[Row], list[str]]:
    """The primary difference along the axis, and notes on where its sign changes.

    Empty for other studies.
    """
    axis = axis_of(study.declared.variants)
    if axis is None or axis[0] not in AXES:
        return [], []
    name, numbers = axis
    primary = study.declared.primary
    places = sorted(study.declared.variants, key=numbers.__getitem__)
    runs = [
        [study.seeds(arm, place) for arm in (primary.treatment, primary.baseline)]
        for place in places
    ]
    seeds = sorted(set.intersection(*(set(by_seed) for pair in runs for by_seed in pair)))
    if len(places) < 2 or len(seeds) < 2:
        return [], ["A crossover needs two points of the axis and two seeds that all arms have."]
    pairs = [
        inference.paired(*([sample(study, by_seed[seed]) for seed in seeds] for by_seed in pair))
        for pair in runs
    ]
    x = np.array([numbers[place] for place in places])
    values = np.stack([by_seed for by_seed, _ in pairs])
    moves = [np.stack(by_seed) for by_seed in zip(*(by_seed for _, by_seed in pairs), strict=True)]
    result = crossing(x, values, moves, primary.alpha)
    rows: list[Row] = []
    for place, pair in zip(places, pairs, strict=True):
        of = inference.estimate(*pair, primary.alpha)
        row: Row = {"axis": name, "at": numbers[place], "seeds": len(seeds)}
        rows.append(row | {"difference": of.value, "low": of.low, "high": of.high})
    return rows, sentences(result, name, primary)


def sentences(result: Crossover, axis: str, primary: Primary) -> list[str]:
    gain = endpoints.gain(primary.endpoint)
    ahead, behind = primary.treatment, primary.baseline
    if gain * result.start.value < 0:
        ahead, behind = behind, ahead
    on = f"on {endpoints.in_a_sentence(primary.endpoint)}"
    span = f"{_amount(result.first)} to {_amount(result.last)} {axis}"
    low = "before" if result.low is None else _amount(result.low)
    high = "beyond" if result.high is None else _amount(result.high)
    interval = f"{1 - primary.alpha:.0%} interval {low} to {high}"
    if result.low is None or result.high is None:
        interval += " what was run"
    if result.at is not None:
        sentence = f"{behind} overtakes {ahead} {on} at {_amount(result.at)} {axis} ({interval})."
    elif result.possible:
        sentence = (
            f"No crossover {on} from {span}: by the line {ahead} is ahead throughout, but a"
            f" crossover is not excluded ({interval}). Nothing is known beyond the range"
            " that was run."
        )
    else:
        sentence = (
            f"No crossover {on} from {span}: {ahead} is ahead throughout, by"
            f" {number(abs(result.start.value))} to {number(abs(result.end.value))}"
            f" {endpoints.unit(primary.endpoint)}. Nothing is known beyond the range that was run."
        )
    if not result.bends:
        return [sentence]
    at = ", ".join(map(_amount, result.bends))
    bent = f"The differences leave the line in log {axis} at {at}: read the crossover off them."
    return [sentence, bent]


def _amount(value: float) -> str:
    """A whole number from 1,000 on, else three digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
