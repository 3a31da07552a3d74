"""GLaM's claims, one by one: confirmed by studies, not seen, or out of reach.

The claims are those of Du et al. 2022 (arXiv 2112.06905), sections 6.1 to 6.4: filtered text makes
better models, on generation and understanding tasks; a mixture of experts is better than a dense
model of equal FLOPs; more experts are better at equal FLOPs; and a mixture needs fewer tokens. What
a study tests follows from its results, not its name.

The measures of one claim in one study are a family: findings, intervals and detectable effects are
adjusted for it (Holm, with Bonferroni intervals).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.contrasts import budgets, endpoints, equivalence
from ablations.contrasts.averages import AVERAGES
from ablations.contrasts.axis import axis_of
from ablations.contrasts.pairing import of_bests
from ablations.contrasts.verdict import number
from ablations.stats import inference, power
from ablations.stats.inference import Estimate, Sample
from ablations.study_files.metrics import GOLD_BITS
from ablations.study_files.results import Curve, Result, Run, Study
from ablations.study_files.table import Row

FILTERED = "Filtered text makes a better model"
SPARSE = "A mixture of experts is better than a dense model of equal FLOPs"
EXPERTS = "More experts are better at equal FLOPs"
TOKENS = "Fewer tokens for the same loss"
CLAIMS = {
    FILTERED: "data_quality",
    SPARSE: "dense_vs_moe",
    EXPERTS: "experts",
    TOKENS: "data_efficiency",
}
"""Claims, and the study (``conf/experiment``) that tests each."""

EQUAL_FLOPS = 0.15
"""The largest relative difference in FLOPs per token; GLaM's two 1.7B models differ by 11 %."""

POINTS_OF_INTEREST = 1.0
"""The smallest difference of interest between scores, in points of 100."""

TOKENS_OF_INTEREST = math.log(1.1)
"""The smallest difference of interest in tokens needed: a tenth."""

KINDS = {"nlg": "generation", "nlu": "understanding"}
SEEN, OPPOSITE, NOT_SEEN, BLIND = "seen", "the opposite was seen", "not seen", "could not be seen"


@dataclass(frozen=True)
class Measure:
    """The mean of endpoints of one unit."""

    name: str
    endpoints: Sequence[str]

    def sample(self, study: Study, run: Run) -> Sample:
        """The strata of all endpoints in one run; their weights sum to 1."""
        return [
            dataclasses.replace(stratum, weight=stratum.weight / len(self.endpoints))
            for name in self.endpoints
            for stratum in endpoints.sample(name, run, study.declared.heldout)
        ]

    def chance(self, run: Run) -> float | None:
        """The chance score, in points; None for bits per byte; 0 for generated answers."""
        if endpoints.unit(self.endpoints[0]) == endpoints.BITS:
            return None
        levels = []
        for name in self.endpoints:
            kind, *rest, shots = name.split("/")
            average = kind == "average"
            rows = endpoints.rows_of(rest[0], run, shots)[0] if average else [(rest[0], rest[1])]
            levels += [endpoints.chance(run, task, metric, shots) or 0.0 for task, metric in rows]
        return float(np.mean(levels))


@dataclass(frozen=True)
class ClaimTest:
    """A claim as one study tests it: a weighted sum of arms.

    Weights are 1 and -1, or a least-squares slope; ``smallest`` scales the difference of interest.
    """

    claim: str
    study: Study
    arms: str
    weights: Mapping[str, float]
    smallest: float = 1.0


@dataclass(frozen=True)
class Measured:
    """One measure's estimate, and its smallest difference of interest.

    ``guessing`` says that no arm beats chance, ``doubt`` why a null result would be meaningless.
    """

    name: str
    unit: str
    gain: int
    smallest: float
    estimate: Estimate
    guessing: str | None = None
    doubt: str | None = None


def answers(studies: Sequence[Study]) -> list[Row]:
    """A row per claim, study and measure, or per untested claim; none if no claim is tested."""
    tests = [tested for study in studies for tested in tests_of(study)]
    rows: list[Row] = []
    for claim, experiment in CLAIMS.items() if tests else ():
        claim_rows = [row for tested in tests if tested.claim == claim for row in _rows(tested)]
        untested: Row = {"claim": claim, "answer": f"not tested: experiment={experiment} does"}
        rows += claim_rows or [untested]
    return rows


def tests_of(study: Study) -> Iterator[ClaimTest]:
    """The claims that a study tests at its main variant, derived from its runs."""
    primary = study.declared.primary
    pair = {arm: study.seeds(arm) for arm in (primary.treatment, primary.baseline)}
    if primary.control or not all(pair.values()):
        return
    ours, theirs = (next(iter(runs.values())).result for runs in pair.values())
    arms = f"{primary.treatment} − {primary.baseline}"
    contrast = {primary.treatment: 1.0, primary.baseline: -1.0}
    axis = axis_of(list(study.declared.arms))
    if axis is not None and axis[0] == "experts":
        if slope := _per_doubling(study, axis[1]):
            yield slope
    elif filters(ours, theirs) or sparse_against_dense(ours, theirs):
        claim = FILTERED if filters(ours, theirs) else SPARSE
        yield from (ClaimTest(name, study, arms, contrast) for name in (claim, TOKENS))


