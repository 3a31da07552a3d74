"""The crossover of a study whose variants are numbers of passes or of tokens, in rows and words."""

from collections.abc import Sequence

import numpy as np

from ablations.contrasts import endpoints
from ablations.contrasts.axis import axis_of
from ablations.contrasts.pairing import sample
from ablations.contrasts.verdict import number
from ablations.stats import inference
from ablations.stats.crossover import Crossover, crossing
from ablations.study_files.results import Primary, Study
from ablations.study_files.table import Row

AXES = {"passes": "passes", "tokens": "tokens"}
"""Names of variants (``passes=4.0``) along which compute grows or text gets scarce, in words."""


def crossover(study: Study) -> tuple[list[Row], list[str]]:
    """The primary difference along the axis with where it changes its sign, and notes on it.

    Nothing for a study of another kind, or before two places have two seeds.
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
    seeds = sorted(set.intersection(*(set(of) for pair in runs for of in pair)))
    if len(places) < 2 or len(seeds) < 2:
        return [], ["A crossover takes two places of the axis and two seeds that all arms have."]
    pairs = [
        inference.paired(*([sample(study, of[seed]) for seed in seeds] for of in pair))
        for pair in runs
    ]
    x = np.array([numbers[place] for place in places])
    values = np.stack([of for of, _ in pairs])
    moves = [np.stack(of) for of in zip(*(of for _, of in pairs), strict=True)]
    found = crossing(x, values, moves, primary.alpha)
    rows: list[Row] = []
    for place, (of, influence) in zip(places, pairs, strict=True):
        there = inference.estimate(of, influence, primary.alpha)
        row: Row = {"axis": name, "at": numbers[place], "seeds": len(seeds)}
        rows.append(row | {"difference": there.value, "low": there.low, "high": there.high})
    return rows, sentences(found, AXES[name], primary)


def sentences(found: Crossover, axis: str, primary: Primary) -> list[str]:
    """What was found, in words."""
    gain = endpoints.gain(primary.endpoint)
    ahead, behind = primary.treatment, primary.baseline
    if gain * found.start.value < 0:
        ahead, behind = behind, ahead
    on = f"on {endpoints.in_a_sentence(primary.endpoint)}"
    span = f"{_amount(found.first)} to {_amount(found.last)} {axis}"
    coverage = f"{1 - primary.alpha:.0%} interval"
    low = "before" if found.low is None else _amount(found.low)
    high = "beyond" if found.high is None else _amount(found.high)
    interval = f"{coverage} {low} to {high}"
    if found.low is None or found.high is None:
        interval += " what was run"
    if found.at is not None:
        said = f"{behind} overtakes {ahead} {on} at {_amount(found.at)} {axis} ({interval})."
    elif found.possible:
        said = (
            f"No crossover {on} from {span}: by the line {ahead} is ahead throughout, but a"
            f" crossover is not excluded ({interval}). Beyond what was run nothing is known."
        )
    else:
        said = (
            f"No crossover {on} from {span}: {ahead} is ahead throughout, by"
            f" {number(abs(found.start.value))} to {number(abs(found.end.value))}"
            f" {endpoints.unit(primary.endpoint)}. Beyond what was run nothing is known."
        )
    return [said, *_bent(found.bends, axis)]


def _bent(bends: Sequence[float], axis: str) -> list[str]:
    if not bends:
        return []
    at = ", ".join(map(_amount, bends))
    return [f"The differences leave the line in log {axis} at {at}: read the crossover off them."]


def _amount(value: float) -> str:
    """A whole number from 1,000 on, else three digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
