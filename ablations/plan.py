"""Plan a study: what it costs and what it can detect.

python ablations/plan.py experiment=data_quality corpus=DIR
python ablations/plan.py experiment=data_quality scale=paper

Takes the arguments of ``ablations/run.py``; the corpus is optional. Time is measured on this
machine with a few steps of each model, or estimated from the published speed of
``hardware.accelerator``. Exit code 1: the study would be refused.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ablations.errors import exit_on_error
from ablations.page import rule_words
from ablations.study import forecast, preflight, speed
from ablations.study.design import arms, held_out_groups
from ablations.study.design.jobs import (
    Job,
    declaration,
    expand,
    first_batch,
    needed,
    slots_of,
    stream_of,
    threads_of,
    training_config,
)
from ablations.study_files.results import TRUNK, Declaration
from model import sizes
from model.accelerators import ACCELERATORS
from model.data.corpus import Corpus
from winnow.commands import overrides

PIPELINE_ARM = "filtered"
"""The arm that ``model/prepare.py`` writes from the pipeline's decision."""

REPEATS = 4.0
"""Up to four passes over text are nearly as good as new text (Muennighoff et al. 2023, arXiv
2305.16264)."""

HEADINGS = [
    *("arm", "variant", "model", "seeds", "parameters", "active", "tokens", "unique", "epochs"),
    *("FLOPs", "each", "memory"),
]


@dataclass(frozen=True)
class Cost:
    """The cost of each job of one arm and variant; None if unknown without a corpus.

    ``repeats`` has the passes over sources read more than :data:`REPEATS` times. ``memory`` and
    ``available`` are in bytes per device.
    """

    arm: str
    variant: str
    model: str
    seeds: int
    parameters_total: int
    parameters_active: int
    tokens: int
    unique_tokens: int | None
    epochs: float | None
    repeats: Mapping[str, float]
    flops: float
    seconds: float | None
    kwh: float | None
    memory: float | None
    available: float | None

    @property
    def fits(self) -> bool:
        """Whether the memory suffices, as far as known."""
        return self.memory is None or self.available is None or self.memory < self.available


