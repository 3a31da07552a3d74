"""Markup and sections shared by the cards of all classifiers."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]
"""The figures of a card, as JSON values."""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, with its cells escaped."""
    lines = [titles, ["---"] * len(titles), *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill(paragraph: str, indent: str = "") -> str:
    """Wrap a paragraph at 100 characters."""
    words = " ".join(paragraph.split())
    return textwrap.fill(
        words, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def cell(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def estimate(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def files(card: Figures, text: str) -> dict[str, bytes]:
    """``card.md`` with this text, and ``card.json``."""
    figures = json.dumps(card, indent=1, sort_keys=True)
    return {"card.md": text.encode(), "card.json": f"{figures}\n".encode()}


def limits(*paragraphs: str) -> str:
    return "## Known limits\n\n" + "\n".join(fill(f"- {limit}", "  ") for limit in paragraphs)


NEAR_DUPLICATES = """**Near-duplicates** are not removed, and text can be written to score high."""


def flat(row: Figures) -> dict[str, Any]:
    """A row of figures, with each interval as text in a second column."""
    out: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            out[name] = round(value["value"], 4)
            out[f"{name}_95"] = f"{value['low']:.3f} to {value['high']:.3f}"
        else:
            out[name] = round(value, 4) if isinstance(value, float) else value
    return out


def unreadable(card: Figures, *where: str) -> str:
    """A sentence on unreadable records, by reason and the columns ``where``."""
    counts = ", ".join(
        f"{row['records']:,} × {row['reason']} in {' '.join(row[name] for name in where)}"
        for row in card["unreadable"]
    )
    return f" Unreadable records: {counts}" if counts else ""


def shuffled_limit(shuffled: Figures) -> str:
    """The limit that word order is ignored (:func:`held_out.shuffled_words`)."""
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


def length_limit(sizes: Figures) -> str:
    """The limit set by the lengths of the training texts."""
    return f"""**It has seen one range of lengths.** 90 % of its texts have {sizes["low"]:,} to
        {sizes["high"]:,} bytes (median {sizes["median"]:,}). The evidence of words adds up, so much
        longer text gets scores near 0 or 1 that nobody has checked."""


def making(card: Figures) -> str:
    """The section on how the model was fitted, and whether that is reproducible."""
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
    regression = "Logistic regression (L-BFGS) with an L2 penalty of 1 / c, chosen by the"
    if unseen:
        tried = ", ".join(f"{trial['c']:g}: {trial['roc_auc']:.4f}" for trial in unseen)
        return (
            f"{regression} mean ROC-AUC on sources left out: c = {trials[0]['c']:g} of {{{tried}}}."
        )
    best = min(trials, key=lambda trial: trial["log_loss"])
    tried = ", ".join(
        f"{trial.get('loss', '')} {trial['c']:g}: {trial['log_loss']:.4f}".lstrip()
        for trial in trials
    )
    if "loss" in best:
        return (
            f"The {best['loss']} loss with an L2 penalty of 1 / c, c = {best['c']:g}, chosen by the"
            f" log loss of the grades of the calibration split, of {{{tried}}}."
        )
    return f"{regression} log loss of the calibration split: c = {best['c']:g} of {{{tried}}}."


def _escape(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
