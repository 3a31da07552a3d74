"""Metrics of predicted grades: rank correlation, error, confusion, and agreement of labels.

All documents weigh the same: the labelled sample is assumed to represent the text to be scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.evaluation import metrics
from quality_classifier.evaluation.metrics import Estimate
from winnow.text.groups import LENGTHS, NONE, length

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

SHOWN = 10
"""Groups of fewer held-out documents get no row."""


def spearman(a: FloatArray, b: FloatArray, weight: FloatArray | None = None) -> float:
    """:func:`metrics.spearman`, or 0 if an input is constant."""
    return metrics.spearman(a, b, weight) or 0.0


def interval(
    figure: Callable[[Rows], float], n: int, replicates: int, seed: int, group: Rows | None = None
) -> Estimate:
    """The statistic ``figure`` of n rows, with a bootstrap interval.

    The bootstrap resamples rows or, given ``group`` (int64 [n] in 0, 1, …), whole groups.
    """
    rng = np.random.default_rng(seed)
    groups = n if group is None else int(group.max()) + 1
    members = [np.flatnonzero(group == g) for g in range(groups)] if group is not None else None
    drawn = []
    for _ in range(replicates):
        rows = rng.integers(groups, size=groups)
        drawn.append(figure(np.concatenate([members[g] for g in rows]) if members else rows))
    return Estimate.of(figure(np.arange(n)), drawn)


def agreement(
    label: FloatArray, expected: FloatArray, replicates: int, seed: int
) -> dict[str, dict[str, float]]:
    """Spearman's correlation and mean absolute error of n expected grades, with intervals."""
    figures: dict[str, Callable[[Rows], float]] = {
        "spearman": lambda r: spearman(expected[r], label[r]),
        "mae": lambda r: float(np.abs(expected[r] - label[r]).mean()),
    }
    return {
        name: asdict(interval(figure, len(label), replicates, seed))
        for name, figure in figures.items()
    }


def nearest(value: FloatArray, values: Sequence[float]) -> Rows:
    """The nearest of K ascending grades to each of n values; ties round up: int64 [n]."""
    middles = (np.array(values[:-1]) + np.array(values[1:])) / 2
    return np.searchsorted(middles, value, side="right")


def confusion(label: FloatArray, expected: FloatArray, values: Sequence[float]) -> list[list[int]]:
    """Documents by the grade nearest to their label (row) and to the expected one (column)."""
    counts = np.zeros((len(values), len(values)), np.int64)
    np.add.at(counts, (nearest(label, values), nearest(expected, values)), 1)
    return counts.tolist()


def reliability(reached: FloatArray, target: FloatArray) -> list[list[dict[str, float]]]:
    """The points of a reliability diagram for each grade but the lowest.

    ``reached`` is P(grade k or more), float64 [n, K - 1]; labels reach it if ``target`` >= 0.5.
    """
    ones = np.ones(len(reached))
    return [
        metrics.reliability(reached[:, k].astype(np.float32), target[:, k] >= 0.5, ones)
        for k in range(reached.shape[1])
    ]


def by_group(
    test: pa.Table, columns: Sequence[str], positive: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Agreement by source, length and further columns, for values with SHOWN documents or more.

    ``test`` has ``label``, ``expected_grade``, ``quality_score``, ``bytes`` (for ``length``) and
    the columns; ``positive`` (bool [n]) marks labels that reach the grade of the score.
    """
    label = test["label"].to_numpy()
    expected = test["expected_grade"].to_numpy().astype(np.float64)
    score = test["quality_score"].to_numpy().astype(np.float64)
    rows = []
    for column in columns:
        values = length(test["bytes"].combine_chunks()) if column == "length" else test[column]
        names = np.array([v if v is not None else "" for v in values.to_pylist()], np.str_)
        for name in LENGTHS if column == "length" else np.unique(names).tolist():
            group = names == name
            if group.sum() < SHOWN:
                continue
            row = {"column": column, "value": name or NONE, "documents": int(group.sum())}
            row["label"] = float(label[group].mean())
            row["expected"] = float(expected[group].mean())
            row["mae"] = float(np.abs(expected[group] - label[group]).mean())
            row["spearman"] = spearman(expected[group], label[group])
            row["positive"] = float(positive[group].mean())
            row["score"] = float(score[group].mean())
            rows.append(row)
    return rows


def sizes(size: FloatArray) -> dict[str, int]:
    """The median and the middle 90 % of n sizes in bytes."""
    low, median, high = np.quantile(size, [0.05, 0.5, 0.95])
    return {"low": int(low), "median": int(median), "high": int(high)}


def label_noise(text: Rows, value: FloatArray, expected: FloatArray) -> dict[str, Any] | None:
    """Agreement of two labels of a document, and of a label with the classifier.

    Averaged over all ordered pairs of labels, with equal weight per document. ``text`` (int64 [m],
    ascending) is the document of each label and ``value`` (float64 [m]) the label; ``expected``
    (float64 [n]) holds the expected grades. None if no document has two labels.
    """
    first, second, weight = [], [], []
    for members in np.split(np.arange(len(text)), np.flatnonzero(np.diff(text)) + 1):
        k = len(members)
        if k > 1:
            a, b = np.nonzero(~np.eye(k, dtype=bool))
            first.append(members[a])
            second.append(members[b])
            weight.append(np.full(len(a), 1 / len(a)))
    if not first:
        return None
    one, other, share = (np.concatenate(parts) for parts in (first, second, weight))
    documents = len(first)
    classifier = expected[text[one]]
    return {
        "documents": documents,
        "labels": int(sum(len(np.unique(part)) for part in first)),
        "labels_mae": float(share @ np.abs(value[one] - value[other]) / documents),
        "labels_spearman": spearman(value[one], value[other], share),
        "classifier_mae": float(share @ np.abs(value[one] - classifier) / documents),
        "classifier_spearman": spearman(classifier, value[one], share),
    }
