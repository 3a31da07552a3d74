"""Gains of each arm over the trunk that it started from."""

from collections.abc import Mapping

import numpy as np

from ablations.contrasts import endpoints
from ablations.contrasts.pairing import sample
from ablations.page.curves import interval
from ablations.stats import inference
from ablations.study_files.results import Run, Study
from ablations.study_files.table import Row


def gains(study: Study) -> list[Row]:
    """Every arm on every held-out group: its trunk, the arm, and the change.

    Means over seeds. The interval of the change is over seeds; with one shared trunk, over the text
    orders of the last stage only.
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
    """Bits per byte by seed."""
    return {s: inference.endpoint(sample(study, run, endpoint)) for s, run in runs.items()}