def filters(ours: Result, theirs: Result) -> bool:
    """Whether ours was trained on text selected by score, and theirs is its twin on all text."""
    arms = [result.provenance.get("arm", {}) for result in (ours, theirs)]
    rules = [arm.get("definition", {}).get("rule") for arm in arms]
    twins = ours.model == theirs.model and arms[0].get("controls") == arms[1].get("controls")
    return twins and rules[1] == "all" and rules[0] not in (None, "all", "random")


def sparse_against_dense(ours: Result, theirs: Result) -> bool:
    """Whether ours is sparse, theirs dense, at equal FLOPs per token."""
    sparse = [result.parameters_total > result.parameters_active for result in (ours, theirs)]
    spent = [result.flops / result.tokens for result in (ours, theirs)]
    return sparse == [True, False] and abs(spent[0] / spent[1] - 1) <= EQUAL_FLOPS


def measures_of(study: Study, run: Run) -> list[Measure]:
    """The primary endpoint; bits of right answers and scores by kind of task; BLiMP."""
    primary = study.declared.primary.endpoint
    measures = []
    for shots in study.declared.shots:
        have = endpoints.rows_with(run, shots)
        suffix = f" ({shots} shots)" if len(study.declared.shots) > 1 else ""
        for kind, word in KINDS.items():
            tasks = [task for task, _ in AVERAGES[kind]]
            gold = [task for task, metric in have if task in tasks and metric == GOLD_BITS]
            names = [f"task/{task}/{GOLD_BITS}/{shots}" for task in gold]
            rows = endpoints.rows_of(kind, run, shots)[0]
            for what, count, of in (
                ("right answers", len(names), names),
                ("scores", len(rows), [f"average/{kind}/{shots}"]),
            ):
                tasks_of = "1 task" if count == 1 else f"{count} tasks"
                if count:
                    measures.append(Measure(f"{word}: {what} of {tasks_of}{suffix}", of))
        if ("blimp", "accuracy") in have:
            measures.append(Measure(f"BLiMP{suffix}", [f"task/blimp/accuracy/{shots}"]))
    first = Measure(endpoints.label(primary), [primary])
    return [first, *(measure for measure in measures if measure.endpoints != first.endpoints)]


def combined(tested: ClaimTest, measure: Measure) -> Estimate | None:
    """The weighted sum of a measure over arms, on their common seeds; None without any."""
    study = tested.study
    runs = {arm: study.seeds(arm) for arm in tested.weights}
    seeds = sorted(set.intersection(*map(set, runs.values())))
    if not seeds:
        return None
    chosen = study.chosen
    if chosen and chosen.by and list(tested.weights.values()) == [1.0, -1.0]:
        first, second = tested.weights
        own_text = list(measure.endpoints) == [chosen.by]
        gain = endpoints.gain(chosen.by) if own_text else None
        take = functools.partial(measure.sample, study)
        return of_bests(study, (first, second), seeds, take, gain)
    values = np.zeros(len(seeds))
    moves: list[inference.FloatArray] = []
    for arm, weight in tested.weights.items():
        samples = [measure.sample(study, runs[arm][seed]) for seed in seeds]
        values += weight * np.array(list(map(inference.endpoint, samples)))
        strata = zip(*map(inference.influence, samples), strict=True)
        moved = [weight * np.stack(of_seeds) for of_seeds in strata]
        moves = [a + b for a, b in zip(moves, moved, strict=True)] if moves else moved
    return inference.estimate(values, moves, study.declared.primary.alpha)


def log_tokens(ours: Curve, theirs: Curve, sources: Sequence[str]) -> float:
    """Log ratio of the tokens that ours and theirs need for the best loss that both reach.

    nan if either reaches it before its first evaluation.
    """
    best = [
        np.minimum.accumulate(np.mean([curve.heldout[source] for source in sources], axis=0))
        for curve in (ours, theirs)
    ]
    level = max(float(losses[-1]) for losses in best)
    first, second = (
        budgets.log_tokens_to(curve.tokens, losses, level)
        for curve, losses in zip((ours, theirs), best, strict=True)
    )
    return first - second


