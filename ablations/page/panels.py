"""Further tables of a study's page, from the study and its comparison."""

from collections.abc import Mapping, Sequence

import numpy as np

from ablations.analyses.comparison import Comparison
from ablations.contrasts import endpoints
from ablations.contrasts.pairing import sample
from ablations.page.curves import interval
from ablations.stats import inference
from ablations.study_files.results import Run, Study
from ablations.study_files.table import Row
from ablations.study_files.variant_choice import status_of
from pipeline.page import Panel


def trunk_gains(study: Study, _: Comparison | ValueError) -> list[Row]:
    """Every arm on every held-out group: its trunk, the arm, and the change; means over seeds.

    With one shared trunk, the interval is over text orders of the last stage only.
    """
    rows: list[Row] = []
    for group in study.declared.heldout if study.trunks else ():
        for arm in study.declared.arms:
            variant = study.variant_of(arm)
            trunks = {key.seed: run for key, run in study.trunks.items() if key.variant == variant}
            before = _values(study, trunks, f"heldout/{group}")
            after = _values(study, study.seeds(arm), f"heldout/{group}")
            start = dict.fromkeys(after, *before.values()) if len(before) == 1 else before
            if seeds := sorted(start.keys() & after.keys()):
                changes = [after[s] - start[s] for s in seeds]
                change = interval(changes, study.declared.primary.alpha)
                row: Row = {"Held-out text": endpoints.label(f"heldout/{group}"), "Arm": arm}
                row |= {"Seeds": len(seeds), "Trunk": float(np.mean([start[s] for s in seeds]))}
                row |= {"Arm’s end": float(np.mean([after[s] for s in seeds]))}
                row |= {"Change": change["value"], "from": change["low"], "to": change["high"]}
                rows.append(row)
    return rows


def _values(study: Study, runs: Mapping[int, Run], endpoint: str) -> dict[int, float]:
    return {s: inference.endpoint(sample(study, run, endpoint)) for s, run in runs.items()}


def learning_rates(study: Study, result: Comparison | ValueError) -> Sequence[Row]:
    """Each arm at the learning rates or numbers of passes tried."""
    rows = [] if isinstance(result, ValueError) else result.tables["learning_rates"]
    unit = endpoints.unit(study.declared.primary.endpoint).capitalize()
    return [
        {
            "Arm": row["arm"],
            "Learning rate": row["learning_rate"],
            "Passes": round(row["passes"], 2),
            "Tokens": row["tokens"],
            "Seeds": row["seeds"],
            unit: row["value"],
            "": status_of(row),
        }
        for row in rows
    ]


def crossover(study: Study, result: Comparison | ValueError) -> Sequence[Row]:
    """The primary difference at each number of passes or tokens."""
    rows = [] if isinstance(result, ValueError) else result.tables.get("crossover", [])
    primary = study.declared.primary
    head = f"{primary.treatment} − {primary.baseline}, {endpoints.unit(primary.endpoint)}"
    names = {"seeds": "Seeds", "difference": head, "low": "Low", "high": "High"}
    return [
        {row["axis"].capitalize(): row["at"], **{names[name]: row[name] for name in names}}
        for row in rows
    ]


PANELS: dict[str, Panel] = {
    "trunk": Panel(
        "From the trunk",
        trunk_gains,
        "Bits per byte before and after the learning rate was decayed, and the change.",
    ),
    "learning_rates": Panel(
        "Settings tried for each arm",
        learning_rates,
        "Means over seeds, on the text used for the choice.",
    ),
    "crossover": Panel(
        "Crossover",
        crossover,
        "The crossover is the zero of a line fitted to these differences, in the logarithm. The"
        " intervals are not adjusted for their number.",
    ),
}
"""Panels by name, of a study and its comparison or the error that prevented it."""
