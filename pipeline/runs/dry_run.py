"""``winnow run --dry-run``: what a Dataflow run would stage, start and use; nothing is sent."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import WorkerOptions

from pipeline.beam import dry_run, engine, graph, staging
from pipeline.config import PipelineConfig, load
from pipeline.output.records import Task
from pipeline.runs import dataflow_estimate, input_fields
from pipeline.runs.dataflow_estimate import Estimate, Work
from pipeline.runs.input_fields import FieldSetting
from pipeline.runs.scoring_run import describe, own_code_of, planned, reachable
from pipeline.settings.group_settings import grouped
from pipeline.steps import input_files
from winnow.commands import exits
from winnow.object_stores import object_store


def main(arguments: Sequence[str], given: argparse.Namespace) -> None:
    """Print the plan of a run; ValueError if we or Beam's checks for Dataflow would refuse it."""
    with exits.usage():
        if "dry_run" not in given:
            raise ValueError("--assume has no meaning without --dry-run: add that")
        config, _, beam_flags = load(arguments)
        options = engine.options(beam_flags, config.stall_minutes)
        wanted = input_fields.field_settings(config)
        if not staging.on_dataflow(options):
            raise ValueError("--dry-run describes a job for Dataflow: add --runner DataflowRunner")
        assumed = dataflow_estimate.assumptions(getattr(given, "assume", []))
        workers = options.view_as(WorkerOptions)
        worker = None
        if workers.machine_type:
            worker = dataflow_estimate.machine(workers.machine_type, workers.disk_size_gb, assumed)
    object_store.configure(options)
    patterns = [pattern for patterns in config.source.values() for pattern in patterns]
    staging.check_paths(options, [*patterns, config.output, *input_files(config.steps)])
    tasks, input_bytes, n_tasks = _inputs(config, wanted, assumed)
    job, about = describe(config, tasks, resume=False)
    job, copies = reachable(options, job)
    planned = dry_run.plan(
        options,
        lambda pipeline: graph.build(pipeline, n_tasks, job, config.decision, about),
        own_code_of(config),
    )
    planned.staged |= {target: source.stat().st_size for source, target in copies}
    decision = grouped(config.decision)
    near = config.near_settings
    solved = decision.known_rule() is None
    work = Work(input_bytes, n_tasks, solved, decision.deduplicate, near.bands if near else 0)
    most = workers.max_num_workers or workers.num_workers
    found = dataflow_estimate.estimate(work, assumed, worker, most)
    for line in [*_job(planned), "", *_use(found, work, assumed)]:
        print(line)
    planned.check_size()


def _inputs(
    config: PipelineConfig, wanted: Sequence[FieldSetting], assumed: dict[str, Any]
) -> tuple[list[Task], float, int]:
    """The tasks (none with ``input_bytes``), the bytes of all inputs, and the number of tasks."""
    size = assumed["input_bytes"]
    if size is not None:
        return [], size, math.ceil(size / config.split_bytes)
    try:
        tasks = planned(config, wanted)
    except OSError as error:
        advice = "without access to the inputs, give --assume input_bytes=N"
        raise OSError(f"{error} ({advice})") from error
    return tasks, sum(task.input.size for task in tasks), len(tasks)


def _job(planned: dry_run.Planned) -> list[str]:
    """The job, its machines and what is staged for it, a line each."""
    environment, pool = planned.job["environment"], planned.pool
    scaling = pool.get("autoscalingSettings", {})
    wanted = environment["sdkPipelineOptions"]["options"]
    machines = pool.get("machineType", "machines of the service's choice")
    number = [f"{pool['numWorkers']} at the start"] if pool.get("numWorkers") else []
    most = scaling.get("maxNumWorkers")
    number.append(f"up to {most}" if most else "number chosen by the service")
    images = [image["containerImage"] for image in pool["sdkHarnessContainerImages"]]
    lines = [
        f"job        {planned.job['name']}, {environment['version']['job_type']},"
        f" graph of {planned.graph_bytes:,} bytes",
        f"workers    {machines}, {', '.join(number)};"
        f" autoscaling {scaling.get('algorithm', 'by default')}",
        f"           {pool['numThreadsPerWorker']:g} task at a time in a process per core; retried"
        f" after {wanted['element_processing_timeout_minutes']:g} minutes without progress",
        f"container  {', '.join(images)}",
        f"experiments      {', '.join(environment.get('experiments', []))}",
        f"service options  {', '.join(environment.get('serviceOptions', [])) or 'none'}",
        f"staged     {sum(planned.staged.values()):,} bytes",
    ]
    return lines + [f"  {size:>12,}  {place}" for place, size in planned.staged.items()]


_PRICES = (
    "multiply by your region's prices (cloud.google.com/dataflow/pricing), or give --assume"
    " price_vcpu_hour=…"
)


def _use(found: Estimate, work: Work, assumed: dict[str, Any]) -> list[str]:
    """The resources of the run, and the assumptions behind them."""

    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    def row(name: str, value: float | None, unit: str, missing: str) -> str:
        return f"{name:<18}" + (f"{number(value)} {unit}" if value is not None else missing)

    machine = "add --machine_type"
    total = dataflow_estimate.cost(found, assumed)
    lines = [
        f"input             {number(work.input_bytes / 1e9)} GB in {work.tasks:,} tasks; about"
        f" {number(found.text_gb)} GB of text, {found.documents:,.0f} documents",
        row("cores", found.vcpu_hours, "vCPU hours", ""),
        row("memory", found.gib_hours, "GiB hours", machine),
        row("disk", found.disk_gb_hours, "GB hours", machine),
        row("shuffle", found.shuffle_gb, "GB", ""),
        row("time", found.hours, f"hours with {found.workers} workers", "add --max_num_workers"),
        row("cost", total, "in the currency of the prices", _PRICES),
        "assumed           (conf/pipeline/dataflow.yaml; --assume NAME=VALUE for another)",
    ]
    numbers = {name: value for name, value in assumed.items() if isinstance(value, int | float)}
    return lines + [f"  {name} {value:,.12g}" for name, value in numbers.items()]