def answer(measured: Measured, adjusted: inference.Adjusted, family: int, study: Study) -> str:
    """The answer of a measure to its claim, one of ``family`` measures."""
    estimate, primary, least = measured.estimate, study.declared.primary, measured.smallest
    if measured.guessing:
        return f"{BLIND}: {measured.guessing}"
    if estimate.seed_sd is None:
        return f"{BLIND}: one seed cannot tell an effect from training noise"
    inside = -least < adjusted.low and adjusted.high < least
    if adjusted.rejected:
        word = SEEN if measured.gain * estimate.value > 0 else OPPOSITE
        return f"{word}, but less than matters ({number(least)})" if inside else word
    if measured.doubt:
        return f"{BLIND}: {measured.doubt}"
    noise = estimate.seed_sd, estimate.seeds, estimate.item_error
    effect = power.minimum_detectable_effect(*noise, primary.alpha / family, primary.power)
    if effect <= least or inside:
        return NOT_SEEN
    return f"{BLIND}: less than {number(effect)} would be missed, and {number(least)} matters"


def _rows(tested: ClaimTest) -> list[Row]:
    study = tested.study
    runs = [next(iter(study.seeds(arm).values())) for arm in tested.weights]
    measured = list(_tokens(tested) if tested.claim == TOKENS else _measured(tested, runs[0]))
    models = ", ".join(dict.fromkeys(run.result.model for run in runs))
    about: Row = {"claim": tested.claim, "arms": tested.arms, "model": models}
    complete = all({*study.seeds(arm)} == {*study.declared.seeds} for arm in tested.weights)
    adjusted = inference.holm([each.estimate for each in measured], study.declared.primary.alpha)
    rows = []
    for each, holm in zip(measured, adjusted, strict=True):
        row: Row = {**about, "measured_on": each.name, "seeds": each.estimate.seeds}
        numbers = {"difference": each.estimate.value, "low": holm.low, "high": holm.high}
        if tested.claim == TOKENS:
            numbers = {name: math.exp(value) for name, value in numbers.items()}
        said = answer(each, holm, len(measured), study)
        if not complete:
            said = "interim, no answer: a declared seed is not complete"
        rows.append(row | numbers | {"unit": each.unit, "answer": said})
    return rows


def _measured(tested: ClaimTest, run: Run) -> Iterator[Measured]:
    study, primary = tested.study, tested.study.declared.primary
    runs = [study.seeds(arm) for arm in tested.weights]
    doubts = equivalence.doubts(study, runs[0], runs[-1])
    for measure in measures_of(study, run):
        estimate = combined(tested, measure)
        if estimate is None:
            continue
        guessing = None
        if (chance := measure.chance(run)) is not None:
            samples = [[measure.sample(study, one) for one in of.values()] for of in runs]
            if all(inference.mean(of).low <= chance for of in samples):
                guessing = f"every arm is at the level of guessing, {number(chance)}"
        unit, gain = endpoints.unit(measure.endpoints[0]), endpoints.gain(measure.endpoints[0])
        least = primary.smallest_difference if unit == endpoints.BITS else POINTS_OF_INTEREST
        least *= tested.smallest
        doubt = next(iter(doubts), None)
        yield Measured(measure.name, unit, gain, least, estimate, guessing, doubt)


def _tokens(tested: ClaimTest) -> Iterator[Measured]:
    """Tokens to equal loss on the primary endpoint, if it is held-out text with curves."""
    study, declared = tested.study, tested.study.declared
    kind, _, name = declared.primary.endpoint.partition("/")
    ours, theirs = (study.seeds(arm) for arm in tested.weights)
    sources = declared.heldout.get(name, [name])
    logs = []
    for seed in sorted(ours.keys() & theirs.keys()) if kind == "heldout" else ():
        one, other = ours[seed].curve, theirs[seed].curve
        if not one or not other or not {*sources} <= one.heldout.keys() & other.heldout.keys():
            return
        logs.append(log_tokens(one, other, sources))
    if len(logs) < 2 or not np.isfinite(logs).all():
        return
    estimate = inference.over_seeds(np.array(logs), declared.primary.alpha)
    doubt = next(iter(equivalence.doubts(study, ours, theirs)), None)
    label = f"tokens to the same loss on {endpoints.label(declared.primary.endpoint)}"
    yield Measured(label, "times the tokens", -1, TOKENS_OF_INTEREST, estimate, doubt=doubt)


def _per_doubling(study: Study, experts: Mapping[str, float]) -> ClaimTest | None:
    """The least-squares slope over the logarithm of the number of experts."""
    arms = {arm: math.log2(n) for arm, n in experts.items() if n > 0 and study.seeds(arm)}
    if len(set(arms.values())) < 2:
        return None
    names = sorted(arms, key=arms.__getitem__, reverse=True)
    at = np.array([arms[name] for name in names])
    slope = (at - at.mean()) / ((at - at.mean()) ** 2).sum()
    weights = dict(zip(names, slope.tolist(), strict=True))
    return ClaimTest(EXPERTS, study, "each doubling of experts", weights, 1 / float(at[0] - at[-1]))
