"""Pair the evaluations of several models item by item, or report why they cannot be paired."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablations.samples.log import Evaluation, TaskLog
from ablations.samples.scores import Score
from ablations.stats.inference import Stratum
from ablations.study_files.metrics import GUESSED
from ablations.study_files.table import Row

POINTS = "points"

LESS_IS_BETTER = ("bits_per_byte", "brier_score", "ter", "wer")
"""Besides perplexities, if the harness does not say (``higher_is_better``)."""

Arms = Mapping[str, Sequence[Evaluation]]
"""Evaluations by arm, one per run (training seed), paired in order."""


@dataclass(frozen=True)
class Measure:
    """A metric of a task in all runs. ``clusters`` [items] numbers the passages from 0.

    ``scores`` and ``chance`` are in ``unit``, ``reported`` in the harness's.
    """

    task: str
    metric: str
    filter: str
    shots: str
    version: str
    unit: str
    gain: int
    documents: Sequence[int]
    clusters: npt.NDArray[np.int64]
    passages: str | None
    binary: bool
    chance: float | None
    scores: Mapping[str, Sequence[Score]]
    reported: Mapping[str, Sequence[float]]

    @property
    def label(self) -> str:
        """Task and metric, with the filter if any, and the unit of a perplexity."""
        more = [] if self.filter == "none" else [self.filter]
        if "perplexity" in self.metric:
            more.append(f"in {self.unit}")
        return " ".join([self.task, self.metric, *([f"({', '.join(more)})"] if more else [])])

    def stratum(self, arm: str, run: int, weight: float = 1.0) -> Stratum:
        """One run's sums over each passage."""
        score = self.scores[arm][run]
        numerator, denominator = (
            np.bincount(self.clusters, part).astype(np.float64)
            for part in (score.numerator, score.denominator)
        )
        return Stratum(self.label, weight, numerator, denominator)


@dataclass(frozen=True)
class Paired:
    """Comparable measures in the order of tasks, and others with reasons."""

    arms: Sequence[str]
    runs: int
    measures: Sequence[Measure]
    left_out: Sequence[Row]
    notes: Sequence[str]


