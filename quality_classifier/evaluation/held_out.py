"""The figures of a classifier's card, computed from scored held-out documents."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quality_classifier.evaluation import metrics
from quality_classifier.evaluation.group_rates import ALL, audit
from quality_classifier.evaluation.splits import CLASSES, SPLITS, balanced_weights

Flags = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
Scores = npt.NDArray[np.float32]
ScoreText = Callable[[pa.Array], Scores]

HISTOGRAM_BINS = 20

SHUFFLED = 1000
"""Documents whose words are shuffled, at most."""

AUDITED_VALUES = 20
AUDITED_DOCUMENTS = 10
"""The card shows at most this many values of a column, and only those of so many documents."""


@dataclass(frozen=True)
class Questions:
    """The settings of the evaluation; see ``conf/classifier/train.yaml``."""

    seed: int
    bootstrap: int
    source_weight_limit: float
    alphas: Sequence[float]
    by: Sequence[str]
    alpha: float
    threshold: float


def evaluate(test: pa.Table, ask: Questions) -> dict[str, Any]:
    """Everything the card says of held-out documents, as JSON values.

    Args:
        test: a row per document: ``positive``, ``source``, ``bytes``, ``quality_score``, and the
            columns to audit by (:class:`quality_classifier.evaluation.group_rates.Audit`).
        ask: what to compute.
    """
    positive = test["positive"].to_numpy()
    source = np.asarray(test["source"].to_pylist(), np.str_)
    score = test["quality_score"].to_numpy()
    size = test["bytes"].to_numpy()
    weight = balanced_weights(positive, source, ask.source_weight_limit)
    return {
        "metrics": per_source_metrics(score, positive, source, ask),
        "reliability": metrics.reliability(score, positive, weight),
        "yield": [
            {"class": name, **row}
            for label, name in CLASSES.items()
            for row in metrics.yields(score[positive == label], size[positive == label], ask.alphas)
        ],
        "histograms": histograms(score, positive, source),
        "audit": {
            name: _most_frequent(
                audit(
                    test.filter(pc.equal(test["positive"], label)), ask.by, ask.alpha, ask.threshold
                )
            )
            for label, name in CLASSES.items()
        },
    }


def per_source_metrics(
    score: Scores, positive: Flags, source: Names, ask: Questions
) -> list[dict[str, Any]]:
    """The metrics of all documents, then of each source against the whole opposite class.

    Both sides weigh the same.
    """
    everything = np.ones(len(score), np.bool_)
    groups: list[tuple[str, str, Flags, Flags]] = [(ALL, ALL, everything, everything)]
    for label, class_name in CLASSES.items():
        for name in np.unique(source[positive == label]).tolist():
            own = (positive == label) & (source == name)
            groups.append((class_name, name, own, own | (positive != label)))
    rows = []
    for class_name, name, own, members in groups:
        weight = balanced_weights(positive[members], source[members], ask.source_weight_limit)
        figures = metrics.evaluate(
            score[members], positive[members], weight, source[members], ask.bootstrap, ask.seed
        )
        rows.append(
            {
                "class": class_name,
                "source": name,
                "documents": int(own.sum()),
                "mean_score": float(score[own].mean(dtype=np.float64)),
                **{metric: asdict(estimate) for metric, estimate in figures.items()},
            }
        )
    return rows


def histograms(score: Scores, positive: Flags, source: Names) -> list[dict[str, Any]]:
    """Documents of each source in HISTOGRAM_BINS equal bins of the score over [0, 1]."""
    rows = []
    for label, class_name in CLASSES.items():
        for name in np.unique(source[positive == label]).tolist():
            own = score[(positive == label) & (source == name)]
            counts = np.histogram(own, HISTOGRAM_BINS, (0, 1))[0]
            rows.append({"class": class_name, "source": name, "documents": counts.tolist()})
    return rows


def shuffled_words(test: pa.Table, score_text: ScoreText, seed: int) -> dict[str, Any]:
    """How much scores change when the words of a document are shuffled.

    A bag of words does not see it, a bag of word pairs hardly does: this says how much. ``auc`` is
    the ROC-AUC of originals against their shuffled copies, 0.5 if scores can't tell them apart.

    Args:
        test: the held-out documents with ``text``, ``positive`` and ``quality_score``, in an order
            that has nothing to do with what they are; the first SHUFFLED are taken.
        score_text: the classifier.
        seed: of the shuffles.
    """
    some = test.slice(0, SHUFFLED)
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.permutation(text.split())) for text in some["text"].to_pylist()]
    after = score_text(pa.array(texts, pa.large_string())).astype(np.float64)
    before = some["quality_score"].to_numpy().astype(np.float64)
    positive = some["positive"].to_numpy()
    order = np.argsort(-np.concatenate([before, after]), kind="stable")
    auc = metrics.weighted_metrics(
        np.concatenate([before, after])[order],
        np.repeat([True, False], len(before))[order],
        np.ones((1, len(order))),
    )["roc_auc"][0]
    return {
        "documents": len(before),
        "auc": float(auc),
        "correlation": float(np.corrcoef(before, after)[0, 1]),
        "mean_change": float(np.abs(after - before).mean()),
        "mean_score": {
            name: {"before": float(before[of].mean()), "after": float(after[of].mean())}
            for name, of in [("positive", positive), ("negative", ~positive)]
        },
    }


def document_counts(duplicates: pa.Table, documents: pa.Table) -> list[dict[str, Any]]:
    """Documents of each class and source: as read, removed, and in each split.

    Args:
        duplicates: the counts of :func:`quality_classifier.evaluation.splits.deduplicate`.
        documents: what it left, with a column ``split``.
    """
    rows = []
    for row in duplicates.to_pylist():
        own = pc.and_(
            pc.equal(documents["positive"], row["positive"]),
            pc.equal(documents["source"], row["source"]),
        )
        split = documents["split"].filter(own).to_numpy()
        used = dict(zip(SPLITS, np.bincount(split, minlength=len(SPLITS)).tolist(), strict=True))
        rows.append({"class": CLASSES[row.pop("positive")], **row, **used})
    return rows


def _most_frequent(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of an audit without rare values."""
    frequent = table.filter(pc.greater_equal(table["documents"], AUDITED_DOCUMENTS))
    seen: dict[str, set[str]] = {}
    rows = []
    for row in frequent.to_pylist():
        values = seen.setdefault(row["column"], set())
        values.add(row["value"])
        if len(values) <= AUDITED_VALUES:
            rows.append(row)
    return rows
