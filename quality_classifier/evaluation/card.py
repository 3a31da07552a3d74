"""The card of a classifier: its evaluation as ``card.md`` for people and as JSON for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from quality_classifier.evaluation import figures, metrics
from quality_classifier.evaluation.held_out import AUDITED_DOCUMENTS, AUDITED_VALUES
from quality_classifier.evaluation.markup import cell, estimate, fill, table
from quality_classifier.evaluation.splits import SPLITS, balanced_weights
from quality_classifier.evaluation.titles import TITLES

Figures = Mapping[str, Any]


def summary(card: Figures) -> dict[str, Any]:
    """The part of the card that goes into ``classifier.json`` and the manifest of every run.

    Rows are flat, so that a page can show them as tables.
    """
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


def flat(row: Figures) -> dict[str, Any]:
    """A row of figures, each interval as text in a column of its own."""
    out: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            out[name] = round(value["value"], 4)
            out[f"{name}_95"] = f"{value['low']:.3f} to {value['high']:.3f}"
        else:
            out[name] = round(value, 4) if isinstance(value, float) else value
    return out


def files(card: Figures, test: pa.Table) -> dict[str, bytes]:
    """``card.md``, ``card.json`` and the figures, by name.

    Args:
        card: the figures that ``train.py`` puts together.
        test: the scored held-out documents (:func:`held_out.evaluate`).
    """
    positive = test["positive"].to_numpy()
    names = np.array(test["source"].to_pylist(), np.str_)
    weight = balanced_weights(positive, names, card["source_weight_limit"])
    curves = metrics.curves(test["quality_score"].to_numpy(), positive, weight)
    overall = card["metrics"][0]
    title = f"Negatives under the Pareto rule, α = {card['alpha']:g}"
    return {
        "card.md": markdown(card).encode(),
        "card.json": (json.dumps(card, indent=1, sort_keys=True) + "\n").encode(),
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
    """The text of ``card.md``."""
    sections = [
        _introduction(card),
        _data(card),
        _ranking(card),
        *([_unseen(card)] if card["unseen"] else []),
        _calibration(card),
        _yield(card),
        _scores(),
        _audit(card),
        _limits(card),
        making(card),
    ]
    return "\n\n".join(sections) + "\n"


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
    unread = unreadable(card, "class", "source") or " Every record could be read."
    return f"""## Documents

A text that repeats an earlier one of its class is a duplicate and is left out; a text that occurs
in both classes is left out of both. The rest is split by a hash of the text alone, so a document
stays held out when text is added or the seed changes.{unread}

{table(titles, rows)}"""


def unreadable(card: Figures, *where: str) -> str:
    """A sentence on the records that could not be read, by reason and by the columns ``where``."""
    counts = ", ".join(
        f"{row['records']:,} × {row['reason']} in {' '.join(row[name] for name in where)}"
        for row in card["unreadable"]
    )
    return f" Unreadable records: {counts}" if counts else ""


def _ranking(card: Figures) -> str:
    rows = [
        [
            row["class"],
            row["source"],
            f"{row['documents']:,}",
            f"{row['mean_score']:.3f}",
            *(estimate(row[name]) for name in metrics.METRICS),
        ]
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
        rows.append(
            [
                row["class"],
                row["source"],
                cell(row["documents"]),
                f"{row['roc_auc']:.3f}",
                f"{known['roc_auc']['value']:.3f}" if known else "",
                f"{row['mean_score']:.3f}",
                f"{known['mean_score']:.3f}" if known else "",
                f"{row['keep_rate']:.1%}",
            ]
        )
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

![Share kept as α grows](figures/yield.png)"""


def _scores() -> str:
    return """## Scores by source

![Histograms of scores, by source](figures/scores.png)"""


def _audit(card: Figures) -> str:
    rows = {
        name: [
            [
                row["column"],
                row["value"],
                f"{row['documents']:,}",
                f"{row['mean_score']:.3f}",
                *_rates(row, threshold),
            ]
            for row, threshold in _pairs(card["audit"][name])
        ]
        for name in ("negative", "positive")
    }
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


