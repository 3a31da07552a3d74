"""The figures of the cards, as reproducible PNG files."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quality_classifier.evaluation.held_out import HISTOGRAM_BINS
from quality_classifier.evaluation.sections import estimate

Rows = Sequence[Mapping[str, Any]]

COLORS = {"positive": "#2b6cb0", "negative": "#c05621"}
INK, MUTED = "#1a202c", "#a0aec0"
_DOTTED: dict[str, Any] = {"color": MUTED, "linestyle": ":", "linewidth": 1}
_UNIT = (-0.02, 1.02)

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 9,
    "grid.color": "#e2e8f0",
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "text.parse_math": False,  # a source may have a $ in its name
}


def _png(width: float, height: float, draw: Callable[[Figure], None]) -> bytes:
    """A figure, sized in inches, independent of this machine's matplotlib settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height))
        draw(figure)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()


def ranking(curves: Mapping[str, npt.NDArray[np.float64]], overall: Mapping[str, Any]) -> bytes:
    """The ROC and precision-recall curves (:func:`.metrics.curves`)."""

    def draw(figure: Figure) -> None:
        roc, pr = figure.subplots(1, 2)
        # Lines from the corner (0, 0), where no document is above the threshold.
        recall = np.append(0.0, curves["recall"])
        roc.plot(np.append(0.0, curves["false_positive_rate"]), recall, color=COLORS["positive"])
        roc.plot([0, 1], [0, 1], **_DOTTED)
        roc.set_title(f"ROC: area {estimate(overall['roc_auc'])}")
        roc.set_xlabel("negatives above the threshold")
        roc.set_ylabel("positives above the threshold")
        precision = np.append(curves["precision"][0], curves["precision"])
        pr.plot(recall, precision, color=COLORS["positive"], drawstyle="steps-pre")
        pr.axhline(0.5, **_DOTTED)
        area = estimate(overall["average_precision"])
        pr.set_title(f"Precision-recall: average precision {area}")
        pr.set_xlabel("positives above the threshold (recall)")
        pr.set_ylabel("precision, classes of equal weight")
        _unit_limits(roc)
        _unit_limits(pr)

    return _png(9, 4.2, draw)


def reliability(bins: Rows, overall: Mapping[str, Any]) -> bytes:
    """Share of positives against mean score, and the weight of each bin."""

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        _reliability_line(top, bins)
        top.set_title(f"Calibration error (ECE) {estimate(overall['ece'])}")
        top.set_ylabel("positives, classes of equal weight")
        low = [row["low"] for row in bins]
        width = [row["high"] - row["low"] for row in bins]
        share = [row["weight"] for row in bins]
        bottom.bar(low, share, width, align="edge", color=MUTED, edgecolor="white")
        bottom.set_xlabel("score")
        bottom.set_ylabel("share of weight")

    return _png(5.5, 6, draw)


def _reliability_line(axes: Axes, points: Rows) -> None:
    axes.plot([0, 1], [0, 1], **_DOTTED)
    _unit_limits(axes)
    share = np.array([point["positive"] for point in points])
    ends = np.array([[p["positive_low"], p["positive_high"]] for p in points]).T
    style: dict[str, Any] = {
        "color": COLORS["positive"],
        "marker": "o",
        "markersize": 4,
        "linewidth": 1.5,
    }
    score = [point["score"] for point in points]
    axes.errorbar(score, share, np.abs(ends - share), elinewidth=1, capsize=2, **style)


