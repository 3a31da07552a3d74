"""Fit each kind of classifier to grades: one margin per document.

The calibration split chooses the loss and the penalty by its calibrated log loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from quality_classifier.features.hashed_features import FeatureConfig, hashed_features
from quality_classifier.kinds.calibration import Calibration, likelihoods
from quality_classifier.kinds.contract import Fitting, Labelled, Model
from quality_classifier.kinds.fasttext_model import FastTextModel
from quality_classifier.kinds.fitting import isotonic
from quality_classifier.kinds.linear import HashedLinear

FloatArray = npt.NDArray[np.float64]

_LEAST = 2.0**-24
"""Lower bound of probabilities, as in the metrics."""


@dataclass(frozen=True)
class Graded:
    """n training documents: text and a target for each grade above the lowest
    (float64 [n, K - 1], see :func:`quality_classifier.labels.at_or_above`).
    """

    text: pa.Array
    target: FloatArray


def fit_ordinal(features: sp.csr_array, target: FloatArray, c: float) -> FloatArray:
    """The weights of an ordinal logistic regression: float64 [columns].

    P(grade k or more) = sigmoid(margin - threshold k). The loss is the mean over thresholds of the
    logistic loss, summed over documents ("all-threshold", Rennie and Srebro 2005), with an L2
    penalty of 1 / c; for two grades, that is logistic regression. L-BFGS from zero. ``features``
    are float32 [n, columns], targets float64 [n, K - 1].
    """
    columns, (n, steps) = features.shape[1], target.shape
    transposed = features.T.tocsr()

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        weights, thresholds = parameters[:columns], parameters[columns:]
        z = (features @ weights)[:, None] - thresholds
        value = (np.logaddexp(0, z) - target * z).sum() / (n * steps)
        gap = (expit(z) - target) / (n * steps)
        penalty = weights / (n * c)
        slope = np.concatenate([transposed @ gap.sum(axis=1) + penalty, -gap.sum(axis=0)])
        return float(value + penalty @ weights / 2), slope

    with threadpool_limits(1):
        found = minimize(
            loss,
            np.zeros(columns + steps),
            jac=True,
            method="L-BFGS-B",
            # As in scikit-learn's logistic regression, whose loss is a mean over documents, too.
            options={"maxiter": 1000, "gtol": 1e-4, "ftol": 64 * np.finfo(np.float64).eps},
        )
    return found.x[:columns]


def fit_squared(features: sp.csr_array, target: FloatArray, c: float) -> FloatArray:
    """The weights of a ridge regression of the mean of the target: float64 [columns].

    The target is scaled to a standard deviation of 1, so that ``c`` means the same for any grades.
    """
    grade = target.mean(axis=1)
    model = Ridge(alpha=1 / c, solver="lsqr", tol=1e-6)
    with threadpool_limits(1):
        model.fit(features, (grade - grade.mean()) / grade.std())
    return model.coef_.ravel()


LOSSES = {"ordinal": fit_ordinal, "squared": fit_squared}


def fit_curves(margin: FloatArray, target: FloatArray, method: str) -> tuple[Calibration, ...]:
    """P(grade k or more) as K - 1 monotone functions of the margin that never cross.

    ``sigmoid`` has one slope and a threshold for each grade (McCullagh 1980), with Platt's targets.
    ``isotonic`` is a regression for each grade; they cannot cross, since the regression rises with
    its target. Margins (float64 [n]) and targets ([n, K - 1]) are from outside the training split.

    Raises:
        ValueError: higher margins don't mean higher grades.
    """
    n, steps = target.shape
    if method == "isotonic":
        return tuple(isotonic(margin, target[:, k]) for k in range(steps))
    above = target.sum(axis=0)
    smoothed = target * (above + 1) / (above + 2) + (1 - target) / (n - above + 2)
    scale = margin.std() or 1.0
    # A row for each document and threshold: the margin, and the threshold as one-hot.
    rows = np.concatenate(
        [np.repeat(margin / scale, steps)[:, None], np.tile(-np.eye(steps), (n, 1))], axis=1
    )
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", fit_intercept=False, tol=1e-10)
    with threadpool_limits(1):
        model.fit(
            np.concatenate([rows, rows]),
            np.repeat([True, False], len(rows)),
            sample_weight=np.concatenate([smoothed.ravel(), 1 - smoothed.ravel()]),
        )
    slope, *thresholds = model.coef_[0].tolist()
    return tuple(Calibration(slope / scale, -threshold) for threshold in thresholds)


def log_loss(curves: Sequence[Calibration], margin: FloatArray, target: FloatArray) -> float:
    """The mean of -log P(grade) of n documents; labels between two grades weigh both."""
    reached = np.stack([curve.apply(margin).astype(np.float64) for curve in curves], axis=1)
    surprise = -np.log(np.maximum(likelihoods(reached), _LEAST))
    return float((likelihoods(target) * surprise).sum(axis=1).mean())


def fit_hashed_linear(
    train: Graded, calibration: Graded, how: Fitting
) -> tuple[Model, dict[str, Any]]:
    """Try all LOSSES and ``settings.c`` on the calibration split; ValueError if none ranks it."""
    settings = how.settings
    config = FeatureConfig(settings.log2_buckets, settings.max_ngram)
    learnt, chosen = (hashed_features(split.text, config) for split in (train, calibration))
    compact, columns = used_columns(learnt)
    best: tuple[float, npt.NDArray[np.float32]] | None = None
    trials = []
    for loss, fit in LOSSES.items():
        how.say(f"fitting {len(train.text):,} documents, {loss} loss, c = {list(settings.c)}")
        for c in sorted(settings.c):
            weights = spread(fit(compact, train.target, c), columns, config.buckets)
            margin = chosen @ weights.astype(np.float64)
            try:
                curves = fit_curves(margin, calibration.target, how.method)
            except ValueError:  # a useless fit; others may be better
                continue
            surprise = log_loss(curves, margin, calibration.target)
            trials.append({"loss": loss, "c": float(c), "log_loss": surprise})
            if best is None or surprise < best[0]:
                best = surprise, weights
    if best is None:
        raise ValueError(
            "no fit ranks the documents of the calibration split better than chance: the words"
            " do not predict the labels, or there are too few"
        )
    return HashedLinear(config, best[1], 0.0), {"trials": trials}


def used_columns(features: sp.csr_array) -> tuple[sp.csr_array, npt.NDArray[np.int64]]:
    """The matrix without all-zero columns, and the indices of the others."""
    columns, indices = np.unique(features.indices, return_inverse=True)
    shape = (features.shape[0], len(columns))
    compact = sp.csr_array((features.data, indices.ravel(), features.indptr), shape=shape)
    return compact, columns.astype(np.int64)


def spread(
    weights: FloatArray, columns: npt.NDArray[np.int64], buckets: int
) -> npt.NDArray[np.float32]:
    """The full table of weights from those of some columns: float32 [buckets]."""
    table = np.zeros(buckets, np.float32)
    table[columns] = weights
    return table


def fit_fasttext(train: Graded, calibration: Graded, how: Fitting) -> tuple[Model, dict[str, Any]]:
    """FastText has neither loss: show it each document once per grade above the lowest.

    The document is good if it reaches the grade, else bad. So fastText learns the logistic
    regression of the mean target, on the number of examples that ``settings.epochs`` asks for.
    """
    steps = train.target.shape[1]
    draw = np.random.default_rng(how.seed).random(len(train.text))
    times = np.floor(train.target.sum(axis=1) + draw).astype(np.int64)  # right on average
    positive = (np.arange(steps) < times[:, None]).ravel()
    rows = np.repeat(np.arange(len(train.text)), steps)
    text = train.text.take(pa.array(rows))
    shown = Labelled(text, positive, np.ones(len(rows)))
    settings = replace(how.settings, epochs=-(-how.settings.epochs // steps))
    model, fitted = FastTextModel.fit(shown, shown, replace(how, settings=settings))
    return model, fitted | {"epochs": settings.epochs}


GRADED: dict[str, Callable[..., tuple[Model, dict[str, Any]]]] = {
    "hashed_linear": fit_hashed_linear,
    "fasttext": fit_fasttext,
}
"""How each kind is fitted to grades."""
