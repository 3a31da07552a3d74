"""The card of a classifier: the figures of its evaluation for people (``card.md``) and programs."""

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
    """What ``classifier.json`` repeats of the card, and every run of the pipeline with it.

    Flat rows, so that a page can show them as tables.
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
    """A row of figures with an interval as text in a column of its own."""
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
    """The few figures that a person wants to see at once."""
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
    """What to expect on text of sources that the classifier has not met, in a line."""
    if not card["unseen"]:
        return (
            "unknown: it was judged on documents of its own sources alone. Name three sources or"
            " more of a class, and each is left out in turn"
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

All figures are of {overall["documents"]:,} documents that had no part in training or calibration.
Classes have equal weight, and so have the sources of a class, as far as
{card["source_weight_limit"]:g} times the weight that a document would have otherwise.

{table(["", "held out (95 % interval)"], rows)}"""


def _data(card: Figures) -> str:
    columns = ["class", "source", "read", "repeated", "in_both_classes", *SPLITS]
    titles = ["class", "source", "read", "duplicates", "in both classes", *SPLITS]
    rows = [[cell(row[name]) for name in columns] for row in card["documents"]]
    totals = [sum(row[name] for row in card["documents"]) for name in columns[2:]]
    rows.append(["", "total", *map(cell, totals)])
    unreadable = "Every record could be read."
    if card["unreadable"]:
        unreadable = "Records that could not be read: " + ", ".join(
            f"{row['records']:,} × {row['reason']} in {row['class']} {row['source']}"
            for row in card["unreadable"]
        )
    return f"""## Documents

A text that was there before in its class is a duplicate, and is left out; one that is in both
classes is left out of both. What is left is split by a hash of the text alone, so that a document
stays held out when text is added or the seed changes. {unreadable}

{table(titles, rows)}"""


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
    return f"""## How well it tells the classes apart

![ROC and precision-recall curves](figures/ranking.png)

Each source is set against the whole opposite class, both sides with equal weight. Intervals come
from drawing documents anew within each source; those of a source with few documents are rough.

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
    return f"""## How it does on sources that it has not met

For each source classifiers were trained and calibrated without it, on a sample with an even share
of all others, and scored its documents, against the held-out documents of the opposite class. (In a
class of many sources several are left out at once.) A source of which a similar one stayed is no
stranger, so text from elsewhere can do worse. "Seen" repeats the figures of the table above.

{table([*titles, f"kept unseen, α = {card['alpha']:g}"], rows)}"""


def _calibration(card: Figures) -> str:
    method = card["calibration"]["method"]
    reason = {
        "sigmoid": "a sigmoid of the margin (Platt), which keeps the order of documents",
        "isotonic": "isotonic regression on the margin, which gives ranges of margins one score",
        "identity": "none: the margin is taken as log odds",
    }[method]
    text = f"""Calibration: {reason}, fitted on its own split. The error (ECE) is the mean distance
    between score and share of positives over {metrics.BINS} equal bins; chance alone makes it
    larger than 0. Bars are intervals of 95 %."""
    return f"""## Whether scores mean what they say

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

Expected shares of the held-out documents, as they are (without weights): the mean of
(2 − score)^−α.

{table(titles, rows)}

![Share kept as α grows](figures/yield.png)"""


def _scores() -> str:
    return """## Scores of each source

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
    return f"""## Audit: whom it keeps

Keep rates with Wilson's intervals of 95 % (under the Pareto rule of the expected rate), and their
ratio to the rate of all. Left out are values that fewer than {AUDITED_DOCUMENTS} held-out documents
have, and of a column with many values all but the {AUDITED_VALUES} most frequent.

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
        """**It knows sources, not quality.** "Positive" means like the positive sources, in topic
        and register too: text of good quality on other topics, in other languages or dialects may
        score low. The audit shows some of this, and only for groups that the input names.""",
        """**It has met every source.** Documents are held out, sources are not, and pieces of one
        work may be on both sides. On sources that it has never seen it will do worse; """
        + (
            "the table above says how much."
            if card["unseen"]
            else "how much is measured where a class has several (`unseen_sources`)."
        ),
        """**Its probabilities hold for equal classes** made up of these sources. On raw text as it
        comes, where curated text is rare, fewer documents of a given score are like the curated
        ones.""",
        """**Near-duplicates** are not removed, and a text can be written to score high.""",
    ]
    return "## Known limits\n\n" + "\n".join(fill(f"- {limit}", "  ") for limit in limits)


def shuffled_limit(shuffled: Figures) -> str:
    """The limit that is the same for all kinds: word order (:func:`held_out.shuffled_words`)."""
    change = ", ".join(
        f"{name}s from {row['before']:.3f} to {row['after']:.3f}"
        for name, row in shuffled["mean_score"].items()
    )
    return f"""**It does not read.** It sees which words and word pairs a text has, not whether they
        make sense. Of {shuffled["documents"]:,} held-out documents with their words in random
        order, the mean score moved for {change}; a score moved by {shuffled["mean_change"]:.3f} on
        average, and original and shuffled scores correlate at {shuffled["correlation"]:.3f}. Told
        apart from their shuffled selves by score alone, originals have a ROC-AUC of
        {shuffled["auc"]:.2f} (0.5: not at all)."""


def making(card: Figures) -> str:
    """How it was fitted, and whether that can be repeated."""
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
            "**Not repeatable**: fastText was trained on all cores, so another run gives another"
            " model. Set fasttext.repeatable=true for one that can be made again."
        )
    lines.append("All figures of this card are in `card.json`, the settings in `classifier.json`.")
    return "## How it was made\n\n" + fill(" ".join(lines))


def _chosen(trials: Sequence[Figures], unseen: Sequence[Figures]) -> str:
    """Which fit was taken, and why."""
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
