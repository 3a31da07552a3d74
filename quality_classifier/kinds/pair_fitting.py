"""Fit each kind of classifier to pairs of a better and a worse text: a margin that ranks them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from quality_classifier.features.hashed_features import FeatureConfig, hashed_features
from quality_classifier.kinds.contract import Fitting, Labelled, Model
from quality_classifier.kinds.fasttext_model import FastTextModel
from quality_classifier.kinds.graded_fitting import spread, used_columns
from quality_classifier.kinds.linear import HashedLinear

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """n pairs: t different texts, and the indices of the better and the worse (int64 [n])."""

    text: pa.Array
    better: npt.NDArray[np.int64]
    worse: npt.NDArray[np.int64]

    def won(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The texts of all pairs, int64 [2 n], and whether each is the better one, bool [2 n]."""
        rows = np.concatenate([self.better, self.worse])
        return rows, np.arange(len(rows)) < len(self.better)


def fit_pairs(better: sp.csr_array, worse: sp.csr_array, c: float) -> FloatArray:
    """The weights (float64 [columns]) of P(better wins) = sigmoid(its margin - the other's).

    Logistic regression on the differences of each pair in both orders (Bradley and Terry 1952).
    """
    difference = sp.vstack([better - worse, worse - better], format="csr")
    won = np.repeat([True, False], better.shape[0])
    model = LogisticRegression(C=c / 2, solver="lbfgs", max_iter=1000, fit_intercept=False)
    with threadpool_limits(1):
        model.fit(difference, won)
    return model.coef_[0].astype(np.float64)


def pair_loss(difference: FloatArray) -> float | None:
    """The mean of -log P(better wins) = -log sigmoid(slope * difference) under the best slope.

    ``difference`` is the margin of the better minus that of the worse, float64 [n]. None if the
    slope is not above 0: better texts don't have higher margins.
    """
    both = np.concatenate([difference, -difference])[:, None]
    scale = np.abs(difference).max(initial=0) or 1.0
    # A small penalty keeps the slope finite if every pair is in order.
    model = LogisticRegression(C=100.0, fit_intercept=False, tol=1e-8)
    with threadpool_limits(1):
        model.fit(both / scale, np.repeat([True, False], len(difference)))
    slope = float(model.coef_[0, 0]) / scale
    return float(np.logaddexp(0, -slope * difference).mean()) if slope > 0 else None


def fit_hashed_linear(
    train: Pairs, calibration: Pairs, how: Fitting
) -> tuple[Model, dict[str, Any]]:
    """Try ``settings.c`` on the calibration pairs; ValueError if none ranks them."""
    settings = how.settings
    config = FeatureConfig(settings.log2_buckets, settings.max_ngram)
    compact, columns = used_columns(hashed_features(train.text, config))
    chosen = hashed_features(calibration.text, config)
    how.say(f"fitting {len(train.better):,} pairs, c = {list(settings.c)}")
    best: tuple[float, npt.NDArray[np.float32]] | None = None
    trials = []
    for c in sorted(settings.c):
        learned = fit_pairs(compact[train.better], compact[train.worse], c)
        weights = spread(learned, columns, config.buckets)
        margin = chosen @ weights.astype(np.float64)
        loss = pair_loss(margin[calibration.better] - margin[calibration.worse])
        if loss is not None:
            trials.append({"c": float(c), "log_loss": loss})
            if best is None or loss < best[0]:
                best = loss, weights
    if best is None:
        raise ValueError(
            "no fit ranks the pairs of the calibration split better than chance: the words do"
            " not predict which text is better, or there are too few pairs"
        )
    return HashedLinear(config, best[1], 0.0), {"trials": trials}


def fit_fasttext(train: Pairs, calibration: Pairs, how: Fitting) -> tuple[Model, dict[str, Any]]:
    """FastText has no pairs: show it each text as good where it is better, else as bad."""
    rows, won = train.won()
    shown = Labelled(train.text.take(pa.array(rows)), won, np.ones(len(rows)))
    return FastTextModel.fit(shown, shown, how)


PAIRED: dict[str, Callable[..., tuple[Model, dict[str, Any]]]] = {
    "hashed_linear": fit_hashed_linear,
    "fasttext": fit_fasttext,
}
"""How each kind is fitted to pairs."""
