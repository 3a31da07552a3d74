"""The data of the page of a comparison of logged samples, as one JSON value."""

import math
from collections.abc import Sequence
from typing import Any

from ablations.samples.comparison import Comparison
from ablations.samples.pairing import Arms, Paired
from ablations.study_files.table import Row, columns

SHOWN = ("tests", "runs_of_primary", "scores", "runs", "left_out")
"""Tables on the page; differing items are only in their file."""


def page_data(result: Comparison, paired: Paired, arms: Arms) -> dict[str, Any]:
    """Everything that ``page.js`` draws."""
    tables = {name: result.tables[name] for name in SHOWN}
    return {
        "headline": result.headline,
        "sentence": result.verdict.sentence,
        "detectable": _number(result.verdict.detectable),
        "notes": list(result.notes),
        "primary": {name: _number(value) for name, value in result.primary.items()},
        "paired": dict(result.paired),
        "runs": paired.runs,
        "declared": {"arms": list(paired.arms)},
        "differing": len(result.tables["items"]),
        "figures": {name: _figure(rows) for name, rows in tables.items()},
        "empty": {name: "" for name, rows in tables.items() if not rows},
        "panels": [],
        "evaluations": [
            {
                "arm": arm,
                "run": run,
                "model": evaluation.model,
                "place": evaluation.place,
                "lm_eval": evaluation.version,
                "tasks": len(evaluation.tasks),
            }
            for arm, evaluations in arms.items()
            for run, evaluation in enumerate(evaluations, 1)
        ],
    }


def _figure(rows: Sequence[Row]) -> dict[str, Any]:
    names = columns(rows)
    return {
        "columns": names,
        "rows": [[_number(row.get(name)) for name in names] for row in rows],
    }


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
