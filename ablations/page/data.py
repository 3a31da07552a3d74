"""The data of a study's page as one JSON value: verdict, figures, and reasons for empty ones.

A figure is ``{"columns": [name], "rows": [[value]]}``, behind a chart or table and a CSV file.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablations.analyses import ladder, mixture_proposal, tables
from ablations.analyses.comparison import Comparison
from ablations.contrasts import endpoints
from ablations.contrasts.pairing import sample
from ablations.page import curves, groups, provenance, routers, sweep, trunk
from ablations.page.headline import headline, next_step, question, reach, secondary_findings
from ablations.page.training_log import TrainingLog
from ablations.stats import inference
from ablations.study_files.results import TRUNK, JobKey, Study
from ablations.study_files.table import Row, columns
from ablations.study_files.variant_choice import status_of
from pipeline.page import Panel, panel_data

Json = dict[str, Any]
Logs = Mapping[JobKey, TrainingLog]


def page_data(
    study: Study, result: Comparison | ValueError, logs: Logs, not_run: Mapping[str, str]
) -> Json:
    """Everything that ``page/report.js`` draws.

    Args:
        study: the study.
        result: its comparison, or the error that prevented one.
        logs: training logs of complete jobs.
        not_run: reasons for tasks that were requested but not run.
    """
    declared = study.declared
    shown = figures(study, result, logs, not_run)
    return {
        "study": declared.name,
        **verdict(study, result),
        "declared": {
            "arms": list(declared.arms),
            "seeds": list(declared.seeds),
            "variants": list(declared.variants),
            "main": declared.main,
            "baseline": declared.primary.baseline,
            "treatment": declared.primary.treatment,
            "endpoint": declared.primary.endpoint,
            "unit": endpoints.unit(declared.primary.endpoint),
            "gain": endpoints.gain(declared.primary.endpoint),
            "smallest_difference": declared.primary.smallest_difference,
            "coverage": 1 - declared.primary.alpha,
            "power": declared.primary.power,
            "shots": list(declared.shots),
            "heldout": curves.heldout_names(study),
            "groups": {name: list(sources) for name, sources in declared.heldout.items()},
        },
        "conclusions": groups.conclusions(study),
        "signs": None if isinstance(result, ValueError) else _signs(result),
        "mixture": _conclusion(result),
        "jobs": {"complete": len(study.runs), "declared": len(_declared_jobs(study))},
        "co2e": provenance.carbon(study),
        "figures": {name: figure(rows) for name, rows in shown.items()},
        "labels": labels(study, shown),
        "empty": reasons(study, result, shown),
        "panels": panel_data(PANELS, study, result),
        "provenance": provenance.provenance(study),
    }


def learning_rates(study: Study, result: Comparison | ValueError) -> Sequence[Row]:
    """Each arm at the learning rates or numbers of passes that were tried."""
    rows = [] if isinstance(result, ValueError) else result.tables["learning_rates"]
    return [
        {
            "Arm": row["arm"],
            "Learning rate": row["learning_rate"],
            "Passes": round(row["passes"], 2),
            "Tokens": row["tokens"],
            "Seeds": row["seeds"],
            endpoints.unit(study.declared.primary.endpoint).capitalize(): row["value"],
            "": status_of(row),
        }
        for row in rows
    ]


def crossover(study: Study, result: Comparison | ValueError) -> Sequence[Row]:
    """The primary difference at each number of passes or tokens."""
    rows = [] if isinstance(result, ValueError) else result.tables.get("crossover", [])
    primary = study.declared.primary
    head = f"{primary.treatment} − {primary.baseline}, {endpoints.unit(primary.endpoint)}"
    return [
        {
            row["axis"].capitalize(): row["at"],
            "Seeds": row["seeds"],
            head: row["difference"],
            "Low": row["low"],
            "High": row["high"],
        }
        for row in rows
    ]


def from_trunk(study: Study, _: Comparison | ValueError) -> Sequence[Row]:
    """Gains of each arm over its trunk."""
    return trunk.gains(study)


PANELS: dict[str, Panel] = {
    "trunk": Panel(
        "From the trunk",
        from_trunk,
        "Bits per byte where the learning rate began to fall, after it, and the change.",
    ),
    "learning_rates": Panel(
        "What was tried of each arm",
        learning_rates,
        "Mean over seeds on the text that the choice was made on.",
    ),
    "crossover": Panel(
        "Crossover",
        crossover,
        "The crossover is where a line in the logarithm, fitted to these differences, is 0. Each"
        " interval is for itself.",
    ),
}
"""Further tables of the page, from the study and its comparison."""


def verdict(study: Study, result: Comparison | ValueError) -> Json:
    """Headline, verdict, notes and the primary estimate."""
    if isinstance(result, ValueError):
        outcome, detectable, notes, primary = None, None, [], None
        sentence = f"There is no verdict: {result}."
    else:
        outcome, sentence = result.verdict.outcome, result.verdict.sentence
        detectable, notes, primary = result.verdict.detectable, result.notes, result.primary
        if result.mixture and not result.mixture.confirmed:
            primary = None  # no contrast was asked for
    return {
        "question": question(study, result),
        "headline": headline(study, result),
        "next": next_step(study, result),
        "reach": reach(study),
        "outcome": outcome,
        "sentence": sentence,
        "detectable": _number(detectable),
        "notes": [*secondary_findings(result), *notes],
        "primary": None if primary is None else {k: _number(v) for k, v in primary.items()},
    }


def labels(study: Study, shown: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """Labels of the endpoints in all figures."""
    named = [row["endpoint"] for name in ENDPOINTS_OF for row in shown[name]]
    return {name: endpoints.label(name) for name in [study.declared.primary.endpoint, *named]}


ENDPOINTS_OF = ("secondary", "heldout", "averages", "tasks", "swept", "proxies")
"""Figures whose rows name an endpoint in full."""


def figures(
    study: Study, result: Comparison | ValueError, logs: Logs, not_run: Mapping[str, str]
) -> dict[str, list[Row]]:
    """The rows of every figure and table by name; without a comparison, those that need none."""
    shown: dict[str, list[Row]] = {}
    if isinstance(result, ValueError):
        names = (
            "calibration",
            "seeds",
            "secondary",
            "sizes",
            "orders",
            "proxies",
            "scaling",
            "learning_rates",
            "claims",
        )
        shown = {name: [] for name in names}
        run = next((run for arm in study.declared.arms for run in study.seeds(arm).values()), None)
        for name, make in (
            ("heldout", tables.heldout),
            ("averages", tables.averages),
            ("tasks", tables.tasks),
        ):
            shown[name] = make(study, run) if run else []
        shown["contamination"] = tables.contamination(study)
        shown |= {"matched": tables.matched_budgets(study), "jobs": tables.jobs(study)}
        arms = tables.arms(study)
    else:
        shown = {name: [dict(row) for row in rows] for name, rows in result.tables.items()}
        arms = shown.pop("arms")
    return {
        **{name: [] for name in mixture_proposal.TABLES},
        **shown,
        "averages": with_chance(study, shown["averages"]),
        "training_loss": curves.training_loss(study, logs),
        "loss_bands": curves.loss_bands(study, logs),
        "curves": _along(curves.heldout_curves(study)),
        "bands": _along(curves.heldout_bands(study)),
        "gaps": _along(curves.heldout_gaps(study)),
        "efficiency": curves.efficiency(study),
        "iso_flop": curves.iso_flop(study),
        "size_runs": [] if isinstance(result, ValueError) else size_runs(study),
        "swept": sweep.along_axis(study),
        "yields": provenance.yields(study),
        "expert_load": routers.expert_load(logs),
        "routers": routers.routers(logs),
        "router_layers": routers.router_layers(logs),
        "costs": provenance.costs(study, arms),
        "not_run": tasks_not_run(study, not_run),
    }


def reasons(
    study: Study, result: Comparison | ValueError, shown: Mapping[str, Sequence[Row]]
) -> dict[str, str]:
    """Reasons for figures without rows."""
    nothing = "No job is complete yet." if not study.runs else None
    apart = f"There is no comparison: {result}." if isinstance(result, ValueError) else None
    no_swarm = "This study has no swarm of mixtures (experiment=mixture), or not all of it has run."
    one_size = (
        "All complete jobs are of one size: declare variants of other sizes to see how the"
        " difference goes with it."
    )
    why = {
        "calibration": apart
        or "This study does not calibrate the instrument (experiment=calibration).",
        **dict.fromkeys(mixture_proposal.TABLES, apart or no_swarm),
        "seeds": apart or "Runs of a swarm are of different mixtures, and not compared alone.",
        "secondary": apart or "The study declares no secondary endpoint and no third arm.",
        "heldout": "No job of the main variant is complete.",
        "training_loss": "No complete job has a metrics.jsonl with training losses.",
        "loss_bands": "No complete job has a metrics.jsonl with training losses.",
        "curves": "No complete job evaluated twice or more along its training (evaluate.every), so"
        " there are no curves on held-out text.",
        "bands": "There are no curves of which all seeds have the same evaluations.",
        "gaps": "No seed has curves of both an arm and the baseline.",
        "efficiency": "No arm has, with each seed, curves that reach a level of the baseline's.",
        "matched": "Arms can be compared at equal budgets where jobs evaluate along their training"
        " and the primary endpoint is of held-out text.",
        "sizes": one_size,
        "size_runs": apart or one_size,
        "orders": "Sizes can be compared where two arms have runs at two of them.",
        "proxies": apart or "Signal to noise takes two arms that share two seeds.",
        "scaling": "A law needs three sizes and five runs per arm.",
        "iso_flop": "No two sizes of an arm reached the same total compute with held-out"
        " evaluations along their training.",
        "averages": "No job answered any of the 29 tasks.",
        "tasks": "No job answered any task.",
        "swept": "Neither arms nor variants of this study are points of an axis (name=number).",
        "contamination": "No task was asked, or its items were not held against training text.",
        "yields": "No result says what its arm kept (arm and corpus in its provenance).",
        "expert_load": "No complete job has experts, or none logged their load.",
        "routers": "No complete job logged what its routers did.",
        "router_layers": "No complete job logged what its routers did.",
        "learning_rates": "Learning rates were not checked: each arm was run at one only.",
        "claims": apart or "This study tests none of GLaM’s claims.",
        "jobs": "Every declared job is complete.",
        "not_run": "No task was left out.",
    }
    needs_no_run = ("jobs", "costs")
    return {
        name: (nothing if nothing and name not in needs_no_run else why[name])
        for name, rows in shown.items()
        if not rows and name in why
    }


def figure(rows: Sequence[Row]) -> Json:
    """Rows as column names and lists of values; non-finite values become None."""
    names = columns(rows)
    return {
        "columns": names,
        "rows": [[_number(row.get(name)) for name in names] for row in rows],
    }


def with_chance(study: Study, averages: Sequence[Row]) -> list[Row]:
    """GLaM's averages; NLU, whose tasks are choices, with the score of guessing.

    It is a mean over the rows where guessing has a meaning; ``chance_rows`` says how many these
    are.
    """
    run = next((run for arm in study.declared.arms for run in study.seeds(arm).values()), None)
    out = []
    for row in averages:
        assert run is not None  # its rows were made from it
        _, average, shots = row["endpoint"].split("/")
        have, _ = endpoints.rows_of(average, run, shots)
        levels = [endpoints.chance(run, task, metric, shots) for task, metric in have]
        known = [level for level in levels if level is not None and average == "nlu"]
        out.append(
            row
            | {"average": average, "shots": shots}
            | {"chance": float(np.mean(known)) if known else None, "chance_rows": len(known)}
        )
    return out


def size_runs(study: Study) -> list[Row]:
    """Every run of every size: total compute, parameters and the primary endpoint."""
    sizes = ladder.sizes(study)
    return [
        {
            "arm": arm,
            "variant": variant,
            "seed": seed,
            "model": run.result.model,
            "parameters_total": run.result.parameters_total,
            "parameters_active": run.result.parameters_active,
            "flops": run.result.flops,
            "value": inference.endpoint(sample(study, run)),
        }
        for (arm, variant, seed), run in study.runs.items()
        if variant in sizes and len(sizes) > 1
    ]


def tasks_not_run(study: Study, why: Mapping[str, str]) -> list[Row]:
    """Rows of GLaM's averages that a number of shots lacks, and tasks that had no data."""
    run = next((run for arm in study.declared.arms for run in study.seeds(arm).values()), None)
    rows: list[Row] = []
    named = set()
    for name in endpoints.averages_of(run, study.declared.shots) if run else ():
        _, average, shots = name.split("/")
        if average == "all":
            continue
        for task, metric in endpoints.rows_of(average, run, shots)[1] if run else ():
            named.add(task)
            reason = why.get(task, "not asked for")
            rows.append(
                {"task": task, "metric": metric, "average": average, "shots": shots}
                | {"reason": reason}
            )
    rest = [task for task in why if task not in named]
    blank = {"metric": None, "average": None, "shots": None}
    return rows + [{"task": task, **blank, "reason": why[task]} for task in rest]


def _signs(result: Comparison) -> Json | None:
    """At how many sizes the primary difference kept its sign; None with one size."""
    if result.signs is None:
        return None
    signs = result.signs
    return {**vars(signs), "certainty": signs.certainty, "sentence": signs.sentence}


def _conclusion(result: Comparison | ValueError) -> str | None:
    """What readers may conclude from a swarm of mixtures; None for other studies."""
    return (
        None if isinstance(result, ValueError) or not result.mixture else result.mixture.conclusion
    )


def _along(rows: list[Row]) -> list[Row]:
    """The rows if there are at least two evaluations; one point is not a curve."""
    return rows if len({row["tokens"] for row in rows}) > 1 else []


def _declared_jobs(study: Study) -> list[JobKey]:
    jobs = [*study.runs, *study.failed, *study.unfinished, *study.missing]
    return [job for job in jobs if job.arm != TRUNK]


def _number(value: Any) -> Any:
    """The value, or None if it is a non-finite float."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
