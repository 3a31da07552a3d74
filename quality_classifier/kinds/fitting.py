"""Fit the weights of the hashed-linear kind, and the calibration of any kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from quality_classifier.kinds.calibration import Calibration

Flags = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

METHODS = ("sigmoid", "isotonic")


@dataclass(frozen=True)
class Examples:
    """The n documents of one split: hashed features float32 [n, buckets], class and weight [n]."""

    features: sp.csr_array
    positive: Flags
    weight: FloatArray


def fit_linear(
    train: Examples, calibration: Examples, cs: Sequence[float], method: str
) -> tuple[npt.NDArray[np.float32], float, list[dict[str, float]]]:
    """Logistic regression, with the penalty of least calibrated loss on the calibration split.

    L-BFGS from zero is bit-for-bit deterministic on one BLAS thread. Returns weights (float32
    [buckets]), bias, and a trial per ``cs``, ascending: ``c``, ``log_loss`` and ``iterations``.
    """
    best: tuple[float, npt.NDArray[np.float32], float] | None = None
    trials = []
    model = LogisticRegression(solver="lbfgs", max_iter=1000)
    with threadpool_limits(1):
        for c in sorted(cs):
            model.set_params(C=c)
            model.fit(train.features, train.positive, sample_weight=train.weight)
            weights = model.coef_[0].astype(np.float32)
            bias = float(model.intercept_[0])
            margin = calibration.features @ weights.astype(np.float64) + bias
            fitted = fit_calibration(margin, calibration.positive, calibration.weight, method)
            loss = calibrated_loss(fitted, margin, calibration.positive, calibration.weight)
            trials.append({"c": c, "log_loss": loss, "iterations": int(model.n_iter_[0])})
            if best is None or loss < best[0]:
                best = loss, weights, bias
    assert best is not None
    return best[1], best[2], trials


def fit_calibration(
    margin: FloatArray, positive: Flags, weight: FloatArray, method: str
) -> Calibration:
    """Calibrate a trained model on the margins of documents outside its training split.

    ``sigmoid`` (Platt 1999) has two parameters and preserves the ranking, so small calibration
    splits suffice. ``isotonic`` fits any monotone curve, but maps ranges of margins to one score.
    It stays off 0 and 1 as if there were one more document of the other class (Laplace), because a
    score of 1 is always kept.

    Margins are float64 [n], ``positive`` bool [n], and weights, which balance the classes, float64
    [n] with mean 1.
    """
    assert method in METHODS
    if method == "isotonic":
        return isotonic(margin, positive, weight)
    # Platt's targets, (n + 1) / (n + 2) and 1 / (n + 2) in place of 1 and 0, keep the slope finite
    # if the classes are separable. A document of target t counts t for one class and 1 - t for the
    # other. ``CalibratedClassifierCV`` fits the same, but refuses weights for a frozen model.
    n_positive, n_negative = weight[positive].sum(), weight[~positive].sum()
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    model.fit(
        np.concatenate([margin, margin])[:, None],
        np.repeat([True, False], len(margin)),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]),
    )
    return Calibration(float(model.coef_[0, 0]), float(model.intercept_[0]))


def isotonic(
    margin: FloatArray, target: Flags | FloatArray, weight: FloatArray | None = None
) -> Calibration:
    """Isotonic regression of n targets in [0, 1] on their margins, kept off 0 and 1."""
    rest = 1 / (len(margin) + 2)
    curve = IsotonicRegression(y_min=rest, y_max=1 - rest)
    curve.fit(margin, target, sample_weight=weight)
    knots = zip(curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist(), strict=True)
    return Calibration(knots=tuple(knots))


def calibrated_loss(
    calibration: Calibration, margin: FloatArray, positive: Flags, weight: FloatArray
) -> float:
    """The weighted log loss of n margins under a calibration."""
    return float(log_loss(positive, calibration.apply(margin), sample_weight=weight))
