"""The tables of a comparison for a terminal of 80 columns; the CSV files have everything.

Numbers have three significant digits, counts a suffix (131K, 2.72M).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablations.contrasts import endpoints
from ablations.contrasts.verdict import number
from ablations.study_files.table import Row
from ablations.study_files.variant_choice import status_of

WIDTH = 80
BEST = 12
"""Metrics that are printed, of many."""


@dataclass(frozen=True)
class Column:
    """A column. ``text`` is left-aligned and cut where a line is too long; with ``once``, a value
    that repeats the line above is left blank.
    """

    head: str
    cell: Callable[[Row], str]
    text: bool = False
    once: bool = False


def text(name: str, head: str = "", once: bool = False) -> Column:
    """A text column of the value under ``name``."""
    return Column(head or name, lambda row: str(row[name] or "–"), text=True, once=once)


def figure(name: str, head: str = "", signed: bool = False) -> Column:
    """A column of numbers to three digits."""
    return Column(head or name, lambda row: _figure(row[name], signed))


def count(name: str, head: str = "") -> Column:
    """A column of counts with their suffix."""
    return Column(head or name, lambda row: amount(row.get(name)))


def interval(low: str = "low", high: str = "high", signed: bool = True) -> Column:
    """A column of intervals."""

    def cell(row: Row) -> str:
        if row.get(low) is None or row.get(high) is None:
            return "–"
        return f"{number(row[low], signed)} to {number(row[high], signed)}"

    return Column("interval", cell)


def chance(name: str) -> Column:
    """A column of p-values."""
    return Column("p", lambda row: "–" if row.get(name) is None else f"{row[name]:.2g}")


def right(name: str, head: str) -> Column:
    """A column of right decisions, of how many."""

    def cell(row: Row) -> str:
        total = row[f"{name}_of"]
        return "–" if total is None else f"{row[f'{name}_right']} of {total}"

    return Column(head, cell)


ON = Column("measured on", lambda row: endpoints.label(row["endpoint"]), text=True, once=True)
ARM = text("arm")
DIFFERENCE = figure("difference", signed=True)
FLOPS = Column("FLOPs", lambda row: _power(row.get("flops")))

TABLES: Mapping[str, tuple[str, Sequence[Column]]] = {
    "calibration": (
        "Checks of the instrument",
        [
            text("check"),
            Column("difference", lambda row: _figure(row.get("difference"), True)),
            interval(),
            text("outcome"),
        ],
    ),
    "mixture": (
        "The proposed mixture, in percent; the effect of ten points more at the natural one",
        [
            text("component"),
            Column("natural", lambda row: _percent(row["natural"])),
            Column("proposed", lambda row: _percent(row["proposed"])),
            Column("may be best", lambda row: f"{_percent(row['low'])} to {_percent(row['high'])}"),
            Column("at most", lambda row: _percent(row["most"])),
            figure("effect", signed=True),
            interval("effect_low", "effect_high"),
        ],
    ),
    "seeds": (
        "Primary endpoint by seed",
        [text("seed"), figure("treatment"), figure("baseline"), DIFFERENCE],
    ),
    "secondary": (
        "Secondary tests, with Holm's adjustment over all of them",
        [
            ARM,
            Column("measured on", lambda row: endpoints.label(row["endpoint"]), text=True),
            Column("difference", lambda row: _figure(row.get("difference"), True)),
            interval("family_low", "family_high"),
            chance("p_holm"),
            text("outcome"),
        ],
    ),
    "heldout": (
        "Held-out bits per byte (less is better); intervals are no tests",
        [ON, ARM, figure("value"), DIFFERENCE, interval()],
    ),
    "averages": (
        "Averages of tasks",
        [
            ON,
            ARM,
            figure("value"),
            DIFFERENCE,
            interval(),
            Column("rows", lambda row: f"{row['rows']} of {row['of']}"),
        ],
    ),
    "matched": (
        "At equal budgets; intervals over seeds",
        [
            Column("equal", lambda row: row["matched"].removeprefix("equal "), True, True),
            count("at"),
            ARM,
            figure("value"),
            DIFFERENCE,
            interval(),
        ],
    ),
    "sizes": (
        "Primary contrast by size",
        [text("variant", "size"), FLOPS, DIFFERENCE, interval(), chance("p"), text("outcome")],
    ),
    "orders": (
        "Pairs of arms that keep their order from a size to a larger one",
        [
            text("variant", "size"),
            text("target", "larger"),
            right("decision", "kept"),
            Column("interval", lambda row: _shares(row["decision_low"], row["decision_high"])),
            Column("best arm", lambda row: _found(row["best_arm_found"])),
        ],
    ),
    "proxies": (
        "Which metric decides best? Signal to noise at the smallest size",
        [
            Column("measured on", lambda row: endpoints.label(row["endpoint"]), text=True),
            figure("ratio"),
            figure("by_chance", "by chance"),
            right("own", "kept"),
            right("primary", "as primary"),
        ],
    ),
    "scaling": (
        "Scaling law of each arm; a forecast goes a decade beyond what was run",
        [
            text("arm", once=True),
            FLOPS,
            text("kind"),
            figure("value"),
            interval(signed=False),
            figure("floor"),
            figure("exponent"),
        ],
    ),
    "learning_rates": (
        "What was tried of each arm",
        [
            text("arm", once=True),
            Column("learning rate", lambda row: f"{row['learning_rate']:g}"),
            Column("passes", lambda row: f"{row['passes']:.3g}"),
            Column("seeds", lambda row: str(row["seeds"])),
            figure("value"),
            Column("", status_of, text=True),
        ],
    ),
    "crossover": (
        "Primary contrast as compute grows or text gets scarce",
        [
            Column("at", lambda row: f"{row['axis']} {row['at']:g}", text=True),
            DIFFERENCE,
            interval(),
        ],
    ),
    "arms": (
        "Arms and their cost",
        [
            text("arm", once=True),
            text("variant"),
            Column("runs", lambda row: f"{row['complete']} of {row['declared']}"),
            Column("model", lambda row: str(row.get("model", "–")), text=True),
            count("parameters_total", "params"),
            count("parameters_active", "active"),
            count("tokens"),
            FLOPS,
            Column("time", lambda row: duration(row.get("wall_seconds_sum"))),
        ],
    ),
    "jobs": (
        "Unfinished runs",
        [
            text("arm"),
            text("variant"),
            Column("seed", lambda row: str(row["seed"])),
            text("state"),
            text("error"),
        ],
    ),
}
"""Title and columns of what is printed; the table of tasks goes to its file only."""


def shown(name: str, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of a table that are printed: of metrics, the best at the smallest size."""
    if name != "proxies":
        return rows
    return [row for row in rows if row["variant"] == rows[0]["variant"]][:BEST]


