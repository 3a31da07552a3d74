"""How a classifier would do on a source that it has never met: one fit without each source."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from quality_classifier.evaluation import metrics
from quality_classifier.evaluation.splits import CLASSES, SPLITS, Flags, balanced_weights
from quality_classifier.kinds.fitting import Examples, fit_calibration, fit_linear

TRAIN, CALIBRATION, TEST = range(len(SPLITS))


def leave_one_source_out(
    features: sp.csr_array,
    positive: Flags,
    source: npt.NDArray[np.str_],
    split: npt.NDArray[np.int8],
    c: float,
    method: str,
    source_weight_limit: float,
    alpha: float,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """For each source of several in its class: train and calibrate without it, then score it.

    All its documents are scored, since none has been seen, and set against the held-out documents
    of the opposite class.

    Args:
        features: float32 [n, buckets] of all documents (``hashed_features``).
        positive: bool [n].
        source: n names.
        split: int8 [n], as :func:`quality_classifier.evaluation.splits.assign` gives it.
        c: the inverse strength of the penalty.
        method: of calibration.
        source_weight_limit: see :func:`quality_classifier.evaluation.splits.balanced_weights`.
        alpha: of the Pareto rule, for the expected keep rate.
        say: is told of every fit.

    Returns:
        Rows with ``class``, ``source``, ``documents``, ``roc_auc``, ``mean_score``, ``keep_rate``.
    """

    def examples(rows: npt.NDArray[np.int64]) -> Examples:
        weight = balanced_weights(positive[rows], source[rows], source_weight_limit)
        return Examples(features[rows], positive[rows], weight)

    rows = []
    for of, class_name in CLASSES.items():
        names = np.unique(source[positive == of]).tolist()
        for name in names if len(names) > 1 else ():
            say(f"fitting without {class_name} {name}")
            own = (positive == of) & (source == name)
            train, calibration = (
                examples(np.flatnonzero(~own & (split == part))) for part in (TRAIN, CALIBRATION)
            )
            weights, bias, _ = fit_linear(train, calibration, [c], method)
            table = weights.astype(np.float64)
            fitted = fit_calibration(
                calibration.features @ table + bias,
                calibration.positive,
                calibration.weight,
                method,
            )
            against = np.flatnonzero(own | ((positive != of) & (split == TEST)))
            score = fitted.apply(features[against] @ table + bias)
            weight = balanced_weights(positive[against], source[against], source_weight_limit)
            order = np.argsort(-score, kind="stable")
            figures = metrics.weighted_metrics(
                score[order].astype(np.float64), positive[against][order], weight[None, order]
            )
            unseen = score[own[against]]
            rows.append(
                {
                    "class": class_name,
                    "source": name,
                    "documents": len(unseen),
                    "roc_auc": float(figures["roc_auc"][0]),
                    "mean_score": float(unseen.mean(dtype=np.float64)),
                    "keep_rate": float(metrics.expected_keep_rate(unseen, alpha).mean()),
                }
            )
    return rows
