"""The data of a study's page as one JSON value: verdict, figures, and reasons for empty ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablations.analyses import ladder, mixture_proposal, tables
from ablations.analyses.comparison import Comparison
from ablations.contrasts import endpoints
from ablations.contrasts.pairing import sample
from ablations.page import curves, provenance, routers
from ablations.page.headline import headline, next_step, question, reach, secondary_findings
from ablations.page.panels import PANELS
from ablations.page.training_log import TrainingLog
from ablations.stats import inference
from ablations.study_files.results import TRUNK, JobKey, Run, Study
from ablations.study_files.table import Row, figure, finite
from pipeline.page import panel_data

Json = dict[str, Any]
Logs = Mapping[JobKey, TrainingLog]

ENDPOINTS_OF = ("secondary", "heldout", "averages", "tasks", "swept", "proxies")
"""Figures whose rows name an endpoint in full."""

NEED_COMPARISON = ("calibration", "seeds", "secondary", "sizes", "orders", "proxies", "scaling",
                   "learning_rates", "claims", *mixture_proposal.TABLES)  # fmt: skip
"""Figures that are empty without a comparison."""

CONCLUSIONS = {
    "unseen": "Neither the classifier nor any arm has seen these sources. A gain here means that"
    " the filter helps on good text in general, as far as these sources represent it.",
    "known": "The classifier may have learned from these sources, and a filter prefers text like"
    " them. A gain here is partly built in and does not show that the filter helps elsewhere.",
    "web": "Unfiltered web text. A loss here is the price of filtering: the model knows less of the"
    " web at large.",
    "junk": "The fifth of the raw text with the lowest scores. A filter is meant to lose here; a"
    " gain means that it missed its aim.",
    "all": "Every source counts the same, so this mixes what the groups show one by one.",
}
"""What readers may conclude from each group of held-out text."""


def page_data(
    study: Study, result: Comparison | ValueError, logs: Logs, not_run: Mapping[str, str]
) -> Json:
    """Everything that ``page/report.js`` draws.

    ``result`` is the comparison or the error that prevented it, ``logs`` those of complete jobs;
    ``not_run`` has the reasons for requested tasks that were not run.
    """
    declared = study.declared
    shown = figures(study, result, logs, not_run)
    named = [row["endpoint"] for name in ENDPOINTS_OF for row in shown[name]]
    jobs = [*study.runs, *study.failed, *study.unfinished, *study.missing]
    signs = mixture = None
    if not isinstance(result, ValueError):
        signs, mixture = result.signs, result.mixture
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
        "conclusions": [
            {
                "group": group,
                "label": endpoints.label(f"heldout/{group}"),
                "sources": list(sources),
                "conclusion": CONCLUSIONS[group],
            }
            for group, sources in declared.heldout.items()
            if group in CONCLUSIONS
        ],
        "signs": signs
        and {**vars(signs), "certainty": signs.certainty, "sentence": signs.sentence},
        "mixture": mixture and mixture.conclusion,
        "jobs": {"complete": len(study.runs), "declared": sum(job.arm != TRUNK for job in jobs)},
        "co2e": provenance.carbon(study),
        "figures": {name: figure(rows) for name, rows in shown.items()},
        "labels": {name: endpoints.label(name) for name in [declared.primary.endpoint, *named]},
        "empty": reasons(study, result, shown),
        "panels": panel_data(PANELS, study, result),
        "provenance": provenance.provenance(study),
    }


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
        "detectable": finite(detectable),
        "notes": [*secondary_findings(result), *notes],
        "primary": finite(primary),
    }


def figures(
    study: Study, result: Comparison | ValueError, logs: Logs, not_run: Mapping[str, str]
) -> dict[str, list[Row]]:
    """The rows of every figure and table by name."""
    shown: dict[str, list[Row]]
    if isinstance(result, ValueError):
        run = _any_run(study)
        of_run = {"heldout": tables.heldout, "averages": tables.averages, "tasks": tables.tasks}
        shown = {name: [] for name in NEED_COMPARISON}
        shown |= {name: make(study, run) if run else [] for name, make in of_run.items()}
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
        "swept": curves.along_axis(study),
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
    no_swarm = "This study has no swarm of mixtures (experiment=mixture), or has not run all of it."
    one_size = "All complete jobs are of one size: declare variants of other sizes to compare them."
    no_losses = "No complete job has a metrics.jsonl with training losses."
    no_routers = "No complete job logged router statistics."
    why = {
        **dict.fromkeys(mixture_proposal.TABLES, apart or no_swarm),
        **dict.fromkeys(("training_loss", "loss_bands"), no_losses),
        **dict.fromkeys(("routers", "router_layers"), no_routers),
        "calibration": apart
        or "This study does not calibrate the method (experiment=calibration).",
        "seeds": apart or "Each run of a swarm has another mixture, so single runs do not compare.",
        "secondary": apart or "The study declares no secondary endpoint and no third arm.",
        "heldout": "No job of the main variant is complete.",
        "curves": "Curves on held-out text need two evaluations during training (evaluate.every).",
        "bands": "Bands need curves with the same evaluations for all seeds.",
        "gaps": "No seed has curves of both an arm and the baseline.",
        "efficiency": "No arm reaches a level of the baseline's curve with every seed.",
        "matched": "A comparison at equal budgets needs evaluations during training and held-out"
        " text as the primary endpoint.",
        "sizes": one_size,
        "size_runs": apart or one_size,
        "orders": "To compare the order of arms, two arms need runs at two sizes.",
        "proxies": apart or "Signal to noise needs two arms that share two seeds.",
        "scaling": "A scaling law needs three sizes and five runs per arm.",
        "iso_flop": "No two sizes of an arm reached the same total compute with evaluations on"
        " held-out text.",
        "averages": "No job answered any of the 29 tasks.",
        "tasks": "No job answered any task.",
        "swept": "Neither arms nor variants of this study are points of an axis (name=number).",
        "contamination": "No task was run, or its items were not checked against training text.",
        "yields": "No result says what its arm kept (arm and corpus in its provenance).",
        "expert_load": "No complete job has experts, or none logged their load.",
        "learning_rates": "Learning rates were not checked: each arm was run at only one.",
        "claims": apart or "This study tests none of GLaM’s claims.",
        "jobs": "Every declared job is complete.",
        "not_run": "No task was left out.",
    }
    return {
        name: why[name] if name == "jobs" else nothing or why[name]
        for name, rows in shown.items()
        if not rows and name in why
    }


def with_chance(study: Study, averages: Sequence[Row]) -> list[Row]:
    """GLaM's averages; NLU, whose tasks are choices, with its chance level.

    It is a mean over the ``chance_rows`` rows with a chance level.
    """
    run = _any_run(study)
    out: list[Row] = []
    for row in averages:
        assert run is not None  # which the averages are of
        _, average, shots = row["endpoint"].split("/")
        have, _ = endpoints.rows_of(average, run, shots)
        levels = [endpoints.chance(run, task, metric, shots) for task, metric in have]
        known = [level for level in levels if level is not None and average == "nlu"]
        chance = float(np.mean(known)) if known else None
        extra = {"average": average, "shots": shots, "chance": chance, "chance_rows": len(known)}
        out.append(row | extra)
    return out


def size_runs(study: Study) -> list[Row]:
    """Every run of every size: total compute, parameters and the primary endpoint."""
    sizes = ladder.sizes(study)
    columns = ("model", "parameters_total", "parameters_active", "flops")
    return [
        {
            **{"arm": arm, "variant": variant, "seed": seed},
            **{name: getattr(run.result, name) for name in columns},
            "value": inference.endpoint(sample(study, run)),
        }
        for (arm, variant, seed), run in study.runs.items()
        if variant in sizes and len(sizes) > 1
    ]


def tasks_not_run(study: Study, why: Mapping[str, str]) -> list[Row]:
    """Missing rows of GLaM's averages, and tasks without data."""
    run = _any_run(study)
    rows: list[Row] = []
    for name in endpoints.averages_of(run, study.declared.shots) if run else ():
        _, average, shots = name.split("/")
        if run and average != "all":
            rows += [
                {"task": task, "metric": metric, "average": average, "shots": shots}
                | {"reason": why.get(task, "not asked for")}
                for task, metric in endpoints.rows_of(average, run, shots)[1]
            ]
    blank = {"metric": None, "average": None, "shots": None}
    rest = why.keys() - {row["task"] for row in rows}
    return rows + [{"task": task, **blank, "reason": why[task]} for task in why if task in rest]


def _any_run(study: Study) -> Run | None:
    return next((run for arm in study.declared.arms for run in study.seeds(arm).values()), None)


def _along(rows: list[Row]) -> list[Row]:
    """The rows if there are two evaluations or more; one point is not a curve."""
    return rows if len({row["tokens"] for row in rows}) > 1 else []
