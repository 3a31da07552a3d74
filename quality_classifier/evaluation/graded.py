"""How well grades are predicted: rank correlation, error, confusion, and how well labels agree.

All documents count the same: the labelled sample is assumed to be like the text to be scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.evaluation import metrics
from quality_classifier.evaluation.metrics import CONFIDENCE, Estimate
from winnow.text.groups import LENGTHS, NONE, length

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

SHOWN = 10
"""Groups of fewer held-out documents have no row of their own."""


def spearman(a: FloatArray, b: FloatArray, weight: FloatArray | None = None) -> float:
    """:func:`metrics.spearman`, 0 if one of the two is constant."""
    return metrics.spearman(a, b, weight) or 0.0


def interval(
    figure: Callable[[Rows], float], n: int, replicates: int, seed: int, group: Rows | None = None
) -> Estimate:
    """A statistic of n rows, with a bootstrap interval.

    Args:
        figure: takes the rows, with repeats.
        n: how many there are.
        replicates: how many samples.
        seed: of the bootstrap.
        group: int64 [n]; rows of a group are drawn together.
    """
    rng = np.random.default_rng(seed)
    members = np.arange(n)[:, None] if group is None else None
    groups = n if group is None else int(group.max()) + 1
    lists = [] if group is None else [np.flatnonzero(group == g) for g in range(groups)]
    drawn = []
    for _ in range(replicates):
        some = rng.integers(groups, size=groups)
        rows = members[some, 0] if members is not None else np.concatenate([lists[g] for g in some])
        drawn.append(figure(rows))
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tails, 1 - tails])
    return Estimate(figure(np.arange(n)), float(low), float(high))


def agreement(
    label: FloatArray, expected: FloatArray, replicates: int, seed: int
) -> dict[str, dict[str, float]]:
    """Spearman's correlation and the mean absolute error of n expected grades, with intervals."""
    return {
        "spearman": asdict(
            interval(lambda r: spearman(expected[r], label[r]), len(label), replicates, seed)
        ),
        "mae": asdict(
            interval(
                lambda r: float(np.abs(expected[r] - label[r]).mean()), len(label), replicates, seed
            )
        ),
    }


def nearest(value: FloatArray, values: Sequence[float]) -> Rows:
    """The nearest of K rising grades to each of n values, the higher of two: int64 [n]."""
    middles = (np.array(values[:-1]) + np.array(values[1:])) / 2
    return np.searchsorted(middles, value, side="right")


def confusion(label: FloatArray, expected: FloatArray, values: Sequence[float]) -> list[list[int]]:
    """Documents by the grade nearest to their label (row) and to the expected one (column)."""
    counts = np.zeros((len(values), len(values)), np.int64)
    np.add.at(counts, (nearest(label, values), nearest(expected, values)), 1)
    return counts.tolist()


def reliability(reached: FloatArray, target: FloatArray) -> list[list[dict[str, float]]]:
    """For each grade but the lowest the points of a reliability diagram.

    Args:
        reached: P(grade k or more), float64 [n, K - 1].
        target: how far labels reach it; from a half on they do.
    """
    ones = np.ones(len(reached))
    return [
        metrics.reliability(reached[:, k].astype(np.float32), target[:, k] >= 0.5, ones)
        for k in range(reached.shape[1])
    ]


def by_group(
    test: pa.Table, columns: Sequence[str], positive: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Agreement by source, length and further columns, for values of SHOWN documents or more.

    Args:
        test: ``label``, ``expected_grade``, ``quality_score``, ``bytes``, and the columns.
        columns: to group by; ``length`` is derived from ``bytes``.
        positive: bool [n], whether the label reaches the grade of the score.
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
            if group.sum() >= SHOWN:
                rows.append(
                    {
                        "column": column,
                        "value": name or NONE,
                        "documents": int(group.sum()),
                        "label": float(label[group].mean()),
                        "expected": float(expected[group].mean()),
                        "mae": float(np.abs(expected[group] - label[group]).mean()),
                        "spearman": spearman(expected[group], label[group]),
                        "positive": float(positive[group].mean()),
                        "score": float(score[group].mean()),
                    }
                )
    return rows


def sizes(size: FloatArray) -> dict[str, int]:
    """The median of n sizes in bytes, and the ends of their middle 90 %."""
    low, median, high = np.quantile(size, [0.05, 0.5, 0.95])
    return {"low": int(low), "median": int(median), "high": int(high)}


def label_noise(text: Rows, value: FloatArray, expected: FloatArray) -> dict[str, Any] | None:
    """How two labels of a document agree, beside how one of them agrees with the classifier.

    Every ordered pair of labels of a document counts, documents with many labels as much as those
    with two. None if no document has two.

    Args:
        text: the document of each of m labels, ascending: int64 [m].
        value: the labels, float64 [m].
        expected: the expected grade of each document, float64 [n].
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
