"""The card of a classifier: its evaluation as Markdown for people and JSON for programs."""

from typing import Any

import numpy as np
import pyarrow as pa

from quality_classifier.evaluation import figures, metrics, sections
from quality_classifier.evaluation.held_out import AUDITED_DOCUMENTS, AUDITED_VALUES
from quality_classifier.evaluation.metrics import TITLES
from quality_classifier.evaluation.sections import Figures, cell, estimate, fill, flat, table
from quality_classifier.splits import SPLITS, balanced_weights


def summary(card: Figures) -> dict[str, Any]:
    """The part of the card for ``classifier.json`` and the manifest of every run, in flat rows."""
    by_alpha: dict[float, dict[str, float]] = {}
    for row in card["yield"]:
        shares = by_alpha.setdefault(row["alpha"], {"alpha": row["alpha"]})
        for unit in ("documents", "bytes"):
            shares[f"{row['class']}_{unit}"] = round(row[unit], 4)
    return {
        "kind": card["kind"],
        "code": card["code"],
        "seed": card["seed"],
        "calibration": card["calibration"]["method"],
        "metrics": [flat(row) for row in card["metrics"]],
        "unseen_sources": [flat(row) for row in card["unseen"]],
        "expected_yield": list(by_alpha.values()),
        "shuffled_words": {
            name: round(card["shuffled"][name], 4) for name in ("auc", "correlation", "mean_change")
        },
        "documents": card["documents"],
    }


def files(card: Figures, test: pa.Table) -> dict[str, bytes]:
    """``card.md``, ``card.json`` and the figures, by name; ``test`` holds the scored documents."""
    positive = test["positive"].to_numpy()
    names = np.array(test["source"].to_pylist(), np.str_)
    weight = balanced_weights(positive, names, card["source_weight_limit"])
    curves = metrics.curves(test["quality_score"].to_numpy(), positive, weight)
    overall = card["metrics"][0]
    title = f"Negatives under the Pareto rule, α = {card['alpha']:g}"
    return {
        **sections.files(card, markdown(card)),
        "figures/ranking.png": figures.ranking(curves, overall),
        "figures/reliability.png": figures.reliability(card["reliability"], overall),
        "figures/yield.png": figures.keep_curve(card["yield"]),
        "figures/scores.png": figures.score_histograms(card["histograms"]),
        "figures/audit.png": figures.audit(card["audit"]["negative"], title),
    }


def terminal_table(card: Figures) -> str:
    """The headline figures, for the terminal."""
    overall = card["metrics"][0]
    lines = [f"{overall['documents']:,} held-out documents, classes of equal weight"]
    lines += [f"  {TITLES[name]:24} {estimate(overall[name])}" for name in metrics.METRICS]
    if card["unseen"]:
        lines.insert(2, f"  {'on sources left out':24} {_mean_unseen(card):.3f}")
    for name in ("positive", "negative"):
        for row in card["yield"]:
            if row["class"] == name and row["alpha"] == card["alpha"]:
                kept = f"{row['documents']:.1%} of documents, {row['bytes']:.1%} of bytes"
                lines.append(f"  {name} kept at α = {row['alpha']:g}   {kept}")
    return "\n".join(lines)


def elsewhere(card: Figures) -> str:
    """What to expect on text from other sources, in one line."""
    if not card["unseen"]:
        return (
            "unknown: it was tested only on documents from its own sources. Give a class three"
            " sources or more, and each is left out in turn"
        )
    worst = min(card["unseen"], key=lambda row: row["roc_auc"])
    return (
        f"expect a ROC-AUC of {_mean_unseen(card):.3f}, not"
        f" {card['metrics'][0]['roc_auc']['value']:.3f}: the mean over {len(card['unseen'])}"
        f" sources left out of training (lowest: {worst['roc_auc']:.3f}, {worst['class']}"
        f" {worst['source']})"
    )


