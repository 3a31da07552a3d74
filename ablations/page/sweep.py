"""Endpoints along a number that a study sweeps: alpha, experts, a learning rate.

Arms or variants called ``name=number`` are the points of an axis. If arms are (``alpha=3.0``), each
variant is a line; if variants are (``rate=0.5``), each arm.
"""

from ablations.contrasts.axis import axis_of
from ablations.contrasts.pairing import contrast, sample
from ablations.page.curves import interval
from ablations.stats import inference
from ablations.study_files.results import Study
from ablations.study_files.table import Row


def along_axis(study: Study) -> list[Row]:
    """Primary endpoint and held-out groups at each point, with differences from the baseline.

    Intervals are over seeds.
    """
    declared = study.declared
    arms = [arm for arm in declared.arms if arm != declared.primary.control]
    of_arms, of_variants = axis_of(arms), axis_of(declared.variants)
    if (axis := of_arms or of_variants) is None:
        return []
    name, numbers = axis
    groups = [f"heldout/{group}" for group in declared.heldout]
    rows: list[Row] = []
    for endpoint in dict.fromkeys([declared.primary.endpoint, *groups]):
        for variant in declared.variants:
            baseline = study.seeds(declared.primary.baseline, variant)
            for arm in arms:
                if not (runs := study.seeds(arm, variant)):
                    continue
                place, line = (arm, variant) if of_arms else (variant, arm)
                values = [inference.endpoint(sample(study, run, endpoint)) for run in runs.values()]
                row: Row = {"endpoint": endpoint, "axis": name, "at": numbers[place]}
                row["points"] = "arms" if of_arms else "variants"
                row |= {"line": line, "arm": arm, "variant": variant}
                row |= interval(values, declared.primary.alpha)
                row |= dict.fromkeys(("difference", "difference_low", "difference_high"))
                result = contrast(study, runs, baseline, endpoint)
                if arm != declared.primary.baseline and result:
                    estimate = result.estimate
                    row |= {"difference": estimate.value, "difference_low": estimate.seed_low}
                    row |= {"difference_high": estimate.seed_high}
                rows.append(row)
    return sorted(rows, key=lambda row: (row["endpoint"], row["line"], row["at"]))
