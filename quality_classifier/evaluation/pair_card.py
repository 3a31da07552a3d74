"""The card of a classifier of pairs, for people (``card.md``) and programs."""

from typing import Any

from quality_classifier.evaluation import figures, sections
from quality_classifier.evaluation.metrics import PAIRED
from quality_classifier.evaluation.sections import Figures, cell, estimate, fill, flat, table
from quality_classifier.splits import SPLITS


def summary(card: Figures) -> dict[str, Any]:
    """The part of the card for ``classifier.json`` and the manifest of every run."""
    overall = {"class": "(all)", "source": "(all)", "pairs": card["tested"]}
    return {
        "kind": card["kind"],
        "code": card["code"],
        "seed": card["seed"],
        "calibration": card["calibration"],
        "metrics": [flat({**overall, **{name: card[name] for name in PAIRED}})],
        "agreement": [flat(row) for row in card["groups"]],
    }


def files(card: Figures) -> dict[str, bytes]:
    return {
        **sections.files(card, markdown(card)),
        "figures/reliability.png": figures.pair_reliability(card["reliability"]),
    }


def terminal_table(card: Figures) -> str:
    lines = [f"{card['tested']:,} held-out pairs in {card['sets']:,} sets that share no text"]
    lines += [f"  {title:40} {estimate(card[name])}" for name, title in PAIRED.items()]
    lines.append("  score: how often a text would win against the texts of these pairs")
    return "\n".join(lines)


def markdown(card: Figures) -> str:
    limits = sections.limits(sections.length_limit(card["sizes"]))
    parts = [_introduction(card), _data(card), _groups(card), limits, sections.making(card)]
    return "\n\n".join(parts) + "\n"


def _introduction(card: Figures) -> str:
    text = """The score of a text is the calibrated probability that it beats a text like those of
    the pairs. Guessing gets half of the pairs right."""
    below = f"""All figures are for {card["tested"]:,} pairs whose texts were used for neither
    training nor calibration. Intervals are from a bootstrap over {card["drawn"]}."""
    rows = [[title, estimate(card[name])] for name, title in PAIRED.items()]
    return f"""# Quality classifier ({card["kind"]}, pairs)

{fill(text)}

{fill(below)}

{table(["", "held out (95 % interval)"], rows)}"""


def _data(card: Figures) -> str:
    together = f" or the same `{card['group']}`" if card["group"] else ""
    text = f"""{card["read"]:,} pairs were read. {card["incomplete"]:,} without `worse` and
    {card["equal"]:,} of two equal texts were left out. Pairs that share a text{together} go to the
    same split: {card["all_sets"]:,} sets."""
    text += sections.unreadable(card, "source")
    if noise := card["noise"]:
        text += f""" Of {noise["pairs"]:,} held-out pairs that were judged several times,
        {noise["agreement"]:.1%} of the judgements agree with the majority: no classifier can do
        better on them."""
    else:
        text += """ No held-out pair was judged twice, so it is not known how well judgements agree
        with each other."""
    rows = [[cell(card["pairs"][split]) for split in SPLITS]]
    return f"## Pairs\n\n{fill(text)}\n\n{table(SPLITS, rows)}"


def _groups(card: Figures) -> str:
    rows = [
        [row["column"], row["value"], f"{row['pairs']:,}", f"{row['accuracy']:.1%}"]
        for row in card["groups"]
    ]
    titles = ["by", "value", "pairs", "in the right order"]
    return f"""## Agreement by source and length

{table(titles, rows)}

## Calibration

![Share of pairs that a text wins, by its score](figures/reliability.png)"""