def _mean_unseen(card: Figures) -> float:
    return float(np.mean([row["roc_auc"] for row in card["unseen"]]))


def markdown(card: Figures) -> str:
    parts = [_introduction, _data, _ranking, *([_unseen] if card["unseen"] else [])]
    parts += [_calibration, _yield, _audit, _limits, sections.making]
    return "\n\n".join(part(card) for part in parts) + "\n"


def _introduction(card: Figures) -> str:
    overall = card["metrics"][0]
    rows = [[TITLES[name], estimate(overall[name])] for name in metrics.METRICS]
    if card["unseen"]:
        low = min(row["roc_auc"] for row in card["unseen"])
        high = max(row["roc_auc"] for row in card["unseen"])
        by_source = f"{_mean_unseen(card):.3f} ({low:.3f} to {high:.3f} by source)"
        rows.insert(1, ["ROC-AUC on sources left out of training", by_source])
    return f"""# Quality classifier ({card["kind"]})

The score of a text is the calibrated probability that it comes from the positive (curated) sources
rather than from the negative (raw) ones, **if both were equally frequent**. That prior is a choice:
the Pareto rule keeps a document with probability (2 − score)^−α, so the score itself sets the keep
rate. Low scores are never wholly excluded: a score of 0 is kept with probability 2^−α.

All figures are for {overall["documents"]:,} documents that were used for neither training nor
calibration. Both classes weigh the same, and so do the sources of a class, except that no document
weighs more than {card["source_weight_limit"]:g} times what it would otherwise.

{table(["", "held out (95 % interval)"], rows)}"""


def _data(card: Figures) -> str:
    columns = ["class", "source", "read", "repeated", "in_both_classes", *SPLITS]
    titles = ["class", "source", "read", "duplicates", "in both classes", *SPLITS]
    rows = [[cell(row[name]) for name in columns] for row in card["documents"]]
    totals = [sum(row[name] for row in card["documents"]) for name in columns[2:]]
    rows.append(["", "total", *map(cell, totals)])
    unread = sections.unreadable(card, "class", "source") or " Every record could be read."
    return f"""## Documents

A text that repeats an earlier one of its class is a duplicate and is left out; a text that occurs
in both classes is left out of both. The rest is split by a hash of the text alone, so a document
stays held out when text is added or the seed changes.{unread}

{table(titles, rows)}"""


def _ranking(card: Figures) -> str:
    rows = [
        [row["class"], row["source"], cell(row["documents"]), f"{row['mean_score']:.3f}"]
        + [estimate(row[name]) for name in metrics.METRICS]
        for row in card["metrics"]
    ]
    titles = ["class", "source", "documents", "mean score", *TITLES.values()]
    return f"""## How well it separates the classes

![ROC and precision-recall curves](figures/ranking.png)

Each source is compared with the whole opposite class, with equal weight on both sides. Intervals
are from a bootstrap within each source; those of small sources are rough.

{table(titles, rows)}"""


def _unseen(card: Figures) -> str:
    seen = {(row["class"], row["source"]): row for row in card["metrics"]}
    rows = []
    for row in card["unseen"]:
        known = seen.get((row["class"], row["source"]))
        line = [row["class"], row["source"], cell(row["documents"]), f"{row['roc_auc']:.3f}"]
        line += [f"{known['roc_auc']['value']:.3f}" if known else "", f"{row['mean_score']:.3f}"]
        line += [f"{known['mean_score']:.3f}" if known else "", f"{row['keep_rate']:.1%}"]
        rows.append(line)
    titles = ["class", "source", "documents", "ROC-AUC unseen", "seen", "mean score unseen", "seen"]
    return f"""## How well it does on sources that it has not seen

For each source, a classifier was trained and calibrated without it, on a sample drawn evenly from
the other sources, and then ranked its documents against the held-out documents of the opposite
class. (In a class with many sources, several are left out at once.) Where a similar source stayed
in, the one left out is not truly new, so expect less on text from elsewhere. "Seen" repeats the
table above.

{table([*titles, f"kept unseen, α = {card['alpha']:g}"], rows)}"""


