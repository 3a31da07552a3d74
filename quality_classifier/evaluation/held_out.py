"""The figures of a classifier's card, computed from scored held-out documents."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quality_classifier.evaluation import metrics
from quality_classifier.evaluation.group_rates import ALL, audit
from quality_classifier.splits import CLASSES, SPLITS, balanced_weights
from quality_classifier.train_config import TrainConfig

Flags = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
Scores = npt.NDArray[np.float32]

HISTOGRAM_BINS = 20

SHUFFLED = 1000
"""Limit of documents whose words are shuffled."""

AUDITED_VALUES, AUDITED_DOCUMENTS = 20, 10
"""The card shows at most this many values of a column, each with at least this many documents."""


def evaluate(test: pa.Table, config: TrainConfig) -> dict[str, Any]:
    """The card's figures of held-out documents, as JSON values.

    ``test`` has ``positive``, ``source``, ``bytes``, ``quality_score`` and the columns to audit by
    (:class:`quality_classifier.evaluation.group_rates.Audit`).
    """
    by, alpha = [*config.audit.by, *config.metadata], config.audit.alpha
    threshold = config.audit.threshold
    positive = test["positive"].to_numpy()
    source = np.asarray(test["source"].to_pylist(), np.str_)
    score = test["quality_score"].to_numpy()
    size = test["bytes"].to_numpy()
    weight = balanced_weights(positive, source, config.source_weight_limit)
    return {
        "metrics": per_source_metrics(score, positive, source, config),
        "reliability": metrics.reliability(score, positive, weight),
        "yield": [
            {"class": name, **row}
            for label, name in CLASSES.items()
            for row in metrics.yields(
                score[positive == label], size[positive == label], config.alphas
            )
        ],
        "histograms": histograms(score, positive, source),
        "audit": {
            name: _most_frequent(audit(test.filter(positive == label), by, alpha, threshold))
            for label, name in CLASSES.items()
        },
    }


def per_source_metrics(
    score: Scores, positive: Flags, source: Names, config: TrainConfig
) -> list[dict[str, Any]]:
    """Metrics of all documents, then of each source against the opposite class at equal weight."""
    everything = np.ones(len(score), np.bool_)
    groups: list[tuple[str, str, Flags, Flags]] = [(ALL, ALL, everything, everything)]
    for label, class_name in CLASSES.items():
        for name in np.unique(source[positive == label]).tolist():
            own = (positive == label) & (source == name)
            groups.append((class_name, name, own, own | (positive != label)))
    rows = []
    for class_name, name, own, members in groups:
        chosen, sources = positive[members], source[members]
        weight = balanced_weights(chosen, sources, config.source_weight_limit)
        figures = metrics.evaluate(
            score[members], chosen, weight, sources, config.bootstrap, config.seed
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
    rows = []
    for label, class_name in CLASSES.items():
        for name in np.unique(source[positive == label]).tolist():
            counts = histogram(score[(positive == label) & (source == name)])
            rows.append({"class": class_name, "source": name, "documents": counts})
    return rows


def histogram(score: Scores) -> list[int]:
    """Number of documents in each of HISTOGRAM_BINS equal bins of the score over [0, 1]."""
    return np.histogram(score, HISTOGRAM_BINS, (0, 1))[0].tolist()


def shuffled_words(
    test: pa.Table, score_text: Callable[[pa.Array], Scores], seed: int
) -> dict[str, Any]:
    """How much scores change when the words of a document are shuffled.

    A bag of words does not change, and a bag of word pairs hardly does. ``auc`` is the ROC-AUC of
    originals against shuffled copies, 0.5 if scores can't tell them apart. ``test`` (``text``,
    ``positive``, ``quality_score``) is in random order; its first SHUFFLED documents are used.
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
    """Number of documents of each class and source: read, removed, and in each split.

    ``duplicates`` is from :func:`quality_classifier.splits.deduplicate`; ``documents`` are the
    remaining ones, with a column ``split``.
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
    frequent = table.filter(pc.greater_equal(table["documents"], AUDITED_DOCUMENTS))
    seen: dict[str, set[str]] = defaultdict(set)
    rows = []
    for row in frequent.to_pylist():
        seen[row["column"]].add(row["value"])
        if len(seen[row["column"]]) <= AUDITED_VALUES:
            rows.append(row)
    return rows
