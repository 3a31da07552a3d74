"""The tables of a comparison for a terminal of 80 columns; the CSV files have everything."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.contrasts import endpoints
from ablations.contrasts.verdict import number
from ablations.study_files.table import Row
from ablations.study_files.variant_choice import status_of

WIDTH = 80
BEST = 12
"""Number of proxy metrics printed."""


@dataclass(frozen=True)
class Column:
    """A column. ``text`` is left-aligned, and cut to fit; ``once`` blanks repeated values."""

    head: str
    cell: Callable[[Row], str]
    text: bool = False
    once: bool = False


def amount(value: float) -> str:
    """A count to three digits: 950, 131K, 2.72M, 1.2B."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time: 45 s, 12 min, 3.2 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def text(name: str, head: str = "", once: bool = False) -> Column:
    """A text column of the value under ``name``."""
    return Column(head or name, lambda row: str(row[name] or "–"), text=True, once=once)


def figure(name: str, head: str = "", signed: bool = False) -> Column:
    """A column of numbers to three digits."""
    return _known(name, head, lambda value: number(value, signed))


def count(name: str, head: str = "") -> Column:
    """A column of counts with suffixes."""
    return _known(name, head, amount)


def interval(low: str = "low", high: str = "high", signed: bool = True) -> Column:
    def cell(row: Row) -> str:
        if row.get(low) is None or row.get(high) is None:
            return "–"
        return f"{number(row[low], signed)} to {number(row[high], signed)}"

    return Column("interval", cell)


def chance(name: str) -> Column:
    """A column of p-values."""
    return _known(name, "p", lambda value: f"{value:.2g}")


def right(name: str, head: str) -> Column:
    """A column of right decisions of a total."""

    def cell(row: Row) -> str:
        total = row[f"{name}_of"]
        return "–" if total is None else f"{row[f'{name}_right']} of {total}"

    return Column(head, cell)


def _known(name: str, head: str, shown: Callable[[Any], str]) -> Column:
    """A column of ``shown`` values, a dash for missing ones."""
    return Column(head or name, lambda of: "–" if of.get(name) is None else shown(of[name]))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


MEASURED_ON = Column("measured on", lambda row: endpoints.label(row["endpoint"]), text=True)
ON = replace(MEASURED_ON, once=True)
ARM, VALUE, DIFFERENCE = text("arm"), figure("value"), figure("difference", signed=True)
INTERVAL, OUTCOME = interval(), text("outcome")
FLOPS = _known("flops", "FLOPs", lambda value: f"{value:.1e}".replace("e+", "e"))

