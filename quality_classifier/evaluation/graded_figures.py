"""The figures of a graded classifier's card, as PNG files with the same bytes every time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quality_classifier.evaluation.figures import INK, png, reliability_line, unit_limits


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> bytes:
    """Documents by label and by expected grade; colour is the share of the label's documents."""
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

    return png(1.8 + 0.75 * size, 1.5 + 0.7 * size, draw)


def reliability(
    curves: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str], at_least: str
) -> bytes:
    """For each grade above the lowest: the share of documents that reach it, by its probability."""
    columns = min(4, len(curves))
    lines = -(-len(curves) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, points, name in zip(grid, curves, names[1:], strict=False):
            _line(axes, points)
            axes.set_title(f"{name} or more" + (" (the score)" if name == at_least else ""))
            axes.tick_params(labelbottom=True)
        for axes in grid[len(curves) :]:
            axes.set_axis_off()
        figure.supxlabel("probability, mean of the bin", fontsize=9)
        figure.supylabel("share of labels that reach it", fontsize=9)

    return png(0.6 + 2.4 * columns, 0.6 + 2.4 * lines, draw)


def pair_reliability(points: Sequence[Mapping[str, Any]]) -> bytes:
    """How often the first of a pair is the better one, by the probability that it is."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _line(axes, points)
        axes.set_title("Does the score tell how often a text wins?")
        axes.set_xlabel("score, mean of the bin")
        axes.set_ylabel("share of its pairs that a text wins")

    return png(5.5, 4.5, draw)


def _line(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    reliability_line(axes, points)
    unit_limits(axes.set_xlim)
    unit_limits(axes.set_ylim)