def keep_curve(rows: Rows) -> bytes:
    """What the Pareto rule would keep of each class as alpha grows."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, color in COLORS.items():
            own = [row for row in rows if row["class"] == name]
            alpha = [row["alpha"] for row in own]
            for unit, line in [("documents", "-"), ("bytes", "--")]:
                share = [row[unit] for row in own]
                label = f"{name}, {unit}"
                axes.plot(alpha, share, color=color, linestyle=line, marker="o", ms=3, label=label)
        axes.set_title("Expected share kept: mean of (2 − score)^−α")
        axes.set_xlabel("α")
        axes.set_ylabel("share kept")
        axes.set_ylim(*_UNIT)
        axes.legend()

    return _png(6, 4, draw)


def score_histograms(rows: Rows) -> bytes:
    """Histograms of the scores of each source, as shares of its documents, in small panels."""
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)

    def draw(axes: Axes, row: Mapping[str, Any]) -> None:
        share = np.array(row["documents"]) / max(sum(row["documents"]), 1)
        axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=COLORS[row["class"]])
        axes.set_title(f"{row['source'][:24]}\n{sum(row['documents']):,} {row['class']}")
        axes.set_xlim(0, 1)

    labels = "score", "share of the source's documents"
    return _panels(rows, draw, labels, margin=0.5, height=1.9)


def audit(rows: Rows, title: str) -> bytes:
    """Expected keep rates with their intervals, one line per group."""
    shown = [row for row in rows if row["rule"] == "pareto"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        y = np.arange(len(shown))
        rate, low, high = ([row[name] for row in shown] for name in ("rate", "low", "high"))
        axes.hlines(y, low, high, color=MUTED, linewidth=2)
        axes.plot(rate, y, "o", color=COLORS["positive"], markersize=4)
        axes.axvline(rate[0], color=INK, linestyle=":", linewidth=1)
        axes.set_yticks(y, [f"{row['column']}: {row['value'][:32]}" for row in shown], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.set_title(title)
        axes.set_xlabel("expected keep rate with its 95 % interval; dotted: all documents")

    return _png(8, 1.2 + 0.19 * len(shown), draw)


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> bytes:
    """Documents by label and expected grade, coloured by their share of the label."""
    number = np.array(counts)
    share = number / np.maximum(number.sum(axis=1, keepdims=True), 1)
    size = len(names)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, origin="lower")
        for row in range(size):
            for column in range(size):
                color = "white" if share[row, column] > 0.6 else INK
                text = f"{number[row, column]:,}\n{share[row, column]:.0%}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(size), names)
        axes.set_yticks(range(size), names)
        axes.grid(visible=False)
        axes.set_xlabel("grade nearest to the expected one")
        axes.set_ylabel("grade nearest to the label")
        axes.set_title("Held-out documents, and their share of the row")

    return _png(1.8 + 0.75 * size, 1.5 + 0.7 * size, draw)


def graded_reliability(curves: Sequence[Rows], names: Sequence[str], at_least: str) -> bytes:
    """The share of documents that reach each grade above the lowest, by predicted probability."""

    def draw(axes: Axes, curve: tuple[Rows, str]) -> None:
        points, name = curve
        _reliability_line(axes, points)
        axes.set_title(f"{name} or more" + (" (the score)" if name == at_least else ""))

    labels = "probability, mean of the bin", "share of labels that reach it"
    named = list(zip(curves, names[1:], strict=True))
    return _panels(named, draw, labels, margin=0.6, height=2.4, sharey=True)


def pair_reliability(points: Rows) -> bytes:
    """How often the first text of a pair is the better one, by the predicted probability."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _reliability_line(axes, points)
        axes.set_title("Does the score tell how often a text wins?")
        axes.set_xlabel("score, mean of the bin")
        axes.set_ylabel("share of its pairs that a text wins")

    return _png(5.5, 4.5, draw)


def _panels(
    items: Sequence[Any],
    draw: Callable[[Axes, Any], None],
    labels: tuple[str, str],
    *,
    margin: float,
    height: float,
    sharey: bool = False,
) -> bytes:
    """A small panel for each item, up to four in a row."""
    columns = min(4, len(items))
    lines = -(-len(items) // columns)

    def draw_all(figure: Figure) -> None:
        grid = figure.subplots(lines, columns, sharex=True, sharey=sharey, squeeze=False).ravel()
        for axes, item in zip(grid, items, strict=False):
            draw(axes, item)
            axes.tick_params(labelbottom=True)
        for axes in grid[len(items) :]:
            axes.set_axis_off()
        figure.supxlabel(labels[0], fontsize=9)
        figure.supylabel(labels[1], fontsize=9)

    return _png(margin + 2.4 * columns, margin + height * lines, draw_all)


def _unit_limits(axes: Axes) -> None:
    axes.set_xlim(*_UNIT)
    axes.set_ylim(*_UNIT)
