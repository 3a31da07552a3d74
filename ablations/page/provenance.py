"""Yields, costs and provenance of a study's runs, from the results' ``provenance``."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.page import rule_words
from ablations.study_files.results import Run, Study
from ablations.study_files.table import Row

Json = dict[str, Any]

CO2E_KG_PER_KWH = 0.445
"""World average of 2024 (IEA, Electricity 2025, "Emissions"), for runs that state none
(``hardware.co2e_kg_per_kwh``); GLaM's was 0.088."""

UNITS = ("documents", "bytes", "targets")

LIST_SHOWN = 200
TEXT_SHOWN = 2000


def yields(study: Study) -> list[Row]:
    """Each arm's share of each source, from the results' provenance.

    ``provenance["arm"]`` is a corpus's ``arms/NAME.json``; its ``sources`` and the ``pool`` in
    ``provenance["corpus"]`` are {source: {documents, targets, bytes}}. A target is a token or a
    boundary.
    """
    rows = []
    for arm in study.declared.arms:
        about = _first_provenance(study, arm)
        if "arm" not in about or "corpus" not in about:
            continue
        kept, pool = about["arm"]["sources"], about["corpus"]["pool"]
        none = dict.fromkeys(UNITS, 0)
        places = [(source, kept.get(source, none), counts) for source, counts in pool.items()]
        totals = [
            {unit: sum(of[unit] for of in by.values()) for unit in UNITS} for by in (kept, pool)
        ]
        for source, ours, counts in [*places, ("all", *totals)]:
            row: Row = {"arm": arm, "rule": rule_words.describe(about["arm"]), "source": source}
            for unit in UNITS:
                row |= {f"pool_{unit}": counts[unit], f"kept_{unit}": ours[unit]}
                row[f"rate_{unit}"] = ours[unit] / counts[unit] if counts[unit] else None
            rows.append(row)
    return rows


def costs(study: Study, arms: Sequence[Row]) -> list[Row]:
    """The cost of each arm, with CO2e."""
    rows = []
    for row in arms:
        runs = study.seeds(row["arm"], row["variant"]).values()
        rows.append(row | ({"co2e_kg_sum": sum(map(_co2e, runs))} if runs else {}))
    return rows


def provenance(study: Study) -> Json:
    """Provenance shared by all runs, by arm, and by run; long lists are truncated, with a note."""
    flattened = {job: flat(run.result.provenance) for job, run in study.runs.items()}
    shared: Json = {}
    by_arm: dict[str, Json] = {}
    runs = {
        job: {"arm": job.arm_name, "seed": job.seed, "config_hash": run.result.config_hash}
        for job, run in study.runs.items()
    }
    for key in dict.fromkeys(key for about in flattened.values() for key in about):
        values = {job: about.get(key) for job, about in flattened.items()}
        arms: dict[str, set[str]] = {}
        for job, value in values.items():
            arms.setdefault(job.arm_name, set()).add(json.dumps(value, sort_keys=True))
        if len(set.union(*arms.values())) == 1:
            shared[key] = _clip(next(iter(values.values())))
        elif all(len(values_of_arm) == 1 for values_of_arm in arms.values()):
            for job, value in values.items():
                by_arm.setdefault(job.arm_name, {})[key] = _clip(value)
        else:
            for job, value in values.items():
                runs[job][key] = _clip(value)
    return {
        "shared": shared,
        "by_arm": by_arm,
        "runs": list(runs.values()),
        "budget": _clip(dict(study.declared.budget)),
    }


def flat(value: Mapping[str, Any]) -> Json:
    """Flatten one level of mappings: {"a": {"b": 1}} to {"a b": 1}."""
    out: Json = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            out |= {f"{key} {name}": inner for name, inner in item.items()}
        else:
            out[str(key)] = item
    return out


def carbon(study: Study) -> Json:
    """Kilograms of CO2e per kWh of electricity, and the source of the figure."""
    runs = study.runs.values()
    stated = {run.result.provenance.get("co2e_kg_per_kwh") for run in runs} or {None}
    average = "the world average of 2024 (IEA, Electricity 2025)"
    if stated == {None}:
        return {"kg_per_kwh": CO2E_KG_PER_KWH, "source": average}
    if len(stated) == 1:
        return {"kg_per_kwh": stated.pop(), "source": "as stated by its runs"}
    mixed = f"the mean over jobs of what each states, or of {average}"
    kwh = sum(run.result.kwh for run in runs)
    return {"kg_per_kwh": sum(map(_co2e, runs)) / kwh, "source": mixed}


def _co2e(run: Run) -> float:
    stated = run.result.provenance.get("co2e_kg_per_kwh")
    return run.result.kwh * (CO2E_KG_PER_KWH if stated is None else float(stated))


def rule(study: Study, arm: str) -> str | None:
    """The rule of an arm in words; None if no result has it."""
    about = _first_provenance(study, arm).get("arm")
    return rule_words.rule(about["definition"]) if about else None


def _first_provenance(study: Study, arm: str) -> Mapping[str, Any]:
    run: Run | None = next(iter(study.seeds(arm).values()), None)
    return run.result.provenance if run else {}


def _clip(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _clip(item) for key, item in value.items()}
    if isinstance(value, str):
        return value if len(value) <= TEXT_SHOWN else f"{value[:TEXT_SHOWN]}… (cut)"
    if isinstance(value, Sequence):
        cut = [_clip(item) for item in value[:LIST_SHOWN]]
        more = len(value) - LIST_SHOWN
        return [*cut, f"and {more:,} more, see result.json"] if more > 0 else cut
    return value