def pair(arms: Arms, tasks: Sequence[str] = (), any_prompts: bool = False) -> Paired:
    """Pair evaluations by run and item, on ``tasks`` or all that every run has.

    Raises:
        ValueError: arms have different numbers of runs, no task is shared, or a task was evaluated
            on different items, shots, versions or, without ``any_prompts``, prompts.
    """
    counts = {arm: len(evaluations) for arm, evaluations in arms.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{arm} has {n}" for arm, n in counts.items())
        raise ValueError(f"runs are paired in order, and {text}: give the same number for each")
    named = [(arm, evaluation) for arm, evaluations in arms.items() for evaluation in evaluations]
    everywhere = [t for t in named[0][1].tasks if all(t in e.tasks for _, e in named)]
    for task in tasks:
        if task not in everywhere:
            lacking = next((e.place for _, e in named if task not in e.tasks), None)
            raise ValueError(f"{lacking} has no samples of {task}: take it out of tasks=[…]")
    left_out: list[Row] = []
    some = dict.fromkeys(t for _, e in named for t in e.tasks if t not in everywhere)
    for task in some if not tasks else ():
        lacking = next(e.place for _, e in named if task not in e.tasks)
        left_out.append(_reason(task, None, None, f"{lacking} has no samples of it"))
    chosen = list(tasks) or everywhere
    if not chosen:
        text = "; ".join(f"{e.place} has {', '.join(e.tasks)}" for _, e in named)
        raise ValueError(f"no task was evaluated in every run: {text}")
    measures: list[Measure] = []
    for task in sorted(chosen):
        _check_same(task, arms, any_prompts)
        found = list(_measures(task, arms))
        measures += [of for of in found if isinstance(of, Measure)]
        left_out += [of for of in found if not isinstance(of, Measure)]
    if not measures:
        text = "; ".join(f"{r['task']} {r['metric']}: {r['reason']}" for r in left_out)
        raise ValueError(f"nothing can be compared: {text}")
    notes = _notes([evaluation for _, evaluation in named], chosen, any_prompts)
    return Paired(list(arms), len(named) // len(arms), measures, left_out, notes)


def _check_same(task: str, arms: Arms, any_prompts: bool) -> None:
    first, *others = (e for evaluations in arms.values() for e in evaluations)
    reference = first.tasks[task]
    for other in others:
        log = other.tasks[task]
        differ = f"{task} cannot be paired: {other.place} and {first.place} have different"
        choose = "or choose others with tasks=[…]"
        for attribute, mine, theirs in (
            ("task versions", log.version, reference.version),
            ("numbers of shots", log.shots, reference.shots),
        ):
            if mine != theirs:
                raise ValueError(
                    f"{differ} {attribute} ({mine} and {theirs}): evaluate both the same way,"
                    f" {choose}"
                )
        if unshared := set(log.documents) ^ set(reference.documents):
            raise ValueError(
                f"{differ} items ({len(log.documents)} and {len(reference.documents)}; only one"
                f" has item {min(unshared)}): give both the same --limit or --samples, {choose}"
            )
        for name, attribute in (("doc_hash", "items"), ("target_hash", "right answers")):
            if (item := _first_other(log, reference, name)) is not None:
                raise ValueError(
                    f"{differ} {attribute} (the {name} of item {item} differs): evaluate both on"
                    f" the same data, {choose}"
                )
    for first, *others in zip(*arms.values(), strict=True) if not any_prompts else ():
        for other in others:
            item = _first_other(other.tasks[task], first.tasks[task], "prompt_hash")
            if item is not None:
                why = _prompting(other, first)
                raise ValueError(
                    f"{task} cannot be paired: {other.place} and {first.place} were asked"
                    f" with different prompts (the prompt_hash of item {item} differs{why}):"
                    " evaluate both the same way, or set allow_different_prompts=true"
                )


def _first_other(log: TaskLog, reference: TaskLog, name: str) -> int | None:
    pairs = zip(log.documents, log.hashes[name], reference.hashes[name], strict=True)
    return next((item for item, mine, theirs in pairs if mine != theirs), None)


def _prompting(one: Evaluation, other: Evaluation) -> str:
    differ = [
        name.removesuffix("_sha").replace("_", " ")
        for name, value in one.prompting.items()
        if value != other.prompting[name]
    ]
    return f"; {' and '.join(differ)} differ" if differ else ""


def _measures(task: str, arms: Arms) -> Iterator[Measure | Row]:
    logs = {arm: [e.tasks[task] for e in per_arm] for arm, per_arm in arms.items()}
    flat = [log for per_arm in logs.values() for log in per_arm]
    reference = flat[0]
    _, clusters = np.unique(reference.clusters, return_inverse=True)
    for key in reference.scores:
        metric, name = key
        by_arm = {arm: [log.scores.get(key) for log in per_arm] for arm, per_arm in logs.items()}
        every = [score for per_arm in by_arm.values() for score in per_arm]
        reason = next((s for s in every if isinstance(s, str)), None)
        if any(score is None for score in every):
            reason = "not every run has it"
        elif len({score.unit for score in every if isinstance(score, Score)}) > 1:
            reason = "runs aggregate it in different ways"
        elif clusters.max() < 1:
            reason = "it has a single item or passage, so it has no standard error"
        if reason is not None:
            yield _reason(task, metric, name, reason)
            continue
        scores = {a: [s for s in per_arm if isinstance(s, Score)] for a, per_arm in by_arm.items()}
        values = np.concatenate([s.numerator for per_arm in scores.values() for s in per_arm])
        unit = scores[next(iter(arms))][0].unit
        in_points = not unit and values.min() >= 0 and values.max() <= 1
        factor = 100 if in_points else 1
        up = not unit and reference.higher_is_better.get(
            metric, metric not in LESS_IS_BETTER and "perplexity" not in metric
        )
        guess = reference.chance if metric in GUESSED else None
        yield Measure(
            task=task,
            metric=metric,
            filter=name,
            shots=reference.shots,
            version=reference.version,
            unit=POINTS if in_points else unit or metric,
            gain=1 if up else -1,
            documents=reference.documents,
            clusters=clusters,
            passages=reference.passages,
            binary=bool(in_points and np.isin(values, (0.0, 1.0)).all()),
            chance=None if guess is None else 100 * float(guess.mean()),
            scores={
                a: [Score(factor * s.numerator, s.denominator, s.unit) for s in per_arm]
                for a, per_arm in scores.items()
            },
            reported={a: [log.reported[key] for log in per_arm] for a, per_arm in logs.items()},
        )


def _reason(task: str, metric: str | None, name: str | None, reason: str) -> Row:
    return {"task": task, "metric": metric, "filter": name, "reason": reason}


def _notes(runs: Sequence[Evaluation], tasks: Sequence[str], any_prompts: bool) -> list[str]:
    notes = []
    versions = sorted({run.version for run in runs})
    if len(versions) > 1:
        notes.append(f"The runs were evaluated by different versions of lm-eval: {versions}.")
    notes += [
        f"{task} was generated with different settings (generation_kwargs)."
        for task in tasks
        if len({run.tasks[task].settings for run in runs}) > 1
    ]
    prompts = [[run.tasks[task].hashes["prompt_hash"] for task in tasks] for run in runs]
    if any_prompts and any(other != prompts[0] for other in prompts):
        notes.append("Prompts differ between models, so a difference may be due to prompts.")
    return notes