def costs(
    jobs: Sequence[Job], corpus: Corpus | None, declared: Declaration | None = None
) -> list[Cost]:
    """The cost of each arm and variant; the mixtures of arms are as ``declared``."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.key[:2], []).append(job)
    speeds: dict[str, speed.Speed] = {}
    return [
        _cost(group, corpus, declared.mixture_of(arm) if declared else {}, speeds)
        for (arm, _), group in groups.items()
    ]


def _cost(
    jobs: Sequence[Job],
    corpus: Corpus | None,
    mixture: Mapping[str, float],
    speeds: dict[str, speed.Speed],
) -> Cost:
    job, config = jobs[0], jobs[0].config
    training = training_config(job, mixture)
    counts = sizes.count(config.model)
    unique, repeats = None, {}
    if corpus is not None:
        arms.ensure(corpus, config.data, job.tokens)
        read = stream_of(training, corpus).consumed(config.steps)
        unique = sum(int(source["unique_targets"]) for source in read.values())
        repeats = {name: s["epochs"] for name, s in read.items() if s["epochs"] > REPEATS}
    seconds, memory, available = _seconds_and_memory(job, training, corpus, speeds)
    return Cost(
        *job.key[:2],
        model=job.model,
        seeds=len(jobs),
        parameters_total=counts.total,
        parameters_active=counts.active,
        tokens=job.tokens,
        unique_tokens=unique,
        epochs=None if unique is None else job.tokens / unique,
        repeats=repeats,
        flops=job.flops,
        seconds=seconds,
        kwh=None if seconds is None else config.hardware.kwh(seconds),
        memory=memory,
        available=available,
    )


def _seconds_and_memory(
    job: Job,
    training: Mapping[str, Any],
    corpus: Corpus | None,
    speeds: dict[str, speed.Speed],
) -> tuple[float | None, float | None, float | None]:
    """Seconds of one job, bytes per device, and the capacity of a device in bytes."""
    config = job.config
    hardware = config.hardware
    if hardware.accelerator is not None:
        need = sizes.memory(
            config.model,
            sizes.count(config.model),
            devices=hardware.devices,
            expert_parallel=(config.train.expert_parallel or 1) if config.model.sparse else 1,
            device_tokens=min(8192, config.step_tokens // hardware.devices),
            optimizer=config.optimizer.name.value,
        )
        available = ACCELERATORS[hardware.accelerator].memory
        return hardware.published_seconds(job.flops), need.total, available
    if corpus is None:
        return None, None, None
    model = repr(config.model)
    if model not in speeds:
        print(f"measuring {job.model} …", file=sys.stderr)
        slots, threads = slots_of(config), threads_of(config)
        speeds[model] = speed.measure(training, corpus, slots, threads)
    measured = speeds[model]
    evaluated = speed.evaluated_bytes(corpus, training["evaluate"], config.steps)
    return measured.seconds(config.steps, evaluated), measured.memory, None


def render(jobs: Sequence[Job], declared: Declaration, table: Sequence[Cost]) -> str:
    """The plan as plain text."""
    config, primary = jobs[0].config, declared.primary
    seed_sd, item_error, source = preflight.expected_noise(config)
    effect = preflight.detectable(config, declared)
    estimated = config.hardware.accelerator is not None
    slots = 1 if estimated else slots_of(config)
    count = sum(not job.is_arm for job in jobs)
    from_trunks = f", from {count} trunk{'s' * (count > 1)}" if count else ""
    lines = [
        f"Study {declared.name}: {len(jobs)} jobs, {len(declared.arms)} arms x"
        f" {len(declared.variants)} variants x {len(declared.seeds)} seeds{from_trunks}",
        f"Primary: {primary.treatment} against {primary.baseline} on {primary.endpoint}",
        "",
        *_cost_rows(table),
        "",
    ]
    if all(cost.seconds is not None for cost in table):
        seconds = sum(cost.seeds * (cost.seconds or 0) for cost in table)
        kwh = sum(cost.seeds * (cost.kwh or 0) for cost in table)
        source_of_time = "estimated from published speed" if estimated else "measured here"
        parallel = "one job after the other" if slots == 1 else f"{slots} jobs at once"
        lines.append(f"Time: {duration(seconds / slots)} ({source_of_time}, {parallel})")
        if estimated:
            devices, accelerator = config.hardware.devices, config.hardware.accelerator
            hours = seconds / 3600 * devices
            lines.append(f"Devices: {devices} x {accelerator}, {hours:,.0f} device hours")
        watts = f"{config.hardware.watts:,g} W a job, stated"
        lines.append(f"Energy: {kwh:,.3g} kWh ({watts}; PUE {config.hardware.pue:g})")
    else:
        lines.append("Time and energy: not measured (needs corpus=DIR and an accepted study)")
    compute = sum(c.seeds * c.flops for c in table)
    lines.append(f"Compute: {compute:.3g} FLOPs")
    if trunks := {cost.variant: cost for cost in table if cost.arm == TRUNK}:
        full = sum(c.seeds * (c.flops + trunks[c.variant].flops) for c in table if c.arm != TRUNK)
        lines[-1] += f" (full runs of every arm: {full:.3g})"
    lines.append(
        f"Minimum detectable effect: {effect:.4g} at power {primary.power:.0%} with"
        f" {len(declared.seeds)} seeds (seed SD {seed_sd:g}, item error {item_error:g}, {source});"
        f" smallest difference of interest: {primary.smallest_difference:g}"
    )
    lines += forecast.forecast(config, declared, _flops_by_size(table))
    for arm, at in declared.repeats_from.items():
        tokens = max(job.tokens for job in jobs if job.is_arm)
        budget = f"{'within' if at < tokens else 'beyond'} its {tokens:,}"
        lines.append(f"Repeats: {arm} starts to repeat text after {at:,} tokens, {budget}")
    for cost in table:
        name = f"{cost.arm}@{cost.variant}" if cost.variant else cost.arm
        for text, times in cost.repeats.items():
            lines.append(
                f"WARNING: {name} reads its {text} {times:.1f} times; beyond {REPEATS:g} a repeat"
                " is worth much less than new text: train on fewer tokens, or add text"
            )
        if not cost.fits:
            lines.append(
                f"WARNING: {name} needs {_gigabytes(cost.memory)} a device, which has"
                f" {_gigabytes(cost.available)}: use more hardware.devices"
            )
    return "\n".join(lines)


def _flops_by_size(table: Sequence[Cost]) -> list[float]:
    """FLOPs of the largest job of each size; variants with the same models are one size."""
    models: dict[str, set[str]] = {}
    flops: dict[str, float] = {}
    for cost in table:
        models.setdefault(cost.variant, set()).add(cost.model)
        flops[cost.variant] = max(cost.flops, flops.get(cost.variant, 0.0))
    return list({frozenset(names): flops[v] for v, names in models.items()}.values())


def text_of_arms(study: preflight.CheckedStudy) -> list[str]:
    """A table of each arm's share of each filtered source, the pipeline's first; with notes."""
    corpus = study.corpus
    filtered = [s for s in held_out_groups.filtered_sources(corpus) if study.pool[s]["documents"]]
    unfiltered = [s for s in corpus.sources if s not in filtered]
    pipeline_arm = corpus.arm(PIPELINE_ARM)
    others = {name: arm for name, arm in study.arms.items() if arm.name != pipeline_arm.name}
    rows = [["arm", "rule", "source", "documents", "tokens", "of the pool"]]
    for name, arm in {PIPELINE_ARM: pipeline_arm, **others}.items():
        head = [name, rule_words.describe(arm.about)]
        for source in filtered:
            kept, pool = arm.about["sources"][source], study.pool[source]
            share = f"{kept['targets'] / pool['targets']:.1%}"
            rows.append([*head, source, f"{kept['documents']:,}", f"{kept['targets']:,}", share])
            head = ["", ""]
    lines = [f"Text of the arms ({PIPELINE_ARM} is the pipeline's decision):", *_grid(rows)]
    if unfiltered:
        lines.append(f"Unfiltered in every arm: {', '.join(unfiltered)}")
    decided = rule_words.describe(pipeline_arm.about)
    for name, arm in others.items():
        pareto = arm.about["definition"]["rule"] == "pareto"
        if pareto and arm.fingerprint != pipeline_arm.fingerprint:
            lines.append(
                f"note: {name} is decided again, by {rule_words.describe(arm.about)};"
                f" the pipeline decided by {decided} (data={PIPELINE_ARM} is that arm)"
            )
    return [*lines, *(f"note: {note}" for note in study.declared.notes), ""]


def _cost_rows(table: Sequence[Cost]) -> list[str]:
    rows = [HEADINGS]
    rows += [
        [
            *(cost.arm, cost.variant or "-", cost.model, str(cost.seeds)),
            *(f"{n:,}" for n in (cost.parameters_total, cost.parameters_active, cost.tokens)),
            "-" if cost.unique_tokens is None else f"{cost.unique_tokens:,}",
            "-" if cost.epochs is None else f"{cost.epochs:.2f}",
            f"{cost.flops:.3g}",
            "-" if cost.seconds is None else duration(cost.seconds),
            _gigabytes(cost.memory),
        ]
        for cost in table
    ]
    return _grid(rows)


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"


def _gigabytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e9:.1f} GB"


class PlanCallback(Callback):
    """Prints the plan instead of a sweep, and exits."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with exit_on_error():
            expanded = expand(config, kwargs["config_name"])
            first_batch(expanded)  # checks their order
            jobs = needed(expanded)
            first = jobs[0].config
            declared = declaration(jobs, first.heldout)
            refusal = preflight.underpowered(first, declared)
            if refusal or not first.corpus:
                print(render(jobs, declared, costs(jobs, None)))
            if refusal:
                raise ValueError(refusal)
            if first.corpus:
                study = preflight.check(jobs)
                print("\n".join(text_of_arms(study)), flush=True)
                table = costs(jobs, study.corpus, study.declared)
                print(render(jobs, study.declared, table))
            sys.exit(0)


@hydra.main(version_base="1.3", config_path="../conf", config_name="plan")
def main(config: DictConfig) -> None:
    """Never called: the callback ends the process before the first job."""
    raise AssertionError


if __name__ == "__main__":
    overrides.run(main, "plan", sweeps=True)
