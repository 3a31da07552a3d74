"""Proxy metrics: how well each metric decides between the arms of a study.

Rows have the signal-to-noise ratio of each metric at each size (:mod:`ablations.stats.decisions`),
and how well its order of arms predicts its order, and the primary endpoint's, at the largest size.
"""

from collections.abc import Sequence

from ablations.analyses import ladder
from ablations.contrasts import endpoints
from ablations.stats import decisions
from ablations.study_files.metrics import BITS_PER_BYTE, GOLD_BITS, GOLD_PROBABILITY
from ablations.study_files.results import Run, Study
from ablations.study_files.table import Row

KINDS = {
    endpoints.GOLD: "loss of right answers",
    GOLD_BITS: "loss of right answers",
    GOLD_PROBABILITY: "probability of right answers",
    BITS_PER_BYTE: "loss on text",
}
"""What an average or metric measures; all others are scores."""


def table(study: Study, sizes: Sequence[str], run: Run) -> list[Row]:
    """A row for each size and endpoint; at each size, the highest ratio first.

    A row covers the arms with runs at its size; there is none for fewer than two arms or seeds.
    ``own_…`` and ``primary_…`` are decision accuracies. ``run`` is any: all have the same items.
    """
    alpha, primary = study.declared.primary.alpha, study.declared.primary.endpoint
    shots = study.declared.shots
    tasks = [f"task/{t}/{metric}/{n}" for n in shots for t, metric in endpoints.rows_with(run, n)]
    names = [*endpoints.heldout_of(run, study.declared.heldout)]
    names += [*endpoints.averages_of(run, shots), *tasks]
    rows: list[Row] = []
    for size in sizes:
        arms = ladder.arms_at(study, [size])
        common = ladder.arms_at(study, [size, sizes[-1]])
        here: list[Row] = []
        for name in names:
            scores = ladder.scores(study, size, arms, name)
            ratio = decisions.signal_to_noise(scores, alpha) if scores else None
            if ratio is None:
                continue
            row: Row = {"variant": size, "endpoint": name, "kind": kind(name), "arms": len(arms)}
            row |= vars(ratio)
            for column, target in (("own", name), ("primary", primary)):
                pair = (size, name), (sizes[-1], target)
                row |= {f"{column}_{k}": v for k, v in _decision(study, pair, common).items()}
            here.append(row)
        rows += sorted(here, key=lambda row: -row["ratio"])
    return rows


def kind(endpoint: str) -> str:
    """What an endpoint measures, in words."""
    first, *rest = endpoint.split("/")
    if first == "heldout":
        return "loss on text"
    return next((KINDS[word] for word in rest if word in KINDS), "score")


def _decision(
    study: Study, pair: Sequence[tuple[str, str]], arms: Sequence[str]
) -> dict[str, int | float | None]:
    """How well the order at one (size, endpoint) predicts another; None if the same."""
    scores = [ladder.scores(study, size, arms, name) for size, name in pair]
    known = [each for each in scores if each is not None]
    if pair[0] == pair[1] or len(arms) < 2 or len(known) < 2:
        return dict.fromkeys(("right", "of", "low", "high"))
    decision = decisions.decide(known, study.declared.primary.alpha)
    counts = {"right": decision.kept, "of": decision.pairs}
    return counts | {"low": decision.low, "high": decision.high}
