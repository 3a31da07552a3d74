"""Finds the files of a run's joins, builds their tables, and checks their columns."""

from collections.abc import Callable
from dataclasses import replace

from pipeline.config import PipelineConfig
from pipeline.core.job import Job
from pipeline.joins.build import build
from pipeline.output import output_folder
from pipeline.settings import group_settings
from winnow.commands import console
from winnow.filesystem import inputs


def files_of(config: PipelineConfig, say: Callable[[str], None]) -> dict[str, list[str]]:
    """The files of each join, sorted and distinct.

    Raises:
        ValueError: a pattern matches nothing.
        OSError: a folder can't be read.
    """
    return {
        name: inputs.each_once(
            f"join {name}", (path for glob in join.files for path in inputs.find(glob, say)), say
        )
        for name, join in config.join.items()
    }


def with_tables(job: Job, config: PipelineConfig) -> Job:
    """The job with the tables of its joins, which are built in its work folder.

    Raises:
        ValueError: a table can't be built, or its columns do not suit the run.
    """
    if not config.join:
        return job
    try:
        return _with_tables(job, config)
    except (ValueError, OSError):
        if not job.resume:  # there is nothing to resume yet
            output_folder.remove_work(config.output)
        raise


def _with_tables(job: Job, config: PipelineConfig) -> Job:
    tables = []
    files = files_of(config, lambda _: None)  # warnings were shown before
    for name, join in config.join.items():
        with console.doing(f"sorting the rows of join {name}"):
            of = {path: job.step_files[path] for path in files[name]}
            tables.append(build(name, join, of, job.sink.work))
    before = job.sink.schema.names
    joined = [column for table in tables for column in table.columns.names]
    if taken := sorted(name for name in joined if name in before or joined.count(name) > 1):
        raise ValueError(f"--join would clash with the columns {', '.join(taken)}: rename the join")
    sink = replace(job.sink, joins=tuple(tables))
    if sink.combined:
        sink.combined.check(sink.joined)
    group_settings.check(config.decision, sink.schema.names, config.filter)
    return replace(job, sink=sink)
