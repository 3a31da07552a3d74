"""The mixture that a swarm proposes, and the outcome of its confirmation, as rows and text."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablations.contrasts import endpoints
from ablations.contrasts.pairing import Contrast, sample
from ablations.contrasts.verdict import interval, number
from ablations.stats import inference, mixtures
from ablations.stats.mixtures import Proposal, Surface
from ablations.study_files.results import FloatArray, Study
from ablations.study_files.table import Row

TABLES = ("mixture", "mixture_runs", "mixture_coefficients")
CANDIDATES = 1000
SMALLEST = 0.005
"""Weights below this are not named in a sentence."""


@dataclass(frozen=True)
class SwarmRegression:
    """The regression over a swarm's n runs of mixtures of k components: ``runs`` (arm and seed),
    ``weights`` [n, k] and ``values`` [n].
    """

    names: Sequence[str]
    runs: Sequence[tuple[str, int]]
    weights: FloatArray
    values: FloatArray
    surface: Surface
    proposal: Proposal


@dataclass(frozen=True)
class Summary:
    """``headline`` is a swarm's, ``conclusion`` what readers may conclude; ``confirmed`` if this
    study has the confirming runs.
    """

    headline: str
    conclusion: str
    confirmed: bool


def matrix(names: Sequence[str], by_run: Sequence[Mapping[str, float]]) -> FloatArray:
    """Mixtures as weights that sum to 1: float64 [n, k]."""
    rows = np.array([[mixture[name] for name in names] for mixture in by_run])
    return rows / rows.sum(axis=1, keepdims=True)


def swarm_runs(study: Study) -> list[dict[str, Any]]:
    """The runs of a swarm: arm, seed, weights, and value on the primary endpoint."""
    swarm = study.declared.swarm
    assert swarm is not None
    if swarm.confirms:
        return [dict(run) for run in swarm.seen]
    return [
        {"arm": key.arm, "seed": key.seed, "value": inference.endpoint(sample(study, run))}
        | {"weights": dict(swarm.mixtures[key.arm])}
        for key, run in study.runs.items()
    ]


def regress(study: Study) -> SwarmRegression | None:
    """The regression of a swarm, or of the one that a study confirms; None until all have run.

    Raises:
        ValueError: too few runs.
    """
    declared, swarm = study.declared, study.declared.swarm
    if swarm is None:
        return None
    runs = swarm_runs(study)
    if not swarm.confirms and len(runs) < len(declared.arms) * len(declared.seeds):
        return None
    names = list(swarm.natural)
    weights = matrix(names, [run["weights"] for run in runs])
    values = np.array([run["value"] for run in runs])
    surface = mixtures.fit(weights, values)
    natural, most = (np.array([*by_name.values()]) for by_name in (swarm.natural, swarm.most))
    chosen = swarm.mixtures.get(declared.primary.treatment) if swarm.confirms else None
    proposal = mixtures.propose(
        surface,
        np.concatenate([weights, mixtures.draw(natural, most, CANDIDATES, 0)]),
        natural / natural.sum(),
        endpoints.gain(declared.primary.endpoint),
        declared.primary.alpha,
        None if chosen is None else matrix(names, [chosen])[0],
    )
    where = [(str(run["arm"]), int(run["seed"])) for run in runs]
    return SwarmRegression(names, where, weights, values, surface, proposal)


def tables(study: Study, regression: SwarmRegression | None) -> dict[str, list[Row]]:
    """The proposal by component, the swarm's runs, and the coefficients."""
    swarm = study.declared.swarm
    if regression is None or swarm is None:
        return {}
    alpha, proposal = study.declared.primary.alpha, regression.proposal
    natural = np.array(list(swarm.natural.values()))
    effect, half = mixtures.effects(regression.surface, natural / natural.sum(), alpha=alpha)
    term, term_half = mixtures.coefficients(regression.surface, alpha)
    weights = regression.weights
    terms = [*regression.names, *map(" × ".join, itertools.combinations(regression.names, 2))]
    return {
        "mixture": [
            {
                "component": name,
                "natural": float(natural[i]),
                "proposed": float(proposal.weights[i]),
                "low": float(proposal.low[i]),
                "high": float(proposal.high[i]),
                "most": float(swarm.most[name]),
                "effect": float(effect[i]),
                "effect_low": float(effect[i] - half[i]),
                "effect_high": float(effect[i] + half[i]),
            }
            for i, name in enumerate(regression.names)
        ],
        "mixture_runs": [
            {"arm": arm, "seed": seed, "value": float(regression.values[i])}
            | {"left_out": float(regression.surface.left_out[i])}
            | {f"weight of {n}": float(w) for n, w in zip(regression.names, row, strict=True)}
            for i, ((arm, seed), row) in enumerate(zip(regression.runs, weights, strict=True))
        ],
        "mixture_coefficients": [
            {"term": name, "value": float(value), "low": float(value - h), "high": float(value + h)}
            for name, value, h in zip(terms, term, term_half, strict=True)
        ],
    }


