"""Runs a graph into its locked output folder."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam import engine, job_server, progress, worker
from pipeline.config import DecideConfig, PipelineConfig
from pipeline.output import manifest, output_folder, records
from pipeline.output.records import Task
from pipeline.page.render import print_summary
from winnow import run_log
from winnow.filesystem import storage


def execute(
    options: PipelineOptions,
    config: PipelineConfig | DecideConfig,
    key: str,
    tasks: Sequence[Task],
    resume: bool,
    begin: Callable[[], Callable[[beam.Pipeline], None]],
    own: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Run unless the output is complete, print the summary, and return the manifest.

    None if the job is only saved as a template. ``begin`` is called once the folder is ours, and
    returns what fills the pipeline. ``own`` are dotted paths of the user's code.

    Raises:
        ValueError: see :func:`prepare`.
        Exception: see :func:`pipeline.beam.engine.run`.
    """
    output, seconds = config.output, None
    with storage.lock(output):
        if prepare(output, key, tasks, resume):
            print(f"{output} is complete already: nothing to do")
        else:
            run_log.write_to(output)
            build = begin()
            begun = time.monotonic()
            size = sum(task.input.size for task in tasks)
            heartbeats = progress.folder(storage.join(output, records.WORK))
            watch = progress.Watch(heartbeats, size, config.stall_minutes)
            note = storage.join(output, output_folder.JOB)
            if not engine.run(options, build, watch, own, note):
                print(f"the template is saved; {output} is complete once it has {manifest.NAME}")
                return None
            seconds = None if resume else time.monotonic() - begun
    written = manifest.read_manifest(output)
    print_summary(output, written, seconds, engine.name(options))
    return written


def prepare(output: str, key: str, tasks: Iterable[Task], resume: bool) -> bool:
    """Prepare the output folder; True if it already holds this run, complete.

    Raises:
        ValueError: it holds anything but an unfinished run to resume, or workers of a killed run
            still write to it.
    """
    begun = output_folder.begun(output)
    finished = output_folder.finished(output)
    if begun is not None or finished is not None:
        if (heartbeats := progress.folder(storage.join(output, records.WORK))) is not None:
            worker.wait_for_others(heartbeats)
        if resume:
            job_server.end_earlier(storage.join(output, output_folder.JOB))
    if finished is not None:
        if resume and finished["key"] == key:
            # It may have been killed during this removal.
            output_folder.remove_work(output, output_folder.parts_of(finished["tasks"]))
            return True
        raise ValueError(f"{output} holds a finished run already: choose another --output")
    another = "choose another --output"
    if storage.exists(storage.join(output, manifest.NAME)):
        raise ValueError(f"{output} holds another program's {manifest.NAME}: {another}")
    if begun is None and (stranger := output_folder.stranger(output)) is not None:
        raise ValueError(
            f"{output} is not an unfinished run, and not empty (it holds {stranger}): {another}"
        )
    if begun is not None and not resume:
        raise ValueError(
            f"{output} holds an unfinished run: add --resume to finish it, or {another}"
        )
    parts = frozenset((task.source, task.of) for task in tasks)
    output_folder.begin(output, key, parts | (begun or frozenset()))
    return False
