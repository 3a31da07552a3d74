"""GLaM's claims, one by one, as far as studies test them: seen, not seen, or not to be seen.

The claims are those of Du et al. 2022 (arXiv 2112.06905), sections 6.1 to 6.4: filtered text makes
better models, on tasks that generate and tasks that understand; a mixture of experts is better than
a dense model of equal FLOPs; more experts are better at equal FLOPs; and a mixture needs fewer
tokens. What a study tests is read off its results, not off its name.

The measures of one claim in one study are a family: intervals and findings are adjusted for it
(Holm, with Bonferroni's intervals), and so is what could have been detected.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.contrasts import budgets, credible, endpoints
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
"""Claims, and the named study (``conf/experiment``) that tests each."""

EQUAL_FLOPS = 0.15
"""Relative difference of FLOPs per token up to which models count as equal; GLaM's own differ by
11 % (its 1.7B, and the same with 64 experts)."""

POINTS_OF_INTEREST = 1.0
"""The smallest difference of interest between scores, in points of 100."""

TOKENS_OF_INTEREST = math.log(1.1)
"""The smallest difference of interest between tokens needed: a tenth."""

KINDS = {"nlg": "generation", "nlu": "understanding"}
SEEN, OPPOSITE, NOT_SEEN, BLIND = "seen", "the opposite was seen", "not seen", "could not be seen"


@dataclass(frozen=True)
class Measure:
    """Endpoints of one unit, whose mean is compared; ``name`` is for people."""

    name: str
    of: Sequence[str]

    @property
    def unit(self) -> str:
        """Their unit."""
        return endpoints.unit(self.of[0])

    @property
    def gain(self) -> int:
        """The sign of an improvement."""
        return endpoints.gain(self.of[0])

    def sample(self, study: Study, run: Run) -> Sample:
        """The strata of all its endpoints in one run; their weights sum to 1."""
        return [
            dataclasses.replace(stratum, weight=stratum.weight / len(self.of))
            for name in self.of
            for stratum in endpoints.sample(name, run, study.declared.heldout)
        ]

    def chance(self, run: Run) -> float | None:
        """The score of guessing, in points; None for bits per byte. A written answer has 0."""
        if self.unit == endpoints.BITS:
            return None
        found = []
        for name in self.of:
            kind, *rest = name.split("/")
            shots = rest[-1]
            rows = [(rest[0], rest[1])]
            if kind == "average":
                rows = list(endpoints.rows_of(rest[0], run, shots)[0])
            found += [endpoints.chance(run, task, metric, shots) or 0.0 for task, metric in rows]
        return float(np.mean(found))


@dataclass(frozen=True)
class Tested:
    """A claim as one study tests it: a weighted sum of arms, positive where more is more.

    A contrast has the weights 1 and -1, a slope those of least squares. ``smallest`` scales the
    smallest difference of interest, which is of the whole contrast.
    """

    claim: str
    study: Study
    arms: str
    weights: Mapping[str, float]
    smallest: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether every declared seed of its arms is complete."""
        seeds = set(self.study.declared.seeds)
        return all(set(self.study.seeds(arm)) == seeds for arm in self.weights)


@dataclass(frozen=True)
class Found:
    """What one measure shows, and the smallest difference of interest.

    ``guessing`` says that no arm does better than guessing, ``doubt`` why finding nothing would say
    nothing; None if that is not so.
    """

    name: str
    unit: str
    gain: int
    smallest: float
    estimate: Estimate
    guessing: str | None = None
    doubt: str | None = None


def answers(studies: Sequence[Study]) -> list[Row]:
    """A row for each claim, study that tests it, and measure; a claim without a study says so.

    Empty where no study tests any claim.
    """
    found = [tested for study in studies for tested in tests_of(study)]
    rows: list[Row] = []
    for claim, experiment in CLAIMS.items() if found else ():
        own = [row for tested in found if tested.claim == claim for row in _rows(tested)]
        rows += own or [{"claim": claim, "answer": f"not tested: experiment={experiment} does"}]
    return rows


def tests_of(study: Study) -> Iterator[Tested]:
    """The claims that a study tests at its main variant, by what its runs are."""
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
    elif filters(ours, theirs):
        yield Tested(FILTERED, study, arms, contrast)
        yield Tested(TOKENS, study, arms, contrast)
    elif sparse_against_dense(ours, theirs):
        yield Tested(SPARSE, study, arms, contrast)
        yield Tested(TOKENS, study, arms, contrast)


