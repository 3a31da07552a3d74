"""The figures of a classifier's card, as PNG files with the same bytes every time."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quality_classifier.evaluation.held_out import HISTOGRAM_BINS

COLORS = {"positive": "#2b6cb0", "negative": "#c05621"}
INK, MUTED = "#1a202c", "#a0aec0"

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


def png(width: float, height: float, draw: Callable[[Figure], None]) -> bytes:
    """A figure of this size in inches, independent of this machine's matplotlib settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height))
        draw(figure)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()


def ranking(curves: Mapping[str, npt.NDArray[np.float64]], overall: Mapping[str, Any]) -> bytes:
    """ROC and precision-recall curve (:func:`quality_classifier.evaluation.metrics.curves`)."""

    def draw(figure: Figure) -> None:
        roc, pr = figure.subplots(1, 2)
        # Lines from the corner (0, 0), where no document is above the threshold.
        recall = np.append(0.0, curves["recall"])
        roc.plot(np.append(0.0, curves["false_positive_rate"]), recall, color=COLORS["positive"])
        roc.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
        roc.set_title(f"ROC: area {_with_interval(overall['roc_auc'])}")
        roc.set_xlabel("negatives above the threshold")
        roc.set_ylabel("positives above the threshold")
        precision = np.append(curves["precision"][0], curves["precision"])
        pr.plot(recall, precision, color=COLORS["positive"], drawstyle="steps-pre")
        pr.axhline(0.5, color=MUTED, linestyle=":", linewidth=1)
        area = _with_interval(overall["average_precision"])
        pr.set_title(f"Precision-recall: average precision {area}")
        pr.set_xlabel("positives above the threshold (recall)")
        pr.set_ylabel("precision, classes of equal weight")
        for axes in (roc, pr):
            unit_limits(axes.set_xlim)
            unit_limits(axes.set_ylim)

    return png(9, 4.2, draw)


def reliability(bins: Sequence[Mapping[str, Any]], overall: Mapping[str, Any]) -> bytes:
    """Share of positives against mean score, and the weight of each bin."""

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        reliability_line(top, bins)
        top.set_title(f"Calibration error (ECE) {_with_interval(overall['ece'])}")
        top.set_ylabel("positives, classes of equal weight")
        low = [row["low"] for row in bins]
        width = [row["high"] - row["low"] for row in bins]
        share = [row["weight"] for row in bins]
        bottom.bar(low, share, width, align="edge", color=MUTED, edgecolor="white")
        bottom.set_xlabel("score")
        bottom.set_ylabel("share of weight")
        unit_limits(top.set_xlim)
        unit_limits(top.set_ylim)

    return png(5.5, 6, draw)


def reliability_line(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Shares with their intervals, against the diagonal."""
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
    share = np.array([point["positive"] for point in points])
    ends = np.array([[p["positive_low"], p["positive_high"]] for p in points]).T
    axes.errorbar(
        [point["score"] for point in points],
        share,
        np.maximum(np.abs(ends - share), 0),
        color=COLORS["positive"],
        marker="o",
        markersize=4,
        linewidth=1.5,
        elinewidth=1,
        capsize=2,
    )


def keep_curve(rows: Sequence[Mapping[str, Any]]) -> bytes:
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
        unit_limits(axes.set_ylim)
        axes.legend()

    return png(6, 4, draw)


def score_histograms(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The scores of each source, as shares of its documents: one small panel a source."""
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
        edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
        for axes, row in zip(grid, rows, strict=False):
            share = np.array(row["documents"]) / max(sum(row["documents"]), 1)
            axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=COLORS[row["class"]])
            axes.set_title(f"{row['source'][:24]}\n{sum(row['documents']):,} {row['class']}")
            axes.set_xlim(0, 1)
            axes.tick_params(labelbottom=True)
        for axes in grid[len(rows) :]:
            axes.set_axis_off()
        figure.supxlabel("score", fontsize=9)
        figure.supylabel("share of the source's documents", fontsize=9)

    return png(0.5 + 2.4 * columns, 0.5 + 1.9 * lines, draw)


def audit(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Expected keep rates with their intervals, a line per group."""
    shown = [row for row in rows if row["rule"] == "pareto"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        y = np.arange(len(shown))
        rate = np.array([row["rate"] for row in shown])
        low = np.array([row["low"] for row in shown])
        high = np.array([row["high"] for row in shown])
        axes.hlines(y, low, high, color=MUTED, linewidth=2)
        axes.plot(rate, y, "o", color=COLORS["positive"], markersize=4)
        axes.axvline(rate[0], color=INK, linestyle=":", linewidth=1)
        axes.set_yticks(y, [f"{row['column']}: {row['value'][:32]}" for row in shown], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.set_title(title)
        axes.set_xlabel("expected keep rate with its 95 % interval; dotted: all documents")

    return png(8, 1.2 + 0.19 * len(shown), draw)


def unit_limits(set_limits: Callable[[float, float], Any]) -> None:
    """An axis from 0 to 1, with room for the points at its ends."""
    set_limits(-0.02, 1.02)


def _with_interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
