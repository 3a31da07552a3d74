"""Evaluate a classifier on unseen sources: leave each source out in turn, on a sample.

Metrics on held-out documents of the training sources are too optimistic. Settings are chosen by how
well the documents of the left-out sources are ranked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from quality_classifier.evaluation import metrics
from quality_classifier.kinds.fitting import fit_calibration
from quality_classifier.splits import CLASSES, SPLITS, Flags, balanced_weights

TRAIN, CALIBRATION, TEST = range(len(SPLITS))

DOCUMENTS = 2500
"""Size of the sample; time and memory grow with its square."""

GROUPS = 10
"""Limit of fits per class; with more sources, several are left out at once."""

COSTLY_GROUPS = 3
"""The same for kinds without the shortcut of :func:`linear_fit`."""

_JITTER = 1e-7

Rows = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Fit = Callable[[float, Rows, FloatArray], FloatArray]
"""From c, the training rows and their weights to the margins of all n documents."""


@dataclass(frozen=True)
class Unseen:
    """The results of the fits.

    ``trials`` has a row per ``c`` with its mean ``roc_auc`` over sources, outside the test split.
    ``rows`` has one per source for the best ``c``: ``class``, ``source``, ``documents``,
    ``roc_auc``, ``mean_score`` and ``keep_rate``.
    """

    trials: list[dict[str, float]]
    rows: list[dict[str, Any]]

    @property
    def c(self) -> float:
        """The best ``c``; ties go to the strongest penalty."""
        return max(self.trials, key=lambda trial: (trial["roc_auc"], -trial["c"]))["c"]


def even_sample(
    source: npt.NDArray[np.str_], positive: Flags, split: npt.NDArray[np.int8], most: int
) -> Rows:
    """Sorted rows of about ``most`` of n documents: the first ones of each source in each split.

    Sources have equal shares, if they have enough documents. Half of the sample trains; a quarter
    each calibrates and tests, since these give the figures. Documents must be in random order.
    """
    key = np.unique(source, return_inverse=True)[1] * 2 + positive
    chosen = []
    for part, room in ((TRAIN, most // 2), (CALIBRATION, most // 4), (TEST, most // 4)):
        inside = np.flatnonzero(split == part)
        sizes = np.bincount(key[inside])
        bounds = np.arange(1, room + 1)
        taken = [np.minimum(sizes, bound).sum() for bound in bounds]
        bound = max(int(np.searchsorted(taken, room, side="right")), 1)
        chosen += [inside[key[inside] == k][:bound] for k in np.flatnonzero(sizes)]
    return np.sort(np.concatenate(chosen))


def groups_to_leave_out(
    source: npt.NDArray[np.str_], positive: Flags, least: int, most: int = GROUPS
) -> list[tuple[bool, list[str]]]:
    """The class and sources left out of each fit, for classes of at least ``least`` (> 1) sources.

    Each source is left out once; a class has at most ``most`` fits.
    """
    groups = []
    for of in CLASSES:
        names = np.unique(source[positive == of]).tolist()
        if len(names) >= max(least, 2):
            count = min(len(names), most)
            groups += [(of, names[k::count]) for k in range(count)]
    return groups


def linear_fit(features: sp.csr_array, positive: Flags, scale: float) -> Fit:
    """Fits with the same margins at a cost of n² instead of the number of buckets.

    With G = X X' = L L' (Cholesky), the rows of L have the same inner products as those of X. Under
    an L2 penalty, weights are a sum of documents (the representer theorem, Schölkopf, Herbrich and
    Smola 2001), so margins depend only on inner products. ``features`` is X, float32 [n, buckets];
    ``scale``, the number of documents that each of the n represents, multiplies c.
    """
    with threadpool_limits(1):
        gram = (features @ features.T).toarray().astype(np.float64)
        points = np.linalg.cholesky(gram + _JITTER * np.eye(len(gram)))
    model = LogisticRegression(solver="lbfgs", max_iter=1000, warm_start=True)

    def fit(c: float, rows: Rows, weight: FloatArray) -> FloatArray:
        with threadpool_limits(1):
            model.set_params(C=c * scale)
            model.fit(points[rows], positive[rows], sample_weight=weight)
            return points @ model.coef_[0] + model.intercept_[0]

    return fit


def leave_sources_out(
    fit: Fit,
    cs: Sequence[float],
    positive: Flags,
    source: npt.NDArray[np.str_],
    split: npt.NDArray[np.int8],
    *,
    least: int,
    most: int,
    method: str,
    source_weight_limit: float,
    alpha: float,
) -> Unseen | None:
    """Train and calibrate without some sources, then score them; each source is left out once.

    All documents of a left-out source are scored and ranked against held-out documents of the
    opposite class: those of the test split for the reported figures, those of the calibration split
    (without the source's test documents) for the choice among ``cs``.

    Documents have a class (``positive``, bool [n]), a ``source`` (n names) and a ``split`` (int8
    [n], see :func:`quality_classifier.splits.assign`). A class needs ``least`` sources and has at
    most ``most`` fits for each c. ``method`` is the calibration's, ``alpha`` the Pareto rule's;
    ``source_weight_limit`` is as in :func:`quality_classifier.splits.balanced_weights`.

    None if no class has that many sources, or none can be left out.
    """

    def can_be_spared(of: bool, names: list[str]) -> bool:
        rest = (positive == of) & ~np.isin(source, names)
        return bool((rest & (split == TRAIN)).any() and (rest & (split == CALIBRATION)).any())

    groups = [g for g in groups_to_leave_out(source, positive, least, most) if can_be_spared(*g)]
    if not groups:
        return None

    def weights(rows: Rows) -> FloatArray:
        return balanced_weights(positive[rows], source[rows], source_weight_limit)

    def auc(margin: FloatArray, rows: Rows) -> float:
        return metrics.roc_auc(margin[rows], positive[rows], weights(rows))

    trials, found = [], {}
    for c in sorted(cs):
        choice: list[float] = []
        rows: list[dict[str, Any]] = []
        for of, names in groups:
            out = (positive == of) & np.isin(source, names)
            learnt, chosen = (np.flatnonzero(~out & (split == s)) for s in (TRAIN, CALIBRATION))
            margin = fit(c, learnt, weights(learnt))
            calibration = fit_calibration(margin[chosen], positive[chosen], weights(chosen), method)
            for name in names:
                own = (positive == of) & (source == name)
                seen = positive != of
                tried = own & (split != TEST)
                if tried.any():
                    tried |= seen & (split == CALIBRATION)
                    choice.append(auc(margin, np.flatnonzero(tried)))
                score = calibration.apply(margin[own])
                row = {"class": CLASSES[of], "source": name, "documents": len(score)}
                row["roc_auc"] = auc(margin, np.flatnonzero(own | (seen & (split == TEST))))
                row["mean_score"] = float(score.mean(dtype=np.float64))
                row["keep_rate"] = float(metrics.expected_keep_rate(score, alpha).mean())
                rows.append(row)
        if not choice:
            return None
        trials.append({"c": float(c), "roc_auc": float(np.mean(choice))})
        found[float(c)] = rows
    return Unseen(trials, found[Unseen(trials, []).c])