def filters(ours: Result, theirs: Result) -> bool:
    """Whether ours is a model on text that a score selected, and theirs its twin on all of it."""
    arms = [of.provenance.get("arm", {}) for of in (ours, theirs)]
    rules = [arm.get("definition", {}).get("rule") for arm in arms]
    return (
        ours.model == theirs.model
        and arms[0].get("controls") == arms[1].get("controls")
        and rules[1] == "all"
        and rules[0] not in (None, "all", "random")
    )


def sparse_against_dense(ours: Result, theirs: Result) -> bool:
    """Whether ours has experts that stand idle, theirs none, and both spend equal FLOPs a token."""
    spent = [of.flops / of.tokens for of in (ours, theirs)]
    return (
        ours.parameters_total > ours.parameters_active
        and theirs.parameters_total == theirs.parameters_active
        and abs(spent[0] / spent[1] - 1) <= EQUAL_FLOPS
    )


def measures_of(study: Study, run: Run) -> list[Measure]:
    """The primary endpoint; by kind of task the right answers' bits and the scores; BLiMP."""
    primary = study.declared.primary.endpoint
    found = []
    for shots in study.declared.shots:
        have = endpoints.rows_with(run, shots)
        asked = f" ({shots} shots)" if len(study.declared.shots) > 1 else ""
        for kind, word in KINDS.items():
            tasks = {task for task, _ in AVERAGES[kind]}
            of = [
                f"task/{task}/{metric}/{shots}"
                for task, metric in have
                if task in tasks and metric == GOLD_BITS
            ]
            if of:
                found.append(Measure(f"{word}: right answers of {_number_of(len(of))}{asked}", of))
            if rows := endpoints.rows_of(kind, run, shots)[0]:
                name = f"average/{kind}/{shots}"
                found.append(Measure(f"{word}: scores of {_number_of(len(rows))}{asked}", [name]))
        if ("blimp", "accuracy") in have:
            found.append(Measure(f"BLiMP{asked}", [f"task/blimp/accuracy/{shots}"]))
    first = Measure(endpoints.label(primary), [primary])
    return [first, *(measure for measure in found if measure.of != first.of)]


def combined(tested: Tested, measure: Measure) -> Estimate | None:
    """The weighted sum of a measure over arms, on the seeds that all have; None without any."""
    study = tested.study
    runs = {arm: study.seeds(arm) for arm in tested.weights}
    seeds = sorted(set.intersection(*(set(of) for of in runs.values())))
    if not seeds:
        return None
    settled = study.settled
    if settled and settled.by and list(tested.weights.values()) == [1.0, -1.0]:
        first, second = tested.weights
        own_text = list(measure.of) == [settled.by]
        gain = endpoints.gain(settled.by) if own_text else None
        take = functools.partial(measure.sample, study)
        return of_bests(study, (first, second), seeds, take, gain)
    values = np.zeros(len(seeds))
    moves: list[inference.FloatArray] = []
    for arm, weight in tested.weights.items():
        samples = [measure.sample(study, runs[arm][seed]) for seed in seeds]
        values += weight * np.array([inference.endpoint(sample) for sample in samples])
        own = [weight * np.stack(of) for of in zip(*map(inference.influence, samples), strict=True)]
        moves = [a + b for a, b in zip(moves, own, strict=True)] if moves else own
    return inference.estimate(values, moves, study.declared.primary.alpha)


def log_tokens(ours: Curve, theirs: Curve, sources: Sequence[str]) -> float:
    """Log of the tokens that ours needs over those of theirs, to the best level that both reach.

    nan where one has passed it before its first evaluation.
    """
    best = [
        np.minimum.accumulate(np.mean([curve.heldout[source] for source in sources], axis=0))
        for curve in (ours, theirs)
    ]
    level = max(float(of[-1]) for of in best)
    logs = [
        budgets.log_tokens_to(curve.tokens, of, level)
        for curve, of in zip((ours, theirs), best, strict=True)
    ]
    return logs[0] - logs[1]


def answer(found: Found, adjusted: inference.Adjusted, family: int, study: Study) -> str:
    """What a measure says of its claim, one of ``family`` measures."""
    of, primary, least = found.estimate, study.declared.primary, found.smallest
    if found.guessing:
        return f"{BLIND}: {found.guessing}"
    if of.seed_sd is None:
        return f"{BLIND}: one seed cannot tell an arm from the luck of its training"
    if adjusted.rejected:
        inside = -least < adjusted.low and adjusted.high < least
        word = SEEN if found.gain * of.value > 0 else OPPOSITE
        return f"{word}, but less than matters ({number(least)})" if inside else word
    if found.doubt:
        return f"{BLIND}: {found.doubt}"
    least_seen = power.minimum_detectable_effect(
        of.seed_sd, of.seeds, of.item_error, primary.alpha / family, primary.power
    )
    if least_seen <= least or (-least < adjusted.low and adjusted.high < least):
        return NOT_SEEN
    return f"{BLIND}: less than {number(least_seen)} would be missed, and {number(least)} matters"