def describe(
    study: Study, regression: SwarmRegression | None, contrast: Contrast, outcome: str
) -> Summary | None:
    """Headline and conclusion; None for a study without mixtures.

    ``contrast`` is the primary one, ``outcome`` that of its verdict.
    """
    swarm, primary = study.declared.swarm, study.declared.primary
    if swarm is None:
        return None
    if regression is None:
        runs = len(study.declared.arms) * len(study.declared.seeds)
        complete = f"{len(study.runs)} of {runs} runs of the swarm are complete"
        return Summary(f"Nothing is proposed yet: {complete}", "", False)
    proposal, unit = regression.proposal, endpoints.unit(primary.endpoint)
    expected = (
        f"{number(proposal.change, True)} {unit} against the natural mixture,"
        f" {1 - primary.alpha:.0%} interval {interval(proposal.change_low, proposal.change_high)}"
        " whichever mixture is picked"
    )
    mixture = in_words(regression.names, proposal.weights)
    if not swarm.confirms:
        headline = f"No mixture is shown to beat the natural one; the likeliest is {mixture}"
        if proposal.p < primary.alpha:
            headline = f"Proposed: {mixture}; to be confirmed"
        p = f"< {1 / mixtures.DRAWS:g}" if proposal.p == 0 else f"= {proposal.p:.2g}"  # simulated
        conclusion = (
            f"The regression expects {expected} (p {p}). This shows where to look, not that the"
            " mixture is better: it was picked because it looks best, and only confirming runs can"
            " show that it is."
        )
        return Summary(headline, conclusion, False)
    found = contrast.estimate
    meaning = {
        "better": "it is better than the natural mixture",
        "worse": "it is worse than the natural mixture, and the regression was wrong",
        "differs slightly": "the two differ, by less than what matters",
        "no difference": "no difference that matters was found",
    }.get(outcome, "nothing is shown either way yet")
    conclusion = (
        f"The swarm proposed {mixture} and expected {expected}; the runs that confirm it, which had"
        f" no part in the choice, show {number(found.value, True)}"
        f" ({interval(found.low, found.high)}). A reader may conclude that {meaning},"
        " for models of this size after so many tokens."
    )
    return Summary("", conclusion, True)


def notes(regression: SwarmRegression | None, study: Study) -> list[str]:
    if regression is None:
        return []
    proposal, surface = regression.proposal, regression.surface
    left = regression.values - surface.left_out
    spread = ((regression.values - regression.values.mean()) ** 2).sum()
    explained = max(0.0, 1 - float((left**2).sum() / spread))
    notes = [
        f"The regression is a quadratic with {len(surface.coefficients)} coefficients over"
        f" {len(regression.values)} runs, with a residual standard deviation of"
        f" {number(surface.sd)}."
        f" The other runs predict {explained:.0%} of the variance."
        f" {proposal.open:.0%} of the candidate mixtures may be the best."
    ]
    if surface.lack_of_fit is not None and surface.lack_of_fit < study.declared.primary.alpha:
        notes.append(
            f"A quadratic does not fit the swarm (p = {surface.lack_of_fit:.2g}): its interval is"
            " too narrow; look nearer to the natural mixture, or take more runs."
        )
    return notes


def in_words(names: Sequence[str], weights: FloatArray) -> str:
    """A mixture, its largest part first: ``61 % wiki, 39 % web``."""
    order = np.argsort(-weights, kind="stable")
    parts = [f"{100 * weights[i]:.0f}\u00a0% {names[i]}" for i in order if weights[i] >= SMALLEST]
    return ", ".join(parts)
