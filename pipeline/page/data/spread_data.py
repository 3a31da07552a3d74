"""How far the scores of each source spread, from its histogram."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.output.summary import Summary
from pipeline.page.data.totals import clip
from quality_classifier.evaluation.within_groups import (
    LEAST_DOCUMENTS,
    near_constant,
    score_quantiles,
)

ROWS = 200


def spread_rows(_: Mapping[str, Any], statistics: Summary) -> list[dict[str, Any]]:
    """A row for each source, the largest first, and of several one that counts them."""
    table = statistics["score_histogram"].sort_by(
        [("source", "ascending"), ("score_low", "ascending")]
    )
    if not len(table):
        return []
    names, starts = np.unique(table["source"].to_numpy(), return_index=True)
    found = [
        (str(name), counts)
        for name, counts in zip(
            names, np.split(table["documents"].to_numpy(), starts[1:]), strict=True
        )
        if counts.sum()
    ]
    found.sort(key=lambda pair: (-int(pair[1].sum()), pair[0]))
    rows, flags = [], []
    for name, counts in found:
        low, median, high = (round(value, 3) for value in score_quantiles(counts))
        flat = near_constant(counts)
        flags.append(flat)
        row = {"source": clip(name), "documents": int(counts.sum()), "10 % below": low}
        row |= {"median": median, "90 % below": high, "80 % within": round(high - low, 3)}
        rows.append(row | {"near constant": "too few" if flat is None else "yes" if flat else "no"})
    known = [flag for flag in flags if flag is not None]
    if len(rows) > 1:
        rows = rows[:ROWS]
        text = f"{sum(known)} of {len(known)}"
        rows.append(
            {"source": f"sources of {LEAST_DOCUMENTS} documents and more", "near constant": text}
        )
    return rows
