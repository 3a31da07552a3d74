"""Several classifiers side by side on the page of a run."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.summary import Summary
from quality_classifier.evaluation.metrics import spearman

Json = dict[str, Any]

POINTS, ALL_POINTS = 400, 6000
"""Points in the scatter plot of one source, and of all."""


def classifier_entry(classifier: Mapping[str, Any]) -> Json:
    """Path, fingerprint and card of a run's classifier, or of several in one card."""
    about = {name: classifier[name] for name in ("path", "fingerprint", "card")}
    if "several" not in classifier:
        return about
    card = {
        "combined by": classifier["combine"],
        "calibrated anew": classifier["calibration"] is not None,
    }
    for name, one in classifier["several"].items():
        own = one["card"] if isinstance(one["card"], Mapping) else {"card": one["card"]}
        card[name] = {"path": one["path"], "fingerprint": one["fingerprint"], **own}
    return about | {"card": card}


def keeper_rows(manifest: Mapping[str, Any], statistics: Summary) -> list[Json]:
    """A row for each source and set of classifiers: documents that only they would keep."""
    if "classifier_keeps" not in statistics:
        return []
    rows = statistics["classifier_keeps"].to_pylist()
    reached: Counter[str] = Counter()
    for row in rows:
        reached[row["source"]] += row["documents"]
    classifiers = len(manifest["classifier"]["several"])
    return [
        {
            "source": row["source"],
            "would keep": _keepers(row["keepers"].split(), classifiers),
            "documents": row["documents"],
            "share": f"{100 * row['documents'] / reached[row['source']]:.3g} %",
            "MB": round(row["bytes"] / 1e6, 3),
            "kept by this run": row["kept_documents"],
        }
        for row in rows
    ]


def _keepers(names: Sequence[str], classifiers: int) -> str:
    if not names:
        return "none of them"
    if len(names) == classifiers:
        return "all of them" if len(names) > 2 else "both"
    return f"{' and '.join(names)} alone"


def agreement_rows(_: Mapping[str, Any], statistics: Summary) -> list[Json]:
    """A row for each source and pair of classifiers: Spearman's rank correlation of their scores.

    The interval is Fisher's, of 95 %: standard error ``1.03 / sqrt(n - 3)`` (Fieller et al. 1957).
    """
    rows = []
    for source, (scores, _kept) in _samples(statistics).items():
        for one, other in itertools.combinations(sorted(scores), 2):
            n, found = len(scores[one]), spearman(scores[one], scores[other])
            if found is None:
                continue
            interval = "–"
            if n > 3 and abs(found) < 1:
                half = 1.96 * 1.03 / np.sqrt(n - 3)
                low, high = np.tanh(np.arctanh(found) + np.array([-half, half]))
                interval = f"{low:.3f} to {high:.3f}"
            row: Json = {"source": source, "classifiers": f"{one} and {other}"}
            row |= {"rank correlation": round(found, 3), "interval": interval, "documents": n}
            rows.append(row)
    return rows


def scatter(shown: Sequence[str], statistics: Summary) -> Json | None:
    """Sample scores of each shown source, for a plot; None with one classifier.

    ``sources`` has decisions, and the scores of each classifier in the order of ``names``.
    """
    found = {source: of for source, of in _samples(statistics).items() if source in shown}
    if not found:
        return None
    points = min(POINTS, ALL_POINTS // len(found))
    names = sorted(next(iter(found.values()))[0])
    return {
        "names": names,
        "sources": {
            source: {
                "scores": [[round(float(s), 4) for s in scores[name][:points]] for name in names],
                "kept": kept[:points].tolist(),
            }
            for source, (scores, kept) in found.items()
        },
    }


def _samples(
    statistics: Summary,
) -> dict[str, tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.bool_]]]:
    """By source, the scores [n] of each classifier, and the decisions [n]."""
    if "classifier_sample" not in statistics:
        return {}
    sample, out = statistics["classifier_sample"], {}
    for source in sorted(sample["source"].unique().to_pylist()):
        own = sample.filter(pc.equal(sample["source"], source))
        parts: dict[str, pa.Table] = {
            name: own.filter(pc.equal(own["classifier"], name)).sort_by(
                [(key, "ascending") for key in ("rank", "id", "quality_score")]
            )
            for name in own["classifier"].unique().to_pylist()
        }
        scores = {name: part["score"].to_numpy() for name, part in parts.items()}
        out[source] = scores, next(iter(parts.values()))["kept"].to_numpy()
    return out