def _calibration(card: Figures) -> str:
    method = card["calibration"]["method"]
    reason = {
        "sigmoid": "a sigmoid of the margin (Platt), which preserves the ranking",
        "isotonic": "isotonic regression on the margin, which gives ranges of margins one score",
        "identity": "none: the margin is taken as log odds",
    }[method]
    text = f"""Calibration: {reason}, fitted on its own split. The calibration error (ECE) is the
    mean distance between score and share of positives over {metrics.BINS} equal bins; sampling
    noise alone makes it positive. Bars are 95 % intervals."""
    return f"""## Calibration

{fill(text)}

![Reliability diagram](figures/reliability.png)"""


def _yield(card: Figures) -> str:
    by_alpha: dict[float, list[str]] = {}
    for name in ("positive", "negative"):
        for row in card["yield"]:
            if row["class"] == name:
                cells = by_alpha.setdefault(row["alpha"], [])
                cells += [f"{row['documents']:.2%}", f"{row['bytes']:.2%}"]
    titles = ["α", *(f"{c}, {u}" for c in ("positive", "negative") for u in ("documents", "bytes"))]
    rows = [[f"{alpha:g}", *cells] for alpha, cells in by_alpha.items()]
    return f"""## What the Pareto rule would keep

Expected share of the held-out documents, unweighted: the mean of (2 − score)^−α.

{table(titles, rows)}

![Share kept as α grows](figures/yield.png)

## Scores by source

![Histograms of scores, by source](figures/scores.png)"""


def _audit(card: Figures) -> str:
    rows = {}
    for name, audit in card["audit"].items():
        rules = ([row for row in audit if row["rule"] == rule] for rule in ("pareto", "threshold"))
        rows[name] = [_audited(*pair) for pair in zip(*rules, strict=True)]
    titles = ["by", "value", "documents", "mean score", f"Pareto, α = {card['alpha']:g}", "ratio"]
    titles += [f"score ≥ {card['threshold']:g}", "ratio"]
    return f"""## Audit: keep rates by group

Keep rates with 95 % Wilson intervals (for the Pareto rule, of the expected rate), and their ratio
to the overall rate. Values with fewer than {AUDITED_DOCUMENTS} held-out documents are left out, and
so are all but the {AUDITED_VALUES} most frequent values of a column.

### Held-out negatives

![Expected keep rates of negatives by group](figures/audit.png)

{table(titles, rows["negative"])}

### Held-out positives

{table(titles, rows["positive"])}"""


def _audited(pareto: Figures, threshold: Figures) -> list[str]:
    cells = [pareto["column"], pareto["value"], cell(pareto["documents"])]
    cells.append(f"{pareto['mean_score']:.3f}")
    for row in (pareto, threshold):
        cells.append(f"{row['rate']:.1%} ({row['low']:.1%} to {row['high']:.1%})")
        cells.append(f"{row['ratio']:.2f}")
    return cells


def _limits(card: Figures) -> str:
    on_new_sources = (
        "the table above says how much."
        if card["unseen"]
        else "how much worse is measured if a class has several (`unseen_sources`)."
    )
    return sections.limits(
        sections.shuffled_limit(card["shuffled"]),
        """**It recognises sources, not quality.** "Positive" means similar to the positive
        sources, also in topic and register: good text on other topics, or in other languages or
        dialects, may score low. The audit shows this only for groups that the input names.""",
        f"""**It was trained on every source.** Documents are held out, sources are not, and pieces
        of one work may be on both sides. On new sources it will do worse; {on_new_sources}""",
        """**Its probabilities assume equal classes** made up of these sources. In raw text, where
        curated text is rare, fewer of the documents with a given score are like the curated
        ones.""",
        sections.NEAR_DUPLICATES,
    )