def lines(
    rows: Sequence[Row], columns: Sequence[Column], heads: Mapping[str, str] | None = None
) -> list[str]:
    """A table as lines of :data:`WIDTH` characters, or more if its numbers alone are wider.

    ``heads`` replaces headings. Columns without values are left out.
    """
    columns = [
        replace(column, head=(heads or {}).get(column.head, column.head)) for column in columns
    ]
    cells = [[column.cell(row) for column in columns] for row in rows]
    shown = [i for i in range(len(columns)) if any(row[i] not in ("", "–") for row in cells)]
    columns = [columns[i] for i in shown]
    cells = [[row[i] for i in shown] for row in cells]
    widths = [
        max(map(len, [column.head, *(row[i] for row in cells)])) for i, column in enumerate(columns)
    ]
    while sum(widths) + 2 * len(widths) > WIDTH:
        cuttable = [i for i, column in enumerate(columns) if column.text and widths[i] > 8]
        if not cuttable:
            break
        widths[max(cuttable, key=widths.__getitem__)] -= 1
    out = [_line([column.head for column in columns], columns, widths)]
    for k, row in enumerate(cells):
        before = cells[k - 1] if k else [None] * len(row)
        here = [
            "" if column.once and cell == old else cell
            for column, cell, old in zip(columns, row, before, strict=True)
        ]
        out.append(_line(here, columns, widths))
    return out


def amount(value: float | None) -> str:
    """A count to three digits: 950, 131K, 2.72M, 1.2B."""
    if value is None:
        return "–"
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """A time: 45 s, 12 min, 3.2 h."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    placed = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        cut = cell if len(cell) <= width else f"{cell[: width - 1]}…"
        placed.append(cut.ljust(width) if column.text else cut.rjust(width))
    return ("  " + "  ".join(placed)).rstrip()


def _figure(value: Any, signed: bool = False) -> str:
    return "–" if value is None else number(value, signed)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _shares(low: float, high: float) -> str:
    return f"{low:.0%} to {high:.0%}"


def _found(value: bool | None) -> str:
    return "–" if value is None else "found" if value else "missed"


def _power(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}".replace("e+", "e")
