"""The spread of each source's scores, from its histogram."""

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from pipeline.output.summary import Summary
from pipeline.page.data.totals import clip
from quality_classifier.evaluation.within_groups import (
    LEAST_DOCUMENTS,
    near_constant,
    score_quantiles,
)

ROWS = 200
_FLAGS = {None: "too few", True: "yes", False: "no"}


def spread_rows(_: Mapping[str, Any], statistics: Summary) -> list[dict[str, Any]]:
    """A row for each source, the largest first; with several, a row of counts too."""
    table = statistics["score_histogram"].sort_by("score_low")
    rows: list[dict[str, Any]] = []
    for name in sorted(table["source"].unique().to_pylist()):
        counts = table.filter(pc.equal(table["source"], name))["documents"].to_numpy()
        if n := int(counts.sum()):
            low, median, high = (round(value, 3) for value in score_quantiles(counts))
            row = {"source": clip(name), "documents": n, "10 % below": low, "median": median}
            row |= {"90 % below": high, "80 % within": round(high - low, 3)}
            rows.append(row | {"near constant": _FLAGS[near_constant(counts)]})
    rows.sort(key=lambda row: -row["documents"])
    if len(rows) < 2:
        return rows
    flags = [row["near constant"] for row in rows]
    total = f"{flags.count('yes')} of {len(flags) - flags.count('too few')}"
    name = f"sources of {LEAST_DOCUMENTS} documents and more"
    return [*rows[:ROWS], {"source": name, "near constant": total}]
