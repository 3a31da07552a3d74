"""The curves of a study's page as rows: every run, and means over seeds.

Bands are pointwise t intervals over seeds, at token counts that all seeds share, without the error
of the held-out documents.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ablations.analyses import ladder
from ablations.contrasts import budgets
from ablations.contrasts.axis import axis_of
from ablations.contrasts.pairing import contrast, sample
from ablations.page.training_log import TrainingLog, smooth, thin
from ablations.stats import inference
from ablations.study_files.results import Curve, FloatArray, JobKey, Run, Study
from ablations.study_files.table import Row

POINTS = 60
LOSS_POINTS = 150
"""Points per run, to keep pages small; a loss point is a mean over its neighbours."""


def heldout_names(study: Study) -> list[str]:
    """Held-out groups, then other sources."""
    groups = study.declared.heldout
    sources = [source for run in study.runs.values() for source in run.documents]
    return [*groups, *(source for source in dict.fromkeys(sources) if source not in groups)]


def heldout_curves(study: Study) -> list[Row]:
    """Held-out bits per byte of every run, at each of its evaluations."""
    rows = []
    for (arm, variant, seed), run in study.runs.items():
        curve = run.curve
        for name in heldout_names(study) if curve else ():
            for values in _along(study, [curve], name) if curve else ():
                rows += [
                    {"arm": arm, "variant": variant, "seed": seed, "endpoint": name}
                    | {axis: getattr(curve, axis)[i] for axis in budgets.AXES}
                    | {"value": values[i]}
                    for i in thin(values, POINTS)
                ]
    return rows


def heldout_bands(study: Study) -> list[Row]:
    """Means over seeds, of the other axes too, with intervals."""
    rows = []
    for arm, variant, runs in _by_arm(study):
        curves = [run.curve for run in runs.values() if run.curve is not None]
        for name in heldout_names(study):
            values = _along(study, curves, name)
            for at, places in _shared([curve.tokens for curve in curves]) if values else ():
                row: Row = {"arm": arm, "variant": variant, "endpoint": name}
                for axis in budgets.AXES:
                    on_axis = [getattr(c, axis)[i] for c, i in zip(curves, places, strict=True)]
                    row[axis] = at if axis == "tokens" else float(np.mean(on_axis))
                here = [of_curve[i] for of_curve, i in zip(values, places, strict=True)]
                rows.append(row | interval(here, study.declared.primary.alpha))
    return rows


def heldout_gaps(study: Study) -> list[Row]:
    """Every arm's difference from the baseline at equal tokens, paired by seed."""
    rows = []
    for arm, variant, pairs in _pairs(study):
        curves = [curve for pair in pairs for curve in pair]
        for name in heldout_names(study):
            values = _along(study, curves, name)
            for at, places in _shared([curve.tokens for curve in curves]) if values else ():
                here = [of_curve[i] for of_curve, i in zip(values, places, strict=True)]
                gaps = np.subtract(here[::2], here[1::2])
                row: Row = {"arm": arm, "variant": variant, "endpoint": name, "tokens": at}
                rows.append(row | interval(gaps, study.declared.primary.alpha))
    return rows


def efficiency(study: Study) -> list[Row]:
    """Tokens that an arm needs to match the baseline, as a share of the baseline's tokens.

    Paired by seed, at evaluations of the baseline that every seed of the arm can match, by the best
    value so far, linear in the logarithm of tokens. Means and intervals are of the logarithms.
    """
    rows = []
    for arm, variant, pairs in _pairs(study):
        curves = [curve for pair in pairs for curve in pair]
        for name in heldout_names(study):
            best = [np.minimum.accumulate(values) for values in _along(study, curves, name)]
            for at, places in _shared([curve.tokens for curve in curves[1::2]]) if best else ():
                each = zip(curves[::2], best[::2], best[1::2], places, strict=True)
                logs = [
                    budgets.log_tokens_to(curve.tokens, losses, base[i]) - np.log(at)
                    for curve, losses, base, i in each
                ]
                if not all(np.isfinite(logs)):
                    continue
                row: Row = {"arm": arm, "variant": variant, "endpoint": name, "tokens": at}
                row |= interval(logs, study.declared.primary.alpha)
                for key in ("value", "low", "high"):
                    row[key] = None if row[key] is None else float(np.exp(row[key]))
                rows.append(row)
    return rows


def training_loss(study: Study, logs: Mapping[JobKey, TrainingLog]) -> list[Row]:
    """Training loss of every run, in nats per token of its arm's text."""
    rows = []
    for (arm, variant, seed), log in logs.items():
        tokens, loss = smooth(log.tokens, log.loss, LOSS_POINTS)
        rows += [
            {"arm": arm, "variant": variant, "seed": seed, "tokens": at, "loss": value}
            for at, value in zip(tokens, loss, strict=True)
        ]
    return rows


