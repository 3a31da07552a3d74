"""The data of the page of a comparison of logged samples."""

from typing import Any

from ablations.samples.comparison import Comparison
from ablations.samples.pairing import Arms, Paired
from ablations.study_files.table import figure, finite

SHOWN = ("tests", "runs_of_primary", "scores", "runs", "left_out")
"""Tables on the page; items are only in their file."""


def page_data(result: Comparison, paired: Paired, arms: Arms) -> dict[str, Any]:
    """Everything that ``page.js`` draws."""
    tables = {name: result.tables[name] for name in SHOWN}
    return {
        "headline": result.headline,
        "sentence": result.verdict.sentence,
        "detectable": finite(result.verdict.detectable),
        "notes": list(result.notes),
        "primary": finite(result.primary),
        "paired": dict(result.paired),
        "runs": paired.runs,
        "declared": {"arms": list(paired.arms)},
        "differing": len(result.tables["items"]),
        "figures": {name: figure(rows) for name, rows in tables.items()},
        "empty": {name: "" for name, rows in tables.items() if not rows},
        "panels": [],
        "evaluations": [
            {"arm": arm, "run": run, "model": evaluation.model, "place": evaluation.place}
            | {"lm_eval": evaluation.version, "tasks": len(evaluation.tasks)}
            for arm, evaluations in arms.items()
            for run, evaluation in enumerate(evaluations, 1)
        ],
    }