def _pairs(audit: Sequence[Figures]) -> Iterable[tuple[Figures, Figures]]:
    """The Pareto row and the threshold row of each group."""
    pareto = [row for row in audit if row["rule"] == "pareto"]
    threshold = [row for row in audit if row["rule"] == "threshold"]
    return zip(pareto, threshold, strict=True)


def _rates(pareto: Figures, threshold: Figures) -> list[str]:
    return [
        cell
        for row in (pareto, threshold)
        for cell in (
            f"{row['rate']:.1%} ({row['low']:.1%} to {row['high']:.1%})",
            f"{row['ratio']:.2f}",
        )
    ]


def _limits(card: Figures) -> str:
    limits = [
        shuffled_limit(card["shuffled"]),
        """**It recognises sources, not quality.** "Positive" means similar to the positive
        sources, also in topic and register: good text on other topics, or in other languages or
        dialects, may score low. The audit shows this only for groups that the input names.""",
        """**It was trained on every source.** Documents are held out, sources are not, and pieces
        of one work may be on both sides. On new sources it will do worse; """
        + (
            "the table above says how much."
            if card["unseen"]
            else "how much worse is measured if a class has several (`unseen_sources`)."
        ),
        """**Its probabilities assume equal classes** made up of these sources. In raw text, where
        curated text is rare, fewer of the documents with a given score are like the curated
        ones.""",
        """**Near-duplicates** are not removed, and text can be written to score high.""",
    ]
    return "## Known limits\n\n" + "\n".join(fill(f"- {limit}", "  ") for limit in limits)


def shuffled_limit(shuffled: Figures) -> str:
    """The limit that all kinds share: word order (:func:`held_out.shuffled_words`)."""
    change = ", ".join(
        f"{name}s from {row['before']:.3f} to {row['after']:.3f}"
        for name, row in shuffled["mean_score"].items()
    )
    return f"""**It does not read.** It sees which words and word pairs a text has, not whether they
        make sense. When the words of {shuffled["documents"]:,} held-out documents were shuffled,
        the mean score moved for {change}; scores moved by {shuffled["mean_change"]:.3f} on average,
        and original and shuffled scores correlate at {shuffled["correlation"]:.3f}. By score alone,
        originals are separated from their shuffled copies with a ROC-AUC of {shuffled["auc"]:.2f}
        (0.5: not at all)."""


def making(card: Figures) -> str:
    """How it was fitted, and whether that is reproducible."""
    lines = [f"Code {card['code']}, seed {card['seed']}."]
    fitted = card["fitted"]
    if "trials" in fitted:
        lines.append(_chosen(fitted["trials"], card.get("unseen_trials", [])))
        lines.append("The same text, settings and seed give the same bytes.")
    elif fitted["repeatable"]:
        lines.append(
            "fastText on one thread: the same text, settings and seed give the same bytes."
        )
    else:
        lines.append(
            "**Not reproducible**: fastText was trained on all cores, so another run gives another"
            " model. Set fasttext.repeatable=true for one that is."
        )
    lines.append("The figures of this card are in `card.json`, the settings in `classifier.json`.")
    return "## How it was made\n\n" + fill(" ".join(lines))


def _chosen(trials: Sequence[Figures], unseen: Sequence[Figures]) -> str:
    """Which fit was chosen, and why."""
    if unseen:
        tried = ", ".join(f"{trial['c']:g}: {trial['roc_auc']:.4f}" for trial in unseen)
        return (
            "Logistic regression (L-BFGS) with an L2 penalty of 1 / c, chosen by the mean ROC-AUC"
            f" on sources left out: c = {trials[0]['c']:g} of {{{tried}}}."
        )
    best = min(trials, key=lambda trial: trial["log_loss"])
    if "loss" in best:
        tried = ", ".join(f"{t['loss']} {t['c']:g}: {t['log_loss']:.4f}" for t in trials)
        return (
            f"The {best['loss']} loss with an L2 penalty of 1 / c, c = {best['c']:g}, chosen by the"
            f" log loss of the grades of the calibration split, of {{{tried}}}."
        )
    tried = ", ".join(f"{trial['c']:g}: {trial['log_loss']:.4f}" for trial in trials)
    return (
        "Logistic regression (L-BFGS) with an L2 penalty of 1 / c, chosen by the log loss of the"
        f" calibration split: c = {best['c']:g} of {{{tried}}}."
    )