def loss_bands(study: Study, logs: Mapping[JobKey, TrainingLog]) -> list[Row]:
    """Mean training loss over seeds and its interval."""
    rows = []
    for arm, variant, runs in _by_arm(study):
        jobs = [JobKey(arm, variant, seed) for seed in runs]
        smoothed = [
            smooth(logs[job].tokens, logs[job].loss, LOSS_POINTS) for job in jobs if job in logs
        ]
        shared = _shared([tokens for tokens, _ in smoothed], LOSS_POINTS)
        for at, places in shared if smoothed else ():
            here = [loss[i] for (_, loss), i in zip(smoothed, places, strict=True)]
            row: Row = {"arm": arm, "variant": variant, "tokens": at}
            rows.append(row | interval(here, study.declared.primary.alpha))
    return rows


def iso_flop(study: Study) -> list[Row]:
    """The primary endpoint of each size at equal total compute, mean over seeds.

    Budgets are each size's total compute, if another size reached it. Runs that end there have the
    advantage of a decayed learning rate.
    """
    kind, _, name = study.declared.primary.endpoint.partition("/")
    sizes = ladder.sizes(study)
    if kind != "heldout" or len(sizes) < 2:
        return []
    sources = study.declared.heldout.get(name, [name])
    rows: list[Row] = []
    for arm in study.declared.arms:
        runs = {variant: list(study.seeds(arm, variant).values()) for variant in sizes}
        curves = {v: [run.curve for run in of if run.curve] for v, of in runs.items()}
        curves = {v: of for v, of in curves.items() if of and len(of) == len(runs[v])}
        for budget in sorted({min(curve.flops[-1] for curve in of) for of in curves.values()}):
            here = []
            for variant, of in curves.items():
                values = [budgets.read_at(curve, "flops", budget, sources) for curve in of]
                numbers = [value for value in values if isinstance(value, float)]
                if len(numbers) == len(values):
                    result = runs[variant][0].result
                    row: Row = {"arm": arm, "flops": budget, "variant": variant}
                    row |= {"model": result.model, "parameters_active": result.parameters_active}
                    here.append(row | interval(numbers, study.declared.primary.alpha))
            rows += here if len(here) > 1 else []
    return rows


def along_axis(study: Study) -> list[Row]:
    """Primary endpoint and held-out groups along a swept number, with intervals over seeds.

    Points are arms called ``name=number`` (``alpha=3.0``) on a line per variant, or such variants
    (``rate=0.5``) on a line per arm.
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


def _by_arm(study: Study) -> Iterator[tuple[str, str, Mapping[int, Run]]]:
    for arm in study.declared.arms:
        for variant in study.declared.variants:
            if runs := study.seeds(arm, variant):
                yield arm, variant, runs


def _pairs(study: Study) -> Iterator[tuple[str, str, list[tuple[Curve, Curve]]]]:
    """Curves of each arm and the baseline, for common seeds."""
    baseline = study.declared.primary.baseline
    for arm, variant, runs in _by_arm(study):
        bases = study.seeds(baseline, variant)
        pairs = [
            (ours, theirs)
            for seed in sorted(runs.keys() & bases.keys())
            if (ours := runs[seed].curve) is not None and (theirs := bases[seed].curve) is not None
        ]
        if arm != baseline and pairs:
            yield arm, variant, pairs


def _along(study: Study, curves: Sequence[Curve], name: str) -> list[FloatArray]:
    """A held-out group or source along each curve; empty if a curve lacks one."""
    sources = study.declared.heldout.get(name, [name])
    if any(source not in curve.heldout for curve in curves for source in sources):
        return []
    return [np.mean([curve.heldout[source] for source in sources], axis=0) for curve in curves]


def _shared(
    tokens: Sequence[FloatArray], points: int = POINTS
) -> Iterator[tuple[float, list[int]]]:
    """The token counts that all curves share, thinned, and their index in each."""
    common = functools.reduce(np.intersect1d, tokens)
    for at in common[thin(common, points)] if len(common) else ():
        yield float(at), [int(np.searchsorted(each, at)) for each in tokens]


def interval(values: Sequence[float] | FloatArray, alpha: float) -> Row:
    """Mean over seeds, with an interval for two or more."""
    row: Row = {"seeds": len(values), "value": float(np.mean(values)), "low": None, "high": None}
    if len(values) > 1:
        estimate = inference.over_seeds(np.array(values), alpha)
        row |= {"low": estimate.low, "high": estimate.high}
    return row
