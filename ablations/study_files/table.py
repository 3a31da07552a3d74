"""Tables as lists of rows, mappings of column names to plain values; and as CSV."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from winnow.filesystem import storage

Row = dict[str, Any]
"""A row; None for a missing value."""


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with :func:`columns` and floats at full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(folder: str, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write each table to ``NAME.csv``."""
    for name, rows in tables.items():
        storage.write_bytes(storage.join(folder, f"{name}.csv"), to_csv(rows).encode())


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All columns of the rows, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def figure(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as JSON values, ``{"columns": [name], "rows": [[value]]}``, with finite numbers only."""
    names = columns(rows)
    return {"columns": names, "rows": [[finite(row.get(name)) for name in names] for row in rows]}


def finite(value: Any) -> Any:
    """A plain value with None for numbers that are not finite, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
