"""Endpoints by name, and how to compute them from a run.

    heldout/GROUP_OR_SOURCE       bits per byte; of a group, the mean over its sources (macro)
    average/nlg/SHOTS             GLaM's averages (nlg, nlu, all) over available rows, in points
    average/gold/SHOTS            bits per byte of the right answers, mean over tasks
    task/TASK/METRIC/SHOTS        one task's score, in points (0 to 100) or bits per byte

SHOTS is a number, or ``few`` for GLaM's number per task; GLaM's three columns are 0, 1 and few.

An endpoint of a run is a list of strata, as in :mod:`ablations.stats.inference`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ablations.contrasts.averages import AVERAGES, Row, split_rows
from ablations.stats.inference import Sample, Stratum
from ablations.study_files import metrics
from ablations.study_files.metrics import GOLD_BITS
from ablations.study_files.results import Run
from ablations.tasks.task import FEW, is_harness, shots_of

GOLD = "gold"
BITS = "bits per byte"
POINTS = "points"


def unit(name: str) -> str:
    """Bits per byte, or points of 100."""
    kind, rest = _split(name)
    if kind == "heldout" or rest[0] == GOLD or (kind == "task" and metrics.in_bits(rest[1])):
        return BITS
    return POINTS


def label(name: str) -> str:
    """An endpoint in words: ``raw web``, ``NLU average, few shots``, ``piqa accuracy, 1 shot``."""
    kind, rest = _split(name)
    if kind == "heldout":
        return _GROUP_LABELS.get(rest[0], rest[0])
    number = "1 shot" if rest[-1] == "1" else f"{rest[-1]} shots"
    if kind == "average":
        return f"{_AVERAGE_LABELS[rest[0]]}, {number}"
    task = rest[0] if is_harness(rest[0]) else rest[0].replace("_", " ")
    return f"{task} {rest[1].replace('_', ' ')}, {number}"


def in_a_sentence(name: str) -> str:
    """An endpoint after "on": ``raw web text``, ``the NLU average, few shots``."""
    return f"{label(name)} text" if name.startswith("heldout/") else f"the {label(name)}"


_GROUP_LABELS = {"unseen": "unseen curated", "known": "known curated", "web": "raw web"}

_AVERAGE_LABELS = {
    "nlg": "NLG average",
    "nlu": "NLU average",
    "all": "average of all tasks",
    GOLD: "bits per byte of right answers",
}


def gain(name: str) -> int:
    """The sign of a difference that is an improvement: -1 if lower is better, else 1."""
    kind, rest = _split(name)
    if kind == "task":
        return metrics.gain(rest[1])
    return -1 if unit(name) == BITS else 1


def sample(name: str, run: Run, groups: Mapping[str, Sequence[str]]) -> Sample:
    """The strata of an endpoint; a ValueError if it does not exist or the run lacks it."""
    kind, rest = _split(name)
    if kind == "heldout":
        sources = groups.get(rest[0], [rest[0]])
        for source in sources:
            if source not in run.documents:
                known = ", ".join(run.documents)
                message = f"no held-out source or group is named {source!r}; there are: {known}"
                raise ValueError(message)
        sums = [run.documents[source] for source in sources]
        weight = 1 / len(sources)
        return [
            Stratum(source, weight, of.numerator, of.denominator)
            for source, of in zip(sources, sums, strict=True)
        ]
    if kind == "task":
        task, metric, shots = rest
        return [_task(run, [(task, metric)], shots, 1.0)]
    average, shots = rest
    rows, _ = rows_of(average, run, shots)
    if not rows:
        raise ValueError(f"{name}: no task of this average was run with {shots} shots")
    # A task that counts twice (SQuADv2) is one stratum of double weight: its rows share items.
    by_task = {task: [row for row in rows if row[0] == task] for task, _ in rows}
    return [_task(run, both, shots, len(both) / len(rows)) for both in by_task.values()]


def rows_with(run: Run, shots: str) -> list[Row]:
    """Every task and metric that a run has with these shots."""
    return [(task, metric) for task, metric, n in run.scores if n == shots_of(task, shots)]


def rows_of(average: str, run: Run, shots: str) -> tuple[Sequence[Row], Sequence[Row]]:
    """The rows of an average that the run has with these shots, and those it lacks."""
    have = rows_with(run, shots)
    if average == GOLD:
        return [row for row in have if row[1] == GOLD_BITS], []
    return split_rows(average, have)


def averages_of(run: Run, shots: Sequence[str]) -> list[str]:
    """The names of all averages with at least one row in a run."""
    names = [(average, n) for n in shots for average in (*AVERAGES, GOLD)]
    return [f"average/{average}/{n}" for average, n in names if rows_of(average, run, n)[0]]


def heldout_of(run: Run, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of all held-out groups, and of the sources that are not a group by themselves."""
    single = {sources[0] for sources in groups.values() if len(sources) == 1}
    names = [*groups, *(source for source in run.documents if source not in {*groups, *single})]
    return [f"heldout/{name}" for name in names]


def chance(run: Run, task: str, metric: str, shots: str) -> float | None:
    """The score of guessing, in points; None where guessing has no meaning."""
    sums = run.scores[task, metric, shots_of(task, shots)]
    total = float(sums.denominator.sum())
    return None if sums.chance is None or total == 0 else 100 * sums.chance / total


def _task(run: Run, rows: Sequence[Row], shots: str, weight: float) -> Stratum:
    """One task as a stratum; several metrics on the same items are averaged."""
    sums = []
    for task, metric in rows:
        if (key := (task, metric, shots_of(task, shots))) not in run.scores:
            raise ValueError(f"task {task!r} was not run with {metric!r} and {shots} shots")
        sums.append(run.scores[key])
    denominator = sums[0].denominator
    if any(not np.array_equal(denominator, other.denominator) for other in sums[1:]):
        raise ValueError(f"the metrics of {rows[0][0]} are over different items: evaluate it again")
    numerator = metrics.scale(rows[0][1]) * np.mean([of.numerator for of in sums], axis=0)
    return Stratum(rows[0][0], weight, numerator, denominator)


def _split(name: str) -> tuple[str, list[str]]:
    kind, *rest = name.split("/")
    parts = {"heldout": 1, "average": 2, "task": 3}.get(kind)
    known = kind != "average" or (rest and rest[0] in (*AVERAGES, GOLD))
    shots_known = kind == "heldout" or rest[-1:] == [FEW] or rest[-1].isdigit()
    if parts != len(rest) or not known or not shots_known:
        raise ValueError(
            f"no endpoint is named {name!r}: write heldout/GROUP, average/nlg/SHOTS (nlg, nlu, all"
            " or gold) or task/TASK/METRIC/SHOTS"
        )
    return kind, rest