TABLES: Mapping[str, tuple[str, Sequence[Column]]] = {
    "calibration": ("Checks of the method", [text("check"), DIFFERENCE, INTERVAL, OUTCOME]),
    "mixture": (
        "The proposed mixture, in percent; the effect of ten points more at the natural one",
        [text("component"), _known("natural", "", _percent), _known("proposed", "", _percent),
         Column("may be best", lambda row: f"{_percent(row['low'])} to {_percent(row['high'])}"),
         _known("most", "at most", _percent), figure("effect", signed=True),
         interval("effect_low", "effect_high")],
    ),
    "seeds": (
        "Primary endpoint by seed",
        [text("seed"), figure("treatment"), figure("baseline"), DIFFERENCE],
    ),
    "secondary": (
        "Secondary tests, with Holm's adjustment over all of them",
        [ARM, MEASURED_ON, DIFFERENCE, interval("family_low", "family_high"), chance("p_holm"),
         OUTCOME],
    ),
    "heldout": (
        "Held-out bits per byte (less is better); intervals are no tests",
        [ON, ARM, VALUE, DIFFERENCE, INTERVAL],
    ),
    "averages": (
        "Averages of tasks",
        [ON, ARM, VALUE, DIFFERENCE, INTERVAL,
         Column("rows", lambda row: f"{row['rows']} of {row['of']}")],
    ),
    "matched": (
        "At equal budgets; intervals over seeds",
        [Column("equal", lambda row: row["matched"].removeprefix("equal "), True, True),
         count("at"), ARM, VALUE, DIFFERENCE, INTERVAL],
    ),
    "sizes": (
        "Primary contrast by size",
        [text("variant", "size"), FLOPS, DIFFERENCE, INTERVAL, chance("p"), OUTCOME],
    ),
    "orders": (
        "Pairs of arms that keep their order from a size to a larger one",
        [text("variant", "size"), text("target", "larger"), right("decision", "kept"),
         Column("interval", lambda of: f"{of['decision_low']:.0%} to {of['decision_high']:.0%}"),
         _known("best_arm_found", "best arm", lambda found: "found" if found else "missed")],
    ),
    "proxies": (
        "Which metric decides best? Signal to noise at the smallest size",
        [MEASURED_ON, figure("ratio"), figure("by_chance", "by chance"), right("own", "kept"),
         right("primary", "as primary")],
    ),
    "scaling": (
        "Scaling law of each arm; a forecast goes a decade beyond what was run",
        [text("arm", once=True), FLOPS, text("kind"), VALUE, interval(signed=False),
         figure("floor"), figure("exponent")],
    ),
    "learning_rates": (
        "Settings tried for each arm",
        [text("arm", once=True), _known("learning_rate", "learning rate", "{:g}".format),
         _known("passes", "", "{:.3g}".format), _known("seeds", "", str), VALUE,
         Column("", status_of, text=True)],
    ),
    "crossover": (
        "Primary contrast as compute grows or text gets scarce",
        [Column("at", lambda row: f"{row['axis']} {row['at']:g}", text=True), DIFFERENCE, INTERVAL],
    ),
    "arms": (
        "Arms and their cost",
        [text("arm", once=True), text("variant"),
         Column("runs", lambda row: f"{row['complete']} of {row['declared']}"),
         replace(_known("model", "", str), text=True), count("parameters_total", "params"),
         count("parameters_active", "active"), count("tokens"), FLOPS,
         _known("wall_seconds_sum", "time", duration)],
    ),
    "jobs": (
        "Unfinished runs",
        [text("arm"), text("variant"), _known("seed", "", str), text("state"), text("error")],
    ),
}  # fmt: skip
"""Titles and columns of the tables printed; tasks are only in their file."""


def shown(name: str, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows to print: of proxy metrics, the best at the smallest size."""
    if name != "proxies":
        return rows
    return [row for row in rows if row["variant"] == rows[0]["variant"]][:BEST]


def lines(
    rows: Sequence[Row], columns: Sequence[Column], heads: Mapping[str, str] | None = None
) -> list[str]:
    """A table as lines of :data:`WIDTH` characters, or more if its numbers need them.

    ``heads`` replaces headings. Columns without values are left out.
    """
    names = heads or {}
    columns = [replace(column, head=names.get(column.head, column.head)) for column in columns]
    columns = [of for of in columns if any(of.cell(row) not in ("", "–") for row in rows)]
    cells = [[column.cell(row) for column in columns] for row in rows]
    heading = [column.head for column in columns]
    widths = [max(map(len, column)) for column in zip(heading, *cells, strict=True)]
    while sum(widths) + 2 * len(widths) > WIDTH:
        cuttable = [i for i, column in enumerate(columns) if column.text and widths[i] > 8]
        if not cuttable:
            break
        widths[max(cuttable, key=widths.__getitem__)] -= 1
    out = [_line(heading, columns, widths)]
    for k, row in enumerate(cells):
        before = cells[k - 1] if k else [None] * len(row)
        here = [
            "" if column.once and cell == old else cell
            for column, cell, old in zip(columns, row, before, strict=True)
        ]
        out.append(_line(here, columns, widths))
    return out


def wrapped(text: str, mark: str = "") -> list[str]:
    """A paragraph as lines, ``mark`` before the first."""
    return textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    placed = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        cut = cell if len(cell) <= width else f"{cell[: width - 1]}…"
        placed.append(cut.ljust(width) if column.text else cut.rjust(width))
    return ("  " + "  ".join(placed)).rstrip()
