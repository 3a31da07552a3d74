"""The card of a classifier of grades, for people (``card.md``) and programs."""

from typing import Any

from quality_classifier.evaluation import figures, sections
from quality_classifier.evaluation.metrics import GRADED
from quality_classifier.evaluation.sections import Figures, cell, estimate, fill, flat, table
from quality_classifier.splits import CLASSES, SPLITS


def summary(card: Figures) -> dict[str, Any]:
    """The part of the card for ``classifier.json`` and the manifest of every run."""
    overall = {"class": "(all)", "source": "(all)", "documents": card["tested"]}
    return {
        "kind": card["kind"],
        "code": card["code"],
        "seed": card["seed"],
        "calibration": card["calibration"],
        "grades": ", ".join(card["grades"]),
        "at_least": card["at_least"],
        "metrics": [flat({**overall, **card["metrics"]})],
        "agreement": [flat(row) for row in card["groups"]],
        "expected_yield": [
            {name: round(value, 4) for name, value in row.items()} for row in card["yield"]
        ],
        "documents": card["documents"],
    }


def files(card: Figures) -> dict[str, bytes]:
    names = card["grades"]
    return {
        **sections.files(card, markdown(card)),
        "figures/confusion.png": figures.confusion(card["confusion"], names),
        "figures/reliability.png": figures.graded_reliability(
            card["reliability"], names, card["at_least"]
        ),
        "figures/scores.png": figures.score_histograms(card["histograms"]),
    }


def terminal_table(card: Figures) -> str:
    lines = [f"{card['tested']:,} held-out documents, grades {', '.join(card['grades'])}"]
    lines += [
        f"  {GRADED[name]:36} {estimate(card['metrics'][name])}"
        for name in ("spearman", "mae", "roc_auc", "brier", "ece")
    ]
    if noise := card["noise"]:
        lines.append(
            f"  two labels of one document differ by {noise['labels_mae']:.2f}, a label and the"
            f" expected grade by {noise['classifier_mae']:.2f}"
        )
    lines.append(f"  score: the probability of grade {card['at_least']} or more")
    return "\n".join(lines)


def markdown(card: Figures) -> str:
    parts = [_introduction, _data, _noise, _reliability, _groups, _yield, _limits, sections.making]
    return "\n\n".join(part(card) for part in parts).replace("\n\n\n", "\n\n") + "\n"


def _introduction(card: Figures) -> str:
    rows = [[title, estimate(card["metrics"][name])] for name, title in GRADED.items()]
    text = f"""The score of a text is the calibrated probability that its label is
    {card["at_least"]} or more, of the grades {", ".join(card["grades"])} in `{card["target"]}`. A
    pipeline run also writes the expected grade, as `expected_grade`. Both follow from one margin,
    so they rank documents alike. The probabilities hold for text in which grades are as frequent as
    among the labelled documents."""
    below = f"""All figures are for {card["tested"]:,} documents that were used for neither training
    nor calibration. From ROC-AUC on they are about the score."""
    return f"""# Quality classifier ({card["kind"]}, graded)

{fill(text)}

{fill(below)}

{table(["", "held out (95 % interval)"], rows)}"""


def _data(card: Figures) -> str:
    columns = ["source", "read", "unlabelled", "repeated", *SPLITS]
    rows = [[cell(row[name]) for name in columns] for row in card["documents"]]
    by_grade = [[cell(row[name]) for name in ("grade", *SPLITS)] for row in card["grade_counts"]]
    group = (
        f"Records with the same `{card['group']}` go to the same split."
        if card["group"]
        else "Records about the same thing may be on both sides: `group=FIELD` keeps them together."
    )
    text = f"""Records with the same text are one document, labelled with the mean of their labels.
    The split is by a hash of the content alone, so no text is on both sides. {group}
    {sections.unreadable(card, "source")}"""
    titles = ["source", "read", "without label", "repeated text", *SPLITS]
    return f"""## Documents

{fill(text)}

{table(titles, rows)}

{table(["grade nearest to the label", *SPLITS], by_grade)}

## Grades

![Confusion by grade](figures/confusion.png)"""


def _noise(card: Figures) -> str:
    noise = card["noise"]
    if noise is None:
        text = """No held-out document has several labels, so it is not known how well labels agree
        with each other. No classifier can agree with them better than that."""
        return f"## Label noise\n\n{fill(text)}"
    rows = [
        [who, f"{noise[f'{key}_mae']:.3f}", f"{noise[f'{key}_spearman']:.3f}"]
        for who, key in (
            ("two labels of one document", "labels"),
            ("the expected grade and one of the labels", "classifier"),
        )
    ]
    text = f"""For {noise["documents"]:,} held-out documents with several labels
    ({noise["labels"]:,} in all): how well two labels agree, and the classifier with one of them."""
    titles = ["", "mean absolute difference", "Spearman"]
    return f"## Label noise\n\n{fill(text)}\n\n{table(titles, rows)}"


def _reliability(card: Figures) -> str:
    method = {"sigmoid": "one slope, and a threshold per grade", "isotonic": "isotonic"}
    text = f"""Calibration: {method[card["calibration"]]}, fitted on its own split. Bars are
    95 % intervals."""
    return f"""## Calibration

{fill(text)}

![Reliability for each grade](figures/reliability.png)"""


def _groups(card: Figures) -> str:
    rows = [
        [row["column"], row["value"], cell(row["documents"])]
        + [f"{row[name]:.2f}" for name in ("label", "expected", "mae", "spearman")]
        + [f"{row[name]:.1%}" for name in ("positive", "score")]
        for row in card["groups"]
    ]
    titles = ["by", "value", "documents", "mean label", "expected", "MAE", "Spearman"]
    titles += [f"{card['at_least']} or more", "mean score"]
    return f"## Agreement by source and length\n\n{table(titles, rows)}"


def _yield(card: Figures) -> str:
    rows = [
        [f"{row['alpha']:g}", *(f"{row[f'{name}_documents']:.2%}" for name in CLASSES.values())]
        for row in card["yield"]
    ]
    titles = ["α", f"{card['at_least']} or more", "below"]
    return f"""## What the Pareto rule would keep

Expected share of the held-out documents: the mean of (2 − score)^−α.

{table(titles, rows)}

![Histograms of scores](figures/scores.png)"""


def _limits(card: Figures) -> str:
    return sections.limits(
        sections.shuffled_limit(card["shuffled"]),
        sections.length_limit(card["sizes"]),
        """**It has learned these labels of these documents.** It was not tested on other sources,
        topics or languages: the table above shows only sources that it was trained on.""",
        sections.NEAR_DUPLICATES,
    )