def _number_of(tasks: int) -> str:
    return "1 task" if tasks == 1 else f"{tasks} tasks"


def _rows(tested: Tested) -> list[Row]:
    study = tested.study
    run = next(iter(study.seeds(next(iter(tested.weights))).values()))
    found = list(_tokens(tested) if tested.claim == TOKENS else _measured(tested, run))
    models = [next(iter(study.seeds(arm).values())).result.model for arm in tested.weights]
    about: Row = {"claim": tested.claim, "arms": tested.arms}
    about["model"] = ", ".join(dict.fromkeys(models))
    adjusted = inference.holm([of.estimate for of in found], study.declared.primary.alpha)
    rows = []
    for of, holm in zip(found, adjusted, strict=True):
        row: Row = {**about, "measured_on": of.name, "seeds": of.estimate.seeds}
        numbers = {"difference": of.estimate.value, "low": holm.low, "high": holm.high}
        if tested.claim == TOKENS:
            numbers = {name: math.exp(value) for name, value in numbers.items()}
        row |= numbers | {"unit": of.unit}
        row["answer"] = (
            answer(of, holm, len(found), study)
            if tested.whole
            else "interim, no answer: a declared seed is not complete"
        )
        rows.append(row)
    return rows


def _measured(tested: Tested, run: Run) -> Iterator[Found]:
    study, primary = tested.study, tested.study.declared.primary
    runs = [study.seeds(arm) for arm in tested.weights]
    doubts = credible.doubts(study, runs[0], runs[-1])
    for measure in measures_of(study, run):
        of = combined(tested, measure)
        if of is None:
            continue
        guessing = None
        if (chance := measure.chance(run)) is not None:
            own = [
                inference.mean([measure.sample(study, each) for each in seeds.values()])
                for seeds in runs
            ]
            if all(each.low <= chance for each in own):
                guessing = f"every arm is at the level of guessing, {number(chance)}"
        bits = measure.unit == endpoints.BITS
        least = primary.smallest_difference if bits else POINTS_OF_INTEREST
        yield Found(
            measure.name,
            measure.unit,
            measure.gain,
            least * tested.smallest,
            of,
            guessing,
            doubts[0] if doubts else None,
        )


def _tokens(tested: Tested) -> Iterator[Found]:
    """Tokens to the same loss on the primary endpoint, if it is held-out text with curves."""
    study, declared = tested.study, tested.study.declared
    kind, _, name = declared.primary.endpoint.partition("/")
    ours, theirs = (study.seeds(arm) for arm in tested.weights)
    sources = declared.heldout.get(name, [name])
    logs = []
    for seed in sorted(ours.keys() & theirs.keys()) if kind == "heldout" else ():
        one, other = ours[seed].curve, theirs[seed].curve
        if (
            one is None
            or other is None
            or not {*sources} <= one.heldout.keys() & other.heldout.keys()
        ):
            return
        logs.append(log_tokens(one, other, sources))
    if len(logs) < 2 or not np.isfinite(logs).all():
        return
    of = inference.over_seeds(np.array(logs), declared.primary.alpha)
    doubts = credible.doubts(study, ours, theirs)
    label = f"tokens to the same loss on {endpoints.label(declared.primary.endpoint)}"
    doubt = doubts[0] if doubts else None
    yield Found(label, "times the tokens", -1, TOKENS_OF_INTEREST, of, doubt=doubt)


def _per_doubling(study: Study, experts: Mapping[str, float]) -> Tested | None:
    """The least-squares slope over the logarithm of the number of experts."""
    arms = {arm: math.log2(n) for arm, n in experts.items() if n > 0 and study.seeds(arm)}
    if len(set(arms.values())) < 2:
        return None
    names = sorted(arms, key=arms.__getitem__, reverse=True)
    at = np.array([arms[name] for name in names])
    slope = (at - at.mean()) / ((at - at.mean()) ** 2).sum()
    weights = dict(zip(names, slope.tolist(), strict=True))
    return Tested(EXPERTS, study, "each doubling of experts", weights, 1 / float(at[0] - at[-1]))
