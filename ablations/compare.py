"""Compares the arms of a finished study: the verdict first, then its tables.

python ablations/compare.py study=runs/data_quality

Writes ``comparison.json`` and one CSV per table to ``comparison/`` in the study (``output=DIR`` for
elsewhere). ``learning_rate=DIR`` names a study of the same arms at several learning rates; with it
the verdict is checked at each arm's best one. Exit code 1 means that nothing could be compared.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.rows import columns, to_csv
from ablations.settings import parse, read
from ablations.stats import verdict
from ablations.stats.comparison import Comparison, compare
from winnow import storage
from winnow.arguments import check_utf8

SHOWN = {
    "seeds": "Primary endpoint by seed",
    "secondary": "Secondary tests (Holm over the family)",
    "heldout": "Held-out bits per byte (intervals only, not tested)",
    "averages": "Task averages",
    "matched": "At equal budgets (intervals over seeds)",
    "sizes": "Primary contrast by size",
    "orders": "Does a smaller size order the arms as the largest does?",
    "scaling": "Scaling law per arm",
    "learning_rates": "Learning rates",
    "arms": "Arms and their cost",
    "jobs": "Jobs that are not complete",
}
"""Tables that are printed, with their titles; the one per task goes to its file only."""

WIDE = ("unit", "seeds", "family_low", "family_high", "config_hash", "missing", "against")
"""Columns left out of what is printed; files have them all."""


def main(arguments: Sequence[str]) -> None:
    """Read, compare, print, write; see ``--help``."""
    settings = parse(arguments, __doc__, ["learning_rate", "output"])
    result = compare(*read(settings["study"], settings.get("learning_rate")))
    output = settings.get("output", storage.join(settings["study"], "comparison"))
    write(result, output)
    print(render(result))
    print(f"\nFiles: {output}/comparison.json and a CSV per table")


def write(result: Comparison, output: str) -> None:
    """Write the tables, then ``comparison.json``; each file appears whole."""
    for name, rows in result.tables.items():
        storage.write_bytes(storage.join(output, f"{name}.csv"), to_csv(rows).encode())
    storage.write_json(storage.join(output, "comparison.json"), result.to_json())


def render(result: Comparison) -> str:
    """The comparison as plain text: verdict, notes, the parts of its error, tables."""
    primary = result.primary
    lines = [f"Study {result.study}", "", result.verdict.sentence, ""]
    lines += [f"- {note}" for note in result.notes] + [""] * bool(result.notes)
    lines += ["Primary contrast", *_parts(primary)]
    for name, title in SHOWN.items():
        if rows := result.tables[name]:
            lines += ["", title, *_grid(rows)]
    return "\n".join(lines)


def _parts(primary: Mapping[str, Any]) -> list[str]:
    """The estimate and both parts of its error."""
    num = verdict.number

    def between(low: float | None, high: float | None) -> str:
        return (
            "unknown" if low is None or high is None else f"{num(low, True)} to {num(high, True)}"
        )

    seeds, error = primary["seeds"], primary["seed_error"]
    found = primary["relative"]
    return [
        f"  difference       {num(primary['value'], True)} {primary['unit']}"
        + (f" ({found:+.2%} of {num(primary['baseline_value'])})" if found is not None else ""),
        f"  error of seeds   {'unknown' if error is None else num(error)} ({seeds} paired; interval"
        f" over seeds alone {between(primary['seed_low'], primary['seed_high'])})",
        f"  error of items   {num(primary['item_error'])} (clustered by document, clear of seeds)",
        f"  together         {num(primary['error'])} with {primary['df']:.1f} degrees of freedom:"
        f" {between(primary['low'], primary['high'])}, p = {primary['p']:.2g}",
    ]


def _grid(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [
        name
        for name in columns(rows)
        if name not in WIDE and any(row.get(name) not in (None, "") for row in rows)
    ]
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


if __name__ == "__main__":
    try:
        check_utf8(sys.argv[1:])
        main(sys.argv[1:])
    except (ValueError, OSError) as problem:
        sys.exit(f"error: {problem}")
